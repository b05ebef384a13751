"""The smallest run there is, of a task that compiles in a second, and what tests do with runs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from helpers import tiny

from experiments.training.config import OptimizerConfig, TrainConfig
from experiments.training.loop import train
from experiments.training.tasks import TASKS
from experiments.training.tasks.task import Errors
from facerig_jax.config import FitConfig, FlowConfig
from facerig_jax.networks.flow import N_FLOW, flow_module
from facerig_jax.networks.tree import apply

FLOW = FlowConfig(uv_size=16, widths=(8, 8), place=4)


class Colours:
    """A Task: the smallest flow network there is learns the red and the green of a photo."""

    ERRORS = Errors("rms", "rms of red and green", "the network's", "")

    @staticmethod
    def prepared_models(config):
        return (dataclasses.replace(config.model, flow=None),)

    @staticmethod
    def prepare(subject, teacher, model, learner):
        return {"photo": subject.images[:, ::4, ::4]}

    @staticmethod
    def loss(params, teacher, example, energies, model):
        maps = jnp.pad(example["photo"], ((0, 0),) * 3 + ((0, N_FLOW - 3),))
        offset, _ = apply(flow_module(model.flow), params["flow"], maps)
        error = jnp.mean((offset - example["photo"][:, ::2, ::2, :2]) ** 2)
        return {"flow": error}, jnp.sqrt(error)[None]


TASKS["colours"] = Colours

COLOURS = TrainConfig(
    name="tiny",
    task="colours",
    model=FitConfig(flow=FLOW),
    optimizer=OptimizerConfig(learning_rate=1e-2, warmup=2),
    steps=4,
    batch=8,
    log_every=1,
    save_every=2,
    validate_every=0,
)


def run(folder, config=COLOURS, **more):
    """Trains in a folder; the last state."""
    return train(config, folder, tiny.tiny_head(), tiny.TinySubjects(), say=more.pop("say", lambda text: None), **more)


def same(a, b):
    """Checks that two trees hold the same numbers, bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, a, b)


def damage(checkpoint) -> None:
    """Flips one bit of a checkpoint's largest file of arrays."""
    file = max(checkpoint.rglob("d/*"), key=lambda path: path.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 16
    file.write_bytes(data)

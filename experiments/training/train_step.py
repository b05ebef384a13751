"""The training state and its update; every device of every process works on its share of the batch."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from experiments.training.config import SCHEDULES, LossWeights, OptimizerConfig, TrainConfig
from experiments.training.prepare import Teacher
from experiments.training.tasks import example_loss
from facerig_jax.checks import check_choice
from facerig_jax.inorig.config import EnergyWeights
from facerig_jax.weights import init_params

# The batch is spread over this axis; weights are the same everywhere.
DATA = "data"
# Updates whose loss or gradient is not finite are left out, always; so many in a row end the run.
MAX_SKIPPED = 20
ALWAYS = 2**31 - 1


@struct.dataclass
class TrainState:
    """Everything that a run carries from one update to the next.

    step:     () int32 updates done.
    params:   weights of all networks.
    optimizer: optax's state, over all weights as one vector.
    average:  exponential moving average of the weights: what is evaluated and shipped.
    """

    step: jax.Array
    params: dict
    optimizer: tuple
    average: dict


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clipped AdamW with warm-up, that leaves out updates that are not finite.

    It sees all weights as one vector: on hundreds of small arrays it takes as long to compile as the solver's gradient.
    """
    check_choice("optimizer.schedule", config.schedule, SCHEDULES)
    peak, warmup = config.learning_rate, min(config.warmup, steps)
    first = peak / (warmup + 1)  # not zero, so that the first update counts
    if config.schedule == "cosine":
        rate = optax.warmup_cosine_decay_schedule(first, peak, warmup, max(steps, warmup + 1), peak / 100)
    else:
        rate = optax.warmup_constant_schedule(first, peak, warmup)
    inner = optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(rate, config.b1, config.b2, weight_decay=config.weight_decay),
    )
    return optax.flatten(optax.apply_if_finite(inner, ALWAYS))


def init_state(config: TrainConfig, mesh: Mesh, params: dict | None = None) -> TrainState:
    """The state before the first update, on all devices of the mesh; `params` instead of random ones."""
    params = init_params(jax.random.key(config.seed), config.model) if params is None else params
    optimizer = jax.jit(make_optimizer(config.optimizer, config.steps).init)(params)
    state = TrainState(np.int32(0), params, optimizer, jax.tree.map(np.array, params))
    return place(state, replicated(mesh))


def make_mesh() -> Mesh:
    """All devices of all processes on one axis, 'data'; 'sweep' has size 1."""
    devices = np.asarray(jax.devices()).reshape(1, -1)
    return Mesh(devices, ("sweep", DATA), axis_types=(AxisType.Auto, AxisType.Auto))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of weights: the same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def place(tree, sharding: NamedSharding):
    """Arrays that every process has, on the devices of all of them."""

    def one(leaf):
        return jax.make_array_from_process_local_data(sharding, np.asarray(leaf), np.shape(leaf))

    return jax.tree.map(one, tree)


def spread(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its first axis over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def make_update(
    config: TrainConfig, stages: int, mesh: Mesh
) -> Callable[[TrainState, Teacher, object, LossWeights], tuple[TrainState, dict]]:
    """The compiled update.

    Args:
      config: static.
      stages: how many stages of the solver are trained; the others' weights stay.
      mesh: of `make_mesh`; its size divides `config.batch`.

    Returns:
      (state, teacher, batch, weights) -> (state, measures): batch is an Example with a leading axis of config.batch,
      spread over the mesh; measures are means over the batch, with 'loss' and 'gradient_norm', and how many updates
      were 'skipped'.
    """
    optimizer = make_optimizer(config.optimizer, config.steps)
    gradient = device_gradient(config, stages)

    def everywhere(params, teacher, batch, weights):
        return jax.lax.pmean(gradient(params, teacher, batch, weights), DATA)

    # The pure-JAX rasterizer's loops start from constants, which the check of varying axes takes for a mistake.
    spread_gradient = jax.shard_map(
        everywhere,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(), PartitionSpec(DATA), PartitionSpec()),
        out_specs=PartitionSpec(),
        check_vma=False,
    )

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state: TrainState, teacher: Teacher, batch, weights: LossWeights):
        slope, measures = spread_gradient(state.params, teacher, batch, weights)
        norm = jnp.linalg.norm(ravel_pytree(slope)[0])  # the optimizer's vector: no sum of its own for each array
        change, inner = optimizer.update(slope, state.optimizer, state.params)
        params = optax.apply_updates(state.params, change)
        step = state.step + 1
        decay = jnp.minimum(config.optimizer.ema, (1.0 + step) / (10.0 + step))
        average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.average, params)
        state = TrainState(step, params, inner, average)
        return state, {
            **measures,
            "gradient_norm": norm,
            "skipped": inner.total_notfinite,
            "skipped_in_a_row": inner.notfinite_count,
        }

    return update


def device_gradient(config: TrainConfig, stages: int):
    """(params, teacher, examples, weights) -> mean gradient and measures over the subjects of one device."""
    energies = EnergyWeights(*(jnp.float32(x) for x in config.energies))
    if stages:
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, stages=stages))

    def loss(params, teacher, example, weights):
        used = {**params, "stages": params["stages"][:stages]} if stages else params
        value, measures = example_loss(used, teacher, example, weights, energies, config)
        return value, {"loss": value, **measures}

    def gradient(params, teacher, examples, weights):
        count = jax.tree.leaves(examples)[0].shape[0]
        size = min(config.microbatch, count)

        def chunk_loss(params, chunk):
            value, measures = jax.vmap(lambda example: loss(params, teacher, example, weights))(chunk)
            return jnp.mean(value), measures

        def add(total, chunk):
            slope, measures = jax.grad(chunk_loss, has_aux=True)(params, chunk)
            return jax.tree.map(jnp.add, total, slope), measures

        if size == count:  # a loop of one round too would keep XLA's CPU compiler from its fast convolutions
            slope, measures = jax.grad(chunk_loss, has_aux=True)(params, examples)
            return slope, jax.tree.map(lambda x: jnp.mean(x, 0), measures)
        chunks = jax.tree.map(lambda x: x.reshape(count // size, size, *x.shape[1:]), examples)
        total, measures = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), chunks)
        slope = jax.tree.map(lambda x: x * (size / count), total)
        return slope, jax.tree.map(lambda x: jnp.mean(x, (0, 1)), measures)

    return gradient

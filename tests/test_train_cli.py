"""The training command on its smallest configuration, and what it refuses."""

import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from experiments import cli, train
from experiments.training.config import TrainConfig
from experiments.training.workdir import read_metrics
from facerig_jax.io.serialize import to_plain
from facerig_jax.weights import init_params, read_weights

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "experiments" / "configs").glob("[!_]*.py"))


def settings(path, changes=(), sweep=None):
    return train.settings(str(path), "out", list(changes), sweep)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_is_a_lab_note_with_its_command(path):
    config, _ = settings(path)
    assert isinstance(config, TrainConfig)
    assert to_plain(config)["name"] == path.stem
    assert f"--config=experiments/configs/{path.name}" in path.read_text()


def test_settings_are_changed_by_flags_and_by_a_sweep():
    base = ROOT / "experiments" / "configs" / "base.py"
    config, folder = settings(base, ["batch=16", "model.networks.image_size=128"], sweep=2)
    assert (config.batch, config.model.networks.image_size, config.optimizer.learning_rate) == (16, 128, 3e-3)
    assert folder == Path("out/002")
    for changes, sweep, message in (
        (["batchsize=3"], None, "Did you mean batch"),
        ([], 3, "3 runs, numbered from 0"),
    ):
        with pytest.raises((cli.UserError, ValueError), match=message):
            settings(base, changes, sweep)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("", "out"), "--config is missing"),
        (("none.py", "out"), "base.py"),
        (("experiments/configs/__init__.py", "out"), "no function config"),
    ],
)
def test_missing_or_wrong_flags_are_refused_in_words(flags, message):
    with pytest.raises(cli.UserError, match=message):
        train.settings(*flags, [], None)


@pytest.mark.thorough
def test_the_smoke_configuration_trains_its_first_stage_and_the_loss_falls(tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "experiments.train", "--config=experiments/configs/smoke.py"]
    command += ["--set", "data.subject.renderer=plain"]  # compiles faster; test_synthetic tests the other one
    run = subprocess.run(
        [*command, f"--workdir={folder}"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=500
    )
    assert run.returncode == 0, run.stderr
    records = [record for record in read_metrics(folder) if "loss" in record]
    assert records[-1]["step"] == 24
    assert np.mean([r["loss"] for r in records[-3:]]) < 0.7 * np.mean([r["loss"] for r in records[:2]])
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "metrics.jsonl", "checkpoints", "weights.npz", "loss.png", "error.png", "DONE"} <= names
    params, model = read_weights(folder / "weights.npz")
    first = init_params(jax.random.key(0), model)
    changed = [not np.allclose(*map(ravel, pair)) for pair in zip(params["stages"], first["stages"], strict=True)]
    assert changed == [True, False]


STOPPED = """
import sys
from experiments import cli, train

number = int(sys.argv.pop())

def stopped(*_, **__):
    raise train.Stopped("Stopped after update 1 of 2; the same command goes on from there.", number)

train.train = stopped
cli.run(train.main)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_exits_with_the_code_that_has_a_scheduler_start_it_again(tmp_path, number):
    flags = ["--config=experiments/configs/smoke.py", f"--workdir={tmp_path}", str(int(number))]
    run = subprocess.run(
        [sys.executable, "-c", STOPPED, *flags], cwd=ROOT, capture_output=True, text=True, check=False, timeout=200
    )
    assert run.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[number], run.stderr
    assert run.stdout.startswith("Stopped after update 1")


def ravel(tree):
    return ravel_pytree(tree)[0]

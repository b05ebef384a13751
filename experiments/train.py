"""Trains networks, or goes on with a run that was stopped:

    python -m experiments.train --config=experiments/configs/smoke.py --workdir=out/smoke [--set data.seed=1]

The folder gets config.json, metrics.jsonl, tensorboard/, checkpoints/ and, when all is done, weights.npz, loss.png,
error.png and DONE. The same command goes on where it stopped (Ctrl-C, SIGTERM, a crash): a run that was told to stop
saves and exits with 143 (Ctrl-C: 130), a complete one with 0. For several processes, one per host, start the same
command on each with --processes (training/processes.py says how they find each other); when one is told to stop, all
of them save and stop together. A sweep's runs are numbered by --sweep.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import runpy
import sys
from pathlib import Path

import facerig_jax  # isort: skip  sets XLA flags before jax starts
import jax
from absl import flags

from experiments import cli
from experiments.evaluation.plots import draw_curves
from experiments.training.config import TrainConfig
from experiments.training.loop import Stopped, first_params, is_done, make_examples, preparing_params, train
from experiments.training.prepare import make_teacher
from experiments.training.processes import join
from experiments.training.sources import make_sources
from experiments.training.tasks import task_of
from experiments.training.tasks.task import Errors
from experiments.training.workdir import read_metrics
from facerig_jax.io.files import AnyPath, as_path
from facerig_jax.io.serialize import with_overrides
from facerig_jax.platform import prefer_fast_gradients

_CONFIG = flags.DEFINE_string("config", None, "Python file with a function config() -> TrainConfig.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, here or in a store (gs://bucket/run).")
_SET = flags.DEFINE_multi_string("set", [], "Changes a setting: path.to.field=value. May be given several times.")
_SWEEP = flags.DEFINE_integer("sweep", None, "Takes this one of the config's sweep, from 0, in a folder of its own.")
_PREPARE = flags.DEFINE_string("prepare", None, "Only fill data.cache: 'I/N' is part I, from 0, of N run side by side.")
_PROCESSES = flags.DEFINE_bool("processes", False, "Several processes: jax.distributed finds the others by itself.")


def main() -> None:
    """Settings, sources, training."""
    prefer_fast_gradients()
    if _PROCESSES.value:
        join()
    config, folder = settings(_CONFIG.value, _WORKDIR.value, _SET.value, _SWEEP.value)
    if is_done(folder):
        say(f"{folder}: this run is complete; give another --workdir, or remove its DONE and ask for more steps.")
        return
    head, errors = facerig_jax.load_head(), task_of(config).ERRORS
    source, validation = make_sources(config, head)
    if _PREPARE.value:
        prepare(config, head, source, validation, _PREPARE.value)
        return
    try:
        train(config, folder, head, source, validation, say=say, show=functools.partial(show, errors))
    except Stopped as stopped:
        say(str(stopped))
        sys.exit(stopped.code)
    if jax.process_index() == 0:
        draw_curves(folder, read_metrics(folder), errors)
        say(f"Weights: {folder / 'weights.npz'}; curves: {folder / 'loss.png'}, {folder / 'error.png'}")


def prepare(config: TrainConfig, head, source, validation, part: str) -> None:
    """Draws and prepares every N-th subject of a run, from the I-th on, into its cache.

    Raises:
      UserError: there is no cache, no end to the subjects, or `part` is not I/N.
    """
    if not config.data.cache or not (config.data.count or config.data.source != "synthetic"):
        raise cli.UserError("--prepare needs data.cache and, for synthetic subjects, data.count.")
    match = re.fullmatch(r"(\d+)/(\d+)", part)
    if not match or int(match[1]) >= int(match[2]):
        raise cli.UserError(f"--prepare={part}: expected I/N with I from 0 to N - 1.")
    mine, parts = int(match[1]), int(match[2])
    teacher = make_teacher(head, config.model, preparing_params(config, first_params(config)))
    both = make_examples(config, teacher, source, validation)
    for examples in (both[1], both[0]):
        numbers = range(mine, 0 if examples is None else len(examples), parts)
        for done, number in enumerate(numbers, 1):
            examples(number)
            if done % 50 == 0 or done == len(numbers):
                say(f"{done} of {len(numbers)} subjects prepared")


def settings(path: str | None, workdir: str | None, changes, number: int | None) -> tuple[TrainConfig, AnyPath]:
    """The settings of a run and its folder.

    Raises:
      UserError: a flag is missing or does not fit, in words.
    """
    for name, value in (("config", path), ("workdir", workdir)):
        if not value:
            raise cli.UserError(f"--{name} is missing: python -m experiments.train --config=FILE.py --workdir=DIR")
    if not Path(path).is_file():
        known = ", ".join(sorted(p.name for p in (Path(__file__).parent / "configs").glob("[!_]*.py")))
        raise cli.UserError(f"--config={path} is no file; experiments/configs has {known}.")
    make = runpy.run_path(path).get("config")
    if not callable(make):
        raise cli.UserError(f"--config={path} has no function config().")
    config, folder = make(), as_path(workdir)
    if number is not None:
        if not 0 <= number < len(config.sweep):
            raise cli.UserError(f"--sweep={number}: this config's sweep has {len(config.sweep)} runs, numbered from 0.")
        config, folder = with_overrides(config, config.sweep[number]), folder / f"{number:03d}"
    return dataclasses.replace(with_overrides(config, changes), sweep=()), folder


def say(sentence: str) -> None:
    """Sentences, from the first process alone."""
    if jax.process_index() == 0:
        print(sentence, flush=True)


def show(of: Errors, step: int, record: dict) -> None:
    """One line per logged update; `of` says what its errors are."""
    kind = "validation_" if "validation_loss" in record else ""
    errors = " ".join(f"{value:.3f}" for value in record.get(f"{kind}error", []))
    label = "validation" if kind else f"{record['update_s']:5.2f} s/update"
    say(f"{step:7d}  {record['time_s']:8.0f} s  loss {record[f'{kind}loss']:9.3f}  {of.short} {errors}  {label}")


if __name__ == "__main__":
    cli.run(main)

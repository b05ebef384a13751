"""A training run from its settings to its weights: `train` is the table of contents."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments.training.checkpoints import Checkpoints
from experiments.training.config import DataConfig, TrainConfig
from experiments.training.examples import Examples
from experiments.training.prepare import Teacher, make_teacher
from experiments.training.processes import agree, first_alone, stop_requests
from experiments.training.tasks import example_loss, task_of
from experiments.training.train_step import (
    MAX_SKIPPED,
    TrainState,
    init_state,
    make_mesh,
    make_update,
    replicated,
    spread,
)
from experiments.training.workdir import DONE, WEIGHTS, Records, open_workdir
from facerig_jax.data.subjects import Source
from facerig_jax.detect import load_detector
from facerig_jax.inorig.config import EnergyWeights, InorigConfig
from facerig_jax.io.files import as_path, atomic_write
from facerig_jax.types import HeadModel
from facerig_jax.weights import check_params, init_params, read_weights, write_weights

# Sources with more subjects than this are drawn as they are needed, this many at a time.
ENDLESS, BLOCK = 10**8, 64


class Stopped(Exception):
    """The run was told to stop by a signal; its state is saved, and the same call goes on from it.

    code: what the process should exit with, so that a scheduler starts it again: 143 after SIGTERM, 130 after Ctrl-C.
    """

    def __init__(self, sentence: str, number: int):
        super().__init__(sentence)
        self.code = 128 + number


def train(
    config: TrainConfig,
    workdir,
    head: HeadModel,
    source: Source,
    validation: Source | None = None,
    *,
    say: Callable[[str], None] = print,
    show: Callable[[int, dict], None] = lambda step, record: None,
) -> TrainState:
    """Trains, or goes on training, in a folder.

    Args:
      config: settings; see `workdir.open_workdir` for what may change when a run is resumed.
      workdir: folder for config.json, metrics.jsonl, tensorboard/, checkpoints/, weights.npz and DONE.
      head: morphable head, its triangles given as numbers.
      source: subjects to train on.
      validation: subjects to measure on, all of them.
      say: takes sentences worth reading.
      show: takes the number of updates and their record after every logged update.

    Returns:
      TrainState after the last update.

    Raises:
      ValueError: settings that do not fit each other or the folder.
      Stopped: on SIGTERM or Ctrl-C, after saving; in all processes after the same update.
      FloatingPointError: too many updates in a row were not finite.
    """
    mesh = make_mesh()
    check_batch(config, mesh)
    folder = as_path(workdir)
    first_alone(lambda: open_workdir(folder, config))
    with Checkpoints(folder / "checkpoints", config.keep) as checkpoints, stop_requests() as stop:
        params = first_params(config)
        state = init_state(config, mesh, params)
        state = checkpoints.restore(state, say) or state
        say(f"{config.name}: from update {state.step} of {config.steps} on {mesh.size} devices, {source.name}.")
        records = Records(folder, int(state.step), jax.process_index() == 0)
        teacher = make_teacher(head, config.model, preparing_params(config, params))
        examples, measured = make_examples(config, teacher, source, validation)
        teacher = jax.device_put(teacher, replicated(mesh))
        run = Run(config, mesh, teacher, examples, measured, checkpoints, records, stop, say, show)
        state = run_updates(run, state)
        checkpoints.save(state, wait=True)
    first_alone(lambda: _write_result(folder, config, state))
    return state


@dataclasses.dataclass(frozen=True)
class Run:
    """What stays the same during a run; see `train`."""

    config: TrainConfig
    mesh: Mesh
    teacher: Teacher
    examples: Examples
    validation: Examples | None
    checkpoints: Checkpoints
    records: Records
    stop: Callable[[int], int]
    say: Callable[[str], None]
    show: Callable[[int, dict], None]


def run_updates(run: Run, state: TrainState) -> TrainState:
    """The updates from the state's to the last one."""
    config, begun = run.config, int(state.step)
    weights = jax.device_put(jax.tree.map(jnp.float32, config.losses), replicated(run.mesh))
    update, stages, clock = None, 0, Clock()
    for step in range(begun, config.steps):
        if update is None or config.stages_at(step) != stages:
            stages, model = config.stages_at(step), config.model
            what = f"the task {config.task!r}"
            if isinstance(model, InorigConfig):
                what = f"{stages} of {model.stages} stages"
            run.say(f"Update {step}: training {what} (compiling).")
            update = make_update(config, stages, run.mesh)
        with clock.making_data():
            batch = jax.block_until_ready(make_batch(run.examples, config, step, run.mesh))
        state, measures = update(state, run.teacher, batch, weights)
        done, last = step + 1, step + 1 == config.steps
        if last or _due(done, config.log_every) or done == begun + 1:
            measures = jax.device_get(measures)
            run.show(done, run.records.write(done, {**measures, **clock.read(done)}))
            if measures["skipped_in_a_row"] >= MAX_SKIPPED:
                raise FloatingPointError(f"The {MAX_SKIPPED} updates before {done} were not finite: learn more slowly.")
        if run.validation is not None and (last or _due(done, config.validate_every)):
            measures = validate(state.average, run.teacher, run.validation, config)
            run.show(done, run.records.write(done, measures))
        number = run.stop(done)
        if number or _due(done, config.save_every):
            run.checkpoints.save(state, wait=bool(number))
        if number:
            sentence = f"Stopped after update {done} of {config.steps}; the same command goes on from there."
            raise Stopped(sentence, number)
    return state


class Clock:
    """Seconds an update takes, on average since the last reading: updates run while the next batch is made."""

    def __init__(self):
        self._begun, self._data, self._done = time.perf_counter(), 0.0, None

    @contextlib.contextmanager
    def making_data(self) -> Iterator[None]:
        """Counts what happens inside as making data."""
        start = time.perf_counter()
        yield
        self._data += time.perf_counter() - start

    def read(self, done: int) -> dict[str, float]:
        """'update_s' in all and 'data_s' of it, per update; starts anew. `done`: number of updates."""
        now = time.perf_counter()
        count = 1 if self._done is None else done - self._done
        seconds = {"update_s": (now - self._begun) / count, "data_s": self._data / count}
        self._begun, self._data, self._done = now, 0.0, done
        return {name: round(value, 4) for name, value in seconds.items()}


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0


def check_batch(config: TrainConfig, mesh: Mesh) -> None:
    """Refuses a batch that cannot be spread evenly."""
    share = config.batch // mesh.size
    if config.batch % mesh.size or share % min(config.microbatch, max(share, 1)):
        raise ValueError(
            f"batch: {config.batch} subjects cannot be spread over {mesh.size} devices in parts of {config.microbatch}."
        )


def is_done(workdir) -> bool:
    """Whether the run in a folder is complete, as the first process sees it."""
    return bool(agree(jax.process_index() == 0 and (as_path(workdir) / DONE).is_file()))


def first_params(config: TrainConfig) -> dict:
    """The weights that a run starts from: those of config.init where it has them, random ones elsewhere.

    Raises:
      ValueError: config.init is not a file of weights for these networks.
    """
    params = init_params(jax.random.key(config.seed), config.model)
    if not config.init:
        return params
    given, _ = read_weights(config.init)
    if "stages" in params:  # a run may go on with more stages
        given["stages"] = given.get("stages", ())[: len(params["stages"])]
        given["stages"] += params["stages"][len(given["stages"]) :]
    params = params | given
    try:
        check_params(params, config.model)
    except ValueError as error:
        raise ValueError(f"init: {config.init} holds other networks than the run trains ({error})") from None
    return params


def preparing_params(config: TrainConfig, params: dict) -> dict:
    """What a run's subjects are prepared with, of a run's first weights."""
    used = {"detector": load_detector()} if config.data.landmarks == "detector" else {}
    looks = config.init and getattr(task_of(config).prepared_models(config)[-1], "flow", None) is not None
    return {**used, "flow": params["flow"]} if looks else used


def make_examples(config: TrainConfig, teacher: Teacher, source: Source, validation: Source | None):
    """Examples of the subjects to train on, and of those to measure on where there are any."""
    folder = as_path(config.data.cache) if config.data.cache else None
    parts = (None, None) if folder is None else (folder / "train", folder / "validation")
    kept = len(validation) if validation is not None else 0
    measured = None if validation is None else Examples(validation, teacher, config, kept, parts[1])
    return Examples(source, teacher, config, 2 * BLOCK, parts[0]), measured


def make_batch(examples: Examples, config: TrainConfig, step: int, mesh: Mesh):
    """The subjects of an update, a function of its number alone, each process making its share.

    Returns:
      What the task makes of a subject (Task.prepare), with a leading axis of config.batch, spread over the mesh.
    """
    numbers = batch_numbers(len(examples), config.batch, config.data, step)
    share = config.batch // jax.process_count()
    mine = numbers[jax.process_index() * share : (jax.process_index() + 1) * share]
    made = [examples(int(number)) for number in mine]
    local = jax.tree.map(lambda *leaves: np.stack(leaves), *made)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(spread(mesh), leaf), local)


def batch_numbers(length: int, batch: int, data: DataConfig, step: int) -> np.ndarray:
    """(batch,) which subjects an update sees.

    Those of a finite source are shuffled anew each epoch. An endless source is taken in blocks, each of which is seen
    data.reuse times, shuffled anew each time.
    """
    endless = length > ENDLESS
    block, times = (min(length, BLOCK), data.reuse) if endless else (length, 1)
    places = np.arange(step * batch, (step + 1) * batch)
    rounds = places // block
    orders = {r: np.random.default_rng((data.seed, r)).permutation(block) for r in np.unique(rounds).tolist()}
    first = data.first + rounds // times * block if endless else np.zeros_like(rounds)
    return first + [orders[r][place % block] for r, place in zip(rounds.tolist(), places.tolist(), strict=True)]


def validate(params: dict, teacher, examples: Examples, config: TrainConfig) -> dict:
    """Mean losses and errors over all of the examples, by name with 'validation_' before it."""
    every = (examples(number) for number in range(len(examples)))
    measures = [jax.device_get(_measure(params, teacher, example, config.losses, config)) for example in every]
    return {f"validation_{name}": np.mean([m[name] for m in measures], 0) for name in measures[0]}


@functools.partial(jax.jit, static_argnames="config")
def _measure(params, teacher, example, weights, config: TrainConfig) -> dict:
    energies = EnergyWeights(*(jnp.float32(x) for x in config.energies))
    loss, measures = example_loss(params, teacher, example, weights, energies, config)
    return {"loss": loss, **measures}


def _write_result(folder, config: TrainConfig, state: TrainState) -> None:
    """The averaged weights, and after them the mark that the run is complete."""
    notes = {"name": config.name, "updates": int(state.step), "subjects": int(state.step) * config.batch}
    params = jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), state.average)
    with atomic_write(folder / WEIGHTS) as file:
        write_weights(file, params, config.model, notes)
    with atomic_write(folder / DONE, "w") as file:
        file.write(f"{config.steps} updates\n")

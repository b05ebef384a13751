"""What a run writes down: config.json, metrics.jsonl, TensorBoard's event files, DONE (the workdir contract).

tensorboard is imported here only; without it, or in a store, a run keeps metrics.jsonl alone.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

from flax.traverse_util import flatten_dict

from experiments.training.config import TrainConfig
from facerig_jax.io.files import AnyPath, WriteError, as_path, atomic_write
from facerig_jax.io.serialize import to_json, to_plain

CONFIG, METRICS, DONE, EVENTS, WEIGHTS = "config.json", "metrics.jsonl", "DONE", "tensorboard", "weights.npz"
# What may change when a run is resumed.
RESUMABLE = ("steps", "log_every", "save_every", "validate_every", "keep", "sweep", "name")


def open_workdir(folder, config: TrainConfig) -> AnyPath:
    """Makes a run's folder and records its settings, or checks that a run to be resumed has the same ones.

    Raises:
      ValueError: the folder holds something else, or a run with other settings; naming the first that differs.
    """
    folder = as_path(folder)
    path = folder / CONFIG
    settings = to_plain(config)
    if path.is_file():
        try:
            before = json.loads(path.read_text())
        except ValueError:
            raise ValueError(f"{path}: not readable as JSON, so the run in {folder} cannot be resumed.") from None
        kept = ({k: v for k, v in x.items() if k not in RESUMABLE} for x in (before, settings))
        ours, theirs = (flatten_dict(values, sep=".") for values in kept)
        for name in sorted(set(ours) | set(theirs)):
            if ours.get(name) != theirs.get(name):
                raise ValueError(
                    f"{folder} holds a run with {name} = {ours.get(name)!r}, not {theirs.get(name)!r}: give another "
                    f"--workdir, or the same settings to resume it."
                )
    elif folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no {CONFIG}: give a new folder, or that of a run to resume.")
    with atomic_write(path, "w") as file:
        json.dump(settings, file, indent=1)
    return folder


def read_metrics(folder) -> list[dict]:
    """The records of a run, in order; a last line that was cut off is left out."""
    path = as_path(folder) / METRICS
    records = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


@dataclasses.dataclass
class Records:
    """Appends a run's measures to its folder.

    folder: of the run.
    step:   of the checkpoint it goes on from; later records of an interrupted run are dropped.
    active: whether this process writes.
    """

    folder: AnyPath
    step: int = 0
    active: bool = True

    def __post_init__(self):
        self.begun = time.perf_counter()
        self.earlier, self._events = 0.0, None
        if not self.active:
            return
        kept = [record for record in read_metrics(self.folder) if record["step"] <= self.step]
        self.earlier = kept[-1]["time_s"] if kept else 0.0
        self._lines = [json.dumps(record) + "\n" for record in kept]
        with atomic_write(self.folder / METRICS, "w") as file:
            file.writelines(self._lines)
        self._events = _event_writer(self.folder / EVENTS) if isinstance(self.folder, Path) else None

    def write(self, step: int, measures: dict) -> dict:
        """Adds one object: 'step', 'time_s' (seconds of the run so far) and the measures; arrays become lists."""
        time_s = round(self.earlier + time.perf_counter() - self.begun, 3)
        record = {"step": step, "time_s": time_s} | to_json(measures)
        if self.active:
            self._append(json.dumps(record) + "\n")
            if self._events:
                self._events(step, _flat_numbers(record))
        return record

    def _append(self, line: str) -> None:
        path = self.folder / METRICS
        if not isinstance(path, Path):  # a store cannot append
            self._lines.append(line)
            with atomic_write(path, "w") as file:
                file.writelines(self._lines)
            return
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise WriteError(f"Could not write {path}: {error.strerror or error}.") from error


def _flat_numbers(record: dict) -> dict[str, float]:
    flat = {}
    for name, value in record.items():
        for place, item in enumerate(value) if isinstance(value, list) else ((None, value),):
            if isinstance(item, (int, float)):
                flat[name if place is None else f"{name}/{place}"] = float(item)
    return flat


def _event_writer(folder: Path):
    """(step, numbers) -> None, into TensorBoard's event files; None where tensorboard is not installed."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        return None
    writer = EventFileWriter(str(folder))

    def write(step: int, numbers: dict[str, float]) -> None:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items() if name != "step"]
        writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        writer.flush()

    return write

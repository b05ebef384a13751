"""Subjects prepared for training once, and kept: in memory, or in a folder that later runs read."""

from __future__ import annotations

import functools
import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np

from experiments.training.config import DataConfig, TrainConfig
from experiments.training.prepare import Teacher
from experiments.training.tasks import TASKS, task_of
from facerig_jax.checks import check_choice
from facerig_jax.data.subjects import Source, Subject
from facerig_jax.io.arrays import read_arrays
from facerig_jax.io.files import AnyPath, atomic_write
from facerig_jax.io.serialize import to_plain

SETTINGS = "examples.json"
# Counts up when what an example holds changes its meaning.
FORMAT = 4


class Examples:
    """A source's subjects, prepared.

    Args:
      source: subjects with their truth.
      teacher: of the head.
      config: of the run.
      memory: how many of the latest are kept in memory.
      folder: where all of them are kept as .npz files, see io.files.as_path; None: nowhere.

    Raises:
      ValueError: the folder holds subjects that were prepared with other settings, or the flow network that they are
        to be prepared with is missing.
    """

    def __init__(
        self, source: Source, teacher: Teacher, config: TrainConfig, memory: int, folder: AnyPath | None = None
    ):
        check_choice("data.landmarks", config.data.landmarks, LANDMARKS)
        self.name = source.name
        self._source, self._teacher, self._folder = source, teacher, folder
        self._models, self._data = task_of(config).prepared_models(config), config.data
        self._task, self._learner = config.task, config.model
        if getattr(self._models[-1], "flow", None) is not None and "flow" not in teacher.params:
            raise ValueError("init: model.flow needs the weights of a trained flow network (task='flow').")
        self._kept = functools.lru_cache(memory)(self._read_or_make)
        if folder is not None:
            _check_folder(folder, example_settings(source, teacher, config))

    def __len__(self) -> int:
        return len(self._source)

    def __call__(self, index: int):
        """Subject `index` of 0 to len - 1, on the host, as Task.prepare makes it."""
        return self._kept(index)

    def _read_or_make(self, index: int):
        if self._folder is None:
            return self._make(index)
        path = self._folder / f"{index:08d}.npz"
        if path.is_file():
            return self._read(path)
        example = self._make(index)
        leaves = jax.tree.leaves(example)
        with atomic_write(path) as file:
            np.savez(file, **{f"{number:03d}": leaf for number, leaf in enumerate(leaves)})
        return example

    def _make(self, index: int):
        subject = self._subject(index)
        if self._data.source == "synthetic" and self._data.min_views:
            subject = subject.replace(view_mask=view_mask(len(subject.images), self._data, index))
        model = self._models[index % len(self._models)]
        return jax.device_get(_prepare(subject, self._teacher, self._task, model, self._learner))

    def _subject(self, index: int) -> Subject:
        subject = self._source(index)
        return subject.replace(landmarks=None) if self._data.landmarks == "detector" else subject

    def _read(self, path: AnyPath):
        shapes = self._shapes
        leaves, structure = jax.tree.flatten(shapes)
        arrays = read_arrays(path)
        values = [arrays[f"{number:03d}"] for number in range(len(leaves))]
        if any(a.shape != b.shape or a.dtype != b.dtype for a, b in zip(values, leaves, strict=True)):
            raise ValueError(f"{path} was not written by these settings; remove it.")
        return jax.tree.unflatten(structure, values)

    @functools.cached_property
    def _shapes(self):
        return jax.eval_shape(
            lambda s, t: _prepare(s, t, self._task, self._models[0], self._learner), self._subject(0), self._teacher
        )


def view_mask(count: int, data: DataConfig, index: int) -> np.ndarray:
    """(V,) which photos of a subject count: from data.min_views to all, the first ones."""
    draws = np.random.default_rng((data.seed, index)).integers(data.min_views, count + 1, 2)
    return (np.arange(count) < draws.max()).astype(np.float32)


@functools.partial(jax.jit, static_argnames=("task", "model", "learner"))
def _prepare(subject, teacher: Teacher, task: str, model, learner):
    return TASKS[task].prepare(jax.tree.map(jnp.asarray, subject), teacher, model, learner)


def example_settings(source: Source, teacher: Teacher, config: TrainConfig) -> dict:
    """Everything that an example depends on, as plain values."""
    model = task_of(config).prepared_models(config)[-1]
    return {
        "format": FORMAT,
        "task": config.task,
        "source": source.name,
        "data": {key: value for key, value in to_plain(config.data).items() if key in EXAMPLE_DATA},
        "model": {key: value for key, value in to_plain(model).items() if key in EXAMPLE_MODEL},
        "image_size": model.crop_size,
        "head": _digest(teacher.head),
        "networks": _digest(teacher.params),
    }


def _digest(tree) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for leaf in jax.tree.leaves(tree):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


# The fields of DataConfig that say what a subject looks like.
EXAMPLE_DATA = ("source", "seed", "subject", "others", "landmarks", "min_views", "views", "size")
# And those of a solver's settings.
EXAMPLE_MODEL = ("crop_margin", "flow", "landmarks", "landmark_steps", "coarse")
LANDMARKS = ("subject", "detector")


def _check_folder(folder: AnyPath, settings: dict) -> None:
    path = folder / SETTINGS
    settings = json.loads(json.dumps(settings))
    if path.is_file():
        there = json.loads(path.read_text())
        different = [key for key in settings if there.get(key) != settings[key]]
        if different:
            raise ValueError(f"data.cache: {folder} holds subjects with another {', '.join(different)}; give another.")
        return
    with atomic_write(path, "w") as file:
        json.dump(settings, file, indent=1)

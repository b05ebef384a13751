"""Where a run's subjects come from, by its settings."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from facerig_jax.data.detected import imitate_landmarks
from facerig_jax.data.folders import SourceConfig, folder_source
from facerig_jax.data.subjects import VALIDATION_SEED, Source, Subject
from facerig_jax.data.synthetic import SubjectConfig, make_subject
from facerig_jax.detect import load_detector
from facerig_jax.head.model import albedo as head_albedo
from facerig_jax.training.config import TrainConfig
from facerig_jax.types import HeadModel


class SyntheticSource:
    """Temporary."""

    def __init__(self, head, seed, config: SubjectConfig):
        self.name, self.seed, self.config = f"synthetic subjects, seed {seed}", seed, config
        self.head = jax.tree.map(jnp.asarray, head)

    def __len__(self):
        return 2**31 - 1

    def __call__(self, index: int) -> Subject:
        return _draw(self.head, self.seed, index, self.config)


@functools.partial(jax.jit, static_argnames="config")
def _draw(head, seed, index, config):
    s = make_subject(head, seed, index, config)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed + 1), index), config.n_views)
    points = jax.vmap(lambda k, v, e, p, d: imitate_landmarks(k, head, v, s.identity, e, p, d, config.size))(
        keys, s.vertices, s.expression, s.pose, s.inverse_distance
    )
    return Subject(
        images=s.images,
        landmarks=points,
        neutral=s.neutral,
        vertices=s.vertices,
        vertices_img=s.vertices_img,
        albedo=head_albedo(head, s.albedo_code),
        expression=s.expression,
        pose=s.pose,
        inverse_distance=s.inverse_distance,
    )


@dataclasses.dataclass(frozen=True)
class Part:
    """The subjects first, first + 1, ..., of another source."""

    source: Source
    first: int
    count: int

    @property
    def name(self) -> str:
        """For messages and records."""
        return self.source.name

    def __len__(self) -> int:
        return self.count

    def __call__(self, index: int) -> Subject:
        """See data.subjects.Source."""
        return self.source(self.first + index)


def make_sources(config: TrainConfig, head: HeadModel) -> tuple[Source, Source | None]:
    """The subjects to train on and to measure on; None where config.validation is 0.

    Raises:
      ValueError: a seed that is kept for choosing settings or for evaluation, or a folder without enough subjects.
    """
    data, count = config.data, config.validation
    if data.source == "synthetic":
        if not 0 <= data.seed < VALIDATION_SEED:
            allowed = f"training takes 0 to {VALIDATION_SEED - 1}"
            raise ValueError(f"data.seed: {data.seed} is kept for validation and evaluation; {allowed}.")
        source = SyntheticSource(head, data.seed, data.subject)
        return source, Part(SyntheticSource(head, VALIDATION_SEED, data.subject), 0, count) if count else None
    source = folder_source(data.source, head, SourceConfig(n_views=data.views, seed=data.seed), load_detector())
    if len(source) <= count:
        raise ValueError(f"data.source: {data.source} holds {len(source)} subjects, {count} of them for validation.")
    rest = len(source) - count
    return Part(source, 0, rest), Part(source, rest, count) if count else None

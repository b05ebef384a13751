"""Where a run's subjects come from, by its settings."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from facerig_jax.data.folders import SourceConfig, folder_source
from facerig_jax.data.subjects import VALIDATION_SEED, Source, Subject
from facerig_jax.data.synthetic import SyntheticSource, training_seed
from facerig_jax.detect import load_detector
from facerig_jax.training.config import TrainConfig
from facerig_jax.types import HeadModel


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
        head = jax.tree.map(jnp.asarray, head)  # once, not at every subject
        source = SyntheticSource(head, training_seed(data.seed), data.subject)
        return source, Part(SyntheticSource(head, VALIDATION_SEED, data.subject), 0, count) if count else None
    source = folder_source(data.source, head, SourceConfig(n_views=data.views, seed=data.seed), load_detector())
    if len(source) <= count:
        raise ValueError(f"data.source: {data.source} holds {len(source)} subjects, {count} of them for validation.")
    rest = len(source) - count
    return Part(source, 0, rest), Part(source, rest, count) if count else None

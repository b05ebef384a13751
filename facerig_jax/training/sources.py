"""Where a run's subjects come from, by its settings."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from facerig_jax.data.folders import SourceConfig, folder_source
from facerig_jax.data.subjects import VALIDATION_SEED, Source, Subject
from facerig_jax.detect import load_detector
from facerig_jax.synthetic.subject import SyntheticSource, training_seed
from facerig_jax.training.config import TrainConfig
from facerig_jax.types import HeadModel

# How many choices of photos each person of a folder has in an epoch.
DRAWS = 16


@dataclasses.dataclass(frozen=True)
class FirstOf:
    """The first subjects of another source."""

    source: Source
    count: int

    @property
    def name(self) -> str:
        """For messages and records."""
        return self.source.name

    def __len__(self) -> int:
        return self.count

    def __call__(self, index: int) -> Subject:
        """See data.subjects.Source."""
        return self.source(index)


@dataclasses.dataclass(frozen=True)
class InTurn:
    """Several endless sources, one subject from each in turn."""

    sources: tuple[Source, ...]

    @property
    def name(self) -> str:
        """For messages and records."""
        return self.sources[0].name

    def __len__(self) -> int:
        return len(self.sources[0])

    def __call__(self, index: int) -> Subject:
        """See data.subjects.Source."""
        return self.sources[index % len(self.sources)](index)


def make_sources(config: TrainConfig, head: HeadModel) -> tuple[Source, Source | None]:
    """The subjects to train on and to measure on; None where config.validation is 0.

    Raises:
      ValueError: a seed that is kept for choosing settings or for evaluation, or a folder without enough subjects.
    """
    data, count = config.data, config.validation
    if data.source == "synthetic":
        head = jax.tree.map(jnp.asarray, head)  # once, not at every subject
        kinds = (data.subject, *data.others)
        if len({kind.n_views for kind in kinds}) > 1:
            raise ValueError("data.others: all kinds of subjects need as many photos (n_views) as data.subject.")
        seeds = (training_seed(data.seed), VALIDATION_SEED)
        source, measured = (InTurn(tuple(SyntheticSource(head, seed, kind) for kind in kinds)) for seed in seeds)
        return FirstOf(source, data.count) if data.count else source, FirstOf(measured, count) if count else None
    files = SourceConfig(n_views=data.views, size=data.size, seed=data.seed)
    source = folder_source(data.source, head, files, load_detector())
    people = source.entries
    if len(people) <= count or people[0].neutral is None:
        problem = "without their true faces" if people[0].neutral is None else f"and validation takes {count}"
        raise ValueError(f"data.source: {data.source} holds {len(people)} subjects {problem}; see data.folders.")
    many = dataclasses.replace(files, draws=DRAWS)
    training = dataclasses.replace(source, entries=people[count:], config=many)
    return training, dataclasses.replace(source, entries=people[:count]) if count else None

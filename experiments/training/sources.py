"""Where a run's subjects come from, by its settings."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from experiments.training.config import TrainConfig
from facerig_jax.data.folders import SourceConfig, folder_source
from facerig_jax.data.subjects import VALIDATION_SEED, MadeSource, Source
from facerig_jax.detect import load_detector
from facerig_jax.synthetic.subject import synthetic_source, training_seed
from facerig_jax.types import HeadModel

# How many choices of photos each person of a folder has in an epoch.
DRAWS = 16


def in_turn(sources: list[MadeSource]) -> MadeSource:
    """One subject from each of several endless sources in turn."""
    return dataclasses.replace(sources[0], make=lambda index: sources[index % len(sources)](index))


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
        source, measured = (in_turn([synthetic_source(head, seed, kind) for kind in kinds]) for seed in seeds)
        first = dataclasses.replace(source, count=data.count or source.count)
        return first, dataclasses.replace(measured, count=count) if count else None
    files = SourceConfig(n_views=data.views, size=data.size, seed=data.seed)
    source = folder_source(data.source, head, files, load_detector())
    people = source.entries
    if len(people) <= count or people[0].neutral is None:
        problem = "without their true faces" if people[0].neutral is None else f"and validation takes {count}"
        raise ValueError(f"data.source: {data.source} holds {len(people)} subjects {problem}; see data.folders.")
    many = dataclasses.replace(files, draws=DRAWS)
    training = dataclasses.replace(source, entries=people[count:], config=many)
    return training, dataclasses.replace(source, entries=people[:count]) if count else None

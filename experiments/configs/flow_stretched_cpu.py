"""The flow network goes on once more, on people of proportions beyond the basis."""

import dataclasses

from experiments.configs import flow_varied_cpu
from facerig_jax.training.config import TrainConfig


def config() -> TrainConfig:
    """The settings."""
    made = flow_varied_cpu.config()
    kinds = (made.data.subject, *made.data.others)
    subject, *others = (dataclasses.replace(kind, stretch=0.06) for kind in kinds)
    return dataclasses.replace(
        made,
        name="flow_stretched_cpu",
        data=dataclasses.replace(made.data, subject=subject, others=tuple(others), seed=11),
    )

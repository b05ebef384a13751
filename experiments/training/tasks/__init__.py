"""What can be learned, by the name that TrainConfig.task has."""

from __future__ import annotations

import jax

from experiments.training.config import LossWeights, TrainConfig
from experiments.training.prepare import Teacher
from experiments.training.tasks import flow, pose, stages
from experiments.training.tasks.task import Task
from facerig_jax.checks import check_choice
from facerig_jax.inorig.config import EnergyWeights

TASKS: dict[str, Task] = {"fit": stages, "pose": pose, "flow": flow}


def task_of(config: TrainConfig) -> Task:
    """The task of a run.

    Raises:
      ValueError: there is none of that name.
    """
    return TASKS[check_choice("task", config.task, TASKS)]


def example_loss(
    params: dict, teacher: Teacher, example, weights: LossWeights, energies: EnergyWeights, config: TrainConfig
) -> tuple[jax.Array, dict]:
    """The loss of one subject, and its parts.

    Args:
      params, teacher, example, energies: see Task.loss.
      weights: of the losses.
      config: static.

    Returns:
      loss: ().
      measures: each loss before its weight by name, (), and 'error' (E,), see Task.ERRORS.
    """
    terms, errors = task_of(config).loss(params, teacher, example, energies, config.model)
    return sum(getattr(weights, name) * value for name, value in terms.items()), {**terms, "error": errors}

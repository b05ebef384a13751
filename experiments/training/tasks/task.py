"""The seam between a run and what it learns: the Protocol that every task of this folder follows."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import jax

from experiments.training.config import TrainConfig
from experiments.training.prepare import Teacher
from facerig_jax.config import FitConfig
from facerig_jax.data.subjects import Subject
from facerig_jax.inorig.config import EnergyWeights, InorigConfig


@dataclasses.dataclass(frozen=True)
class Errors:
    """What a task's errors are, for those who print or draw them: numbers, from before what is learned to its end.

    short: name and unit for a line.
    long:  the same for an axis.
    first: what the first number is of.
    later: what the others are of; {} is their place, from 1.
    """

    short: str
    long: str
    first: str
    later: str

    def name(self, place: int) -> str:
        """What the number at a place is of."""
        return self.later.format(place) if place else self.first


class Task(Protocol):
    """Something to learn. The modules of this folder are tasks: functions, and one constant."""

    ERRORS: Errors

    def prepared_models(self, config: TrainConfig) -> tuple[FitConfig | InorigConfig, ...]:
        """The solver's settings that a run's subjects are prepared with, one after the other.

        Raises:
          ValueError: the settings have nothing for this task to learn.
        """

    def prepare(self, subject: Subject, teacher: Teacher, model: Any, learner: Any) -> Any:
        """What is kept of a subject, a pytree of arrays (under jit).

        Args:
          subject: photos and truth.
          teacher: of the head.
          model: one of `prepared_models`.
          learner: the settings of what learns from it.
        """

    def loss(
        self, params: dict, teacher: Teacher, example: Any, energies: EnergyWeights, model: Any
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        """How far one subject is from its truth.

        Args:
          params: of all networks, of as many stages as `model` has.
          teacher: of the head.
          example: of `prepare`.
          energies: the solver's own settings.
          model: static.

        Returns:
          losses: by name, one of LossWeights' fields each, before its weight, ().
          errors: (E,), see ERRORS.
        """

"""The methods of the table: name -> function(Photos) -> Estimate, all on the same photos and landmarks.

Register another one by adding a `Method` to the list that `baselines` or `trained` returns.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from experiments.evaluation.adam import AdamNumbers
from experiments.evaluation.estimate import Estimate
from experiments.evaluation.runs import (
    learned_steps,
    run_adam,
    run_classical,
    run_fixed,
    run_learned,
    run_pose,
    without_training,
)
from facerig_jax.config import CLASSICAL, FitConfig, Hyper, classical_hyper
from facerig_jax.inorig.config import BASE, EnergyWeights, InorigConfig
from facerig_jax.types import HeadModel, Photos
from facerig_jax.weights import init_params

SOLVER_STEPS = 9
# What the published method is called after its `update`, and what ships.
KINDS = {"learned": "learned optimiser", "fixed": "fixed steps, trained networks"}
DEFAULT = "default"


@dataclasses.dataclass(frozen=True)
class Method:
    """One row of the table.

    name:  how it is written everywhere.
    run:   Photos -> Estimate.
    steps: Photos -> (S, P, 3) mm, the neutral after each step, where `run` does not give it; or None.
    timed: whether its run time says anything.
    """

    name: str
    run: Callable[[Photos], Estimate]
    steps: Callable[[Photos], jax.Array] | None = None
    timed: bool = True

    def named(self, name: str) -> Method:
        """The same under another name."""
        return dataclasses.replace(self, name=name)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the baselines run.

    config:     of the published method whose energies and unknowns the descent baselines share, but for what only
                training gives, the feature energy and the pose regressor.
    classical:  of the classical solver.
    time_steps: Adam's steps in the published method's run time, 0: not known.
    """

    config: InorigConfig = BASE
    classical: FitConfig = CLASSICAL
    time_steps: int = 0


def baselines(head: HeadModel, tuned: dict[str, dict], settings: Settings) -> list[Method]:
    """Every method that needs no training, in the order of the table.

    Args:
      head: morphable head.
      tuned: name -> numbers, see `tuned`.
      settings: how they run.
    """

    def classical(name, config):
        return functools.partial(run_classical, head, classical_hyper(**tuned[name]), config)

    simple = without_training(settings.config)
    return [
        mean_face(head),
        Method("pose only", functools.partial(run_pose, head, simple)),
        Method("linear landmarks", classical("linear", dataclasses.replace(settings.classical, photometric_steps=0))),
        Method("classical", classical("classical", settings.classical)),
        *descents(head, tuned, linear(simple), settings.time_steps),
    ]


def mean_face(head: HeadModel) -> Method:
    """The mean head, whatever the photos show."""
    neutral = head.unit_mm * jnp.asarray(head.mean)
    return Method(
        "mean face",
        lambda photos: Estimate(neutral, jnp.broadcast_to(neutral, (photos.images.shape[0], *neutral.shape))),
        timed=False,
    )


def as_shipped(head: HeadModel) -> list[Method]:
    """The mean face and the classical solver with its default numbers, which are not `tuned`'s."""
    return [mean_face(head), Method("classical", functools.partial(run_classical, head, classical_hyper(), CLASSICAL))]


def descents(head: HeadModel, tuned: dict[str, dict], config: InorigConfig, time_steps: int) -> list[Method]:
    """Gradient descent with fixed steps, and Adam, on the published method's energies."""
    params = init_params(jax.random.key(0), config)
    fixed = functools.partial(run_fixed, params, head, tuned["fixed"], EnergyWeights(), config)

    def adam(name, n_steps):
        return functools.partial(run_adam, params, head, AdamNumbers(**tuned[name]), n_steps, config)

    timed = [Method("Adam, equal time", adam("adam_time", time_steps))] if time_steps else []
    adam_steps = Method(f"Adam, {SOLVER_STEPS} steps", adam("adam", SOLVER_STEPS))
    return [Method("fixed steps", fixed), adam_steps, *timed]


def linear(config: InorigConfig) -> InorigConfig:
    """The published method's settings for a rig of linear modes alone, whatever its update."""
    return dataclasses.replace(config, linear_rig=True, update="fixed")


def trained(head: HeadModel, name: str, params: dict, config: FitConfig | InorigConfig) -> Method:
    """A solver with some weights; `name` is added to what it is called."""
    run = functools.partial(run_learned, params, head, config)
    if isinstance(config, FitConfig):
        return Method(DEFAULT + name, run)
    steps = None if config.linear_rig else functools.partial(learned_steps, params, head, config)
    return Method(KINDS[config.update] + name, run, steps)


def ablations(head: HeadModel, params: dict, config: FitConfig | InorigConfig) -> list[Method]:
    """A solver with some weights, first as it is, then with one thing taken away or changed in number.

    Args:
      head: morphable head.
      params: the networks' trained parameters.
      config: their settings.
    """
    ablate = fit_ablations if isinstance(config, FitConfig) else stage_ablations
    return ablate(head, params, config)


def stage_ablations(head: HeadModel, params: dict, config: InorigConfig) -> list[Method]:
    """`ablations` of the published method."""

    def changed(name: str, **changes) -> Method:
        made = dataclasses.replace(config, **changes)
        return trained(head, "", {**params, "stages": params["stages"][: made.stages]}, made).named(name)

    def without(energy: str) -> tuple[str, ...]:
        return tuple(name for name in config.energies if name != energy)

    return [
        changed(f"as trained: {config.stages} stages"),
        *(changed(f"{n} stage{'s' * (n > 1)}", stages=n) for n in range(1, config.stages)),
        *(changed(f"{n} step{'s' * (n > 1)} a stage", steps=n) for n in (1, 2, 6) if n != config.steps),
        changed("fixed steps", update="fixed"),
        *(changed(f"no {name} energy", energies=without(name)) for name in config.energies),
        changed("linear rig: no networks in it", linear_rig=True),
    ]


def fit_ablations(head: HeadModel, params: dict, config: FitConfig) -> list[Method]:
    """`ablations` of the default fit."""
    hyper, shipped = Hyper(), config.flow
    assert shipped is not None, "only a solver with networks has weights"

    def changed(name: str, passes: int = shipped.passes, hyper: Hyper = hyper, **settings) -> Method:
        flow = dataclasses.replace(shipped, passes=passes) if passes else None
        fit = dataclasses.replace(config, flow=flow, **settings)
        run = functools.partial(run_learned, params if passes else {}, head, fit, hyper=hyper)
        return Method(name, run)

    steps = [n for n in (1, 3, 8) if n != config.landmark_steps]
    return [
        changed(f"as it ships: {shipped.passes} looks"),
        changed("no look: landmarks and colours", 0),
        changed("no look, no colours: landmarks", 0, photometric_steps=0),
        *(changed(f"{n} look{'s' * (n > 1)}", n) for n in (1, 2, 3, 8)),
        changed("no colours", photometric_steps=0),
        changed("colours coarse only", hyper=hyper.replace(blur=hyper.blur[:1])),
        *(changed(f"points: {n} step{'s' * (n > 1)} a look", landmark_steps=n) for n in steps),
        *(changed(f"colours: {n} steps a level", photometric_steps=n) for n in (2, 8)),
        changed("no last fit of expressions", expression_steps=0),
        changed("no optimisation: 1 look, 1 step", 1, landmark_steps=1, photometric_steps=0),
    ]

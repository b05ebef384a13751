"""The methods of the table: name -> function(Photos) -> Estimate, all on the same photos and landmarks.

Register another one by adding a `Method` to the list that `baselines` or `trained` returns.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from facerig_jax.config import BASE, EnergyWeights, FitConfig, Hyper, LearnedConfig
from facerig_jax.evaluate.adam import AdamNumbers
from facerig_jax.evaluate.estimate import Estimate, Photos
from facerig_jax.evaluate.runs import (
    learned_steps,
    run_adam,
    run_classical,
    run_fixed,
    run_learned,
    run_pose,
    without_training,
)
from facerig_jax.networks.model import init_params
from facerig_jax.types import HeadModel

SOLVER_STEPS = 9
# What the learned solver is called after its `update`.
KINDS = {
    "learned": "learned optimiser",
    "fixed": "fixed steps, trained networks",
}


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

    config:     of the learned solver whose energies and unknowns the descent baselines share, but for what only
                training gives, the feature energy and the pose regressor.
    classical:  of the classical solver.
    time_steps: Adam's steps in the learned solver's run time, 0: not known.
    """

    config: LearnedConfig = BASE
    classical: FitConfig = FitConfig()
    time_steps: int = 0


def baselines(head: HeadModel, tuned: dict[str, dict], settings: Settings) -> list[Method]:
    """Every method that needs no training, in the order of the table.

    Args:
      head: morphable head.
      tuned: name -> numbers, see `tuned`.
      settings: how they run.
    """

    def classical(name, config):
        return functools.partial(run_classical, head, Hyper(**tuned[name]), config)

    simple = dataclasses.replace(without_training(settings.config), start=None, flow=None)
    return [
        mean_face(head),
        Method("pose only", functools.partial(run_pose, head, simple)),
        Method("linear landmarks", classical("linear", dataclasses.replace(settings.classical, blur=()))),
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
    return [mean_face(head), Method("classical", functools.partial(run_classical, head, Hyper(), FitConfig()))]


def descents(head: HeadModel, tuned: dict[str, dict], config: LearnedConfig, time_steps: int) -> list[Method]:
    """Gradient descent with fixed steps, and Adam, on a learned solver's energies."""
    params = init_params(jax.random.key(0), config)
    fixed = functools.partial(run_fixed, params, head, tuned["fixed"], EnergyWeights(), config)

    def adam(name, n_steps):
        return functools.partial(run_adam, params, head, AdamNumbers(**tuned[name]), n_steps, config)

    timed = [Method("Adam, equal time", adam("adam_time", time_steps))] if time_steps else []
    adam_steps = Method(f"Adam, {SOLVER_STEPS} steps", adam("adam", SOLVER_STEPS))
    return [Method("fixed steps", fixed), adam_steps, *timed]


def linear(config: LearnedConfig) -> LearnedConfig:
    """The learned solver's settings for a rig of linear modes alone, whatever its update."""
    return dataclasses.replace(config, linear_rig=True, update="fixed")


def trained(head: HeadModel, name: str, params: dict, config: LearnedConfig) -> Method:
    """The learned solver with some weights, called after its `config.update`; `name` is added to that."""
    return Method(
        KINDS[config.update] + name,
        functools.partial(run_learned, params, head, config),
        None if config.linear_rig or not config.stages else functools.partial(learned_steps, params, head, config),
    )


def ablations(head: HeadModel, params: dict, config: LearnedConfig) -> list[Method]:
    """The learned solver with some weights, first as it is, then with one thing taken away or changed in number.

    Args:
      head: morphable head.
      params: the networks' trained parameters.
      config: their settings: with stages, or with a flow network alone.
    """
    return stage_ablations(head, params, config) if config.stages else flow_ablations(head, params, config)


def stage_ablations(head: HeadModel, params: dict, config: LearnedConfig) -> list[Method]:
    """`ablations` of the paper's stages."""

    def changed(name: str, **changes) -> Method:
        made = dataclasses.replace(config, **changes)
        used = {**params, "stages": params["stages"][: made.stages]}
        if not made.stages:
            used = {name: used[name] for name in ("flow", "stages") if name in used}
        return trained(head, "", used, made).named(name)

    def without(energy: str) -> tuple[str, ...]:
        return tuple(name for name in config.energies if name != energy)

    fewer = range(1 if config.start is None else 0, config.stages)
    return [
        changed(f"as trained: {config.stages} stages"),
        *(changed(f"{n} stage{'s' * (n > 1)}" if n else "no stages: the start alone", stages=n) for n in fewer),
        *(changed(f"{n} step{'s' * (n > 1)} a stage", steps=n) for n in (1, 2, 6) if n != config.steps),
        changed("fixed steps", update="fixed"),
        *(changed(f"no {name} energy", energies=without(name)) for name in config.energies),
        changed("linear rig: no networks in it", linear_rig=True),
    ]


def flow_ablations(head: HeadModel, params: dict, config: LearnedConfig) -> list[Method]:
    """`ablations` of the fit with the flow network."""

    def changed(name: str, passes: int = config.flow.passes, **start) -> Method:
        fit = dataclasses.replace(config.start, **start)
        if not passes:
            return Method(name, functools.partial(run_classical, head, Hyper(), fit))
        flow = dataclasses.replace(config.flow, passes=passes)
        return trained(head, "", params, dataclasses.replace(config, start=fit, flow=flow)).named(name)

    steps = [n for n in (1, 3, 8) if n != config.start.landmark_steps]
    return [
        changed(f"as it ships: {config.flow.passes} looks"),
        changed("no look: landmarks and colours", 0),
        changed("no look, no colours: landmarks", 0, blur=()),
        *(changed(f"{n} look{'s' * (n > 1)}", n) for n in (1, 2, 3, 8)),
        changed("no colours", blur=()),
        changed("colours coarse only", blur=config.start.blur[:1]),
        *(changed(f"points: {n} step{'s' * (n > 1)} a look", landmark_steps=n) for n in steps),
        *(changed(f"colours: {n} steps a level", photometric_steps=n) for n in (2, 8)),
        changed("no last fit of expressions", expression_steps=0),
        changed("no optimisation: 1 look, 1 step", 1, landmark_steps=1, blur=()),
    ]

"""How each method runs: from the same photos and landmarks to an estimate, one compiled program each."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from facerig_jax.api import fit_rig
from facerig_jax.config import EnergyWeights, FitConfig, Hyper, LearnedConfig
from facerig_jax.evaluate.adam import AdamNumbers, neutral_of, solve_adam
from facerig_jax.evaluate.estimate import Estimate, Photos, estimate_from_fit, place
from facerig_jax.fit import preprocess as observe
from facerig_jax.fit import status as codes
from facerig_jax.geometry.camera import normalized_to_pose
from facerig_jax.inorig.decode import decode, working_albedo
from facerig_jax.inorig.stages import begin, finish_stage, optimise, solve_learned, stage_space
from facerig_jax.numerics import HIGHEST, srgb_to_linear
from facerig_jax.raster.visibility import visible
from facerig_jax.types import HeadModel


def fit(photos: Photos, head: HeadModel, **options):
    """`fit_rig` on given landmarks."""
    return fit_rig(
        photos.images,
        options.pop("params", {}),
        head,
        landmarks=photos.landmarks,
        view_mask=photos.view_mask,
        image_size=photos.image_size,
        **options,
    )


def run_classical(head: HeadModel, hyper: Hyper, config: FitConfig, photos: Photos) -> Estimate:
    """Part A's solver; `FitConfig(blur=())` is the linear landmark fit."""
    return _package(fit(photos, head, solver="classical", hyper=hyper, config=config), head, config.crop_size)


def run_learned(params: dict, head: HeadModel, config: LearnedConfig, photos: Photos) -> Estimate:
    """The learned solver."""
    result = fit(photos, head, params={"learned": params}, solver="learned", config=config)
    return _package(result, head, config.crop_size)


def run_fixed(
    params: dict,
    head: HeadModel,
    sizes: dict[str, float],
    weights: EnergyWeights,
    config: LearnedConfig,
    photos: Photos,
) -> Estimate:
    """The learned solver with a linear rig and fixed step sizes, the same in all stages.

    Args:
      params: all networks' parameters.
      head: morphable head.
      sizes: of the steps of 'identity', 'pose', 'expression' and 'albedo'.
      weights: of the energies.
      config: of the learned solver, with `linear_rig` and update='fixed'; its own step sizes do not matter.
      photos: what to fit.
    """
    # A linear rig has no expression code of its own.
    bias = jnp.log10(jnp.array([sizes["identity"], sizes["pose"], sizes["expression"], 1.0, sizes["albedo"]]))
    return _fixed(photos, params, head, bias, jax.tree.map(jnp.float32, weights), config)


@functools.partial(jax.jit, static_argnames="config")
def _fixed(photos: Photos, params, head: HeadModel, bias, weights, config: LearnedConfig) -> Estimate:
    evidence, first, crop = look(photos, head, config, params)
    # Traced numbers in the settings: other step sizes are no other program.
    traced = dataclasses.replace(config, step_bias=(tuple(bias),) * config.stages)
    state, trace = solve_learned(params, head, evidence, weights, traced, first=first)
    code = trace["steps"]["x"].code  # (stages, steps, ...), each stage's from zero
    earlier = jnp.cumsum(code.identity[:, -1], 0) - code.identity[:, -1]
    path = (code.identity + earlier[:, None]).reshape(-1, code.identity.shape[-1])[:, : head.identity_basis.shape[0]]
    path = path + (state.rig.identity - path[-1])[None]  # on top of the first guess
    tone = state.rig.tone.at[: code.albedo.shape[-1]].add(code.albedo[-1, -1, : head.albedo_basis.shape[0]])
    result = linear_estimate(head, path[-1], tone, state.pose, state.expression, state.inverse_distance, crop, config)
    return result.replace(steps=head.unit_mm * neutral_of(head, path))


@functools.partial(jax.jit, static_argnames="crop_size")
def _package(fit, head: HeadModel, crop_size: int) -> Estimate:
    estimate = estimate_from_fit(fit, crop_size)
    if isinstance(fit.trace, dict):
        return estimate
    return estimate.replace(steps=head.unit_mm * neutral_of(head, fit.trace.identity))


def look(photos: Photos, head: HeadModel, config: LearnedConfig, params: dict):
    """What the learned solver looks at and starts from: evidence, FirstGuess (None: its regressor's), crops (V,)."""
    images = photos.images.astype(jnp.float32) / (255 if photos.images.dtype == jnp.uint8 else 1)
    found = jnp.ones(images.shape[0], bool)
    usable = observe.view_status(found, photos.landmarks, photos.view_mask, photos.image_size) == codes.OK
    weight = jnp.ones(photos.landmarks.shape[:2])
    return observe.look(images, photos.landmarks, weight, usable, photos.image_size, head, config, params)


def without_training(config: LearnedConfig) -> LearnedConfig:
    """The settings without what means nothing before training: feature energy and pose regressor."""
    kept = tuple(name for name in config.energies if name != "feature")
    return dataclasses.replace(config, energies=kept, networks=dataclasses.replace(config.networks, pose_blocks=()))


def run_pose(head: HeadModel, config: LearnedConfig, photos: Photos) -> Estimate:
    """The mean face, posed by its landmarks; nothing else."""
    return _pose_only(photos, head, without_training(config))


@functools.partial(jax.jit, static_argnames="config")
def _pose_only(photos: Photos, head: HeadModel, config: LearnedConfig) -> Estimate:
    config = dataclasses.replace(config, start=None, flow=None)
    _, first, crop = look(photos, head, config, {})
    still = jnp.zeros((first.pose.shape[0], 1), first.pose.dtype)
    distance = jnp.full(len(still), config.inverse_distance * head.unit_mm, still.dtype)
    return linear_estimate(head, jnp.zeros(1), jnp.zeros(1), first.pose, still, distance, crop, config)


def run_adam(
    params: dict, head: HeadModel, numbers: AdamNumbers, n_steps: int, config: LearnedConfig, photos: Photos
) -> Estimate:
    """Adam on the learned solver's energies with a linear rig."""
    numbers = jax.tree.map(jnp.float32, numbers)
    return _adam(photos, params, head, numbers, jnp.int32(n_steps), config)


@functools.partial(jax.jit, static_argnames="config")
def _adam(photos: Photos, params, head: HeadModel, numbers, n_steps, config: LearnedConfig) -> Estimate:
    evidence, first, crop = look(photos, head, config, params)
    x, path, distance = solve_adam(params, head, evidence, numbers, n_steps, config, first=first)
    result = linear_estimate(head, x.identity, x.albedo, x.pose, x.expression, distance, crop, config)
    return result.replace(steps=head.unit_mm * neutral_of(head, path))


def linear_estimate(
    head: HeadModel, identity, albedo, pose, expression, distance, crop, config: LearnedConfig
) -> Estimate:
    """The linear rig at coefficients (I',), (A',), pose (V, 6) normalised, expression (V, M), inverse distance (V,)."""
    neutral, size = neutral_of(head, identity), config.networks.image_size
    modes = jnp.asarray(head.expression_basis)[: expression.shape[1]]
    vertices = neutral[None] + jnp.tensordot(expression, modes, 1, precision=HIGHEST)
    real = normalized_to_pose(pose, head.unit_mm, size)
    code = jnp.zeros(head.albedo_basis.shape[0], albedo.dtype).at[: albedo.shape[0]].set(albedo)
    colour = working_albedo(head, code, config)
    colour = colour if config.linear_colour else srgb_to_linear(colour)
    return Estimate(
        neutral=head.unit_mm * neutral,
        vertices=head.unit_mm * vertices,
        vertices_img=place(vertices, real, distance, crop, size),
        albedo=jnp.broadcast_to(colour, vertices.shape),
    )


def learned_steps(params: dict, head: HeadModel, config: LearnedConfig, photos: Photos) -> jax.Array:
    """(S, P, 3) mm: the neutral after every step of the learned solver, for all vertices of the head."""
    return _learned_steps(photos, params, head, config)


@functools.partial(jax.jit, static_argnames="config")
def _learned_steps(photos: Photos, params, head: HeadModel, config: LearnedConfig) -> jax.Array:
    evidence, first, _ = look(photos, head, config, params)
    problem, state = begin(params, head, evidence, EnergyWeights(), config, first=first)
    neutrals = []
    for stage in range(config.stages):
        # The solver's own stage, and its rig space once more: the compiler merges the two.
        end, steps = optimise(problem, stage, config, visible, state)
        space = stage_space(problem, stage, state, config)
        for number in range(config.steps):
            code = jax.tree.map(lambda x, number=number: x[number], steps["x"].code)
            whole = decode(params["stages"][stage], stage, space, code, state.whole, head, config)
            neutrals.append(whole.neutral)
        state, _ = finish_stage(problem, state, end, config, visible)
    return head.unit_mm * jnp.stack(neutrals)

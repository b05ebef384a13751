"""How each method runs: from the same photos and landmarks to an estimate, one compiled program each."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from experiments.evaluation.adam import AdamNumbers, neutral_of, solve_adam
from experiments.evaluation.estimate import Estimate, estimate_from_fit, place
from facerig_jax.api import as_photos, fit_rig
from facerig_jax.config import FitConfig, Hyper
from facerig_jax.fit.preprocess import preprocess
from facerig_jax.geometry.camera import normalized_to_pose
from facerig_jax.inorig.config import EnergyWeights, InorigConfig
from facerig_jax.inorig.decode import decode, working_albedo
from facerig_jax.inorig.pipeline import mean_pose, observe
from facerig_jax.inorig.stages import begin, finish_stage, optimise, solve_stages, stage_space
from facerig_jax.numerics import HIGHEST, srgb_to_linear
from facerig_jax.raster.visibility import visible
from facerig_jax.types import HeadModel, Photos


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
    """A fit without networks; `photometric_steps=0` makes it the linear landmark fit."""
    return _package(fit(photos, head, hyper=hyper, config=config), head)


def run_learned(
    params: dict, head: HeadModel, config: FitConfig | InorigConfig, photos: Photos, hyper: Hyper | None = None
) -> Estimate:
    """A solver with networks: the default one, or the published method."""
    return _package(fit(photos, head, params={"learned": params}, config=config, hyper=hyper), head)


def run_fixed(
    params: dict,
    head: HeadModel,
    sizes: dict[str, float],
    weights: EnergyWeights,
    config: InorigConfig,
    photos: Photos,
) -> Estimate:
    """The published method with a linear rig and fixed step sizes, the same in all stages.

    Args:
      params: all networks' parameters.
      head: morphable head.
      sizes: of the steps of 'identity', 'pose', 'expression' and 'albedo'.
      weights: of the energies.
      config: of the published method, with `linear_rig` and update='fixed'; its own step sizes do not matter.
      photos: what to fit.
    """
    # A linear rig has no expression code of its own.
    bias = jnp.log10(jnp.array([sizes["identity"], sizes["pose"], sizes["expression"], 1.0, sizes["albedo"]]))
    return _fixed(photos, params, head, bias, jax.tree.map(jnp.float32, weights), config)


@functools.partial(jax.jit, static_argnames="config")
def _fixed(photos: Photos, params, head: HeadModel, bias, weights, config: InorigConfig) -> Estimate:
    evidence, pose, crop = look(photos, head, config)
    # Traced numbers in the settings: other step sizes are no other program.
    traced = dataclasses.replace(config, step_bias=(tuple(bias),) * config.stages)
    state, trace = solve_stages(params, head, evidence, weights, traced, pose=pose)
    code = trace["steps"]["x"].code  # (stages, steps, ...), each stage's from zero
    earlier = jnp.cumsum(code.identity[:, -1], 0) - code.identity[:, -1]
    path = (code.identity + earlier[:, None]).reshape(-1, code.identity.shape[-1])[:, : head.identity_basis.shape[0]]
    tone = state.rig.tone.at[: code.albedo.shape[-1]].add(code.albedo[-1, -1, : head.albedo_basis.shape[0]])
    result = linear_estimate(head, path[-1], tone, state.pose, state.expression, state.inverse_distance, crop, config)
    return result.replace(steps=head.unit_mm * neutral_of(head, path))


@jax.jit
def _package(fit, head: HeadModel) -> Estimate:
    estimate = estimate_from_fit(fit)
    if isinstance(fit.trace, dict):
        return estimate
    return estimate.replace(steps=head.unit_mm * neutral_of(head, fit.trace.identity))


def look(photos: Photos, head: HeadModel, config: InorigConfig):
    """What the published method looks at and starts from: Observed, poses (None: its regressor's), crops (V,)."""
    photos = as_photos(photos)
    crops, _, _ = preprocess({}, photos, head, config.crop_size, config.crop_margin)
    pose = None if config.networks.pose_blocks else mean_pose(crops, head, config)
    return observe(crops, head, config), pose, crops.crop


def without_training(config: InorigConfig) -> InorigConfig:
    """The settings without what means nothing before training: feature energy and pose regressor."""
    kept = tuple(name for name in config.energies if name != "feature")
    return dataclasses.replace(config, energies=kept, networks=dataclasses.replace(config.networks, pose_blocks=()))


def run_pose(head: HeadModel, config: InorigConfig, photos: Photos) -> Estimate:
    """The mean face, posed by its landmarks; nothing else."""
    return _pose_only(photos, head, without_training(config))


@functools.partial(jax.jit, static_argnames="config")
def _pose_only(photos: Photos, head: HeadModel, config: InorigConfig) -> Estimate:
    _, pose, crop = look(photos, head, config)
    still = jnp.zeros((pose.shape[0], 1), pose.dtype)
    distance = jnp.full(len(still), config.inverse_distance * head.unit_mm, still.dtype)
    return linear_estimate(head, jnp.zeros(1), jnp.zeros(1), pose, still, distance, crop, config)


def run_adam(
    params: dict, head: HeadModel, numbers: AdamNumbers, n_steps: int, config: InorigConfig, photos: Photos
) -> Estimate:
    """Adam on the published method's energies with a linear rig."""
    numbers = jax.tree.map(jnp.float32, numbers)
    return _adam(photos, params, head, numbers, jnp.int32(n_steps), config)


@functools.partial(jax.jit, static_argnames="config")
def _adam(photos: Photos, params, head: HeadModel, numbers, n_steps, config: InorigConfig) -> Estimate:
    evidence, pose, crop = look(photos, head, config)
    x, path, distance = solve_adam(params, head, evidence, numbers, n_steps, config, pose=pose)
    result = linear_estimate(head, x.identity, x.albedo, x.pose, x.expression, distance, crop, config)
    return result.replace(steps=head.unit_mm * neutral_of(head, path))


def linear_estimate(
    head: HeadModel, identity, albedo, pose, expression, distance, crop, config: InorigConfig
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
        vertices_img=place(vertices, real, distance, crop),
        albedo=jnp.broadcast_to(colour, vertices.shape),
    )


def learned_steps(params: dict, head: HeadModel, config: InorigConfig, photos: Photos) -> jax.Array:
    """(S, P, 3) mm: the neutral after every step of the published method, for all vertices of the head."""
    return _learned_steps(photos, params, head, config)


@functools.partial(jax.jit, static_argnames="config")
def _learned_steps(photos: Photos, params, head: HeadModel, config: InorigConfig) -> jax.Array:
    evidence, pose, _ = look(photos, head, config)
    problem, state = begin(params, head, evidence, EnergyWeights(), config, pose=pose)
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

"""The front door: photos -> rig, and a rig's meshes."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from facerig_jax.checks import check_choice, check_images, check_kind, check_one_of_shapes, check_shape
from facerig_jax.config import PRESETS, EnergyWeights, FitConfig, Hyper, LearnedConfig, as_arrays
from facerig_jax.detect import load_detector
from facerig_jax.fit import status as codes
from facerig_jax.fit.coverage import whole_cover
from facerig_jax.fit.parameters import Unknowns
from facerig_jax.fit.photometric import Observed
from facerig_jax.fit.pipeline import landmark_error, solve_classical
from facerig_jax.fit.preprocess import N_LANDMARKS, find_landmarks, look, observe, solve_start, view_status
from facerig_jax.geometry.camera import normalized_to_pose
from facerig_jax.head import load_head
from facerig_jax.head.model import albedo, neutral
from facerig_jax.inorig.stages import solve_learned
from facerig_jax.inorig.state import SolverState
from facerig_jax.networks.model import check_params, init_params
from facerig_jax.networks.weights import trained
from facerig_jax.numerics import masked_mean
from facerig_jax.rig.frozen import freeze
from facerig_jax.types import Fit, HeadModel, Rig, Views

SOLVERS = ("classical", "learned")
# A view whose landmarks miss by more than this share of the face's size is reported as a poor fit.
POOR_FIT = 0.05
# What `load` may add to the detector: the trained weights, or untrained ones of a preset's sizes.
LEARNED = ("trained", *PRESETS)
UNTRAINED = (
    "No trained weights of this preset ship, and untrained ones would give a face at random: use 'trained', or ask for "
    "untrained ones with load({preset!r}, allow_untrained=True), on the command line with --allow_untrained."
)


@functools.cache
def load(preset: str = "trained", *, allow_untrained: bool = False) -> tuple[dict, HeadModel]:
    """What `fit_rig` uses by default; read once per process.

    Args:
      preset: the learned solver's weights: 'trained', or untrained ones of the sizes 'base' or 'paper'.
      allow_untrained: untrained weights will do.

    Returns:
      params: 'detector' and 'learned': weights by their place.
      head: the embedded head.

    Raises:
      ValueError: no such preset, or there are no trained weights for it.
    """
    if check_choice("preset", preset, LEARNED) == "trained":
        learned = trained()[0]
    elif allow_untrained:
        learned = init_params(jax.random.key(0), PRESETS[preset])
    else:
        raise ValueError(UNTRAINED.format(preset=preset))
    params = {"detector": load_detector(), "learned": learned}
    with jax.ensure_compile_time_eval():  # real arrays even where jit is tracing; on the device once, not at every call
        return jax.device_put((params, load_head()))


def fit_rig(
    images,
    params: dict | None = None,
    head: HeadModel | None = None,
    *,
    solver: str = "learned",
    landmarks=None,
    landmark_weight=None,
    view_mask=None,
    image_size=None,
    hyper: Hyper | EnergyWeights | None = None,
    config: FitConfig | LearnedConfig | None = None,
) -> Fit:
    """A rig from photos of one person: detection, landmarks and fit in one XLA program.

    Pure and compiled: use it as it is, or inside jit, vmap (over subjects) and grad. It never raises for what is in a
    photo: `Fit.status` and `Fit.views.status` say what happened (`facerig_jax.describe`), and a view that cannot be
    used is masked out.

    Args:
      images: (V, H, W, 3) photos, sRGB, uint8 or float in [0, 1]; V >= 1. Or a list of V of one size.
      params: weights; default those of `load`. The learned solver needs params['learned'].
      head: morphable head; default `load()[1]`.
      solver: 'learned' (networks and optimisation) or 'classical' (Levenberg-Marquardt on a linear rig alone).
      landmarks: (V, 468, 3) photo pixels, z towards the camera; default: found by the detector.
      landmark_weight: (468,) or (V, 468), default 1: how much each point counts.
      view_mask: (V,) 0 marks padding; default all count.
      image_size: (V, 2) height and width of each photo inside its padded image; default all of it.
      hyper: traced settings: Hyper, for the learned solver EnergyWeights (of its stages: without any, not looked at).
      config: static settings: FitConfig, for the learned solver LearnedConfig (default: the trained weights').

    Returns:
      Fit.

    Raises:
      ValueError: an argument's shape is wrong, or the weights do not belong to the solver.

    Example:
      fit = facerig_jax.fit_rig(images)
      vertices, albedo = facerig_jax.apply_rig(fit.rig, fit.views.expression[0])
    """
    config, hyper = solver_settings(solver, config, hyper)
    images = check_images(images)
    n_views = images.shape[0]
    check_model(params, head)
    default_params, default_head = load() if params is None or head is None else (params, head)
    if solver == "learned" and params is None and head is not None and head.mean.shape != default_head.mean.shape:
        raise ValueError("head: the trained weights are for the embedded head; use solver='classical' with others.")
    params, head = default_params if params is None else params, default_head if head is None else head
    n_points = N_LANDMARKS
    if solver == "learned" and "learned" not in params:
        raise ValueError("params: the learned solver needs params['learned'], see facerig_jax.load('trained').")
    if landmarks is not None:
        landmarks = jnp.asarray(landmarks)
        check_shape("landmarks", landmarks, n_views, n_points, 3)
    size = (
        jnp.broadcast_to(jnp.array(images.shape[1:3]), (n_views, 2)) if image_size is None else jnp.asarray(image_size)
    )
    mask = jnp.ones(n_views, jnp.float32) if view_mask is None else jnp.asarray(view_mask, jnp.float32)
    weight = jnp.ones(n_points, jnp.float32) if landmark_weight is None else jnp.asarray(landmark_weight, jnp.float32)
    check_shape("image_size", size, n_views, 2)
    check_shape("view_mask", mask, n_views)
    check_one_of_shapes("landmark_weight", weight, (n_points,), (n_views, n_points))
    weight = jnp.broadcast_to(weight, (n_views, n_points))
    return _fit(jnp.asarray(images), params, head, landmarks, weight, mask, size, as_arrays(hyper), config)


def check_model(params, head) -> None:
    """Refuses weights and a head that are none, such as one in the other's place."""
    hint = "They are what facerig_jax.load() returns: fit_rig(images, params, head)."
    check_kind("params", {} if params is None else params, Mapping, hint)
    if head is not None:
        check_kind("head", head, HeadModel, hint)


def solver_settings(solver: str, config, hyper):
    """The solver's static and traced settings, default where not given; refuses those of another solver."""
    kinds = {"classical": (FitConfig, Hyper), "learned": (LearnedConfig, EnergyWeights)}
    static, traced = kinds[check_choice("solver", solver, SOLVERS)]
    if config is None:
        config = trained()[1] if solver == "learned" else FitConfig()
    hyper = traced() if hyper is None else hyper
    for name, value, kind in (("config", config, static), ("hyper", hyper, traced)):
        if not isinstance(value, kind):
            raise ValueError(f"{name}: solver={solver!r} takes {kind.__name__}, got {type(value).__name__}.")
    check_choice("config.landmarks", config.landmarks, ("dense", "68"))
    return config, hyper


@functools.partial(jax.jit, static_argnames="config")
def _fit(images, params, head, landmarks, weight, mask, size, hyper, config) -> Fit:
    images = images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images.astype(jnp.float32)
    with jax.named_scope("detect"):
        found, points = find_landmarks(params, images, landmarks)
    with jax.named_scope("crop"):
        status = view_status(found, points, mask, size)
        usable = status == codes.OK
    learned = isinstance(config, LearnedConfig)
    if learned and config.stages:
        with jax.named_scope("start"):
            evidence, first, crop = look(images, points, weight, usable, size, head, config, params["learned"])
        return _solve_learned(params["learned"], head, evidence, first, hyper, config, crop, points, status)
    with jax.named_scope("crop"):
        observed, crop = observe(images, points, weight, usable, size, head, config.crop_size, config.crop_margin)
    with jax.named_scope("solve"):
        if learned:
            check_params(params["learned"], config)
            x, trace = solve_start(observed, head, config, params["learned"])
        else:
            x, trace = solve_classical(head, observed, hyper, config)
    with jax.named_scope("report"):
        return package(head, observed, x, config.start if learned else config, trace, crop, points, status)


def _solve_learned(params, head, evidence, first, weights, config: LearnedConfig, crop, points, status) -> Fit:
    check_params(params, config)
    with jax.named_scope("solve"):
        state, trace = solve_learned(params, head, evidence, weights, config, first=first)
    with jax.named_scope("report"):
        distance = jnp.linalg.norm(trace["stages"]["landmarks"][-1] - evidence.landmarks, axis=-1)
        extent = jnp.max(jnp.ptp(evidence.landmarks, axis=1), -1)
        error = masked_mean(distance, evidence.weight, axis=-1) / extent
        status = end_status(status, state.pose, state.expression, error)
        light = trace["stages"]["linear_light"][-1]
        views = learned_views(state, light, head, config, crop, points, status)
        rig = freeze(state.whole, params, head, config)
        return Fit(rig, views, trace, subject_status(status, rig))


def learned_views(state: SolverState, light, head: HeadModel, config: LearnedConfig, crop, points, status) -> Views:
    """The views' part of a learned fit, in real poses."""
    pose = normalized_to_pose(state.pose, head.unit_mm, config.networks.image_size)
    return Views(pose, state.inverse_distance, state.expression, light, crop, points, status)


def end_status(status, pose, expression, error) -> jax.Array:
    """(V,) status after the fit, from the status before it and the landmarks' relative error (V,)."""
    finite = jnp.all(jnp.isfinite(pose), -1) & jnp.all(jnp.isfinite(expression), -1)
    used = status == codes.OK
    status = jnp.where(used & (error > POOR_FIT), codes.POOR_FIT, status)
    return jnp.where(used & ~finite, codes.NOT_FINITE, status)


def subject_status(status, rig: Rig) -> jax.Array:
    """() status of the subject from its views' and its rig."""
    used = (status != codes.NO_FACE) & (status != codes.OUT_OF_FRAME) & (status != codes.PADDING)
    whole = jnp.where(jnp.any(used), codes.OK, codes.NO_FACE)
    return jnp.where(jnp.all(jnp.isfinite(rig.neutral)), whole, codes.NOT_FINITE).astype(jnp.int32)


def package(
    head: HeadModel, observed: Observed, x: Unknowns, config: FitConfig, trace: dict, crop, points, status
) -> Fit:
    """The solver's unknowns as a rig and views, with their status."""
    status = end_status(status, x.pose, x.expression, landmark_error(head, observed, x, config))
    rig = Rig(
        neutral=neutral(head, x.identity),
        expression_basis=head.expression_basis,
        albedo=albedo(head, x.albedo),
        identity_code=x.identity,
        albedo_code=x.albedo,
        code_names=head.expression_names,
        unit_mm=head.unit_mm,
    )
    views = Views(x.pose, x.inverse_distance, x.expression, x.light, crop, points, status)
    trace = dict(trace)
    coverage = trace.pop("coverage", None)
    cover = None if coverage is None else whole_cover(head, coverage)
    return Fit(rig, views, trace, subject_status(status, rig), cover)

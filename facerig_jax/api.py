"""The front door: photos -> rig."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from facerig_jax.checks import check_choice, check_images, check_kind, check_one_of_shapes, check_shape
from facerig_jax.config import CLASSICAL, FitConfig, Hyper, as_arrays, default_hyper
from facerig_jax.detect import load_detector
from facerig_jax.fit.pipeline import fit_person
from facerig_jax.fit.preprocess import N_LANDMARKS
from facerig_jax.head import load_head
from facerig_jax.inorig.config import PRESETS, EnergyWeights, InorigConfig
from facerig_jax.inorig.pipeline import fit_published
from facerig_jax.types import Fit, HeadModel, Photos
from facerig_jax.weights import check_params, init_params, trained

# What `load` may add to the detector: the trained weights, or untrained ones of a preset's sizes.
LEARNED = ("trained", *PRESETS)
UNTRAINED = (
    "No trained weights of this preset ship, and untrained ones would give a face at random: use 'trained', or ask for "
    "untrained ones with load({preset!r}, allow_untrained=True), on the command line with --allow_untrained."
)
# Spellings of version 0.1, which chose the solver by a name.
SOLVERS = ("classical", "learned")


@functools.cache
def load(preset: str = "trained", *, allow_untrained: bool = False) -> tuple[dict, HeadModel]:
    """What `fit_rig` uses by default; read once per process.

    Args:
      preset: the networks' weights: 'trained', or untrained ones of the published method's sizes 'base' or 'paper'.
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
    landmarks=None,
    landmark_weight=None,
    view_mask=None,
    image_size=None,
    hyper: Hyper | EnergyWeights | None = None,
    config: FitConfig | InorigConfig | None = None,
    solver: str | None = None,
) -> Fit:
    """A rig from photos of one person: detection, landmarks and fit in one XLA program.

    Pure and compiled: use it as it is, or inside jit, vmap (over subjects) and grad. It never raises for what is in a
    photo: `Fit.status` and `Fit.views.status` say what happened (`facerig_jax.describe`), and a view that cannot be
    used is masked out.

    Args:
      images: (V, H, W, 3) photos, sRGB, uint8 or float in [0, 1]; V >= 1. Or a list of V of one size, or Photos,
        which hold what the next four arguments say.
      params: weights; default those of `load`.
      head: morphable head; default `load()[1]`.
      landmarks: (V, 468, 3) photo pixels, z towards the camera; default: found by the detector.
      landmark_weight: (468,) or (V, 468), default 1: how much each point counts.
      view_mask: (V,) 0 marks padding; default all count.
      image_size: (V, 2) height and width of each photo inside its padded image; default all of it.
      hyper: traced numbers, default those of the config's solver: Hyper, of the published method EnergyWeights.
      config: static settings, which choose the solver: FitConfig() the default one, CLASSICAL the same without
        networks, inorig.config.InorigConfig the published method.
      solver: deprecated: 'learned' is FitConfig(), 'classical' is CLASSICAL.

    Returns:
      Fit.

    Raises:
      ValueError: an argument's shape is wrong, or the weights do not belong to the solver.

    Example:
      fit = facerig_jax.fit_rig(images, hyper=facerig_jax.Hyper(colour=0.08))
      vertices, albedo = facerig_jax.apply_rig(fit.rig, fit.views.expression[0])
    """
    config, hyper = settings(config, hyper, solver)
    photos = as_photos(images, image_size, view_mask, landmarks, landmark_weight)
    params, head = _models(params, head, config, photos.landmarks is not None)
    return _fit(photos, params, head, as_arrays(hyper), config)


def settings(config, hyper, solver: str | None = None):
    """Static settings, and the traced numbers that go with them; refuses those of another solver."""
    if solver is not None:
        warnings.warn("solver= is deprecated: config=FitConfig() or CLASSICAL says it.", DeprecationWarning, 3)
        named = CLASSICAL if check_choice("solver", solver, SOLVERS) == "classical" else trained()[1]
        config = named if config is None else config
        if solver == "classical" and isinstance(config, FitConfig):
            config = dataclasses.replace(config, flow=None)
        elif solver == "learned" and isinstance(config, FitConfig) and config.flow is None:
            raise ValueError("solver: 'learned' has a network, config.flow=None none; leave solver out.")
    config = trained()[1] if config is None else config
    check_kind("config", config, (FitConfig, InorigConfig))
    if hyper is None:
        hyper = EnergyWeights() if isinstance(config, InorigConfig) else default_hyper(config)
    check_kind("hyper", hyper, EnergyWeights if isinstance(config, InorigConfig) else Hyper)
    if isinstance(hyper, Hyper) and not as_arrays(hyper).blur.size:
        raise ValueError(
            "hyper.blur: at least one is needed, px; FitConfig(photometric_steps=0) leaves the colours out."
        )
    return config, hyper


def as_photos(images, image_size=None, view_mask=None, landmarks=None, landmark_weight=None) -> Photos:
    """Complete, checked Photos from `fit_rig`'s arguments; landmarks may stay None.

    Raises:
      ValueError: a shape or type is wrong, in words.
    """
    if isinstance(images, Photos):
        given = (image_size, view_mask, landmarks, landmark_weight)
        if any(value is not None for value in given):
            raise ValueError("images: Photos hold image_size, view_mask, landmarks and landmark_weight themselves.")
        return as_photos(images.images, images.image_size, images.view_mask, images.landmarks, images.landmark_weight)
    images = jnp.asarray(check_images(images))
    n_views = images.shape[0]
    if landmarks is not None:
        landmarks = jnp.asarray(landmarks)
        check_shape("landmarks", landmarks, n_views, N_LANDMARKS, 3)
    whole = jnp.broadcast_to(jnp.array(images.shape[1:3]), (n_views, 2))
    size = whole if image_size is None else jnp.asarray(image_size)
    mask = jnp.ones(n_views, jnp.float32) if view_mask is None else jnp.asarray(view_mask, jnp.float32)
    weight = jnp.ones(N_LANDMARKS) if landmark_weight is None else landmark_weight
    weight = jnp.asarray(weight, jnp.float32)
    check_shape("image_size", size, n_views, 2)
    check_shape("view_mask", mask, n_views)
    check_one_of_shapes("landmark_weight", weight, (N_LANDMARKS,), (n_views, N_LANDMARKS))
    return Photos(images, size, mask, landmarks, jnp.broadcast_to(weight, (n_views, N_LANDMARKS)))


def _models(params, head, config, landmarks_given: bool) -> tuple[dict, HeadModel]:
    """Weights and head, default where not given; refuses what is none, or does not belong to the settings."""
    hint = "They are what facerig_jax.load() returns: fit_rig(images, params, head)."
    check_kind("params", {} if params is None else params, Mapping, hint)
    if head is not None:
        check_kind("head", head, HeadModel, hint)
    networks = isinstance(config, InorigConfig) or config.flow is not None
    if params is None and isinstance(config, InorigConfig):
        raise ValueError("params: no trained weights of the published method ship; give params, see facerig_jax.load.")
    if params is None or head is None:
        default_params, default_head = load()
        if networks and params is None and head is not None and head.mean.shape != default_head.mean.shape:
            raise ValueError("head: the trained weights are for the embedded head; use config=CLASSICAL with others.")
        params, head = default_params if params is None else params, default_head if head is None else head
    if networks and "learned" not in params:
        raise ValueError("params: this solver needs the networks' weights, params['learned'], see facerig_jax.load().")
    if networks:
        check_params(params["learned"], config)
    if "detector" not in params and not landmarks_given:
        raise ValueError("params: without landmarks= the detector is needed, params['detector'], see facerig_jax.load.")
    return params, head


@functools.partial(jax.jit, static_argnames="config")
def _fit(photos: Photos, params, head, hyper, config) -> Fit:
    fit = fit_published if isinstance(config, InorigConfig) else fit_person
    return fit(params, head, photos, hyper, config)

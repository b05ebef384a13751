"""The front door: photos -> rig, and a rig's meshes."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from facerig_jax.checks import check_choice, check_shape
from facerig_jax.config import FitConfig, Hyper, as_arrays
from facerig_jax.detect import detect, load_detector
from facerig_jax.geometry.camera import to_image
from facerig_jax.geometry.crop import crop_around, crop_image, inside_photo, to_crop
from facerig_jax.head import load_head
from facerig_jax.head.model import albedo, neutral
from facerig_jax.numerics import HIGHEST, srgb_to_linear
from facerig_jax.solve import status as codes
from facerig_jax.solve.classical import Observed, landmark_error, solve_classical
from facerig_jax.solve.unknowns import Unknowns
from facerig_jax.types import Detection, Fit, HeadModel, Rig, Views

DEFAULT_CONFIG = FitConfig()
# Points that the detector reports.
N_LANDMARKS = 468
# A view whose landmarks miss by more than this share of the face's size is reported as a poor fit.
POOR_FIT = 0.05
# A view counts when at least this share of its landmarks lies inside the photo.
MIN_INSIDE = 0.5


@functools.cache
def load() -> tuple[dict, HeadModel]:
    """What `fit_rig` uses by default; read once per process.

    Returns:
      params: {'detector': weights}, learned and converted.
      head: the embedded head.
    """
    return {"detector": load_detector()}, load_head()


def fit_rig(
    images,
    params: dict | None = None,
    head: HeadModel | None = None,
    *,
    landmarks=None,
    landmark_weight=None,
    view_mask=None,
    image_size=None,
    hyper: Hyper | None = None,
    config: FitConfig = DEFAULT_CONFIG,
) -> Fit:
    """A rig from photos of one person: detection, landmarks and fit in one XLA program.

    Pure and compiled: use it as it is, or inside jit, vmap (over subjects) and grad. It never raises for what is in a
    photo: `Fit.status` and `Fit.views.status` say what happened (`facerig_jax.describe`), and a view that cannot be
    used is masked out.

    Args:
      images: (V, H, W, 3) photos, sRGB, uint8 or float in [0, 1]; V >= 1.
      params: weights; default `load()[0]`.
      head: morphable head; default `load()[1]`.
      landmarks: (V, 468, 3) photo pixels, z towards the camera; default: found by the detector.
      landmark_weight: (468,) or (V, 468), default 1: how much each point counts.
      view_mask: (V,) 0 marks padding; default all count.
      image_size: (V, 2) height and width of each photo inside its padded image; default all of it.
      hyper: traced settings.
      config: static settings.

    Returns:
      Fit.

    Raises:
      ValueError: an argument's shape is wrong.

    Example:
      fit = facerig_jax.fit_rig(images)
      vertices, albedo = facerig_jax.apply_rig(fit.rig, fit.views.expression[0])
    """
    n_views = check_shape("images", images, "V", "H", "W", 3)["V"]
    default_params, default_head = load() if params is None or head is None else (params, head)
    params, head = default_params if params is None else params, default_head if head is None else head
    n_points = N_LANDMARKS
    check_choice("config.landmarks", config.landmarks, ("dense", "68"))
    if landmarks is not None:
        check_shape("landmarks", landmarks, n_views, n_points, 3)
    size = (
        jnp.broadcast_to(jnp.array(images.shape[1:3]), (n_views, 2)) if image_size is None else jnp.asarray(image_size)
    )
    mask = jnp.ones(n_views) if view_mask is None else jnp.asarray(view_mask, jnp.float32)
    weight = jnp.ones(n_points) if landmark_weight is None else jnp.asarray(landmark_weight, jnp.float32)
    check_shape("image_size", size, n_views, 2)
    check_shape("view_mask", mask, n_views)
    weight = jnp.broadcast_to(weight, (n_views, n_points))
    return _fit(jnp.asarray(images), params, head, landmarks, weight, mask, size, as_arrays(hyper or Hyper()), config)


@functools.partial(jax.jit, static_argnames="config")
def _fit(images, params, head, landmarks, weight, mask, size, hyper, config) -> Fit:
    images = images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images.astype(jnp.float32)
    with jax.named_scope("detect"):
        found, points = find_landmarks(params, images, landmarks)
    with jax.named_scope("crop"):
        status = view_status(found, points, mask, size)
        observed, crop = observe(images, points, weight, status == codes.OK, size, head, config)
    with jax.named_scope("solve"):
        x, trace = solve_classical(head, observed, hyper, config)
    with jax.named_scope("report"):
        return package(head, observed, x, config, trace, crop, points, status)


def find_landmarks(params: dict, images: jax.Array, landmarks=None):
    """Whether each view has a face (V,), and its landmarks (V, 468, 3) photo pixels."""
    if landmarks is not None:
        return jnp.all(jnp.isfinite(landmarks), (1, 2)), jnp.nan_to_num(landmarks)
    found: Detection = jax.lax.map(lambda image: detect(params["detector"], image), images)
    return found.found, found.landmarks


def view_status(found, points, mask, size) -> jax.Array:
    """(V,) int32 status before the fit."""
    inside = jnp.mean(inside_photo(points[..., :2], size, border=0.0), -1) >= MIN_INSIDE
    status = jnp.where(inside, codes.OK, codes.OUT_OF_FRAME)
    status = jnp.where(found, status, codes.NO_FACE)
    return jnp.where(mask > 0, status, codes.PADDING).astype(jnp.int32)


def observe(images, points, weight, usable, size, head: HeadModel, config: FitConfig):
    """What the solver looks at, and its crops (V,). Unusable views get stand-in landmarks, to stay finite."""
    reference = head.mean[np.linspace(0, head.mean.shape[0] - 1, N_LANDMARKS).astype(int)]
    reference = reference / jnp.max(jnp.ptp(reference, axis=0))
    stand_in = to_image(reference * min(images.shape[1:3]) / 2, *images.shape[1:3])
    points = jnp.where(usable[:, None, None], points, stand_in)
    crop = crop_around(points[..., :2], config.crop_size, config.crop_margin)
    photo = jax.vmap(lambda image, crop: crop_image(srgb_to_linear(image), crop, config.crop_size))(images, crop)
    grid = jnp.arange(config.crop_size, dtype=jnp.float32)
    grid = jnp.stack(jnp.meshgrid(grid, grid), -1).reshape(1, -1, 2)
    there = grid / crop.scale[:, None, None] + crop.offset[:, None]
    inside = inside_photo(there, size).reshape(-1, config.crop_size, config.crop_size).astype(jnp.float32)
    mask = usable.astype(jnp.float32)
    return Observed(photo, inside, to_crop(points, crop), weight * mask[:, None], mask), crop


def package(
    head: HeadModel, observed: Observed, x: Unknowns, config: FitConfig, trace: dict, crop, points, status
) -> Fit:
    """The solver's unknowns as a rig and views, with their status."""
    error = landmark_error(head, observed, x, config)
    finite = jnp.all(jnp.isfinite(x.pose), -1) & jnp.all(jnp.isfinite(x.expression), -1)
    used = status == codes.OK
    status = jnp.where(used & (error > POOR_FIT), codes.POOR_FIT, status)
    status = jnp.where(used & ~finite, codes.NOT_FINITE, status)
    rig = Rig(
        neutral=neutral(head, x.identity),
        expression_basis=head.expression_basis,
        albedo=albedo(head, x.albedo),
        identity_code=x.identity,
        albedo_code=x.albedo,
        code_names=head.expression_names,
        unit_mm=head.unit_mm,
    )
    whole = jnp.where(jnp.any(used), codes.OK, codes.NO_FACE)
    whole = jnp.where(jnp.all(jnp.isfinite(rig.neutral)), whole, codes.NOT_FINITE)
    views = Views(x.pose, x.inverse_distance, x.expression, x.light, crop, points, status)
    return Fit(rig, views, trace, whole.astype(jnp.int32))


def apply_rig(rig: Rig, expression) -> tuple[jax.Array, jax.Array]:
    """The personalised mesh under an expression code.

    Args:
      rig: Rig.
      expression: (..., K) code; for the linear rig the 52 blendshape weights named in `rig.code_names`.

    Returns:
      vertices (..., P, 3) in the head frame, head units, and albedo (..., P, 3), linear RGB.

    Raises:
      ValueError: the code's width does not fit the rig.
    """
    expression = jnp.asarray(expression)
    check_shape("expression", expression, ..., rig.expression_basis.shape[0])
    moved = jnp.tensordot(expression, rig.expression_basis, 1, precision=HIGHEST)
    vertices = jnp.expand_dims(rig.neutral, range(expression.ndim - 1)) + moved
    return vertices, jnp.broadcast_to(rig.albedo, vertices.shape)

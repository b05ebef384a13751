"""Colours as a fit sees them: which vertices it compares, in blurred crops, and what each counts for."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import struct

from facerig_jax.config import FitConfig, Hyper
from facerig_jax.fit import residuals
from facerig_jax.fit.linear_points import PointModel, evaluate, surface_model
from facerig_jax.fit.parameters import Parameters
from facerig_jax.fit.preprocess import Crops
from facerig_jax.geometry.camera import project_to_image
from facerig_jax.geometry.light import ambient_light, solve_light
from facerig_jax.geometry.rotation import euler_to_matrix, rotate
from facerig_jax.geometry.sampling import bilinear
from facerig_jax.head.model import vertices
from facerig_jax.numerics import normalize
from facerig_jax.raster.visibility import visible
from facerig_jax.types import HeadModel

# Vertices seen at a cosine below the first number carry no photometric weight, above the second full weight.
GRAZING = (0.15, 0.5)
# Regions whose albedo detail is `Hyper.feature_detail` larger.
FEATURES = ("brows", "eyelids", "eyes", "lips")
# Darkest albedo, and darkest face, that anything is divided by, linear RGB.
MIN_ALBEDO, MIN_BRIGHTNESS = 0.02, 2e-4
# Least factor by which the other views may darken a vertex's albedo.
MIN_SHIFT = 0.1
# Mean linear RGB of a face from which `Hyper.colour` already says what noise there is (sRGB level 64 of 255).
LIT = 0.05


@struct.dataclass
class Colours:
    """What the colour term compares at one blur level.

    data:  of n vertices.
    index: (n,) which vertices of the head they are.
    prior: (n,) deviation of each vertex's log albedo before any photo is seen: what outliers are judged by.
    sight: (V, n) in [0, 1] how well each view sees each vertex: see `sight_weight`.
    """

    data: residuals.ColourData
    index: jax.Array
    prior: jax.Array
    sight: jax.Array

    def view_axes(self) -> Colours:
        """Axes for `jax.vmap` over views told `apart`."""
        data = residuals.ColourData(None, albedo_mean=0, albedo_basis=None, detail=0, image=0, brightness=0)
        return Colours(data, None, None, sight=0)


def gaussian_blur(images: jax.Array, sigma) -> jax.Array:
    """Gaussian blur (px) of square images (..., S, S, C); the border is renormalised."""
    position = jnp.arange(images.shape[-2], dtype=images.dtype)
    kernel = jnp.exp(-0.5 * ((position[:, None] - position[None]) / sigma) ** 2)
    kernel = kernel / kernel.sum(-1, keepdims=True)
    return jnp.einsum("ij,...jkc,lk->...ilc", kernel, images, kernel)


def face_index(head: HeadModel, count: int) -> tuple[jax.Array, jax.Array]:
    """About `count` face-region vertices, evenly strided: indices (n,) and 1 / 0 where an index repeats (n,)."""
    n_vertices = head.face_mask.shape[0]
    (order,) = jnp.nonzero(head.face_mask > 0.5, size=n_vertices, fill_value=0)
    total = jnp.sum(head.face_mask > 0.5)
    count = min(count, n_vertices)
    slot = jnp.floor(jnp.linspace(0.0, 1.0, count, endpoint=False, dtype=jnp.float32) * total).astype(jnp.int32)
    fresh = jnp.concatenate([jnp.ones(1, jnp.float32), (slot[1:] != slot[:-1]).astype(jnp.float32)])
    return order[slot], fresh


def feature_mask(head: HeadModel) -> jax.Array:
    """(P,) in [0, 1]: where skin gives way to brows, lids, lashes and lips, which no smooth albedo describes."""
    masks = [jnp.asarray(head.regions[name]) for name in FEATURES if name in head.regions]
    return functools.reduce(jnp.maximum, masks, jnp.zeros(head.face_mask.shape, head.face_mask.dtype))


def log_albedo(head: HeadModel, index: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log linear RGB of the vertices `index`: mean (n, 3) and basis (A, n, 3); to first order for a linear albedo."""
    mean, basis = jnp.asarray(head.albedo_mean)[index], jnp.asarray(head.albedo_basis)[:, index]
    if head.albedo_space == "log":
        return mean, basis
    mean = jnp.maximum(mean, MIN_ALBEDO)
    return jnp.log(mean), basis / mean[None]


def colour_data(head: HeadModel, crops: Crops, x: Parameters, hyper: Hyper, config: FitConfig, blur) -> Colours:
    """What the colour term compares at one blur level."""
    index, fresh = face_index(head, config.max_points)
    prior = hyper.albedo_detail + hyper.feature_detail * feature_mask(head)[index]
    image = gaussian_blur(crops.linear, blur)
    model = surface_model(head, index)
    albedo_mean, albedo_basis = log_albedo(head, index)
    size = image.shape[1]

    def mean_colour(pose, inverse_distance, expression, image):
        points = project_to_image(evaluate(model, x.identity, expression)[:, :3], pose, inverse_distance, size)
        return jnp.mean(bilinear(image, points[:, :2]) * clear[:, None]) / jnp.mean(clear)

    clear = jnp.ones_like(fresh) if crops.cover is None else 1 - crops.cover.amount
    clear = jnp.where(jnp.mean(clear) > 0.01, clear, 1.0)
    brightness = jax.vmap(mean_colour)(x.pose, x.inverse_distance, x.expression, image)
    data = residuals.ColourData(
        model=model,
        albedo_mean=albedo_mean,
        albedo_basis=albedo_basis,
        detail=prior[:, None],
        image=image,
        brightness=jax.lax.stop_gradient(jnp.maximum(brightness, MIN_BRIGHTNESS)),
    )
    sight = sight_weight(head, crops, x, model, index) * (fresh * clear)[None]
    return Colours(data, index, prior, sight)


def apart(x: Parameters, colours: Colours, weight: jax.Array, hyper: Hyper) -> Colours:
    """The same colours as a problem of each view alone: `data.albedo_mean` and `data.detail` become (V, n, 3).

    What the other views, as they lie in `x`, say of each vertex's own albedo becomes the view's prior of it, so that
    its energy as a function of its own unknowns is that of all views together, up to a constant.

    Args:
      x: the fit.
      colours: of all views.
      weight: (V, n, 3) of their samples.
      hyper: traced settings.
    """
    data = colours.data
    residual, slope = residuals.colour_terms(x, data)
    precision = weight * slope**2 / hyper.colour**2
    pull = weight * slope * residual / hyper.colour**2
    precision, pull = (jnp.sum(value, 0)[None] - value for value in (precision, pull))
    total = 1 / data.detail[None] ** 2 + precision
    shift = jnp.maximum(1 + pull / total, MIN_SHIFT)
    data = data.replace(albedo_mean=data.albedo_mean[None] + jnp.log(shift), detail=jax.lax.rsqrt(total) / shift)
    return colours.replace(data=jax.lax.stop_gradient(data))


def colour_trust(brightness: jax.Array, hyper: Hyper) -> jax.Array:
    """In (0, 1] what the colours of a face count for that is `brightness` bright on average, linear RGB.

    The variance that `hyper.colour` stands for, over that with the noise of a dark photo: noise that does not fade with
    the light grows relative to the face.
    """
    bright = jnp.maximum(brightness, MIN_BRIGHTNESS)
    excess = jnp.maximum(bright**-2 - LIT**-2, 0.0)
    return 1 / (1 + (hyper.dark_noise / hyper.colour) ** 2 * excess)


def light_level(colours: Colours) -> jax.Array:
    """(V,) constant light coefficient at which the mean albedo is as bright as the photo."""
    return colours.data.brightness / jnp.mean(jnp.exp(colours.data.albedo_mean))


def sight_weight(head: HeadModel, crops: Crops, x: Parameters, model: PointModel, index: jax.Array) -> jax.Array:
    """(V, n) in [0, 1] how well each view sees vertices `index`: visible, not grazing, inside the photo; no gradient.

    It is looked up once a stage: within it the face moves by less than the pixels that tell what hides what.
    """
    size = crops.linear.shape[1]
    x = jax.lax.stop_gradient(x)

    def one(pose, inverse_distance, expression):
        posed = project_to_image(vertices(head, x.identity, expression), pose, inverse_distance, size)
        geometry = evaluate(model, x.identity, expression)
        tangents = rotate(euler_to_matrix(pose[:3]), geometry[:, 3:].reshape(-1, 3)).reshape(-1, 2, 3)
        facing = normalize(jnp.cross(tangents[:, 0], tangents[:, 1]))[:, 2]
        return posed, facing

    posed, facing = jax.vmap(one)(x.pose, x.inverse_distance, x.expression)
    seen = visible(posed, head.faces, size)[:, index]
    inside = jax.vmap(lambda mask, points: bilinear(mask[..., None], points)[:, 0])(crops.inside, posed[:, index, :2])
    low, high = GRAZING
    facing = jnp.clip((facing - low) / (high - low), 0, 1)
    return jax.lax.stop_gradient(seen * (inside > 0.99) * facing * crops.view_mask[:, None])


def sample_weight(x: Parameters, colours: Colours, hyper: Hyper) -> jax.Array:
    """(V, n, 3) photometric weights: what each view sees, robust against outliers and views."""
    data, base, x = colours.data, colours.sight, jax.lax.stop_gradient(x)
    residual, _ = residuals.colour_terms(x, data)
    trust = colour_trust(data.brightness, hyper)[:, None]
    distance = jnp.mean(residual**2, -1) / (hyper.colour**2 / trust + colours.prior[None] ** 2)
    weight = base / (1 + distance / hyper.colour_robust**2) ** 2
    misfit = jnp.sum(weight * distance, -1) / jnp.maximum(jnp.sum(weight, -1), 1e-3)
    weight = weight * trust / jnp.maximum(misfit / hyper.colour_misfit, 1.0)[:, None]
    return jax.lax.stop_gradient(jnp.broadcast_to(weight[..., None], residual.shape))


def fit_light(x: Parameters, data: residuals.ColourData, weight, level):
    """Closed-form light (V, 9, 3) at the current shape and albedo, from a start at the expected level."""
    albedo = residuals.point_albedo(x, data)
    size = data.image.shape[1]

    def one(pose, inverse_distance, expression, image, weight, level, old):
        geometry = evaluate(data.model, x.identity, expression)
        points, basis = jax.vmap(lambda g: residuals.image_point_and_basis(g, pose, inverse_distance, size))(geometry)
        start = jnp.where(jnp.all(old == ambient_light()), old * level, old)
        return solve_light(basis, albedo, bilinear(image, points), weight[:, 0] > 0.05, start, ridge=1e-3)

    return jax.vmap(one)(x.pose, x.inverse_distance, x.expression, data.image, weight, level, x.light)

"""The classical solver: all photos jointly, by Levenberg-Marquardt on landmarks, then on landmarks and colours."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from facerig_jax.config import FitConfig, Hyper
from facerig_jax.detect.landmarks import LANDMARKS68
from facerig_jax.energies.landmark import FIXED68
from facerig_jax.geometry.alignment import similarity
from facerig_jax.geometry.camera import from_image, project, to_image
from facerig_jax.geometry.light import ambient_light, solve_light
from facerig_jax.geometry.rotation import euler_to_matrix, matrix_to_euler, rotate
from facerig_jax.geometry.sampling import bilinear
from facerig_jax.geometry.visibility import visible
from facerig_jax.head.model import vertices
from facerig_jax.numerics import masked_mean, normalize
from facerig_jax.solve import terms
from facerig_jax.solve.gauss_newton import levenberg_marquardt
from facerig_jax.solve.points import dense_landmark_model, evaluate, landmark68_model, surface_model
from facerig_jax.solve.unknowns import Unknowns, flatten, unflatten
from facerig_jax.types import HeadModel

# Vertices seen at a cosine below the first number carry no photometric weight, above the second full weight.
GRAZING = (0.15, 0.5)
# Regions whose albedo detail is `Hyper.feature_detail` larger.
FEATURES = ("brows", "eyelids", "eyes", "lips")
# Darkest light level (linear RGB) that residuals are divided by.
MIN_BRIGHTNESS = 0.02


@struct.dataclass
class Observed:
    """What the solver looks at.

    image:     (V, S, S, 3) crops, linear RGB in [0, 1].
    inside:    (V, S, S) 1 where the crop lies inside its photo.
    landmarks: (V, L, 3) crop pixels, z towards the camera.
    weight:    (V, L) landmark weights, 0 for views that do not count.
    view_mask: (V,) 1 for views that count.
    """

    image: jax.Array
    inside: jax.Array
    landmarks: jax.Array
    weight: jax.Array
    view_mask: jax.Array


@struct.dataclass
class Colours:
    """What the colour term compares at one blur level.

    data:  of n vertices.
    index: (n,) which vertices of the head they are.
    fresh: (n,) 0 where an index repeats.
    """

    data: terms.ColourData
    index: jax.Array
    fresh: jax.Array


# What takes the landmarks' place once they are fitted: (fit, landmarks) -> points.
Seek = Callable[[Unknowns, terms.LandmarkData], terms.LandmarkData]


def solve_classical(
    head: HeadModel, observed: Observed, hyper: Hyper, config: FitConfig, seek: Seek | None = None, passes: int = 1
) -> tuple[Unknowns, dict]:
    """Fits identity, albedo and every view's pose, expression and light.

    Args:
      head: morphable head.
      observed: crops and landmarks.
      hyper: traced settings.
      config: static settings.
      seek: finds better points than the landmarks, from the fit to them (solve.flow).
      passes: how often it looks, each time from the fit to the points that it found before.

    Returns:
      x: Unknowns.
      trace: name -> energies at the start of each step, (steps,), (passes, steps) or (stages, steps).
    """
    x = initial(head, observed, hyper, config)
    data, points, trace = landmark_data(head, observed, hyper, config, hyper.landmark_common), None, {}
    x, trace["landmark_stage"] = fit_landmarks(head, data, observed, x, hyper, config)
    if seek is not None:

        def look(x, _, landmarks=data):
            points = seek(x, landmarks)
            x, energies = fit_landmarks(head, points, observed, x, hyper, config)
            return x, (points, energies)

        x, (seen, trace["point_stages"]) = jax.lax.scan(look, x, None, passes)
        data = points = jax.tree.map(lambda value: value[-1], seen)
    if not config.blur:
        return x, trace

    def stage(x, blur):
        return fit_colours(head, data, observed, x, hyper, config, blur)

    x, trace["photometric_stages"] = jax.lax.scan(stage, x, jnp.array(config.blur))
    x, trace["expression_stage"] = fit_expressions(head, points, observed, x, hyper, config)
    return x, trace


def initial(head: HeadModel, observed: Observed, hyper: Hyper, config: FitConfig) -> Unknowns:
    """Mean head, posed by a similarity of its landmarks to the detected ones (with the net's depth)."""
    size = observed.image.shape[1]
    n_views = observed.image.shape[0]
    model, detected, weight = _landmarks(head, observed, config)
    return Unknowns(
        identity=jnp.zeros(head.identity_basis.shape[0]),
        albedo=jnp.zeros(head.albedo_basis.shape[0]),
        pose=landmark_pose(model.mean, detected, weight, size),
        inverse_distance=jnp.broadcast_to(hyper.inverse_distance_mean * head.unit_mm, (n_views,)),
        expression=jnp.zeros((n_views, head.expression_basis.shape[0])),
        light=jnp.broadcast_to(ambient_light(), (n_views, 9, 3)),
    )


def landmark_pose(mean: jax.Array, detected: jax.Array, weight: jax.Array, size: int) -> jax.Array:
    """(V, 6) poses by a similarity of mean points (L, 3) to detected ones (V, L, 3) crop px; no gradient."""

    def pose(landmarks, weight):
        target = jnp.concatenate([from_image(landmarks[:, :2], size, size), landmarks[:, 2:]], -1)
        fit = similarity(mean, target, jnp.where(jnp.sum(weight) > 0, weight, 1.0))
        return jnp.concatenate([matrix_to_euler(fit.rotation), fit.scale[None], fit.translation[:2]])

    return jax.lax.stop_gradient(jax.vmap(pose)(detected, weight))


def _landmarks(head: HeadModel, observed: Observed, config: FitConfig):
    """The points that the fit compares: PointModel of L points, detected (V, L, 3) crop px, weight (V, L)."""
    counted = observed.weight * observed.view_mask[:, None]
    if config.landmarks == "dense" and head.landmarks_dense is not None:
        return dense_landmark_model(head), observed.landmarks, counted * head.landmarks_dense.weight[None]
    chosen = np.array(LANDMARKS68)
    return landmark68_model(head), observed.landmarks[:, chosen], counted[:, chosen] * FIXED68[None]


def landmark_data(
    head: HeadModel, observed: Observed, hyper: Hyper, config: FitConfig, common=1.0
) -> terms.LandmarkData:
    """What the landmark term compares, with the detector's common noise `common` times as strong as measured."""
    model, detected, weight = _landmarks(head, observed, config)
    n_points = weight.shape[1]
    habits = head.dense_calibration if config.landmarks == "dense" else None
    return terms.LandmarkData(
        model=model,
        detected=detected[..., :2],
        weight=weight,
        deviation=hyper.landmark_mm * (jnp.ones(n_points) if habits is None else habits.deviation),
        common=common * (jnp.zeros((1, n_points, 2)) if habits is None else habits.common),
        unit_mm=head.unit_mm,
    )


def fit_landmarks(
    head: HeadModel, data: terms.LandmarkData, observed: Observed, x: Unknowns, hyper: Hyper, config: FitConfig
):
    """Levenberg-Marquardt on landmarks and priors. Returns Unknowns and the (steps,) energies."""
    return _minimise(head, observed, x, jnp.ones(x.n_views), hyper, config.landmark_steps, (data,))


def fit_colours(
    head: HeadModel,
    landmarks: terms.LandmarkData,
    observed: Observed,
    x: Unknowns,
    hyper: Hyper,
    config: FitConfig,
    blur,
):
    """Levenberg-Marquardt on landmarks, colours and priors. Returns Unknowns and the (steps,) energies."""
    colours = colour_data(head, observed, x, hyper, config, blur)
    level = _light_level(colours)
    x = x.replace(light=_light(x, colours.data, sample_weight(head, observed, x, colours, hyper), level))
    return _minimise(head, observed, x, level, hyper, config.photometric_steps, (landmarks,), colours)


def fit_expressions(
    head: HeadModel, points: terms.LandmarkData | None, observed: Observed, x: Unknowns, hyper: Hyper, config: FitConfig
):
    """Expression and pose of every view on its landmarks, with the identity held: what tracking would do.

    While identity was unknown, a detector's common errors had to be allowed for; now they would only blur the motion.
    Where better points than the landmarks were found, these and the colours keep their say.
    """
    hyper_then = hyper.replace(landmark_mm=hyper.landmark_mm * hyper.tracking_noise)
    data = landmark_data(head, observed, hyper_then, config, hyper.tracking_common)
    moving = jax.tree.map(jnp.zeros_like, x)
    free = flatten(moving.replace(pose=jnp.ones_like(x.pose), expression=jnp.ones_like(x.expression)))
    if points is None:
        level = x.light[:, 0].mean(-1)
        return _minimise(head, observed, x, level, hyper, config.expression_steps, (data,), free=free)
    colours = colour_data(head, observed, x, hyper, config, config.blur[-1])
    level = _light_level(colours)
    return _minimise(head, observed, x, level, hyper, config.expression_steps, (points, data), colours, free)


def _minimise(
    head: HeadModel,
    observed: Observed,
    x: Unknowns,
    level: jax.Array,
    hyper: Hyper,
    n_steps: int,
    points: tuple[terms.LandmarkData, ...],
    colours: Colours | None = None,
    free: jax.Array | None = None,
):
    """Levenberg-Marquardt on sets of points, maybe colours, and priors. Returns Unknowns and the (steps,) energies.

    level: (V,) expected light; free: (D,) 1 for the unknowns that may change.
    """
    size = observed.image.shape[1]

    def reweigh(vector):
        at = unflatten(vector, x)
        whiten = tuple(terms.landmark_whitening(at, data) for data in points)
        return whiten, None if colours is None else sample_weight(head, observed, at, colours, hyper)

    def linearize(vector, weights):
        at, (whiten, weight) = unflatten(vector, x), weights
        normal = terms.prior_normal(at, level, hyper, head)
        for data, white in zip(points, whiten, strict=True):
            normal = normal + terms.landmark_normal(at, data, white, size)
        if colours is None:
            return normal
        residual, slope = terms.colour_terms(at, colours.data)
        jacobian = terms.colour_jacobian(at, colours.data)
        return normal + terms.colour_normal(residual, slope, *jacobian, weight, colours.data.detail, hyper)

    def energy(vector, weights):
        at, (whiten, weight) = unflatten(vector, x), weights
        total = terms.prior_normal(at, level, hyper, head).energy
        for data, white in zip(points, whiten, strict=True):
            total = total + terms.landmark_energy(at, data, white, size)
        if colours is None:
            return total
        return total + terms.colour_energy(*terms.colour_terms(at, colours.data), weight, colours.data.detail, hyper)

    vector, _, trace = levenberg_marquardt(reweigh, linearize, energy, flatten(x), hyper.damping, n_steps, free)
    return unflatten(vector, x), trace


def landmark_error(head: HeadModel, observed: Observed, x: Unknowns, config: FitConfig) -> jax.Array:
    """(V,) mean distance of the fit's landmarks, model to detected, over the size of the detected face."""
    data = landmark_data(head, observed, Hyper(), config)
    distance = jnp.linalg.norm(terms.landmark_pixels(x, data, observed.image.shape[1]), axis=-1)
    extent = jnp.max(jnp.ptp(data.detected, axis=1), -1)
    return masked_mean(distance, data.weight, axis=-1) / extent


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
    slot = jnp.floor(jnp.linspace(0.0, 1.0, count, endpoint=False) * total).astype(jnp.int32)
    fresh = jnp.concatenate([jnp.ones(1), (slot[1:] != slot[:-1]).astype(jnp.float32)])
    return order[slot], fresh


def feature_mask(head: HeadModel) -> jax.Array:
    """(P,) in [0, 1]: where skin gives way to brows, lids, lashes and lips, which no smooth albedo describes."""
    masks = [jnp.asarray(head.regions[name]) for name in FEATURES if name in head.regions]
    return functools.reduce(jnp.maximum, masks, jnp.zeros(head.face_mask.shape))


def log_albedo(head: HeadModel, index: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log linear RGB of the vertices `index`: mean (n, 3) and basis (A, n, 3); to first order for a linear albedo."""
    mean, basis = jnp.asarray(head.albedo_mean)[index], jnp.asarray(head.albedo_basis)[:, index]
    if head.albedo_space == "log":
        return mean, basis
    mean = jnp.maximum(mean, MIN_BRIGHTNESS)
    return jnp.log(mean), basis / mean[None]


def colour_data(head: HeadModel, observed: Observed, x: Unknowns, hyper: Hyper, config: FitConfig, blur) -> Colours:
    """What the colour term compares at one blur level."""
    index, fresh = face_index(head, config.max_points)
    image = gaussian_blur(observed.image, blur)
    model = surface_model(head, index)
    albedo_mean, albedo_basis = log_albedo(head, index)
    size = image.shape[1]

    def mean_colour(pose, inverse_distance, expression, image):
        points = to_image(project(evaluate(model, x.identity, expression)[:, :3], pose, inverse_distance), size, size)
        return jnp.mean(bilinear(image, points[:, :2]))

    brightness = jax.vmap(mean_colour)(x.pose, x.inverse_distance, x.expression, image)
    data = terms.ColourData(
        model=model,
        albedo_mean=albedo_mean,
        albedo_basis=albedo_basis,
        detail=(hyper.albedo_detail + hyper.feature_detail * feature_mask(head)[index])[:, None],
        image=image,
        brightness=jax.lax.stop_gradient(jnp.maximum(brightness, MIN_BRIGHTNESS)),
    )
    return Colours(data, index, fresh)


def _light_level(colours: Colours) -> jax.Array:
    """(V,) constant light coefficient at which the mean albedo is as bright as the photo."""
    return colours.data.brightness / jnp.mean(jnp.exp(colours.data.albedo_mean))


def sample_weight(head, observed, x: Unknowns, colours: Colours, hyper: Hyper) -> jax.Array:
    """(V, n, 3) photometric weights: visible, not grazing, inside the photo, and robust against outliers and views."""
    data, index, fresh = colours.data, colours.index, colours.fresh
    size = observed.image.shape[1]
    x = jax.lax.stop_gradient(x)

    def one(pose, inverse_distance, expression):
        posed = to_image(project(vertices(head, x.identity, expression), pose, inverse_distance), size, size)
        geometry = evaluate(data.model, x.identity, expression)
        tangents = rotate(euler_to_matrix(pose[:3]), geometry[:, 3:].reshape(-1, 3)).reshape(-1, 2, 3)
        facing = normalize(jnp.cross(tangents[:, 0], tangents[:, 1]))[:, 2]
        return posed, facing

    posed, facing = jax.vmap(one)(x.pose, x.inverse_distance, x.expression)
    seen = visible(posed, head.faces, size)[:, index]
    inside = jax.vmap(lambda mask, points: bilinear(mask[..., None], points)[:, 0])(
        observed.inside, posed[:, index, :2]
    )
    low, high = GRAZING
    facing = jnp.clip((facing - low) / (high - low), 0, 1)
    base = seen * (inside > 0.99) * facing * fresh[None] * observed.view_mask[:, None]
    residual, _ = terms.colour_terms(x, data)
    distance = jnp.mean(residual**2, -1) / (hyper.colour**2 + data.detail[None, :, 0] ** 2)
    weight = base / (1 + distance / hyper.colour_robust**2) ** 2
    misfit = jnp.sum(weight * distance, -1) / jnp.maximum(jnp.sum(weight, -1), 1e-3)
    weight = weight / jnp.maximum(misfit / hyper.colour_misfit, 1.0)[:, None]
    return jax.lax.stop_gradient(jnp.broadcast_to(weight[..., None], residual.shape))


def _light(x: Unknowns, data, weight, level):
    """Closed-form light (V, 9, 3) at the current shape and albedo, from a start at the expected level."""
    albedo = terms.point_albedo(x, data)
    size = data.image.shape[1]

    def one(pose, inverse_distance, expression, image, weight, level, old):
        geometry = evaluate(data.model, x.identity, expression)
        points, basis = jax.vmap(lambda g: terms.image_point_and_basis(g, pose, inverse_distance, size))(geometry)
        start = jnp.where(jnp.all(old == ambient_light()), old * level, old)
        return solve_light(basis, albedo, bilinear(image, points), weight[:, 0] > 0.05, start, ridge=1e-3)

    return jax.vmap(one)(x.pose, x.inverse_distance, x.expression, data.image, weight, level, x.light)

"""The classical solver: all photos jointly, by Levenberg-Marquardt on landmarks, then on landmarks and colours."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from facerig_jax.config import FitConfig, Hyper
from facerig_jax.detect.landmarks import LANDMARKS68
from facerig_jax.fit import residuals as terms
from facerig_jax.fit.coverage import find_cover, uncover
from facerig_jax.fit.levenberg_marquardt import levenberg_marquardt
from facerig_jax.fit.linear_points import dense_landmark_model, landmark68_model
from facerig_jax.fit.parameters import ALL, GEOMETRY, MOTION, Unknowns, columns, flatten, places, unflatten, view_axes
from facerig_jax.fit.photometric import Colours, Observed, apart, colour_data, fit_light, light_level, sample_weight
from facerig_jax.geometry.alignment import similarity
from facerig_jax.geometry.camera import from_image
from facerig_jax.geometry.light import ambient_light
from facerig_jax.geometry.rotation import matrix_to_euler
from facerig_jax.inorig.landmark_energy import FIXED68
from facerig_jax.numerics import masked_mean
from facerig_jax.types import Descent, HeadModel, Trace

# What takes the landmarks' place once they are fitted: (fit, landmarks) -> points.
Seek = Callable[[Unknowns, terms.LandmarkData], terms.LandmarkData]


def solve_classical(
    head: HeadModel, observed: Observed, hyper: Hyper, config: FitConfig, seek: Seek | None = None, passes: int = 1
) -> tuple[Unknowns, Trace]:
    """Fits identity, albedo and every view's pose, expression and light.

    Args:
      head: morphable head.
      observed: crops and landmarks.
      hyper: traced settings.
      config: static settings.
      seek: finds better points than the landmarks, from the fit to them (fit.correspondences).
      passes: how often it looks, each time from the fit to the points that it found before.

    Returns:
      x: Unknowns.
      trace: Trace.
    """
    x = initial(head, observed, hyper, config)
    data, points, seen = landmark_data(head, observed, hyper, config, hyper.landmark_common), None, None
    x, landmarks = fit_landmarks(head, data, observed, x, hyper, config)
    path = [x.identity[None]]
    if seek is not None:
        seen = colour_data(head, observed, x, hyper, config, config.blur[0] if config.blur else 1.0)
        trust = colour_trust(seen.data.brightness, hyper)[:, None]

        def look(x, _, detected=data):
            points = seek(x, detected)
            x, descent = fit_landmarks(head, points, observed, x, hyper, config)
            return x, (points, descent, x.identity)

        x, (points, seen, found) = jax.lax.scan(look, x, None, passes)
        data = points = jax.tree.map(lambda value: value[-1], points)
        path.append(found)
    if not config.blur:
        return x, Trace(landmarks, seen, None, None, jnp.concatenate(path))

    def stage(x, blur):
        x, descent = fit_colours(head, data, observed, x, hyper, config, blur)
        return x, (descent, x.identity)

    x, (photometric, found) = jax.lax.scan(stage, x, jnp.array(config.blur, x.pose.dtype))
    path.append(found)
    x, expression = fit_expressions(head, points, observed, x, hyper, config)
    return x, Trace(landmarks, seen, photometric, expression, jnp.concatenate(path))


def initial(head: HeadModel, observed: Observed, hyper: Hyper, config: FitConfig) -> Unknowns:
    """Mean head, posed by a similarity of its landmarks to the detected ones (with the net's depth)."""
    size = observed.image.shape[1]
    n_views = observed.image.shape[0]
    model, detected, weight = _landmarks(head, observed, config)
    dtype = observed.image.dtype
    return Unknowns(
        identity=jnp.zeros(head.identity_basis.shape[0], dtype),
        albedo=jnp.zeros(head.albedo_basis.shape[0], dtype),
        pose=landmark_pose(model.mean, detected, weight, size),
        inverse_distance=jnp.broadcast_to(hyper.inverse_distance_mean * head.unit_mm, (n_views,)),
        expression=jnp.zeros((n_views, head.expression_basis.shape[0]), dtype),
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
    data = terms.LandmarkData(
        model=model,
        detected=detected[..., :2],
        weight=weight,
        deviation=hyper.landmark_mm * (jnp.ones(n_points, weight.dtype) if habits is None else habits.deviation),
        common=common * (jnp.zeros((1, n_points, 2), weight.dtype) if habits is None else habits.common),
        unit_mm=head.unit_mm,
    )
    return data if observed.coverage is None else uncover(data, observed.coverage)


def fit_landmarks(
    head: HeadModel, data: terms.LandmarkData, observed: Observed, x: Unknowns, hyper: Hyper, config: FitConfig
) -> tuple[Unknowns, Descent]:
    """Identity, poses and expressions on points and priors."""
    energy = fit_energy(head, observed, x, jnp.ones(x.n_views, x.pose.dtype), hyper, (data,), names=GEOMETRY)
    return _minimise(energy, x, hyper.damping, config.landmark_steps)


def fit_colours(
    head: HeadModel,
    landmarks: terms.LandmarkData,
    observed: Observed,
    x: Unknowns,
    hyper: Hyper,
    config: FitConfig,
    blur,
) -> tuple[Unknowns, Descent]:
    """All unknowns on points, colours and priors."""
    colours = colour_data(head, observed, x, hyper, config, blur)
    level = light_level(colours)
    trust = colour_trust(colours.data.brightness, hyper)[:, None, None]
    seen = sample_weight(head, observed, x, colours, hyper) / trust  # a dark view has a light like any other
    x = x.replace(light=fit_light(x, colours.data, seen, level))
    energy = fit_energy(head, observed, x, level, hyper, (landmarks,), colours)
    return _minimise(energy, x, hyper.damping, config.photometric_steps)


def fit_expressions(
    head: HeadModel, points: terms.LandmarkData | None, observed: Observed, x: Unknowns, hyper: Hyper, config: FitConfig
) -> tuple[Unknowns, Descent]:
    """Expression and pose of every view with the identity held: what tracking would do; Descent of (V, T) numbers.

    With the person known every photo is a problem of its own, with its own damping. While identity was unknown, a
    detector's common errors had to be allowed for; now they would only blur the motion. Where better points than the
    landmarks were found, these and the colours keep their say.
    """
    noisier = hyper.replace(landmark_mm=hyper.landmark_mm * hyper.tracking_noise)
    data = (landmark_data(head, observed, noisier, config, hyper.tracking_common),)
    level, colours = x.light[:, 0].mean(-1), None
    if points is not None:
        data = (points, *data)
        colours = colour_data(head, observed, x, hyper, config, config.blur[-1])
        level = light_level(colours)
        colours = apart(x, colours, sample_weight(head, observed, x, colours, hyper), hyper)

    def view(observed, x, level, data, colours):
        alone = functools.partial(jax.tree.map, lambda value: value[None])
        x = alone(x).replace(identity=x.identity, albedo=x.albedo)
        data = tuple(points.replace(detected=points.detected[None], weight=points.weight[None]) for points in data)
        if colours is not None:
            images = {name: getattr(colours.data, name)[None] for name in ("image", "brightness")}
            colours = colours.replace(data=colours.data.replace(**images))
        energy = fit_energy(head, alone(observed), x, level[None], hyper, data, colours, MOTION)
        x, descent = _minimise(energy, x, hyper.damping, config.expression_steps)
        return x.pose[0], x.expression[0], descent

    axes = (0, view_axes(), 0, tuple(points.view_axes() for points in data), colours and colours.view_axes())
    pose, expression, descent = jax.vmap(view, axes)(observed, x, level, data, colours)
    return x.replace(pose=pose, expression=expression), descent


@dataclasses.dataclass(frozen=True)
class Energy:
    """What a fit lowers: points, maybe colours, and priors, as functions of the flat unknowns (D,).

    reweigh:   unknowns -> weights, which are held during a step.
    linearize: (unknowns, weights) -> Normal of the free unknowns.
    value:     (unknowns, weights) -> ().
    free:      (D',) places of the unknowns that may change, None = all.
    """

    reweigh: Callable
    linearize: Callable
    value: Callable
    free: np.ndarray | None


def fit_energy(
    head: HeadModel,
    observed: Observed,
    x: Unknowns,
    level: jax.Array,
    hyper: Hyper,
    points: tuple[terms.LandmarkData, ...],
    colours: Colours | None = None,
    names: tuple[str, ...] = ALL,
) -> Energy:
    """The energy of some sets of points, of colours where given, and of the priors.

    Args:
      head, observed: what is fitted to what.
      x: unknowns, for their sizes.
      level: (V,) expected light.
      hyper: traced settings.
      points: sets of points.
      colours: those of face vertices.
      names: fields of the unknowns that may change.
    """
    size = observed.image.shape[1]
    free, geometry = places(x, names), places(x, GEOMETRY)
    among = np.where(np.isin(free, geometry), np.searchsorted(geometry, free), -1)
    shared_columns, own_columns = columns(x, names)

    def reweigh(vector):
        at = unflatten(vector, x)
        whiten = tuple(terms.landmark_whitening(at, data) for data in points)
        return whiten, None if colours is None else sample_weight(head, observed, at, colours, hyper)

    def linearize(vector, weights):
        at, (whiten, weight) = unflatten(vector, x), weights
        normal = terms.prior_normal(at, level, hyper, head).take(free)
        for data, white in zip(points, whiten, strict=True):
            normal = normal + terms.landmark_normal(at, data, white, size).take(among)
        if colours is None:
            return normal
        residual, slope = terms.colour_terms(at, colours.data)
        shared, own = terms.colour_jacobian(at, colours.data)
        if names != ALL:
            shared, own = shared[..., shared_columns], own[..., own_columns]
        return normal + terms.colour_normal(residual, slope, shared, own, weight, colours.data.detail, hyper)

    def value(vector, weights):
        at, (whiten, weight) = unflatten(vector, x), weights
        total = terms.prior_normal(at, level, hyper, head).energy
        for data, white in zip(points, whiten, strict=True):
            total = total + terms.landmark_energy(at, data, white, size)
        if colours is None:
            return total
        return total + terms.colour_energy(*terms.colour_terms(at, colours.data), weight, colours.data.detail, hyper)

    return Energy(reweigh, linearize, value, None if names == ALL else free)


def _minimise(energy: Energy, x: Unknowns, damping, n_steps: int) -> tuple[Unknowns, Descent]:
    vector, descent = levenberg_marquardt(
        energy.reweigh, energy.linearize, energy.value, flatten(x), damping, n_steps, energy.free
    )
    return unflatten(vector, x), descent


def landmark_error(head: HeadModel, observed: Observed, x: Unknowns, config: FitConfig) -> jax.Array:
    """(V,) mean distance of the fit's landmarks, model to detected, over the size of the detected face."""
    data = landmark_data(head, observed, Hyper(), config)
    distance = jnp.linalg.norm(terms.landmark_pixels(x, data, observed.image.shape[1]), axis=-1)
    extent = jnp.max(jnp.ptp(data.detected, axis=1), -1)
    return masked_mean(distance, data.weight, axis=-1) / extent

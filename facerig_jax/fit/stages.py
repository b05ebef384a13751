"""The steps of each stage of a fit: which unknowns move, on which energy."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from facerig_jax.config import FitConfig, Hyper
from facerig_jax.fit.energy import Energy, fit_energy
from facerig_jax.fit.landmarks import landmark_data
from facerig_jax.fit.levenberg_marquardt import levenberg_marquardt
from facerig_jax.fit.parameters import GEOMETRY, MOTION, Parameters, flatten, unflatten, view_axes
from facerig_jax.fit.photometric import apart, colour_data, colour_trust, fit_light, light_level, sample_weight
from facerig_jax.fit.preprocess import Crops
from facerig_jax.fit.residuals import PointData
from facerig_jax.types import Descent, HeadModel


def fit_landmarks(
    head: HeadModel, data: PointData, crops: Crops, x: Parameters, hyper: Hyper, config: FitConfig
) -> tuple[Parameters, Descent]:
    """Identity, poses and expressions on points and priors."""
    energy = fit_energy(head, crops.crop.size, x, jnp.ones(x.n_views, x.pose.dtype), hyper, (data,), names=GEOMETRY)
    return _minimise(energy, x, hyper.damping, config.landmark_steps)


def fit_colours(
    head: HeadModel,
    landmarks: PointData,
    crops: Crops,
    x: Parameters,
    hyper: Hyper,
    config: FitConfig,
    blur,
) -> tuple[Parameters, Descent]:
    """All unknowns on points, colours and priors."""
    colours = colour_data(head, crops, x, hyper, config, blur)
    level = light_level(colours)
    trust = colour_trust(colours.data.brightness, hyper)[:, None, None]
    seen = sample_weight(x, colours, hyper) / trust  # a dark view has a light like any other
    x = x.replace(light=fit_light(x, colours.data, seen, level))
    energy = fit_energy(head, crops.crop.size, x, level, hyper, (landmarks,), colours)
    return _minimise(energy, x, hyper.damping, config.photometric_steps)


def fit_views(
    head: HeadModel, points: PointData | None, crops: Crops, x: Parameters, hyper: Hyper, config: FitConfig
) -> tuple[Parameters, Descent]:
    """Expression and pose of every view with the identity held: what tracking would do; Descent of (V, T) numbers.

    With the person known every photo is a problem of its own, with its own damping. While identity was unknown, a
    detector's common errors had to be allowed for; now they would only blur the motion. Where better points than the
    landmarks were found, these and the colours keep their say.
    """
    noisier = hyper.replace(landmark_mm=hyper.landmark_mm * hyper.tracking_noise)
    data = (landmark_data(head, crops, noisier, config, hyper.tracking_common),)
    level, colours = x.light[:, 0].mean(-1), None
    if points is not None:
        data = (points, *data)
        colours = colour_data(head, crops, x, hyper, config, hyper.blur[-1])
        level = light_level(colours)
        colours = apart(x, colours, sample_weight(x, colours, hyper), hyper)

    def view(x, level, data, colours):
        alone = functools.partial(jax.tree.map, lambda value: value[None])
        x = alone(x).replace(identity=x.identity, albedo=x.albedo)
        data = tuple(points.replace(**alone(points.of_view())) for points in data)
        if colours is not None:
            images = {name: getattr(colours.data, name)[None] for name in ("image", "brightness")}
            colours = colours.replace(data=colours.data.replace(**images), sight=colours.sight[None])
        energy = fit_energy(head, crops.crop.size, x, level[None], hyper, data, colours, MOTION)
        x, descent = _minimise(energy, x, hyper.damping, config.expression_steps)
        return x.pose[0], x.expression[0], descent

    axes = (
        view_axes(),
        0,
        tuple(points.view_axes() for points in data),
        colours and colours.view_axes(),
    )
    pose, expression, descent = jax.vmap(view, axes)(x, level, data, colours)
    return x.replace(pose=pose, expression=expression), descent


def _minimise(energy: Energy, x: Parameters, damping, n_steps: int) -> tuple[Parameters, Descent]:
    vector, descent = levenberg_marquardt(
        energy.reweigh, energy.linearize, energy.value, flatten(x), damping, n_steps, energy.free
    )
    return unflatten(vector, x), descent

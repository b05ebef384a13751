"""The product's solver, in the order of the method: from photos to a rig and to every photo's pose and light."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from facerig_jax.config import FitConfig, Hyper
from facerig_jax.fit.correspondences import find_points
from facerig_jax.fit.coverage import find_cover, uncover, whole_cover
from facerig_jax.fit.landmarks import first_pose, landmark_data, landmark_error
from facerig_jax.fit.parameters import Parameters
from facerig_jax.fit.photometric import colour_data, colour_trust
from facerig_jax.fit.preprocess import Crops, preprocess
from facerig_jax.fit.residuals import PointData
from facerig_jax.fit.stages import fit_colours, fit_landmarks, fit_views
from facerig_jax.fit.status import end_status, subject_status
from facerig_jax.geometry.light import ambient_light
from facerig_jax.head.model import albedo, neutral
from facerig_jax.types import Descent, Fit, HeadModel, Photos, Rig, Trace, Views


def fit_person(params: dict, head: HeadModel, photos: Photos, hyper: Hyper, config: FitConfig) -> Fit:
    """A rig from photos of one person.

    Args:
      params: 'detector', and 'learned' where `config.flow` asks for its network.
      head: morphable head.
      photos: complete ones, see `api.as_photos`.
      hyper: traced settings, arrays.
      config: static settings.

    Returns:
      Fit.
    """
    crops, points, status = preprocess(params, photos, head, config.crop_size, hyper.crop_margin)
    with jax.named_scope("solve"):
        x, trace, crops = solve(params, head, crops, hyper, config)
    with jax.named_scope("report"):
        return package(head, crops, x, trace, points, status, hyper, config)


def solve(
    params: dict, head: HeadModel, crops: Crops, hyper: Hyper, config: FitConfig
) -> tuple[Parameters, Trace, Crops]:
    """Fits identity, albedo and every view's pose, expression and light, from points to colours.

    Returns:
      x: Parameters.
      trace: Trace.
      crops: what was looked at, with what was found to be covered.
    """
    landmarks = landmark_data(head, crops, hyper, config, hyper.landmark_common)
    with jax.named_scope("landmarks"):
        x = first_guess(head, crops, hyper, config)
        x, on_landmarks = fit_landmarks(head, landmarks, crops, x, hyper, config)
        path = [x.identity[None]]
    points, looks, photometric, expression = landmarks, None, None, None
    if config.flow is not None:
        with jax.named_scope("correspondences"):
            x, points, looks, found = fit_correspondences(params, head, landmarks, crops, x, hyper, config)
            path.append(found)
    if config.photometric_steps:
        with jax.named_scope("cover"):
            cover = find_cover(head, crops, x, hyper, config)
            crops, points = crops.replace(cover=cover), uncover(points, cover)
        with jax.named_scope("photometric"):
            x, photometric, found = fit_photometric(head, points, crops, x, hyper, config)
            path.append(found)
        with jax.named_scope("expressions"):
            x, expression = fit_views(head, points if config.flow else None, crops, x, hyper, config)
    return x, Trace(on_landmarks, looks, photometric, expression, jnp.concatenate(path)), crops


def first_guess(head: HeadModel, crops: Crops, hyper: Hyper, config: FitConfig) -> Parameters:
    """Mean head, posed by a similarity of its landmarks to the detected ones (with the net's depth)."""
    n_views, dtype = crops.linear.shape[0], crops.linear.dtype
    return Parameters(
        identity=jnp.zeros(head.identity_basis.shape[0], dtype),
        albedo=jnp.zeros(head.albedo_basis.shape[0], dtype),
        pose=first_pose(head, crops, config),
        inverse_distance=jnp.broadcast_to(hyper.inverse_distance_mean * head.unit_mm, (n_views,)),
        expression=jnp.zeros((n_views, head.expression_basis.shape[0]), dtype),
        light=jnp.broadcast_to(ambient_light(), (n_views, 9, 3)),
    )


def fit_correspondences(
    params: dict, head: HeadModel, landmarks: PointData, crops: Crops, x: Parameters, hyper: Hyper, config: FitConfig
) -> tuple[Parameters, PointData, Descent, jax.Array]:
    """The network looks at the photos drawn onto the face, the face is fitted to where it sees its points, and again.

    Returns:
      x: Parameters.
      points: where it saw them last.
      descent: Descent of (N, T) numbers.
      identities: (N, I) after each look.
    """
    assert config.flow is not None
    bright = colour_data(head, crops, x, hyper, config, hyper.blur[0]).data.brightness
    trust = colour_trust(bright, hyper)[:, None]  # the colours of a dark photo are noise to the network too

    def look(x, _):
        points = find_points(params["learned"]["flow"], head, crops, x, landmarks, hyper, config.flow)
        points = points.replace(weight=points.weight * trust)
        x, descent = fit_landmarks(head, points, crops, x, hyper, config)
        return x, (points, descent, x.identity)

    x, (points, descent, found) = jax.lax.scan(look, x, None, config.flow.passes)
    return x, jax.tree.map(lambda value: value[-1], points), descent, found


def fit_photometric(
    head: HeadModel, points: PointData, crops: Crops, x: Parameters, hyper: Hyper, config: FitConfig
) -> tuple[Parameters, Descent, jax.Array]:
    """All unknowns on points and colours, coarse to fine: Parameters, Descent (B, T), identities (B, I)."""

    def level(x, blur):
        x, descent = fit_colours(head, points, crops, x, hyper, config, blur)
        return x, (descent, x.identity)

    x, (descent, found) = jax.lax.scan(level, x, hyper.blur)
    return x, descent, found


def package(
    head: HeadModel, crops: Crops, x: Parameters, trace: Trace, points, status, hyper: Hyper, config: FitConfig
) -> Fit:
    """The parameters as a rig and views, with their status; points (V, 468, 3) photo px, status (V,) before the fit."""
    error = landmark_error(head, crops, x, hyper, config)
    status = end_status(status, x.pose, x.expression, error)
    rig = Rig(
        neutral=neutral(head, x.identity),
        expression_basis=head.expression_basis,
        albedo=albedo(head, x.albedo),
        identity_code=x.identity,
        albedo_code=x.albedo,
        code_names=head.expression_names,
        unit_mm=head.unit_mm,
        head_version=head.version,
    )
    views = Views(x.pose, x.inverse_distance, x.expression, x.light, crops.crop, points, status)
    cover = None if crops.cover is None else whole_cover(head, crops.cover)
    return Fit(rig, views, trace, subject_status(status, rig.neutral), cover)

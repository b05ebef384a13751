"""The published method from photos to a rig: what it looks at, its stages, and what it leaves."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from facerig_jax.detect.landmarks import LANDMARKS68
from facerig_jax.fit.linear_points import dense_landmark_model, landmark68_model
from facerig_jax.fit.preprocess import Crops, preprocess
from facerig_jax.fit.status import end_status, subject_status
from facerig_jax.geometry.alignment import pose_of_points
from facerig_jax.geometry.camera import normalized_to_pose, pose_to_normalized
from facerig_jax.inorig.config import EnergyWeights, InorigConfig
from facerig_jax.inorig.energies import Observed, landmark_weights, uses_dense
from facerig_jax.inorig.freeze import freeze
from facerig_jax.inorig.stages import solve_stages
from facerig_jax.numerics import masked_mean
from facerig_jax.types import Fit, HeadModel, Photos, Views


def fit_published(params: dict, head: HeadModel, photos: Photos, weights: EnergyWeights, config: InorigConfig) -> Fit:
    """A rig from photos of one person by the published method; arguments as for `fit.pipeline.fit_person`."""
    crops, points, status = preprocess(params, photos, head, config.crop_size, config.crop_margin)
    observed = observe(crops, head, config)
    pose = None if config.networks.pose_blocks else mean_pose(crops, head, config)
    with jax.named_scope("solve"):
        state, trace = solve_stages(params["learned"], head, observed, weights, config, pose=pose)
    with jax.named_scope("report"):
        distance = jnp.linalg.norm(trace["stages"]["landmarks"][-1] - observed.landmarks, axis=-1)
        extent = jnp.max(jnp.ptp(observed.landmarks, axis=1), -1)
        error = masked_mean(distance, observed.weight, axis=-1) / extent
        status = end_status(status, state.pose, state.expression, error)
        light = trace["stages"]["linear_light"][-1]
        pose = normalized_to_pose(state.pose, head.unit_mm, config.crop_size)
        views = Views(pose, state.inverse_distance, state.expression, light, crops.crop, points, status)
        rig = freeze(state.whole, params["learned"], head, config)
        return Fit(rig, views, trace, subject_status(status, rig.neutral))


def observe(crops: Crops, head: HeadModel, config: InorigConfig) -> Observed:
    """What the energies compare a rig with: the crops in the method's colour space, its landmarks."""
    chosen = slice(None) if uses_dense(head, config) else np.array(LANDMARKS68)
    colour = crops.linear if config.linear_colour else crops.srgb
    return Observed(
        photo=crops.srgb,
        colour=jnp.concatenate([colour, crops.inside[..., None]], -1),
        landmarks=crops.landmarks[:, chosen, :2],
        weight=crops.weight[:, chosen] * landmark_weights(head, config)[None],
        view_mask=crops.view_mask,
    )


def mean_pose(crops: Crops, head: HeadModel, config: InorigConfig) -> jax.Array:
    """(V, 6) normalised poses of the mean head by its landmarks: where there is no pose regressor."""
    dense = uses_dense(head, config)
    model = dense_landmark_model(head) if dense else landmark68_model(head)
    chosen = slice(None) if dense else np.array(LANDMARKS68)
    weight = crops.weight[:, chosen] * landmark_weights(head, config)[None]
    pose = pose_of_points(model.mean, crops.landmarks[:, chosen], weight, config.crop_size)
    return pose_to_normalized(pose, head.unit_mm, config.crop_size)

"""The detector's landmarks as a fit compares them, and the first pose that they give."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from facerig_jax.config import FitConfig, Hyper
from facerig_jax.detect.landmarks import FIXED68, LANDMARKS68
from facerig_jax.fit.coverage import uncover
from facerig_jax.fit.linear_points import dense_landmark_model, landmark68_model
from facerig_jax.fit.parameters import Parameters
from facerig_jax.fit.preprocess import Crops
from facerig_jax.fit.residuals import PointData, point_pixels
from facerig_jax.geometry.alignment import pose_of_points
from facerig_jax.numerics import masked_mean
from facerig_jax.types import HeadModel


def first_pose(head: HeadModel, crops: Crops, config: FitConfig) -> jax.Array:
    """(V, 6) poses of the mean head by its landmarks."""
    model, detected, weight = _landmarks(head, crops, config)
    return pose_of_points(model.mean, detected, weight, crops.linear.shape[1])


def _landmarks(head: HeadModel, crops: Crops, config: FitConfig):
    """The points that the fit compares: PointModel of L points, detected (V, L, 3) crop px, weight (V, L)."""
    counted = crops.weight * crops.view_mask[:, None]
    if config.landmarks == "dense" and head.landmarks_dense is not None:
        return dense_landmark_model(head), crops.landmarks, counted * head.landmarks_dense.weight[None]
    chosen = np.array(LANDMARKS68)
    return landmark68_model(head), crops.landmarks[:, chosen], counted[:, chosen] * FIXED68[None]


def landmark_data(head: HeadModel, crops: Crops, hyper: Hyper, config: FitConfig, common=1.0) -> PointData:
    """What the landmark term compares, with the detector's common noise `common` times as strong as measured."""
    model, detected, weight = _landmarks(head, crops, config)
    n_points = weight.shape[1]
    habits = head.dense_calibration if config.landmarks == "dense" else None
    data = PointData(
        model=model,
        detected=detected[..., :2],
        weight=weight,
        deviation=hyper.landmark_mm * (jnp.ones(n_points, weight.dtype) if habits is None else habits.deviation),
        common=common * (jnp.zeros((1, n_points, 2), weight.dtype) if habits is None else habits.common),
        unit_mm=head.unit_mm,
    )
    return data if crops.cover is None else uncover(data, crops.cover)


def landmark_error(head: HeadModel, crops: Crops, x: Parameters, hyper: Hyper, config: FitConfig) -> jax.Array:
    """(V,) mean distance of the fit's landmarks, model to detected, over the size of the detected face."""
    data = landmark_data(head, crops, hyper, config)
    distance = jnp.linalg.norm(point_pixels(x, data, crops.linear.shape[1]), axis=-1)
    extent = jnp.max(jnp.ptp(data.detected, axis=1), -1)
    return masked_mean(distance, data.weight, axis=-1) / extent

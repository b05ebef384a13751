"""Fits how a landmark net's points differ from a head's embedding (types.LandmarkCalibration), from renders."""

import dataclasses
from collections.abc import Callable

import numpy as np

from facerig_jax.head.model import landmark_positions
from facerig_jax.types import HeadModel, LandmarkCalibration, LandmarkEmbedding


@dataclasses.dataclass(frozen=True)
class Renders:
    """What was drawn and what the net found in M renders.

    residual:   (M, L, 2) mm, detected minus true point in the image, x right, y up, divided by the view's scale.
    rotation:   (M, 3, 3) head to camera.
    roll:       (M,) rad.
    identity:   (M, I) and expression: (M, E) coefficients.
    """

    residual: np.ndarray
    rotation: np.ndarray
    roll: np.ndarray
    identity: np.ndarray
    expression: np.ndarray


# Ridge of the regression per identity mode and per expression, in renders with the coefficient at 1 that show nothing.
RIDGE_IDENTITY, RIDGE_EXPRESSION = 20.0, 4.0
# How much of the measured response to expressions is believed. On renders the net follows lids and jaws about half as
# far as they move, on photos farther: with 1 the fitted mouths of docs/photos open too wide, with 0 too little.
EXPRESSION_TRUST = 0.6
# Floor of a point's own deviation, mm.
MIN_DEVIATION = 0.1


def fit_calibration(renders: Renders, n_identity: int = 30, n_common: int = 40) -> LandmarkCalibration:
    """Ridge regression of the 3D offset of every point on the codes, then a factor model of what is left.

    A point's image residual is the first two rows of the rotation times its 3D offset
    o + sum z_i o_i + sum e_k o_k; each point is a linear least-squares problem of 3 (1 + n_identity + E) unknowns.
    """
    n_renders, n_points, _ = renders.residual.shape
    codes = np.concatenate([np.ones((n_renders, 1)), renders.identity[:, :n_identity], renders.expression], 1)
    design = renders.rotation[:, :2, :, None] * codes[:, None, None, :]
    design = design.reshape(2 * n_renders, -1)
    ridge = np.r_[1.0, np.full(n_identity, RIDGE_IDENTITY), np.full(renders.expression.shape[1], RIDGE_EXPRESSION)]
    target = renders.residual.transpose(0, 2, 1).reshape(2 * n_renders, n_points)
    offsets = np.linalg.solve(design.T @ design + np.diag(np.tile(ridge, 3)), design.T @ target)
    left = (target - design @ offsets).reshape(n_renders, 2, n_points).transpose(0, 2, 1)
    by_code = offsets.reshape(3, codes.shape[1], n_points).transpose(1, 2, 0)
    deviation, common = factor_noise(_turn_back(left, renders.roll), n_common)
    identity, expression = by_code[1 : 1 + n_identity], EXPRESSION_TRUST * by_code[1 + n_identity :]
    return LandmarkCalibration(by_code[0], identity, expression, deviation, common)


def move_points(head: HeadModel, habits: LandmarkCalibration, surface: Callable) -> tuple:
    """Moves trusted points to where the net sees them on the mean face; the calibration keeps only what is left.

    Args:
      head: the model, with the embedding that `habits` was measured for.
      habits: its calibration.
      surface: (n, 3) points -> closest points (n, 3) on the mean head's skin and their triangles' vertices (n, 3).

    Returns:
      LandmarkEmbedding and LandmarkCalibration.
    """
    old = head.landmarks_dense
    trusted = np.asarray(old.weight) > 0
    seen = np.asarray(landmark_positions(old, head.mean)) + habits.offset
    point, corners = surface(seen)
    new = LandmarkEmbedding(
        triangle=np.where(trusted[:, None], corners, old.triangle).astype(np.int32),
        barycentric=np.where(
            trusted[:, None], barycentric(point, np.asarray(head.mean)[corners]), old.barycentric
        ).astype(np.float32),
        weight=old.weight,
    )

    def shift(basis):
        return np.asarray(landmark_positions(old, basis)) - np.asarray(landmark_positions(new, basis))

    return new, habits.replace(
        offset=habits.offset + shift(head.mean),
        identity=habits.identity + shift(head.identity_basis[: len(habits.identity)]),
        expression=habits.expression + shift(head.expression_basis),
    )


def barycentric(point: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """(n, 3) weights, none negative, of points (n, 3) on triangles (n, 3 corners, 3)."""
    edges = np.stack([corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]], -1)
    second_third = np.einsum("nij,nj->ni", np.linalg.pinv(edges), point - corners[:, 0])
    weights = np.concatenate([1 - second_third.sum(1, keepdims=True), second_third], 1).clip(0)
    return weights / weights.sum(1, keepdims=True)


def factor_noise(residual: np.ndarray, n_common: int) -> tuple[np.ndarray, np.ndarray]:
    """Own deviations (L,) and common factors (n_common, L, 2) of residuals (M, L, 2) with covariance D + U'U."""
    n_renders, n_points, _ = residual.shape
    flat = residual.reshape(n_renders, -1)
    covariance = flat.T @ flat / n_renders
    value, vector = np.linalg.eigh(covariance)
    common = (vector[:, ::-1][:, :n_common] * np.sqrt(value[::-1][:n_common])).T.reshape(n_common, n_points, 2)
    own = np.diag(covariance).reshape(n_points, 2) - (common**2).sum(0)
    return np.sqrt(np.maximum(own.mean(1), MIN_DEVIATION**2)), common


def _turn_back(residual: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """Image residuals (M, L, 2), y up, in the axes of the head without its roll."""
    cos, sin = np.cos(roll)[:, None], np.sin(roll)[:, None]
    x, y = residual[..., 0], residual[..., 1]
    return np.stack([cos * x + sin * y, -sin * x + cos * y], -1)

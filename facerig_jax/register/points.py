"""Landmarks of a scan and their places on the head."""

from __future__ import annotations

import numpy as np

from facerig_jax.detect.landmarks import POINTS7
from facerig_jax.register.fit import Landmarks
from facerig_jax.types import HeadModel

# The jaw line of the 68 is where the outline was seen, not a place on the skin.
JAW = 17


def scan_landmarks(head: HeadModel, points: np.ndarray | None, deviation: float) -> Landmarks:
    """Those of 7, 68 or 468 points (L, 3) mm, scan frame, that are known and have a place on the head.

    `deviation` is of each point along each axis, mm. Many points are not worth many measurements - whoever marks them
    is off by the same for neighbours - so more than 7 together count as much as 20.

    Raises:
      ValueError: 468 points for a head without such a table.
    """
    if points is None:
        return Landmarks(np.zeros((0, 3), int), np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0))
    if len(points) == 468 and head.landmarks_dense is None:
        raise ValueError(f"The head {head.name} has no places for 468 landmarks; give 7 or 68.")
    embedding = head.landmarks_dense if len(points) == 468 else head.landmarks68
    assert embedding is not None
    rows = np.array(POINTS7) if len(points) == 7 else np.arange(JAW if len(points) == 68 else 0, len(points))
    target = points if len(points) == 7 else points[rows]
    keep = np.isfinite(target).all(1) & (np.asarray(embedding.weight)[rows] > 0)
    rows, target = rows[keep], target[keep]
    spread = deviation * np.sqrt(max(1.0, len(rows) / 20))
    corners, barycentric = np.asarray(embedding.triangle)[rows], np.asarray(embedding.barycentric)[rows]
    return Landmarks(corners, barycentric.astype(np.float64), target, np.full(len(rows), spread))

"""The scan protocols for one prediction, and scans as they lie in folders."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from facerig_jax.detect.landmarks import POINTS7
from facerig_jax.evaluate.scan_protocols import (
    NOSE_TIP,
    fg2018_rmse,
    nose_tip_of_scan,
    now_distances,
    point_to_plane_rmse,
)
from facerig_jax.head.model import landmark_positions
from facerig_jax.io.mesh_files import submesh
from facerig_jax.types import HeadModel


@dataclasses.dataclass(frozen=True)
class Scan:
    """A truth of any topology: vertices (n, 3) mm and its seven points (7, 3), see `now`."""

    vertices: np.ndarray
    points: np.ndarray


class ScanProtocols:
    """What all predictions of one head share: its skin's triangles, its landmarks."""

    def __init__(self, head: HeadModel):
        self.head = head
        self.index, self.faces = submesh(head.faces, np.asarray(head.part) == 0)
        self.mean = head.unit_mm * np.asarray(head.mean, np.float64)

    def points(self, vertices) -> np.ndarray:
        """(68, 3) the head's landmarks on vertices (P, 3)."""
        return np.asarray(landmark_positions(self.head.landmarks68, jnp.asarray(vertices)), np.float64)

    def scan_of(self, neutral) -> Scan:
        """A truth in the head's own topology (P, 3) as a scan: its skin."""
        return Scan(np.asarray(neutral, np.float64)[self.index], self.points(neutral)[list(POINTS7)])

    def now(self, scan: Scan, neutral) -> np.ndarray:
        """(n,) mm: NoW's distances alone, of a neutral (P, 3) mm."""
        neutral = np.asarray(neutral, np.float64)
        guess = (neutral[self.index], self.faces, self.points(neutral)[list(POINTS7)])
        return now_distances(scan.vertices, scan.points, *guess)

    def __call__(self, scan: Scan, neutral) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """The errors of a neutral (P, 3) mm.

        Returns:
          name -> mm: mean and median of NoW and metrical NoW over the scan, 'fg2018' and 'plane' (RMSE); and the
          distances (n,) mm of 'now' and 'now_metrical'.
        """
        neutral = np.asarray(neutral, np.float64)
        vertices, seven = neutral[self.index], self.points(neutral)[list(POINTS7)]
        mean_points = self.points(self.mean)
        tip = nose_tip_of_scan(scan.vertices, scan.points, mean_points[list(POINTS7)], mean_points[NOSE_TIP])
        truth, guess = (scan.vertices, scan.points), (vertices, self.faces, seven)
        distances = {
            "now": now_distances(*truth, *guess),
            "now_metrical": now_distances(*truth, *guess, metrical=True),
        }
        errors: dict[str, float] = {}
        for name, values in distances.items():
            errors |= {f"{name}_mean": float(values.mean()), f"{name}_median": float(np.median(values))}
        errors["fg2018"] = fg2018_rmse(*truth, *guess)
        errors["plane"] = point_to_plane_rmse(*truth, tip, *guess)
        return errors, distances

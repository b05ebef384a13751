"""Smooth deformations beyond a head's own modes: a Gaussian process over the face, cut to a finite rank.

A face differs from every linear model's. How it does is described by a covariance between vertices (Luethi et al. 2018,
Gaussian process morphable models); its modes then enter the registration as the head's own do, with N(0, 1) weights.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg


@dataclasses.dataclass(frozen=True)
class SmoothConfig:
    """lengths: (mm) over which neighbouring vertices move alike, and deviation: (mm) per axis at each length.

    rank: how many places of the face carry a mode (times three axes).
    """

    lengths: tuple[float, ...] = (15.0, 30.0, 60.0)
    deviation: tuple[float, ...] = (0.3, 0.5, 0.5)
    rank: int = 200


# Values below this (mm) are dropped: they move nothing, and denormal numbers slow every product.
NEGLIGIBLE = 1e-5


def smooth_modes(points: np.ndarray, region: np.ndarray, config: SmoothConfig) -> np.ndarray:
    """(P, R) scalar modes of the process at points (P, 3) mm; region (P,) bool is where it is represented well.

    The Nystroem approximation on R points spread evenly over the region; far from it the modes fade to 0.
    """
    centres = points[region][farthest_points(points[region], config.rank)]
    root = scipy.linalg.cholesky(_covariance(centres, centres, config) + 1e-6 * np.eye(len(centres)), lower=True)
    modes = scipy.linalg.solve_triangular(root, _covariance(centres, points, config), lower=True).T
    return np.where(np.abs(modes) < NEGLIGIBLE, 0.0, modes)


def _covariance(a: np.ndarray, b: np.ndarray, config: SmoothConfig) -> np.ndarray:
    squared = np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T, 0)
    terms = zip(config.lengths, config.deviation, strict=True)
    return sum(deviation**2 * np.exp(-squared / (2 * length**2)) for length, deviation in terms)


def farthest_points(points: np.ndarray, count: int) -> np.ndarray:
    """(min(count, n),) indices of points (n, 3) spread evenly: each is the farthest from those before it."""
    chosen, distance = [0], np.full(len(points), np.inf)
    for _ in range(min(count, len(points)) - 1):
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(1))
        chosen.append(int(distance.argmax()))
    return np.array(chosen)

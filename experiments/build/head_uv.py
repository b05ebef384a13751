"""The UV layout of the embedded head: one UV per vertex, the face over most of the unit square.

The skin, with the neck opening as its only boundary, is one island that fills a superellipse; eyes, mouth and nostrils
are closed pockets of the same surface, shrunk where they open. The eyeballs and the tongue fill three of the corners
that the superellipse leaves free, the teeth the fourth.
"""

import numpy as np

from experiments.build.head_flatten import boundary_loop, flatten, loop_parameters
from experiments.build.head_shape import connected_pieces

EXPONENT = 4.0  # of the superellipse
FACE_SHARE, POCKET_SHARE = 0.72, 0.025  # of the unit square's area, wanted; the rest of the skin gets what is left
OTHER_IMPORTANCE = 0.005  # of distortion outside the face, relative to inside
MARGIN = 0.004  # around the square, at least two texels of a 512 texture
CORNER_RADIUS = 0.040
TEETH_HALF = (0.046, 0.0085)


def build_uv(positions, faces, quads, part, face, mirror) -> np.ndarray:
    """UV (P, 2) in [0, 1], v up, for the subdivided mean.

    Args:
      positions: (P, 3) mm. faces: (F, 3). quads: (Q, 4). part: (P,). mirror: (P,).
      face: (P,) bool, the region that is to fill the square.
    """
    piece = connected_pieces(quads, len(positions))
    uv = np.full((len(positions), 2), np.nan)
    for label in np.unique(piece):
        own = np.flatnonzero(piece == label)
        local = np.full(len(positions), -1)
        local[own] = np.arange(len(own))
        triangles = local[faces[piece[faces[:, 0]] == label]]
        if part[own[0]] == 0:
            uv[own] = _skin(positions[own], triangles, face[own], local[mirror[own]])
        else:
            center = positions[own].mean(0)
            if part[own[0]] == 1 and center[0] < 0:
                continue  # the mirror image of the other eye
            uv[own] = _small_island(
                positions[own], triangles, *_place(part[own[0]], positions[own], positions[part == 2])
            )
    missing = np.isnan(uv[:, 0])
    uv[missing] = uv[mirror[missing]] * [-1, 1] + [1, 0]
    return uv


def _skin(positions, faces, face, mirror):
    """The skin's island: the neck's front at the bottom, the back of the neck at the top."""
    loop = boundary_loop(faces)
    middle = loop[mirror[loop] == loop]
    front, back = middle[np.argmax(positions[middle, 2])], middle[np.argmin(positions[middle, 2])]
    loop_uv = superellipse(loop_parameters(loop, positions, (front, back)))
    scale = wanted_area_scale(positions, faces, face, loop)
    importance = np.where(face[faces].all(1), 1.0, OTHER_IMPORTANCE)
    size = 1 - 2 * MARGIN  # the superellipse spans [-1, 1], the unit square has a quarter of its area
    return (size * flatten(positions, faces, loop, loop_uv, 4 * scale, importance, mirror) + 1) / 2


def wanted_area_scale(positions, faces, face, loop) -> np.ndarray:
    """Wanted area per triangle over its area, (F,), so that face, pockets and the rest get their shares."""
    area = np.linalg.norm(np.cross(*(positions[faces[:, k]] - positions[faces[:, 0]] for k in (1, 2))), axis=1) / 2
    in_face = face[faces].all(1)
    outside = _connected_to(faces[~in_face], loop, len(positions))
    group = np.where(in_face, 0, np.where(outside[faces].any(1), 2, 1))
    whole = superellipse_area(EXPONENT) / 4
    shares = np.array([FACE_SHARE, POCKET_SHARE, whole - FACE_SHARE - POCKET_SHARE])
    return (shares / np.bincount(group, area, 3))[group]


def _connected_to(faces, seeds, vertex_count):
    """Vertices (V,) bool that these faces connect to the seeds."""
    label = connected_pieces(faces, vertex_count)
    return np.isin(label, label[seeds])


def superellipse(t: np.ndarray) -> np.ndarray:
    """Points (N, 2) of |x|^p + |y|^p = 1 at fractions t of its length, counter-clockwise from the bottom (0, -1)."""
    angle = np.linspace(-np.pi / 2, 3 * np.pi / 2, 20001)
    direction = np.stack([np.cos(angle), np.sin(angle)], 1)
    curve = direction / (np.abs(direction) ** EXPONENT).sum(1, keepdims=True) ** (1 / EXPONENT)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    return np.stack([np.interp(t, length / length[-1], curve[:, k]) for k in range(2)], 1)


def superellipse_area(exponent: float) -> float:
    """Area inside |x|^p + |y|^p = 1."""
    from math import gamma

    return 4 * gamma(1 + 1 / exponent) ** 2 / gamma(1 + 2 / exponent)


def _small_island(positions, faces, center, half):
    """A disk-like piece into an ellipse, its leftmost and rightmost rim vertices at the ends of the long axis."""
    loop = boundary_loop(faces)
    right, left = loop[np.argmax(positions[loop, 0])], loop[np.argmin(positions[loop, 0])]
    angle = 2 * np.pi * loop_parameters(loop, positions, (right, left))
    loop_uv = np.stack([np.cos(angle), np.sin(angle)], 1) * half
    area = (
        np.linalg.norm(np.cross(*(positions[faces[:, k]] - positions[faces[:, 0]] for k in (1, 2))), axis=1).sum() / 2
    )
    scale = np.full(len(faces), np.pi * half[0] * half[1] / area)
    return flatten(positions, faces, loop, loop_uv, scale) + center


def _place(part, own, mouth):
    """Centre and half axes of a small island's ellipse."""
    near, far = CORNER_RADIUS + MARGIN, 1 - CORNER_RADIUS - MARGIN
    if part == 1:
        return np.array([far, near]), np.array([CORNER_RADIUS, CORNER_RADIUS])
    width = np.ptp(own[:, 0])
    if width < 0.8 * np.ptp(mouth[:, 0]):  # the tongue is the narrow piece
        return np.array([near, far]), np.array([CORNER_RADIUS, CORNER_RADIUS])
    row = 0 if own[:, 1].mean() > mouth[:, 1].mean() else 1  # upper teeth above lower teeth
    height = 1 - MARGIN - TEETH_HALF[1] * (1 + 2.3 * row)
    return np.array([1 - MARGIN - TEETH_HALF[0], height]), np.array(TEETH_HALF)

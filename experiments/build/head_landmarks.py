"""Carries landmark embeddings from the calibration's triangles over to the subdivided mesh."""

import igl
import numpy as np

from facerig_jax.head.subdivide import Subdivision, triangulate


def re_embed(
    triangle: np.ndarray, barycentric: np.ndarray, targets: np.ndarray, surface: np.ndarray, topology: Subdivision
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nearest point of the subdivided mean to each point of the calibrated mean, near it only.

    The search stays on quads that touch the point's old triangle, so that a point of the upper lip cannot end up on
    the lower one.

    Args:
      triangle: (L, 3) vertices of the control mesh.
      barycentric: (L, 3).
      targets: (V, 3) mm, the calibrated vertices the points were measured on.
      surface: (P, 3) mm, the subdivided mean.
      topology: its connectivity.

    Returns:
      (L, 3) int32 vertices of the subdivided mesh, (L, 3) float32 barycentrics, (L,) float distance moved, mm.
    """
    points = np.einsum("lc,lcx->lx", barycentric, targets[triangle])
    faces = triangulate(topology.quads).astype(np.int64)
    quad_of_face = np.tile(np.arange(len(topology.quads)) // 4, 2)
    corners, weights, moved = [], [], []
    for point, old in zip(points, triangle, strict=True):
        near = np.flatnonzero(np.isin(topology.coarse, old).any(1))
        candidates = np.ascontiguousarray(faces[np.isin(quad_of_face, near)])
        squared, index, closest = igl.point_mesh_squared_distance(point[None], surface, candidates)[:3]
        corner = candidates[int(np.ravel(index)[0])]
        corners.append(corner)
        weights.append(barycentric_of(np.reshape(closest, 3), surface[corner]))
        moved.append(np.sqrt(np.ravel(squared)[0]))
    return np.array(corners, np.int32), np.array(weights, np.float32), np.array(moved)


def barycentric_of(point: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Barycentric coordinates (3,) of a point (3,) in the plane of a triangle (3, 3), clipped to the triangle."""
    edges = (corners[1:] - corners[0]).T
    second, third = np.linalg.lstsq(edges, point - corners[0], rcond=None)[0]
    weight = np.clip([1 - second - third, second, third], 0, 1)
    return weight / weight.sum()

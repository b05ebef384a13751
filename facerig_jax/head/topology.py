"""Per-topology tables, computed once with numpy when a head is loaded."""

import numpy as np


def ordered_rings(faces: np.ndarray, n_vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """The neighbours of every vertex in counter-clockwise order seen from outside.

    Args:
      faces: (F, 3) counter-clockwise triangles of a manifold surface, with or without boundary.
      n_vertices: P.

    Returns:
      rings: (P, M) int64, padded with -1.
      closed: (P,) bool; an open ring starts and ends at the boundary.
    """
    corners = np.concatenate([np.roll(faces, -k, axis=1) for k in range(3)]).astype(np.int64)
    key = corners[:, 0] * n_vertices + corners[:, 1]  # each corner (v, a, b) says: around v, b follows a
    order = np.argsort(key, kind="stable")
    key, following = key[order], corners[order, 2]
    vertex = np.arange(n_vertices)

    first = np.full(n_vertices, -1)
    first[corners[::-1, 0]] = corners[::-1, 1]
    has_previous = np.isin(key, corners[:, 0] * n_vertices + corners[:, 2])
    first[key[~has_previous] // n_vertices] = key[~has_previous] % n_vertices

    def step(current):
        slot = np.searchsorted(key, vertex * n_vertices + current)
        slot = np.minimum(slot, len(key) - 1)
        known = (current >= 0) & (key[slot] == vertex * n_vertices + current)
        return np.where(known, following[slot], -1)

    rings, current = [first], step(first)
    while (current >= 0).any() and len(rings) < 64:
        back = current == first
        rings.append(np.where(back, -1, current))
        current = np.where(back, -1, step(current))
    rings = np.stack(rings, 1)
    rings = rings[:, (rings >= 0).any(0)]
    last = rings[vertex, np.maximum((rings >= 0).sum(1) - 1, 0)]
    return rings, step(last) == first


def tangent_stencil(faces: np.ndarray, n_vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """Two tangent vectors per vertex as linear combinations of its neighbours; their cross product points outward.

    On a closed ring p_0 .. p_{m-1} the tangents are sum cos(2 pi i / m) p_i and sum sin(2 pi i / m) p_i, the limit
    tangents of Loop subdivision (exactly the area vector of the ring for m = 4); on an open ring they run along and
    away from the boundary. Because they are linear in the vertices, a morphable model's normals follow from
    bases of tangents, with no scatter.

    Returns:
      neighbours: (P, M + 1) int32, the last column is the vertex itself.
      weights: (P, M + 1, 2) float32, 0 on padding.
    """
    rings, closed = ordered_rings(faces, n_vertices)
    known = rings >= 0
    count = known.sum(1, keepdims=True)
    angle = 2 * np.pi * np.arange(rings.shape[1]) / np.maximum(count, 1)
    around = np.stack([np.cos(angle), np.sin(angle)], -1)
    along = np.zeros(rings.shape)
    along[:, 0] = 1
    along[np.arange(n_vertices), np.maximum(count[:, 0] - 1, 0)] -= 1
    border = np.stack([along, np.ones(rings.shape)], -1)
    weights = np.where(closed[:, None, None], around, border) * known[..., None]
    centre = np.where(closed[:, None], 0.0, np.concatenate([0 * count, -count], 1))
    neighbours = np.concatenate([np.where(known, rings, 0), np.arange(n_vertices)[:, None]], 1)
    return neighbours.astype(np.int32), np.concatenate([weights, centre[:, None]], 1).astype(np.float32)

"""One step of Catmull-Clark subdivision of a quad mesh, with or without boundary, in numpy.

The vertices of the subdivided mesh are, in this order: the old vertices, one per edge, one per quad. The new positions
are a fixed linear map of the old ones, so a mean shape, its bases and any per-vertex field go through the same map.
Rules: Catmull and Clark 1978; boundary edges and vertices follow the cubic B-spline curve rule, (1, 6, 1) / 8.
"""

from typing import NamedTuple

import numpy as np


class Subdivision(NamedTuple):
    """Connectivity of one subdivision step.

    coarse:      (Q, 4) quads of the old mesh.
    quads:       (4Q, 4) quads of the new one; the first corner is an old vertex, the third a quad's midpoint.
    edges:       (E, 2) old vertices of each edge, smaller first.
    edge_quads:  (E, 2) the quads on both sides; the same quad twice on a boundary edge.
    boundary:    (E,) bool.
    vertex_count: number of old vertices.
    """

    coarse: np.ndarray
    quads: np.ndarray
    edges: np.ndarray
    edge_quads: np.ndarray
    boundary: np.ndarray
    vertex_count: int

    @property
    def size(self) -> int:
        """Number of vertices of the subdivided mesh."""
        return self.vertex_count + len(self.edges) + len(self.coarse)


def catmull_clark(quads: np.ndarray, vertex_count: int) -> Subdivision:
    """Connectivity of the subdivided mesh from (Q, 4) quads; at most two quads may share an edge."""
    sides = np.stack([quads, np.roll(quads, -1, axis=1)], axis=-1).reshape(-1, 2)  # the edge after each corner
    key = np.sort(sides, axis=1) @ np.array([vertex_count, 1])
    unique, first, edge_of_side, count = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
    if count.max() > 2:
        raise ValueError("Catmull-Clark subdivision needs a manifold mesh, but an edge has more than two quads.")
    quad_of_side = np.repeat(np.arange(len(quads)), 4)
    last = np.empty(len(unique), int)
    last[edge_of_side] = np.arange(len(key))
    edges = np.stack([unique // vertex_count, unique % vertex_count], axis=1)
    after = vertex_count + edge_of_side.reshape(-1, 4)
    middle = np.broadcast_to((vertex_count + len(edges) + np.arange(len(quads)))[:, None], after.shape)
    fine = np.stack([quads, after, middle, np.roll(after, 1, axis=1)], axis=-1).reshape(-1, 4)
    edge_quads = np.stack([quad_of_side[first], quad_of_side[last]], axis=1)
    return Subdivision(quads, fine, edges, edge_quads, count == 1, vertex_count)


def subdivide(topology: Subdivision, values: np.ndarray) -> np.ndarray:
    """Carries per-vertex rows (V, D) over to the subdivided mesh, (V + E + Q, D); rows of unused vertices stay."""
    count, (begin, end) = topology.vertex_count, topology.edges.T
    middle = values[topology.coarse[:, 0]]
    for corner in topology.coarse.T[1:]:
        middle = middle + values[corner]
    middle *= 0.25
    ends = values[begin] + values[end]
    on_edge = 0.25 * (ends + middle[topology.edge_quads[:, 0]] + middle[topology.edge_quads[:, 1]])
    on_edge[topology.boundary] = 0.5 * ends[topology.boundary]

    corner_vertex, corner_quad = topology.coarse.ravel(), np.repeat(np.arange(len(topology.coarse)), 4)
    around = _mean_by_vertex(middle, corner_vertex, corner_quad, count)
    neighbours = _mean_by_vertex(values, np.concatenate([begin, end]), np.concatenate([end, begin]), count)
    valence = np.maximum(np.bincount(topology.edges.ravel(), minlength=count), 1).astype(values.dtype)[:, None]
    moved = (around + neighbours + (valence - 2) * values) / valence
    rim = np.unique(topology.edges[topology.boundary])
    rim_begin, rim_end = topology.edges[topology.boundary].T
    along = _mean_by_vertex(values, np.concatenate([rim_begin, rim_end]), np.concatenate([rim_end, rim_begin]), count)
    moved[rim] = 0.75 * values[rim] + 0.25 * along[rim]
    unused = np.bincount(corner_vertex, minlength=count) == 0
    moved[unused] = values[unused]
    return np.concatenate([moved, on_edge, middle])


def _mean_by_vertex(rows: np.ndarray, vertex: np.ndarray, row: np.ndarray, count: int) -> np.ndarray:
    """Mean of rows[row[i]] over the i with vertex[i] = v, for v < count; zero where there is none."""
    order = np.argsort(vertex, kind="stable")
    start = np.searchsorted(vertex[order], np.arange(count))
    number = np.bincount(vertex, minlength=count)
    total = np.zeros((count, rows.shape[1]), rows.dtype)
    for turn in range(number.max(initial=0)):  # valences are small, so a few whole-array additions
        has = np.flatnonzero(number > turn)
        total[has] += rows[row[order[start[has] + turn]]]
    return total / np.maximum(number, 1).astype(rows.dtype)[:, None]


def triangulate(quads: np.ndarray) -> np.ndarray:
    """(Q, 4) quads to (2Q, 3) int32 triangles with the same winding, split along the first-third diagonal."""
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]).astype(np.int32)


def subdivided_mirror(topology: Subdivision, mirror: np.ndarray) -> np.ndarray:
    """Mirror index (V + E + Q,) of the subdivided mesh from that of the old vertices (V,).

    Raises ValueError when the connectivity is not mirror symmetric.
    """
    edges = np.sort(mirror[topology.edges], axis=1)
    quads = np.sort(topology.coarse, axis=1)
    edge_of = _row_index(topology.edges, edges)
    quad_of = _row_index(quads, np.sort(mirror[topology.coarse], axis=1))
    first = topology.vertex_count
    return np.concatenate([mirror, first + edge_of, first + len(edges) + quad_of])


def _row_index(table: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Index in `table` of each of `rows` (integer rows without repetition)."""
    both, inverse = np.unique(np.concatenate([table, rows]), axis=0, return_inverse=True)
    if len(both) != len(table):
        raise ValueError("the mesh connectivity is not mirror symmetric.")
    position = np.empty(len(both), int)
    position[inverse.reshape(-1)[: len(table)]] = np.arange(len(table))
    return position[inverse.reshape(-1)[len(table) :]]

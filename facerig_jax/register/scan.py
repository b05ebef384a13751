"""A raw scan: its checks, and the closest point, normal and border of its surface."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import scipy.sparse
import scipy.spatial

from facerig_jax.geometry.surface_distance import closest_on, triangle_normals

# Neighbours by which a cloud's normals and borders are judged. A point is on the border when their centre lies off it
# by more than this share of their mean distance: 0.55 to 0.6 on a straight rim, and for 99 % of random points inside
# below 0.47.
NORMAL_NEIGHBOURS, BORDER_NEIGHBOURS, LOPSIDED = 12, 24, 0.48
# Outer-eye distance of a face, mm: what lies outside is another unit.
EYES_MM = (50.0, 140.0)
OUTER_EYES = {7: (0, 3), 68: (36, 45), 468: (33, 263)}
MIN_VERTICES, MIN_POINTS = 500, 4
# A landmark list belongs to a scan when its median distance to it is below this, mm.
FAR_POINTS = 10.0


@dataclasses.dataclass(frozen=True)
class Scan:
    """A face scan and its landmarks, in any frame, millimetres.

    vertices: (n, 3).
    faces:    (m, 3), or None for a cloud of points.
    points:   (7, 3) in the order of the NoW protocol, (68, 3) iBUG or (468, 3) MediaPipe; NaN marks unknown ones. None
              where a registration of the same head, in the same frame, says where it is.
    """

    vertices: np.ndarray
    faces: np.ndarray | None
    points: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Surface:
    """A scan ready for queries.

    vertices: (n, 3) mm; faces: (m, 3) or None.
    normals:  (n, 3) unit, outward, averaged over the neighbours.
    border:   (n,) bool, on the rim of the scan or of a hole.
    search:   points (k, 3) -> distance, and with faces also place and triangle, else vertex.
    """

    vertices: np.ndarray
    faces: np.ndarray | None
    normals: np.ndarray
    border: np.ndarray
    search: Callable

    def closest(self, points: np.ndarray):
        """The closest places to points (k, 3): place (k, 3), unit normal (k, 3), on_border (k,) bool."""
        if self.faces is None:
            _, index = self.search(points)
            return self.vertices[index], self.normals[index], self.border[index]
        _, place, triangle = self.search(points)
        corners = self.faces[triangle]
        spokes = self.vertices[corners] - place[:, None]
        opposite = np.linalg.norm(np.cross(np.roll(spokes, -1, axis=1), np.roll(spokes, -2, axis=1)), axis=-1)
        normal = (opposite[..., None] * self.normals[corners]).sum(1)
        return place, unit(normal), self.border[corners].any(1)


def check_scan(scan: Scan, name: str = "scan") -> Scan:
    """The scan in float64 without what is not finite, triangles without area, and vertices that no triangle uses.

    Raises:
      ValueError: in one sentence: shapes, indices, too few vertices, landmarks missing, elsewhere or not millimetres.
    """
    vertices = np.asarray(scan.vertices, np.float64)
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f"{name}: vertices should be (n, 3), got {vertices.shape}.")
    finite = np.isfinite(vertices).all(1)
    if scan.faces is None or not len(scan.faces):
        vertices, faces = vertices[finite], None
    else:
        vertices, faces = _used(vertices, _checked_faces(np.asarray(scan.faces), len(vertices), name), finite)
    if len(vertices) < MIN_VERTICES:
        raise ValueError(f"{name}: {len(vertices)} usable vertices; at least {MIN_VERTICES} are needed.")
    points = None if scan.points is None else _checked_points(np.asarray(scan.points, np.float64), vertices, name)
    return Scan(vertices, faces, points)


def _checked_faces(faces: np.ndarray, n_vertices: int, name: str) -> np.ndarray:
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "iu":
        raise ValueError(f"{name}: faces should be (m, 3) vertex numbers, got {faces.dtype} {faces.shape}.")
    if faces.min() < 0 or faces.max() >= n_vertices:
        raise ValueError(f"{name}: faces name vertices {faces.min()}..{faces.max()}, and there are {n_vertices}.")
    return faces.astype(np.int64)


def _used(vertices, faces, finite):
    """Vertices in use and the triangles that have an area."""
    faces = faces[finite[faces].all(1)]
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    faces = faces[np.linalg.norm(np.cross(b - a, c - a), axis=1) > 1e-12]
    index = np.unique(faces)
    return vertices[index], np.searchsorted(index, faces)


def _checked_points(points: np.ndarray, vertices: np.ndarray, name: str) -> np.ndarray:
    if points.ndim != 2 or points.shape[1] != 3 or len(points) not in OUTER_EYES:
        raise ValueError(f"{name}: 7, 68 or 468 landmarks 'x y z' are needed, got an array {points.shape}.")
    known = np.isfinite(points).all(1)
    if known.sum() < MIN_POINTS:
        raise ValueError(f"{name}: {known.sum()} landmarks are known, and at least {MIN_POINTS} are needed.")
    right, left = OUTER_EYES[len(points)]
    eyes = np.linalg.norm(points[right] - points[left])
    if np.isfinite(eyes) and not EYES_MM[0] < eyes < EYES_MM[1]:
        raise ValueError(f"{name}: the outer eye corners are {eyes:.4g} apart, and in millimetres about 90.")
    apart = np.median(scipy.spatial.cKDTree(vertices).query(points[known])[0])
    if apart > FAR_POINTS:
        raise ValueError(f"{name}: the landmarks lie {apart:.0f} mm off the scan; are they in another frame?")
    return points


def prepare(scan: Scan, smooth: int = 2) -> Surface:
    """Normals and borders of a checked scan; `smooth`: how often normals are averaged over the neighbours."""
    if scan.faces is None:
        return _prepare_cloud(scan.vertices)
    n, faces = len(scan.vertices), scan.faces
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    name, count = np.unique(np.sort(edges, 1) @ np.array([n, 1]), return_counts=True)
    border = np.zeros(n, bool)
    border[name[count == 1] // n] = border[name[count == 1] % n] = True
    normals = vertex_normals(scan.vertices, faces)
    link = scipy.sparse.coo_matrix((np.ones(len(edges)), edges.T), (n, n)).tocsr()
    link = link + link.T + scipy.sparse.eye(n)
    for _ in range(smooth):
        normals = unit(link @ normals)
    inside_out = (normals * _outward(scan.vertices)).sum(1).mean() < 0
    return Surface(scan.vertices, faces, -normals if inside_out else normals, border, closest_on(scan.vertices, faces))


def _prepare_cloud(vertices: np.ndarray) -> Surface:
    """Normals of a cloud by the plane of the neighbours."""
    tree = scipy.spatial.cKDTree(vertices)
    distance, index = tree.query(vertices, BORDER_NEIGHBOURS)
    lean = np.linalg.norm(vertices[index].mean(1) - vertices, axis=1) / np.maximum(distance.mean(1), 1e-12)
    near = vertices[index[:, :NORMAL_NEIGHBOURS]]
    offset = near - near.mean(1, keepdims=True)
    normals = np.linalg.eigh(np.einsum("nki,nkj->nij", offset, offset))[1][:, :, 0]
    normals *= np.where((normals * _outward(vertices)).sum(1, keepdims=True) < 0, -1, 1)
    return Surface(vertices, None, normals, lean > LOPSIDED, tree.query)


def _outward(vertices: np.ndarray) -> np.ndarray:
    """(n, 3) roughly outward directions: away from the centre of the sphere that fits best."""
    shifted = vertices - vertices.mean(0)
    design = np.concatenate([2 * shifted, np.ones((len(shifted), 1))], axis=1)
    centre = np.linalg.lstsq(design, (shifted**2).sum(1), rcond=None)[0][:3]
    return shifted - centre


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(P, 3) unit normals, averaged over the triangles by area."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    weighted = np.linalg.norm(np.cross(b - a, c - a), axis=1, keepdims=True) * triangle_normals(vertices, faces)
    total = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(total, faces[:, k], weighted)
    return unit(total)


def unit(vectors: np.ndarray) -> np.ndarray:
    """(..., 3) of length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-20)

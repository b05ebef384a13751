"""Exact closest points and finite elements on triangle meshes, through libigl (the only file that imports it)."""

from collections.abc import Callable

import numpy as np


def closest_points(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray):
    """The closest point of a surface to each point.

    Args:
      points: (n, 3).
      vertices: (P, 3), same unit and frame.
      faces: (F, 3).

    Returns:
      distance: (n,) unsigned.
      closest: (n, 3).
      triangle: (n,) index of the triangle it lies on.

    Raises:
      ImportError: libigl is missing.
    """
    return closest_on(vertices, faces)(points)


def closest_on(vertices: np.ndarray, faces: np.ndarray) -> Callable:
    """`closest_points` for one surface that is asked many times: its search tree is built once."""
    igl, vertices, faces = _igl(), np.ascontiguousarray(vertices, np.float64), np.ascontiguousarray(faces, np.int64)
    tree = igl.AABB()
    tree.init(vertices, faces)

    def query(points: np.ndarray):
        points = np.ascontiguousarray(points, np.float64)
        squared, triangle, closest = tree.squared_distance(vertices, faces, points)
        return np.sqrt(np.maximum(squared, 0)), closest, triangle

    return query


def mass_and_stiffness(vertices: np.ndarray, faces: np.ndarray):
    """Lumped areas (P,) and the positive cotangent Laplacian (P, P), sparse: linear finite elements on a surface."""
    igl = _igl()
    mass = igl.massmatrix(vertices, faces, igl.MASSMATRIX_TYPE_BARYCENTRIC).diagonal()
    return np.maximum(mass, 1e-9), -igl.cotmatrix(vertices, faces)


def _igl():
    try:
        import igl
    except ImportError as error:
        raise ImportError("Surface distances need libigl: pip install 'facerig_jax[test]'.") from error
    return igl


def triangle_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F, 3) unit normals, counter-clockwise triangles pointing outward."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-20)

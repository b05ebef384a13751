"""Scans made from meshes of our own: another topology, the face only, holes, noise. For measuring the registration."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.spatial

from facerig_jax.detect.landmarks import POINTS7
from facerig_jax.geometry.surface_distance import triangle_normals
from facerig_jax.head.model import landmark_positions
from facerig_jax.register.scan import Scan
from facerig_jax.types import HeadModel


@dataclasses.dataclass(frozen=True)
class ScannerConfig:
    """What the made-up scanner does; mm.

    count:        points on the surface; about 12,000 is one every 1.7 mm.
    noise:        standard deviation along each axis.
    radius:       of the sphere about the nose that is kept.
    holes:        how many round holes, and hole_radius: theirs.
    point_noise:  standard deviation of the landmarks along each axis.
    triangulated: False gives a cloud of points.
    rotated:      in a frame of its own; False keeps the head frame.
    """

    count: int = 20_000
    noise: float = 0.1
    radius: float = 105.0
    holes: int = 3
    hole_radius: float = 8.0
    point_noise: float = 1.0
    triangulated: bool = True
    rotated: bool = True


def resample(
    head: HeadModel, vertices: np.ndarray, rng: np.random.Generator, config=ScannerConfig()
) -> tuple[Scan, tuple[np.ndarray, np.ndarray]]:
    """A scan of a mesh in the head's topology, turned and moved at random, with 7 points.

    Points at random on the outer skin and the eyes, joined by a Delaunay triangulation of the texture plane: no vertex
    and no edge of the mesh is left.

    Args:
      head: its topology and landmarks.
      vertices: (P, 3) mm, head frame.
      rng: all that is random.
      config: the scanner.

    Returns:
      Scan in a frame of its own, and (rotation (3, 3), translation (3,)): head frame -> scan frame.
    """
    vertices = np.asarray(vertices, np.float64)
    points7 = np.asarray(landmark_positions(head.landmarks68, vertices.astype(np.float32)))[list(POINTS7)]
    nose = points7[4]
    faces = _outer_faces(head, vertices, nose, config.radius)
    centres = vertices[faces].mean(1)
    front = np.flatnonzero(np.linalg.norm(centres - nose, axis=1) < 0.8 * config.radius)
    for place in centres[rng.choice(front, config.holes)]:
        faces = faces[np.linalg.norm(vertices[faces] - place, axis=-1).min(1) > config.hole_radius]
    places, plane = _random_points(vertices, np.asarray(head.uv, np.float64), faces, config.count, rng)
    triangles = _triangulate(places, plane) if config.triangulated else None
    noisy = places + config.noise * rng.normal(size=places.shape)
    rotation, shift = scipy.spatial.transform.Rotation.random(random_state=rng).as_matrix(), 200 * rng.normal(size=3)
    if not config.rotated:
        rotation, shift = np.eye(3), np.zeros(3)
    points7 = points7 + config.point_noise * rng.normal(size=points7.shape)
    return Scan(noisy @ rotation.T + shift, triangles, points7 @ rotation.T + shift), (rotation, shift)


def _outer_faces(head: HeadModel, vertices, nose, radius: float) -> np.ndarray:
    """Triangles of skin and eyeballs near the nose that a scanner in front of the face sees."""
    faces, part = np.asarray(head.faces), np.asarray(head.part)
    faces = faces[(part[faces] <= 1).all(1)]
    near = (np.linalg.norm(vertices[faces] - nose, axis=-1) < radius).all(1)
    turned = triangle_normals(vertices, faces)[:, 2] > -0.2
    faces = faces[near & turned]
    return faces[_seen(vertices, faces)]


def _seen(vertices, faces, cell: float = 4.0, depth: float = 3.0) -> np.ndarray:
    """(m,) bool: not behind another triangle by more than `depth`, from the front, left or right."""
    centres, seen = vertices[faces].mean(1), np.zeros(len(faces), bool)
    for yaw in np.deg2rad([-50, 0, 50]):
        right = np.array([np.cos(yaw), 0, -np.sin(yaw)])
        toward = np.array([np.sin(yaw), 0, np.cos(yaw)])
        column = np.floor(np.stack([centres @ right, centres[:, 1]], 1) / cell).astype(int)
        column -= column.min(0)
        key, height = column @ np.array([column[:, 1].max() + 1, 1]), centres @ toward
        top = np.full(key.max() + 1, -np.inf)
        np.maximum.at(top, key, height)
        seen |= height > top[key] - depth
    return seen


def _random_points(vertices, uv, faces, count: int, rng):
    """Points (count, 3) spread by area over the triangles, and their places (count, 2) in the texture plane."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chosen = rng.choice(len(faces), count, p=area / area.sum())
    weight = rng.dirichlet(np.ones(3), count)
    return tuple(np.einsum("nk,nkx->nx", weight, array[faces[chosen]]) for array in (vertices, uv))


def _triangulate(places, plane, longest: float = 6.0) -> np.ndarray:
    """(m, 3) Delaunay triangles of the texture plane that are short in space, turned outward."""
    triangles = scipy.spatial.Delaunay(plane).simplices
    corners = places[triangles]
    length = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1).max(1)
    triangles = triangles[length < longest]
    outward = triangle_normals(places, triangles)
    flip = np.einsum("nx,nx->n", outward, places[triangles].mean(1) - places.mean(0) + [0, 0, 60]) < 0
    triangles[flip] = triangles[flip][:, ::-1]
    return triangles

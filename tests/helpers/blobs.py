"""Meshes by formula: spheres, an ellipsoid's nose and seven points, and copies of them in other frames."""

import numpy as np

# Outer and inner right, inner and outer left eye, nose bottom, right and left mouth corner, on the front of a blob.
DIRECTIONS = np.array(
    [
        [-0.6, 0.3, 0.7],
        [-0.2, 0.3, 0.9],
        [0.2, 0.3, 0.9],
        [0.6, 0.3, 0.7],
        [0, -0.2, 1],
        [-0.3, -0.5, 0.8],
        [0.3, -0.5, 0.8],
    ]
)
RADII = np.array([70.0, 95.0, 60.0])


def sphere(rings=12, sectors=24):
    """A closed unit sphere, y up, faces counter-clockwise seen from outside: vertices (P, 3), faces (F, 3)."""
    polar, azimuth = np.linspace(0, np.pi, rings + 1)[1:-1], np.linspace(0, 2 * np.pi, sectors, endpoint=False)
    t, p = np.meshgrid(polar, azimuth, indexing="ij")
    body = np.stack([np.sin(t) * np.sin(p), np.cos(t), np.sin(t) * np.cos(p)], -1).reshape(-1, 3)
    index = np.arange((rings - 1) * sectors).reshape(rings - 1, sectors)
    a, b, c, d = index[:-1], np.roll(index, -1, 1)[:-1], index[1:], np.roll(index, -1, 1)[1:]
    top, bottom = np.full(sectors, len(body)), np.full(sectors, len(body) + 1)
    faces = [(a, c, b), (b, c, d), (top, index[0], np.roll(index[0], -1)), (bottom, np.roll(index[-1], -1), index[-1])]
    faces = np.concatenate([np.stack(face, -1).reshape(-1, 3) for face in faces]).astype(np.int32)
    return np.concatenate([body, [[0, 1, 0], [0, -1, 0]]]), faces


def sphere_in_image(size, radius, centre=None):
    """The sphere in the image frame of a size x size picture, px."""
    vertices, faces = sphere()
    centre = ((size - 1) / 2, (size - 1) / 2, 0) if centre is None else centre
    return vertices * [radius, -radius, radius] + centre, faces


def rotation_matrix(rng):
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def with_nose(points):
    bump = np.exp(-np.sum((points - np.array([8.0, -5.0, 60.0])) ** 2, 1) / 25.0**2)
    return points + bump[:, None] * np.array([3.0, -4.0, 22.0])


def moved(rng, *arrays, scale=1.0):
    rotation, shift = rotation_matrix(rng), rng.normal(size=3) * 50
    return [scale * a @ rotation.T + shift for a in arrays]

"""What the modes leave: a displacement of every vertex along its normal, smooth over a few millimetres."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import scipy.sparse.linalg


def normal_detail(vertices, faces, gap, weight, noise: float, deviation: float, length: float) -> np.ndarray:
    """The most likely displacement h (P,) mm given distances to the scan along the normals.

    The prior is a Matern field on the surface, (1/length^2 - Laplacian) h = white noise (Lindgren, Rue and Lindstroem
    2011), with the given standard deviation; measured is h = gap with deviation noise / sqrt(weight).

    Args:
      vertices: (P, 3) mm.
      faces: (F, 3) the surface; vertices without a triangle get 0.
      gap: (P,) mm.
      weight: (P,), 0 where nothing is known.
      noise, deviation, length: mm.
    """
    used = np.unique(faces)
    faces = np.searchsorted(used, faces)
    mass, stiffness = _mass_and_stiffness(vertices[used], faces)
    whitening = scipy.sparse.diags(mass / length**2) + stiffness
    prior = length**2 / (4 * np.pi * deviation**2) * whitening.T @ scipy.sparse.diags(1 / mass) @ whitening
    trust = weight[used] / noise**2
    system = (prior + scipy.sparse.diags(trust)).tocsc()
    out = np.zeros(len(vertices))
    out[used] = scipy.sparse.linalg.splu(
        system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    ).solve(trust * gap[used])
    return out


def _mass_and_stiffness(vertices, faces):
    """Lumped areas (n,) mm^2 and the cotangent Laplacian (n, n) of linear finite elements."""
    n, rows, columns, values = len(vertices), [], [], []
    for k in range(3):
        here, a, b = faces[:, k], faces[:, (k + 1) % 3], faces[:, (k + 2) % 3]
        u, v = vertices[a] - vertices[here], vertices[b] - vertices[here]
        double_area = np.linalg.norm(np.cross(u, v), axis=1)
        cotangent = 0.5 * (u * v).sum(1) / np.maximum(double_area, 1e-9)
        rows += [a, b, a, b]
        columns += [b, a, a, b]
        values += [-cotangent, -cotangent, cotangent, cotangent]
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    mass = np.bincount(faces.reshape(-1), np.repeat(double_area / 6, 3), n)
    return np.maximum(mass, 1e-9), scipy.sparse.csr_matrix(entries, shape=(n, n))

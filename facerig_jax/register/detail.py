"""What the modes leave: a displacement of every vertex along its normal, smooth over a few millimetres."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from facerig_jax.geometry.surface_distance import mass_and_stiffness


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
    mass, stiffness = mass_and_stiffness(vertices[used], faces)
    whitening = scipy.sparse.diags(mass / length**2) + stiffness
    prior = length**2 / (4 * np.pi * deviation**2) * whitening.T @ scipy.sparse.diags(1 / mass) @ whitening
    trust = weight[used] / noise**2
    system = (prior + scipy.sparse.diags(trust)).tocsc()
    out = np.zeros(len(vertices))
    out[used] = scipy.sparse.linalg.splu(
        system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    ).solve(trust * gap[used])
    return out

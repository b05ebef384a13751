"""Loads a head in the form the published method stores its BFM-2009 model (with FaceWarehouse expressions)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from facerig_jax.head.topology import tangent_stencil
from facerig_jax.io.arrays import read_arrays
from facerig_jax.types import HeadModel, LandmarkEmbedding

REQUIRED = ("shapeMU", "shapePC", "shapeEV", "expPC", "expEV", "texMU", "tri", "uv", "kpt_ind", "face_region_mask")
DEPTH_OFFSET = 7.5e4  # micrometres the mean is lowered by in z


def load_published_form(path_or_arrays: str | Path | Mapping[str, np.ndarray], dtype=np.float32) -> HeadModel:
    """A head in the published form.

    Args:
      path_or_arrays: an .npz without pickled objects, or a mapping, of
        shapeMU (3P, 1), shapePC (3P, I) unit columns with shapeEV (I, 1) standard deviations, expPC (3P, E) with
        expEV (E, 1), all in micrometres, y up, z forward; texMU (3P, 1) in [0, 255], optionally texPC (3P, A) with
        texEV (A, 1) in the same unit; tri (F, 3) 0-based with the inward winding of the published file; uv (P, 2) in
        [0, 1], v up; kpt_ind (68,) vertices of the iBUG points, 0-based; face_region_mask (P,).
      dtype: of the floating-point arrays.

    Returns:
      HeadModel with unit_mm = 1e-3, z lowered by 7.5e4, outward winding, albedo_space 'linear' (the file's colours as
      they are, over 255) and N(0, 1) expression coefficients.

    Raises:
      ValueError: naming the first array that is missing or does not fit.
      FileNotFoundError: when the path does not exist.
    """
    arrays = dict(path_or_arrays) if isinstance(path_or_arrays, Mapping) else read_arrays(path_or_arrays)
    missing = [key for key in REQUIRED if key not in arrays]
    if missing:
        raise ValueError(f"published head form: {missing[0]} is missing (needed: {', '.join(REQUIRED)}).")
    mean = np.asarray(arrays["shapeMU"], dtype).reshape(-1, 3) - np.array([0, 0, DEPTH_OFFSET], dtype)
    count = len(mean)
    expression = _basis(arrays, "exp", count, dtype)
    points = _fitting(arrays, "kpt_ind", (68,)).astype(np.int32)
    faces = np.asarray(arrays["tri"])[:, ::-1].astype(np.int32)
    ring, ring_weight = tangent_stencil(faces, count)
    return HeadModel(
        mean=mean,
        identity_basis=_basis(arrays, "shape", count, dtype),
        expression_basis=expression,
        albedo_mean=_fitting(arrays, "texMU", (3 * count, 1)).reshape(-1, 3).astype(dtype) / 255,
        albedo_basis=_basis(arrays, "tex", count, dtype) / 255 if "texPC" in arrays else np.zeros((0, count, 3), dtype),
        faces=faces,
        ring=ring,
        ring_weight=ring_weight,
        quads=np.zeros((0, 4), np.int32),
        uv=_fitting(arrays, "uv", (count, 2)).astype(dtype),
        face_mask=_fitting(arrays, "face_region_mask", (count,)).astype(dtype),
        part=np.zeros(count, np.int32),
        regions={},
        landmarks68=LandmarkEmbedding(
            triangle=np.repeat(points[:, None], 3, axis=1),
            barycentric=np.tile(np.array([1, 0, 0], dtype), (68, 1)),
            weight=np.ones(68, dtype),
        ),
        landmarks_dense=None,
        mirror=None,
        expression_names=tuple(f"expression_{k:02d}" for k in range(len(expression))),
        unit_mm=1e-3,
        albedo_space="linear",
        expression_prior="normal",
        name="published",
    )


def _fitting(arrays: Mapping[str, np.ndarray], key: str, shape: tuple[int, ...]) -> np.ndarray:
    """One array, refused when its number of entries is wrong."""
    array = np.asarray(arrays[key])
    if array.size != np.prod(shape):
        raise ValueError(f"published head form: {key} has shape {array.shape}, expected {shape}.")
    return array.reshape(shape)


def _basis(arrays: Mapping[str, np.ndarray], prefix: str, count: int, dtype) -> np.ndarray:
    """Columns times standard deviations, as (K, P, 3)."""
    columns, deviation = np.asarray(arrays[f"{prefix}PC"], float), np.asarray(arrays[f"{prefix}EV"], float).reshape(-1)
    if columns.shape != (3 * count, len(deviation)):
        expected = (3 * count, len(deviation))
        raise ValueError(f"published head form: {prefix}PC has shape {columns.shape}, expected {expected}.")
    return (columns * deviation).T.reshape(-1, count, 3).astype(dtype)

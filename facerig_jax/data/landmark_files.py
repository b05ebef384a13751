"""Landmarks of photos: kept in landmarks.npz beside them, or found by the detector.

The file holds one array (468, 3) per photo under the photo's file name: px of the upright photo in its full size, z in
the same scale towards the camera. No pickle.
"""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import numpy as np

from facerig_jax.detect import detect
from facerig_jax.io.arrays import read_arrays
from facerig_jax.io.files import InputError

LANDMARKS_FILE = "landmarks.npz"
N_LANDMARKS = 468
_detect = jax.jit(detect)


def detect_landmarks(detector: dict, image: np.ndarray) -> np.ndarray:
    """(468, 3) px of an image (H, W, 3) uint8; zero where there is no face."""
    return np.asarray(_detect(detector, image).landmarks)


def landmarks_beside(photo: Path) -> Path | None:
    """The landmarks.npz in a photo's folder, if there is one."""
    path = photo.parent / LANDMARKS_FILE
    return path if path.is_file() else None


def rescale(points: np.ndarray, scale: float) -> np.ndarray:
    """Photo px (..., 3) of an image to those of the same image at `scale`; pixel centres at integer coordinates."""
    return np.concatenate([(points[..., :2] + 0.5) * scale - 0.5, points[..., 2:] * scale], axis=-1)


@functools.lru_cache(maxsize=4096)
def read_landmarks(path: Path) -> dict[str, np.ndarray]:
    """Photo file name -> (468, 3) px, from a landmarks.npz.

    Raises:
      InputError: not a .npz of such arrays.
    """
    arrays = read_arrays(path)
    for name, array in arrays.items():
        if array.shape != (N_LANDMARKS, 3) or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise InputError(
                f"{path}: {name} should be finite numbers ({N_LANDMARKS}, 3) px, got {array.dtype} {array.shape}."
            )
    return arrays

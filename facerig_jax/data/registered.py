"""Meshes in a head's topology: what experiments.register writes, or a PLY / OBJ with one vertex per head vertex."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from facerig_jax.io.arrays import check_arrays, load_arrays, save_arrays
from facerig_jax.io.files import InputError
from facerig_jax.io.meshes import MESH_SUFFIXES, read_mesh
from facerig_jax.types import HeadModel

SCHEMA_VERSION = 1
REGISTERED_SUFFIXES = (".npz", *MESH_SUFFIXES)
# Height of the face region over the head's: a registered face outside of this is not in millimetres.
SIZE_RATIO = (0.5, 2.0)


@dataclasses.dataclass(frozen=True)
class Registered:
    """vertices: (P, 3) float32 mm; known: (P,) float32, 1 where the scan was seen."""

    vertices: np.ndarray
    known: np.ndarray


def save_registered(path, vertices, known, **more) -> None:
    """Writes a .npz for `read_registered`; `more` arrays are kept for people to look at; atomic."""
    arrays = {"vertices": np.asarray(vertices, np.float32), "known": np.asarray(known, np.float32)}
    save_arrays(path, SCHEMA_VERSION, arrays | more)


def read_registered(path, head: HeadModel) -> Registered:
    """Reads a mesh in the topology of `head`.

    Args:
      path: .npz of `save_registered`, or .ply / .obj whose vertices are the head's in the head's order, mm; of those
        the face region counts as known.
      head: the model.

    Raises:
      InputError: another number of vertices, another unit, not finite, or not readable.
    """
    path, n_vertices = Path(path), len(head.mean)
    if path.suffix.lower() == ".npz":
        try:
            arrays = load_arrays(path, (SCHEMA_VERSION,), ("vertices", "known"))
            check_arrays(path, arrays, {"vertices": ("P", 3), "known": ("P",)})
        except (ValueError, OSError) as error:
            raise InputError(str(error)) from None
        vertices, known = arrays["vertices"], arrays["known"]
    else:
        vertices, known = read_mesh(path).vertices, np.asarray(head.face_mask)
    if len(vertices) != n_vertices:
        raise InputError(
            f"{path} has {len(vertices)} vertices, and the head {head.name} has {n_vertices}; "
            "bring scans of another topology to it with python -m experiments.register."
        )
    if not np.isfinite(vertices).all():
        raise InputError(f"{path}: {(~np.isfinite(vertices)).any(1).sum()} vertices are not finite.")
    _check_size(path, vertices, head)
    return Registered(vertices.astype(np.float32), known.astype(np.float32))


def _check_size(path: Path, vertices: np.ndarray, head: HeadModel) -> None:
    face = np.asarray(head.face_mask) > 0.5
    size, expected = (np.linalg.norm(np.std(points[face], axis=0)) for points in (vertices, np.asarray(head.mean)))
    ratio = size / (expected * head.unit_mm)
    if not SIZE_RATIO[0] < ratio < SIZE_RATIO[1]:
        raise InputError(f"{path}: the face is {ratio:.3g} times as large as the head's; give millimetres.")


def find_file(folder: Path, stem: str, suffixes=REGISTERED_SUFFIXES) -> Path | None:
    """The first of stem.npz, stem.ply, stem.obj that exists."""
    return next((folder / (stem + suffix) for suffix in suffixes if (folder / (stem + suffix)).is_file()), None)

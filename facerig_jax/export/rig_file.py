"""rig.npz and views.npz: the rig and the per-view state as plain, documented numpy arrays (no pickle).

rig.npz, schema_version 1 (float32 unless said otherwise)
  schema_version     () int32
  neutral            (P, 3) head units, head frame (x to the subject's left, y up, z forward), zero expression
  expression_basis   (K, P, 3) head units per unit of the code; posed = neutral + tensordot(code, expression_basis, 1)
  albedo             (P, 3) linear RGB in [0, 1]
  identity_code      (I,) standard deviations
  albedo_code        (A,) standard deviations
  code_names         (K,) str, or (0,) when the codes have no names
  unit_mm            () float64, millimetres per head unit
  head_name          () str
  and, when the head was given: faces (F, 3) int32, quads (Q, 4) int32, uv (P, 2) with v up, part (P,) int32
  (0 skin, 1 eyeballs, 2 teeth, tongue and mouth interior)

views.npz, schema_version 1
  schema_version     () int32
  names              (V,) str
  pose               (V, 6) pitch, yaw, roll (rad); scale (crop px per head unit); tx, ty (crop px)
  inverse_distance   (V,) 1 / head units; 0 = orthographic
  expression         (V, K) code
  light              (V, 9, 3) spherical-harmonics coefficients
  crop_scale         (V,) crop pixels per photo pixel
  crop_offset        (V, 2) photo position (u, v) of the crop's pixel (0, 0)
  landmarks          (V, L, 3) detected points, photo pixels
  status             (V,) int32, see solve.status
"""

from __future__ import annotations

import zipfile

import numpy as np

from facerig_jax.export.files import atomic_write
from facerig_jax.types import Crop, HeadModel, Rig, Views

SCHEMA_VERSION = 1
RIG_SHAPES = {
    "neutral": ("P", 3),
    "expression_basis": ("K", "P", 3),
    "albedo": ("P", 3),
    "identity_code": ("I",),
    "albedo_code": ("A",),
}
VIEW_SHAPES = {
    "pose": ("V", 6),
    "inverse_distance": ("V",),
    "expression": ("V", "K"),
    "light": ("V", 9, 3),
    "crop_scale": ("V",),
    "crop_offset": ("V", 2),
    "landmarks": ("V", "L", 3),
    "status": ("V",),
}


def save_rig(path, rig: Rig, head: HeadModel | None = None) -> None:
    """Writes rig.npz (arrays: see this module's docstring); atomic.

    Args:
      path: file to write.
      rig: one rig (no batch axes).
      head: the head it was made with; adds its name, triangles, quads, uv and parts for readers without this library.

    Raises:
      ValueError: arrays of the wrong shape, or not finite.
      WriteError: see `files.atomic_write`.
    """
    arrays = {name: np.asarray(getattr(rig, name), np.float32) for name in RIG_SHAPES}
    _check_shapes(path, arrays, RIG_SHAPES)
    arrays["code_names"] = np.array(rig.code_names, dtype=np.str_)
    arrays["unit_mm"] = np.float64(rig.unit_mm)
    arrays["head_name"] = np.array(head.name if head is not None else "", dtype=np.str_)
    if head is not None:
        arrays |= {name: np.asarray(getattr(head, name), np.int32) for name in ("faces", "quads", "part")}
        arrays["uv"] = np.asarray(head.uv, np.float32)
    _save(path, arrays)


def load_rig(path) -> Rig:
    """Reads rig.npz.

    Args:
      path: file written by `save_rig`.

    Returns:
      Rig of numpy arrays, ready for `apply_rig`.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not such a file, another schema version, a missing array, a wrong shape or a value that is not finite.
    """
    arrays = _load(path, (*RIG_SHAPES, "code_names", "unit_mm"))
    sizes = _check_shapes(path, arrays, RIG_SHAPES)
    names = tuple(str(name) for name in np.atleast_1d(arrays["code_names"]))
    if names and len(names) != sizes["K"]:
        raise ValueError(f"{path}: code_names has {len(names)} names for {sizes['K']} codes.")
    unit_mm = arrays["unit_mm"]
    if unit_mm.shape != () or not float(unit_mm) > 0:
        raise ValueError(f"{path}: unit_mm must be one positive number, got {unit_mm!r}.")
    values = {name: arrays[name].astype(np.float32) for name in RIG_SHAPES}
    return Rig(**values, code_names=names, unit_mm=float(unit_mm))


def save_views(path, views: Views, names) -> None:
    """Writes views.npz (arrays: see this module's docstring); atomic.

    Args:
      path: file to write.
      views: the views of a fit; failed views are written too, as they are.
      names: V names, one per view.

    Raises:
      ValueError: wrong shapes or a wrong number of names.
    """
    arrays = {name: getattr(views, name) for name in VIEW_SHAPES if not name.startswith("crop_")}
    arrays |= {"crop_scale": views.crop.scale, "crop_offset": views.crop.offset}
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    sizes = _check_shapes(path, arrays, VIEW_SHAPES, finite=False)
    arrays["names"] = np.array([str(name) for name in names], dtype=np.str_)
    if len(arrays["names"]) != sizes["V"]:
        raise ValueError(f"{path}: {len(arrays['names'])} names for {sizes['V']} views.")
    _save(path, arrays)


def load_views(path) -> tuple[Views, tuple[str, ...]]:
    """Reads views.npz: the views, and their names. Raises as `load_rig` does."""
    arrays = _load(path, (*VIEW_SHAPES, "names"))
    _check_shapes(path, arrays, VIEW_SHAPES, finite=False)
    crop = Crop(scale=arrays["crop_scale"], offset=arrays["crop_offset"])
    values = {name: arrays[name] for name in VIEW_SHAPES if not name.startswith("crop_")}
    return Views(**values, crop=crop), tuple(str(name) for name in arrays["names"])


def _save(path, arrays: dict) -> None:
    with atomic_write(path) as file:
        np.savez_compressed(file, schema_version=np.int32(SCHEMA_VERSION), **arrays)


def _load(path, required) -> dict[str, np.ndarray]:
    """All arrays of a file that says it is of our schema version and holds the required ones."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file.") from None
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a readable .npz of plain arrays ({error}).") from error
    if "schema_version" not in arrays:
        raise ValueError(f"{path}: no schema_version, so this is not a file written by facerig_jax.")
    if arrays["schema_version"].shape != () or arrays["schema_version"] != SCHEMA_VERSION:
        found = arrays["schema_version"]
        raise ValueError(f"{path}: schema_version is {found}, and this release reads {SCHEMA_VERSION}.")
    missing = [name for name in required if name not in arrays]
    if missing:
        raise ValueError(f"{path}: missing {', '.join(missing)}; found {', '.join(sorted(arrays))}.")
    return arrays


def _check_shapes(path, arrays, shapes, finite: bool = True) -> dict[str, int]:
    """Checks every array against its pattern, with one set of sizes for all; returns the sizes."""
    sizes: dict[str, int] = {}
    for name, pattern in shapes.items():
        array = arrays[name]
        fits = array.ndim == len(pattern) and array.dtype.kind in "fiub"
        for want, have in zip(pattern, array.shape, strict=False):
            fits = fits and (sizes.setdefault(want, have) == have if isinstance(want, str) else want == have)
        if not fits:
            wanted = ", ".join(f"{size}={sizes[size]}" if size in sizes else str(size) for size in pattern)
            raise ValueError(f"{path}: {name} should be numbers of shape ({wanted}), got {array.dtype} {array.shape}.")
        if finite and not np.isfinite(array).all():
            raise ValueError(f"{path}: {name} has values that are not finite.")
    return sizes

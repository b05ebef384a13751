"""rig.npz and views.npz: the rig and the per-view state as plain, documented numpy arrays (no pickle).

rig.npz, schema_version 3 (float32 unless said otherwise)
  schema_version     () int32
  neutral            (P, 3) head units, head frame (x to the subject's left, y up, z forward), zero expression
  expression_basis   (K, P, 3) head units per unit of the code; posed = neutral + tensordot(code, expression_basis, 1)
                     of a learned rig (M, P, 3), the linear modes that its networks mix
  albedo             (P, 3) linear RGB in [0, 1]; of a learned rig see neural/linear_colour
  identity_code      (I,) standard deviations, in the identity basis of this version of the head
  albedo_code        (A,) standard deviations, (0,) for a learned rig
  code_names         (K,) str, or (0,) when the codes have no names
  unit_mm            () float64, millimetres per head unit
  neural             () bool, whether this is a learned rig
  head_name          () str
  head_version       () int32, HeadModel.version of the head that the codes belong to
  and, when the head was given: faces (F, 3) int32, quads (Q, 4) int32, uv (P, 2) with v up, part (P,) int32
  (0 skin, 1 eyeballs, 2 teeth, tongue and mouth interior)

  A learned rig has besides (inorig.decode is how they are used; a linear approximation of it is in rig.glb):
  neural/first       (N, K), neural/second (N, N), N >= M: weights of the modes are
                     [code +] gain tanh(second tanh(first code))
  neural/named_codes () bool, whether the code itself is added there
  neural/expression_gain () float64
  neural/stage1/texels, neural/stage2/texels (S, S, m (K + n)) a network for each texel of the displacement maps
  neural/stage1/block/conv1/kernel, .../block/conv2/kernel (3, 3, n, n), .../out/kernel (1, 1, n, 3) their last layers
  neural/albedo/...  the same arrays for the albedo's change, absent when the albedo is static
  neural/uv          (P, 2) where each vertex looks the maps up
  neural/linear_colour () bool, whether albedo and its change are in linear RGB; else in sRGB values

  schema_version 2 is the same without `head_version`, and its codes belong to version 1; schema_version 1 is that
  without `neural` and what follows from it: linear rigs only. Both are still read, and mean the same meshes: neutral
  and expression_basis need no head.

views.npz, schema_version 2
  schema_version     () int32
  names              (V,) str
  pose               (V, 6) pitch, yaw, roll (rad); scale (crop px per head unit); tx, ty (crop px)
  inverse_distance   (V,) 1 / head units; 0 = orthographic
  expression         (V, K) code
  light              (V, 9, 3) spherical-harmonics coefficients
  crop_scale         (V,) crop pixels per photo pixel
  crop_offset        (V, 2) photo position (u, v) of the crop's pixel (0, 0)
  crop_size          () int32, side of the crops in pixels
  landmarks          (V, L, 3) detected points, photo pixels
  status             (V,) int32, see fit.status

  schema_version 1 is the same without `crop_size`, which was 256. It is still read.
"""

from __future__ import annotations

import os
import warnings

import numpy as np

from facerig_jax.checks import check_kind
from facerig_jax.export.neural_file import neural_arrays, read_neural
from facerig_jax.io.arrays import check_arrays, load_arrays, require_arrays, save_arrays
from facerig_jax.types import Crop, HeadModel, Rig, Views

SCHEMA_VERSION, VIEWS_VERSION = 3, 2
# Side of the crops in files of version 1, px.
OLD_CROP_SIZE = 256
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


def save_rig(rig: Rig, path, head: HeadModel | None = None) -> None:
    """Writes rig.npz (arrays: see this module's docstring); atomic.

    Args:
      rig: one rig (no batch axes).
      path: file to write; the former order, path and then rig, still works with a warning.
      head: the head it was made with; adds its name, triangles, quads, uv and parts for readers without this library.

    Raises:
      ValueError: arrays of the wrong shape, or not finite.
      WriteError: see `files.atomic_write`.

    Example:
      facerig_jax.save_rig(fit.rig, "out/rig.npz")
    """
    if isinstance(rig, (str, os.PathLike)) and isinstance(path, Rig):
        warnings.warn("save_rig takes the rig first: save_rig(rig, path).", DeprecationWarning, stacklevel=2)
        rig, path = path, rig
    check_rig_and_path("save_rig", rig, path)
    arrays = {name: np.asarray(getattr(rig, name), np.float32) for name in RIG_SHAPES}
    sizes = check_arrays(path, arrays, RIG_SHAPES)
    if rig.neural is not None:
        arrays |= neural_arrays(path, rig.neural, sizes["P"])
    arrays["neural"] = np.asarray(rig.neural is not None)
    arrays["code_names"] = np.array(rig.code_names, dtype=np.str_)
    arrays["unit_mm"] = np.asarray(rig.unit_mm, np.float64)
    arrays["head_version"] = np.asarray(rig.head_version, np.int32)
    arrays["head_name"] = np.array(head.name if head is not None else "", dtype=np.str_)
    if head is not None:
        arrays |= {name: np.asarray(getattr(head, name), np.int32) for name in ("faces", "quads", "part")}
        arrays["uv"] = np.asarray(head.uv, np.float32)
    save_arrays(path, SCHEMA_VERSION, arrays)


def check_rig_and_path(function: str, rig, path) -> None:
    """Refuses what is not a rig and a path, such as one in the other's place."""
    hint = f"The rig comes first: {function}(fit.rig, path)."
    check_kind("rig", rig, Rig, hint)
    check_kind("path", path, (str, os.PathLike), hint)


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
    arrays = load_arrays(path, range(1, SCHEMA_VERSION + 1), (*RIG_SHAPES, "code_names", "unit_mm"))
    sizes = check_arrays(path, arrays, RIG_SHAPES)
    values = {name: arrays[name].astype(np.float32) for name in RIG_SHAPES}
    neural = read_neural(path, arrays, sizes["P"]) if _is_learned(path, arrays) else None
    names = tuple(str(name) for name in np.atleast_1d(arrays["code_names"]))
    unit_mm = arrays["unit_mm"]
    if unit_mm.shape != () or unit_mm.dtype.kind not in "fiu" or not 0 < float(unit_mm) < np.inf:
        raise ValueError(f"{path}: unit_mm must be one positive number, got {unit_mm!r}.")
    version = _head_version(path, arrays)
    rig = Rig(**values, neural=neural, code_names=names, unit_mm=float(unit_mm), head_version=version)
    if names and len(names) != rig.n_codes:
        raise ValueError(f"{path}: code_names has {len(names)} names for {rig.n_codes} codes.")
    return rig


def _is_learned(path, arrays: dict) -> bool:
    """What the file says about itself; schema version 1 knew linear rigs only."""
    if arrays["schema_version"] < 2:
        return False
    require_arrays(path, arrays, ("neural",))
    if arrays["neural"].shape != () or arrays["neural"].dtype.kind != "b":
        raise ValueError(f"{path}: neural should be yes or no (a bool), got {arrays['neural']!r}.")
    return bool(arrays["neural"])


def _head_version(path, arrays: dict) -> int:
    """Which version of its head the codes belong to; before schema version 3 there was one."""
    if arrays["schema_version"] < 3:
        return 1
    require_arrays(path, arrays, ("head_version",))
    if arrays["head_version"].shape != () or arrays["head_version"].dtype.kind not in "iu":
        raise ValueError(f"{path}: head_version should be one whole number, got {arrays['head_version']!r}.")
    return int(arrays["head_version"])


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
    sizes = check_arrays(path, arrays, VIEW_SHAPES, finite=False)
    arrays["crop_size"] = np.asarray(views.crop.size, np.int32)
    arrays["names"] = np.array([str(name) for name in names], dtype=np.str_)
    if len(arrays["names"]) != sizes["V"]:
        raise ValueError(f"{path}: {len(arrays['names'])} names for {sizes['V']} views.")
    save_arrays(path, VIEWS_VERSION, arrays)


def load_views(path) -> tuple[Views, tuple[str, ...]]:
    """Reads views.npz: the views, and their names. Raises as `load_rig` does."""
    arrays = load_arrays(path, range(1, VIEWS_VERSION + 1), (*VIEW_SHAPES, "names"))
    check_arrays(path, arrays, VIEW_SHAPES, finite=False)
    if arrays["schema_version"] >= 2:
        require_arrays(path, arrays, ("crop_size",))
    size = int(arrays.get("crop_size", OLD_CROP_SIZE))
    crop = Crop(scale=arrays["crop_scale"], offset=arrays["crop_offset"], size=size)
    values = {name: arrays[name] for name in VIEW_SHAPES if not name.startswith("crop_")}
    return Views(**values, crop=crop), tuple(str(name) for name in arrays["names"])

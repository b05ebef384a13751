"""Files of plain numpy arrays that say which schema they follow and are checked when they are read (no pickle)."""

from __future__ import annotations

import zipfile
import zlib

import numpy as np

from facerig_jax.io.files import InputError, as_path, atomic_write

# What a file is that was taken for a .npz, by its first bytes.
OTHER_FILES = {
    b"glTF": "a GLB",
    b"\x93NUMPY": "a single array, .npy",
    b"ply": "a PLY",
    b"\x80": "a pickle, which is never read",
    b"\x89PNG": "a PNG",
    b"{": "JSON",
}


def save_arrays(path, version: int, arrays: dict) -> None:
    """Writes a compressed .npz with its schema_version; atomic."""
    with atomic_write(path) as file:
        np.savez_compressed(file, schema_version=np.int32(version), **arrays)


def read_arrays(path) -> dict[str, np.ndarray]:
    """All arrays of any .npz of plain arrays.

    Raises:
      FileNotFoundError: no such file.
      InputError: no .npz, a damaged one, or one with Python objects in it.
    """
    try:
        with as_path(path).open("rb") as file:
            start = file.read(8)
            if not start.startswith(b"PK"):
                kinds = [f"it is {kind}" for magic, kind in OTHER_FILES.items() if start.startswith(magic)]
                raise InputError(kinds[0] if kinds else "it is no .npz" if start else "it is empty")
            file.seek(0)
            with np.load(file, allow_pickle=False) as data:
                return {name: data[name] for name in data.files}
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file.") from None
    except (OSError, ValueError, EOFError, TypeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        why = "it holds Python objects, which are never read" if "allow_pickle" in str(error) else error
        raise InputError(f"{path}: not a readable .npz of plain arrays ({why}).") from None


def load_arrays(path, versions, required) -> dict[str, np.ndarray]:
    """All arrays of a file that says it is of one of our schema versions and holds the required ones.

    Raises:
      FileNotFoundError: no such file.
      ValueError: no .npz of plain arrays, another schema version, or a missing array.
    """
    arrays = read_arrays(path)
    if "schema_version" not in arrays:
        raise ValueError(f"{path}: no schema_version, so this is not a file written by facerig_jax.")
    found = arrays["schema_version"]
    if found.shape != () or found not in versions:
        known = " and ".join(str(version) for version in versions)
        raise ValueError(f"{path}: schema_version is {found}, and this release reads {known}.")
    require_arrays(path, arrays, required)
    return arrays


def require_arrays(path, arrays: dict, required) -> None:
    """Refuses when one of the required arrays is missing."""
    missing = [name for name in required if name not in arrays]
    if missing:
        raise ValueError(f"{path}: missing {', '.join(missing)}; found {', '.join(sorted(arrays))}.")


def check_arrays(path, arrays: dict, shapes: dict, finite: bool = True, sizes=None) -> dict[str, int]:
    """Checks every array against its pattern, with one set of sizes for all.

    Args:
      path: named in the message.
      arrays: name -> array.
      shapes: name -> sizes, numbers or letters; a letter is the same everywhere.
      finite: whether values must be finite.
      sizes: letters that are known already.

    Returns:
      letter -> size.

    Raises:
      ValueError: the array, what it should be and what it is.
    """
    sizes = dict(sizes or {})
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

"""Atomic writes, encoded images and optional imports: what every writer in this package stands on."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from etils import epath

# Beginnings of addresses of stores, see epath; they need packages of their own (gs://: gcsfs, google-cloud-storage).
STORES = ("gs://", "s3://", "az://")
AnyPath: TypeAlias = Path | epath.Path
IMAGE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


class InputError(ValueError):
    """An input that cannot be used; the message is one sentence naming the file and what is allowed."""


class WriteError(OSError):
    """A file that could not be written; the message is one sentence with the file and the cause."""


def as_path(path) -> AnyPath:
    """A folder or file on this machine as a pathlib.Path, one in a store ('gs://bucket/name') as an epath.Path.

    Raises:
      InputError: an address that is not of one of the stores in STORES.
    """
    text = str(path)
    if text.startswith(STORES):
        return epath.Path(text)
    if re.match(r"[A-Za-z][\w+.-]+:/", text):
        raise InputError(f"{text}: neither a path of this machine nor an address that starts with {', '.join(STORES)}.")
    return Path(path)


def optional_import(module: str, purpose: str, extra: str = "cli"):
    """Imports a module of an optional extra.

    Raises:
      ImportError: naming the purpose and the extra to install, when the module is missing.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise ImportError(f"{purpose} needs {package}; install it with: pip install 'facerig_jax[{extra}]'.") from error


@contextlib.contextmanager
def atomic_write(path, mode: str = "wb", fsync: bool = False) -> Iterator[IO]:
    """Opens a file that appears under its name only when it is complete.

    The data go to a hidden file in the same folder (created when missing), which replaces `path` when the block ends
    without an error. On any error the hidden file is removed and an older file under that name stays as it was. In a
    store, where a file is written as a whole or not at all, they are kept in memory until then.

    Args:
      path: the file to write, on this machine or in a store, see `as_path`.
      mode: 'wb', or 'w' for UTF-8 text with plain line feeds.
      fsync: wait until the data are on the disk.

    Raises:
      WriteError: an OSError in one sentence with the file and the cause (disk full, no permission, ...), and its errno.

    Example:
      with atomic_write("out/mesh.ply") as file:
          file.write(data)
    """
    path = as_path(path)
    write = _write_here if isinstance(path, Path) else _write_to_store
    try:
        with write(path, mode, fsync) as file:
            yield file
    except OSError as error:
        if isinstance(error, WriteError):
            raise
        failure = WriteError(f"Could not write {path}: {error.strerror or error}; no partial file was left.")
        failure.errno = error.errno
        raise failure from error


@contextlib.contextmanager
def _write_here(path: Path, mode: str, fsync: bool) -> Iterator[IO]:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, mode.replace("w", "x"), **text) as file:
            yield file
            file.flush()
            if fsync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _write_to_store(path, mode: str, fsync: bool) -> Iterator[IO]:
    del fsync  # a store keeps what it has accepted
    data = io.BytesIO()
    if "b" in mode:
        yield data
    else:
        text = io.TextIOWrapper(data, encoding="utf-8", newline="\n", write_through=True)
        yield text
        text.detach()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.getvalue())


def to_bytes(image) -> np.ndarray:
    """(..., 3) or (..., ) uint8, bool, or float in [0, 1] -> uint8; values outside are clipped, NaN becomes 0."""
    image = np.asarray(image)
    if image.dtype == np.uint8:
        return image
    values = np.nan_to_num(image.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    return np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)


def encode_image(image, kind: str = "PNG", quality: int = 88) -> bytes:
    """(H, W, 3) or (H, W) sRGB, uint8 or float in [0, 1] -> the bytes of a PNG, JPEG or WEBP file."""
    import imageio.v3 as iio  # takes a while, and few callers of this module write pictures

    options: dict[str, Any] = {"compress_level": 5} if kind == "PNG" else {"quality": quality}
    extension = f".{kind.lower()}"
    return iio.imwrite("<bytes>", to_bytes(image), plugin="pillow", extension=extension, is_batch=False, **options)


def write_image(path, image, quality: int = 92) -> None:
    """Writes (H, W, 3) or (H, W) sRGB, uint8 or float in [0, 1], as .png, .jpg or .webp; atomic.

    Raises:
      ValueError: unknown suffix.
      WriteError: see `atomic_write`.
    """
    kind = IMAGE_FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise ValueError(f"Cannot write {path}: pictures are written as {', '.join(IMAGE_FORMATS)}.")
    data = encode_image(image, kind, quality)
    with atomic_write(path) as file:
        file.write(data)

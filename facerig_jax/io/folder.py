"""An output folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from facerig_jax.io.files import WriteError

# The record that marks a folder as a fit; its 'files' lists what the fit wrote.
RECORD = "fit.json"


def check_folder(path, overwrite: bool = False) -> None:
    """Refuses a folder that must not be replaced.

    Raises:
      WriteError: `path` is a file, cannot be created, or is a folder with other things than an earlier fit in it while
        `overwrite` is off.
    """
    path = Path(path)
    parent = next(folder for folder in Path(os.path.abspath(path)).parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise WriteError(f"{path} cannot be created: {parent} is not a folder that may be written to.")
    if path.exists() and not path.is_dir():
        raise WriteError(f"{path} is a file; give a folder that does not exist yet, or an earlier fit's.")
    if path.is_dir() and any(path.iterdir()) and not overwrite and _written_by_us(path) is None:
        raise WriteError(
            f"The folder {path} is not empty and holds no earlier fit ({RECORD}); "
            "choose another one, or pass --overwrite to add the fit to it."
        )


@contextlib.contextmanager
def whole_folder(path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place when the block ends without an error.

    The files of an earlier fit are replaced; any other file that was in the folder stays in it. On an error the
    temporary folder is removed and what was there before stays as it was.

    Raises:
      WriteError: see `check_folder`; or a file could not be written (disk full, no permission), named as it would
        have been called.
    """
    check_folder(path, overwrite)
    path = Path(os.path.abspath(path))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _swap(temporary, path)
    except OSError as error:
        cause = str(error) if isinstance(error, WriteError) else f"Could not write {path}: {error.strerror or error}."
        raise WriteError(cause.replace(str(temporary), str(path))) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(new: Path, path: Path) -> None:
    """Renames `new` to `path`; foreign files of an older folder at `path` move along."""
    if not path.exists():
        return os.replace(new, path)
    old = new.with_suffix(".old")
    ours = _written_by_us(path) or set()
    os.replace(path, old)
    try:
        os.replace(new, path)
    except OSError:
        os.replace(old, path)
        raise
    for file in sorted(p for p in old.rglob("*") if p.is_file() or p.is_symlink()):
        name, target = file.relative_to(old), path / file.relative_to(old)
        if name.as_posix() not in ours and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
    shutil.rmtree(old, ignore_errors=True)
    return None


def _written_by_us(path: Path) -> set[str] | None:
    """Names (with '/') of the files that the fit in this folder wrote, or None when it is not a fit's folder."""
    try:
        record = json.loads((path / RECORD).read_text())
        return {str(name) for name in record["files"]} | {RECORD}
    except (OSError, ValueError, KeyError, TypeError):
        return None

"""An output folder whose files appear all together or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from facerig_jax.io.files import WriteError

# The record that marks a folder as a fit; its 'files' lists what the fit wrote.
RECORD = "fit.json"


def check_folder(path, overwrite: bool = False) -> None:
    """Refuses a folder that cannot be written, or that holds other things.

    Raises:
      WriteError: `path` is a file, cannot be created or written to, or is a folder with other things than an earlier
        fit in it while `overwrite` is off.
    """
    path = Path(os.path.abspath(path))
    if path.is_symlink() and not path.exists():
        raise WriteError(f"{path} is a link to {os.readlink(path)}, which does not exist; make that folder first.")
    if path.exists() and not path.is_dir():
        raise WriteError(f"{path} is a file; give a folder that does not exist yet, or an earlier fit's.")
    if not path.is_dir():
        parent = next(folder for folder in path.parents if folder.exists())
        return _try_to_write(parent, f"{path} cannot be created: {parent} is not a folder that may be written to")
    ours = _written_by_us(path)
    others = [name for name in os.listdir(path) if not (name.startswith(f".{path.name}.") and name.endswith(".tmp"))]
    if others and not overwrite and ours is None:
        raise WriteError(
            f"The folder {path} is not empty and holds no earlier fit ({RECORD}); "
            "choose another one, or pass --overwrite to add the fit to it."
        )
    for folder in sorted({path, *((path / name).parent for name in ours or ())}):
        if folder.is_dir():
            _try_to_write(folder, f"The folder {folder} may not be written to")
    return None


@contextlib.contextmanager
def whole_folder(path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder whose files are put into `path` when the block ends without an error.

    A folder that is not there yet appears whole. One that is there stays the folder it is (a link, a mount point, the
    folder one is in) and is written to itself, never beside: the files of an earlier fit are replaced, any other file
    stays. On an error, also while the files are put there, what was there before is as it was.

    Raises:
      WriteError: see `check_folder`; or a file could not be written (disk full, no permission), named as it would
        have been called.
    """
    check_folder(path, overwrite)
    path = Path(os.path.abspath(path))
    name = f".{path.name}.{secrets.token_hex(4)}.tmp"
    temporary = path / name if path.is_dir() else path.with_name(name)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _move_in(temporary, path) if path.is_dir() else os.replace(temporary, path)
    except OSError as error:
        cause = str(error) if isinstance(error, WriteError) else f"Could not write {path}: {error.strerror or error}."
        raise WriteError(cause.replace(str(temporary), str(path))) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move_in(new: Path, path: Path) -> None:
    """Moves the files of `new` into the folder `path`, in place of an earlier fit's; all of them or none.

    The record leaves first and comes last: a folder that has one is complete.
    """
    old, moved = new.with_suffix(".old"), []
    incoming = [file.relative_to(new) for file in new.rglob("*") if not file.is_dir()]
    incoming.sort(key=lambda name: (name == Path(RECORD), name))
    earlier = {Path(name) for name in _written_by_us(path) or ()}
    outgoing = {name for name in earlier if not (path / name).is_dir()} | set(incoming)
    outgoing = sorted(name for name in outgoing if os.path.lexists(path / name))
    outgoing.sort(key=lambda name: name != Path(RECORD))
    steps = [(path / name, old / name) for name in outgoing] + [(new / name, path / name) for name in incoming]
    fresh = [folder for folder in _folders(path, incoming) if not folder.exists()]
    try:
        for source, target in steps:
            _move(source, target)
            moved.append((source, target))
    except BaseException:
        for source, target in reversed(moved):
            with contextlib.suppress(OSError):
                _move(target, source)
        _remove_empty([*_folders(old, outgoing), old, *fresh])  # what could not be put back is still in `old`
        raise
    shutil.rmtree(old, ignore_errors=True)
    _remove_empty(_folders(path, outgoing))


def _move(source: Path, target: Path) -> None:
    """Renames a file; across file systems (a folder in the output folder may be a link) it is copied."""
    if source.is_dir() and not source.is_symlink():
        raise WriteError(f"{source} is a folder, and a file of that name was to be written.")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.move(source, target)


def _folders(root: Path, names) -> list[Path]:
    """`root` excepted, the folders that files of these names lie in, deepest first."""
    found = {root / folder for name in names for folder in name.parents if folder != Path()}
    return sorted(found, key=lambda folder: len(folder.parts), reverse=True)


def _remove_empty(folders) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _try_to_write(folder: Path, complaint: str) -> None:
    """Makes a file in a folder and removes it: rights alone do not tell (read-only disks, quotas)."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise WriteError(f"{complaint} ({error.strerror or error}).") from error


def _written_by_us(path: Path) -> set[str] | None:
    """Names (with '/') of the files that the fit in this folder wrote, or None when it is not a fit's folder."""
    try:
        record = json.loads((path / RECORD).read_text())
        names = {str(name) for name in record["files"]} | {RECORD}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    inside = (name for name in names if not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts)
    return set(inside)

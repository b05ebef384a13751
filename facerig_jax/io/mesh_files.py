"""Meshes as binary PLY and as OBJ + MTL, and the seven points of the NoW protocol."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facerig_jax.checks import check_shape
from facerig_jax.io.files import atomic_write, to_bytes


def submesh(faces, keep) -> tuple[np.ndarray, np.ndarray]:
    """The faces whose corners are all kept, renumbered.

    Args:
      faces: (F, 3) or (Q, 4) int.
      keep: (P,) bool, vertices to keep, e.g. `np.asarray(head.part) == 0` for the skin.

    Returns:
      index: (p,) int32, the vertices that remain in use, in their old order; take `vertices[index]`, `uv[index]`, ...
      faces: (f, 3) or (f, 4) int32 into those.
    """
    faces, keep = np.asarray(faces), np.asarray(keep, bool)
    faces = faces[keep[faces].all(axis=1)]
    index, inverse = np.unique(faces, return_inverse=True)
    return index.astype(np.int32), inverse.reshape(faces.shape).astype(np.int32)


def write_ply(path, vertices, faces, colours=None) -> None:
    """Writes a triangle mesh as binary little-endian PLY; atomic.

    Args:
      path: file to write.
      vertices: (P, 3) in the caller's frame and unit; stored as float32.
      faces: (F, 3) int, counter-clockwise seen from outside.
      colours: (P, 3) sRGB, uint8 or float in [0, 1], or None.

    Raises:
      ValueError: wrong shapes, indices out of range, vertices not finite.
      WriteError: see `files.atomic_write`.
    """
    vertices, faces = _checked_mesh(vertices, faces, (3,))
    fields, names = [("position", "<f4", 3)], ["float x", "float y", "float z"]
    if colours is not None:
        check_shape("colours", np.asarray(colours), len(vertices), 3)
        fields.append(("colour", "u1", 3))
        names += ["uchar red", "uchar green", "uchar blue"]
    points = np.zeros(len(vertices), fields)
    points["position"] = vertices
    if colours is not None:
        points["colour"] = to_bytes(colours)
    triangles = np.zeros(len(faces), [("count", "u1"), ("corner", "<i4", 3)])
    triangles["count"], triangles["corner"] = 3, faces
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    header += [f"property {name}" for name in names]
    header += [f"element face {len(triangles)}", "property list uchar int vertex_indices", "end_header", ""]
    with atomic_write(path) as file:
        file.write("\n".join(header).encode("ascii"))
        file.write(points.tobytes())
        file.write(triangles.tobytes())


def write_obj(path, vertices, faces, uv, texture_name: str) -> None:
    """Writes a textured mesh as OBJ and, beside it, the .mtl of the same name; both atomic.

    Args:
      path: the .obj file; the .mtl gets the same stem.
      vertices: (P, 3) in the caller's frame and unit; five decimals are written.
      faces: (F, 3) triangles or (Q, 4) quads (a triangle repeats its last index), counter-clockwise from outside.
      uv: (P, 2) in [0, 1], v up, which is also OBJ's convention.
      texture_name: file name of the texture, relative to the .obj; write it with `write_image`.

    Raises:
      ValueError: wrong shapes, indices out of range, vertices not finite.
      WriteError: see `files.atomic_write`.
    """
    path = Path(path)
    vertices, faces = _checked_mesh(vertices, faces, (3, 4))
    uv = np.asarray(uv, np.float64)
    check_shape("uv", uv, len(vertices), 2)
    lines = [f"mtllib {path.stem}.mtl", "o head", "usemtl skin", "s 1"]
    lines += [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in vertices.tolist()]
    lines += [f"vt {u:.6f} {v:.6f}" for u, v in uv.tolist()]
    lines += ["f " + " ".join(f"{i}/{i}" for i in dict.fromkeys(face)) for face in (faces + 1).tolist()]
    material = ["newmtl skin", "Ka 0 0 0", "Kd 1 1 1", "Ks 0 0 0", "illum 1", f"map_Kd {texture_name}"]
    with atomic_write(path.with_suffix(".mtl"), "w") as mtl, atomic_write(path, "w") as obj:
        mtl.write("\n".join([*material, ""]))
        obj.write("\n".join([*lines, ""]))


def write_points7(path, points) -> None:
    """Writes the seven points by which the NoW benchmark aligns a mesh, one 'x y z' a line; atomic.

    Args:
      path: text file to write.
      points: (7, 3) in the frame and unit of the mesh they belong to, in this order: right eye outer, right eye inner,
        left eye inner, left eye outer, nose bottom, right mouth corner, left mouth corner (the subject's right).
    """
    points = np.asarray(points, np.float64)
    check_shape("points", points, 7, 3)
    with atomic_write(path, "w") as file:
        file.writelines(f"{x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in points.tolist())


def _checked_mesh(vertices, faces, corners) -> tuple[np.ndarray, np.ndarray]:
    """Both as numpy arrays, after the checks that `write_ply` and `write_obj` promise."""
    vertices, faces = np.asarray(vertices, np.float64), np.asarray(faces)
    check_shape("vertices", vertices, "P", 3)
    if faces.ndim != 2 or faces.shape[1] not in corners:
        allowed = " or ".join(f"(F, {n})" for n in corners)
        raise ValueError(f"faces: expected shape {allowed}, got {faces.shape}.")
    if faces.size and not 0 <= faces.min() <= faces.max() < len(vertices):
        raise ValueError(f"faces: indices must lie in 0..{len(vertices) - 1}, got {faces.min()}..{faces.max()}.")
    if not np.isfinite(vertices).all():
        raise ValueError(f"vertices: {int((~np.isfinite(vertices)).any(axis=1).sum())} of {len(vertices)} not finite.")
    return vertices, faces

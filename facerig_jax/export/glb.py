"""rig.glb: the rig as binary glTF 2.0 with named morph targets, through pygltflib.

glTF's frame (specification 2.0, section 3.4) is metres, y up, front towards +z, the subject's left towards +x: the head
frame of this library in another unit. Its v coordinate runs down the picture, ours runs up.
"""

from __future__ import annotations

import numpy as np

from facerig_jax.checks import check_shape
from facerig_jax.io.files import atomic_write, encode_image, optional_import
from facerig_jax.rig.frozen import linearize
from facerig_jax.types import HeadModel, Rig

PARTS = ("skin", "eyes", "mouth")
ROUGHNESS = (0.6, 0.15, 0.4)
FLOAT, UINT16, UINT32 = 5126, 5123, 5125
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
APPROXIMATION = "linear approximation of a learned rig; rig.npz holds the exact one"
STILL = 1e-7  # Metres, and normal components: smaller displacements are written as zero.


def write_glb(path, rig: Rig, head: HeadModel, texture, sparse: bool = True, textured_parts=(0,)) -> None:
    """Writes the neutral face, its parts as one mesh each, and every code of the rig as a named morph target; atomic.

    The skin carries the texture; eyes and mouth interior, where the head has them, carry the rig's albedo as vertex
    colours. Each mesh that moves under any code has all K targets (positions and normals), with their names in
    `mesh.extras.targetNames`, in the same order, so one set of weights drives them all. A learned rig's targets are its
    meshes at code 1, one code at a time, whose displacements add up: a linear approximation, as `asset.extras` say.

    Args:
      path: file to write.
      rig: one rig (no batch axes); its code_names name the targets.
      head: the head the rig was made with (faces, uv, part).
      texture: (S, S, 3) sRGB, uint8 or float in [0, 1], first row at v = 1.
      sparse: store a displacement as glTF sparse accessor where that is smaller (as Blender's own exporter does).
      textured_parts: which of the head's parts (0 skin, 1 eyes, 2 mouth) the texture covers.

    Raises:
      ValueError: shapes of rig, head and texture do not belong together.
      ImportError: pygltflib is missing.
      WriteError: see `files.atomic_write`.

    Example:
      write_glb("out/rig.glb", fit.rig, head, texture)
    """
    data = glb_bytes(rig, head, texture, sparse, textured_parts)
    with atomic_write(path) as file:
        file.write(data)


def glb_bytes(rig: Rig, head: HeadModel, texture, sparse: bool = True, textured_parts=(0,)) -> bytes:
    """The bytes that `write_glb` writes."""
    gltf = optional_import("pygltflib", "Writing GLB")
    approximate, rig = rig.neural is not None, linearize(rig)
    neutral, deltas, names = _metres(rig, head)
    normals = vertex_normals(neutral, head.faces, weld := weld_indices(neutral, deltas))
    normal_deltas = (
        np.stack([vertex_normals(neutral + d, head.faces, weld) for d in deltas]) - normals if names else deltas
    )
    uv = np.asarray(head.uv, np.float32) * [1, -1] + [0, 1]
    part_of_face = np.asarray(head.part)[np.asarray(head.faces)[:, 0]]
    file = _Builder(gltf)
    file.add_texture(encode_image(texture))
    for part in np.unique(part_of_face).tolist():
        index, corners = np.unique(np.asarray(head.faces)[part_of_face == part], return_inverse=True)
        attributes = {"POSITION": neutral[index], "NORMAL": normals[index]}
        if part in textured_parts:
            attributes["TEXCOORD_0"] = uv[index]
        else:
            attributes["COLOR_0"] = np.clip(np.asarray(rig.albedo, np.float32)[index], 0, 1)
        moves = np.abs(deltas[:, index]).max(initial=0) > STILL
        targets = {"POSITION": deltas[:, index], "NORMAL": normal_deltas[:, index]} if moves else {}
        file.add_mesh(part, attributes, corners.reshape(-1, 3), targets, names, sparse)
    extras = {"head": head.name} | ({"rig": APPROXIMATION} if approximate else {})
    return file.to_bytes(extras)


def _metres(rig: Rig, head: HeadModel) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Neutral (P, 3) and displacements (K, P, 3) in metres, and the K target names, after the shape checks."""
    neutral, basis = np.asarray(rig.neutral, np.float64), np.asarray(rig.expression_basis, np.float64)
    size = check_shape("rig.neutral", neutral, "P", 3)["P"]
    check_shape("rig.expression_basis", basis, "K", size, 3)
    check_shape("head.uv", np.asarray(head.uv), size, 2)
    check_shape("rig.albedo", np.asarray(rig.albedo), size, 3)
    if not np.isfinite(neutral).all() or not np.isfinite(basis).all():
        raise ValueError("rig: vertices or displacements are not finite, so there is nothing to write.")
    names = list(rig.code_names) or [f"code_{number:03d}" for number in range(len(basis))]
    if len(names) != len(basis):
        raise ValueError(f"rig.code_names: expected {len(basis)} names, got {len(names)}.")
    unit = rig.unit_mm / 1000
    deltas = np.where(np.abs(unit * basis) > STILL, unit * basis, 0)
    return (unit * neutral).astype(np.float32), deltas.astype(np.float32), names


def weld_indices(neutral, deltas) -> np.ndarray:
    """(P,) int: one number for vertices that coincide at rest and under every displacement (doubles along uv seams)."""
    key = np.concatenate([neutral, np.moveaxis(deltas, 0, 1).reshape(len(neutral), -1)], axis=1)
    _, inverse = np.unique(np.round(1e7 * key).astype(np.int32), axis=0, return_inverse=True)
    return inverse.reshape(-1)


def vertex_normals(vertices, faces, weld=None) -> np.ndarray:
    """Unit normals (P, 3) float32, area-weighted means of the faces' normals; +z where there is no area.

    Args:
      vertices: (P, 3).
      faces: (F, 3) int.
      weld: (P,) int from `weld_indices`: vertices of one number share one normal. None: each its own.
    """
    vertices, faces = np.asarray(vertices, np.float64), np.asarray(faces)
    weld = np.arange(len(vertices)) if weld is None else weld
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    area = np.cross(b - a, c - a)
    corners = weld[faces].ravel()
    total = [np.bincount(corners, np.repeat(area[:, axis], 3), minlength=len(vertices)) for axis in range(3)]
    total = np.stack(total, axis=1)[weld]
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(length > 1e-20, total / np.maximum(length, 1e-20), [0.0, 0.0, 1.0]).astype(np.float32)


class _Builder:
    """Collects accessors and meshes into one glTF document with one binary buffer."""

    def __init__(self, gltf):
        self.gltf, self.document, self.binary = gltf, gltf.GLTF2(), bytearray()

    def _view(self, data: bytes, target: int | None = None, stride: int | None = None) -> int:
        """Appends bytes, aligned to 4; returns the number of their bufferView."""
        self.binary.extend(b"\0" * (-len(self.binary) % 4))
        view = self.gltf.BufferView(buffer=0, byteOffset=len(self.binary), byteLength=len(data), target=target)
        view.byteStride = stride
        self.document.bufferViews.append(view)
        self.binary.extend(data)
        return len(self.document.bufferViews) - 1

    def _accessor(self, values: np.ndarray, bounds: bool, sparse: bool = False) -> int:
        """Appends (n, 2 or 3) float32; as a sparse accessor over zeros when that is asked for and smaller."""
        values = np.ascontiguousarray(values, np.float32)
        accessor = self.gltf.Accessor(componentType=FLOAT, count=len(values), type=f"VEC{values.shape[1]}")
        if bounds:
            accessor.min, accessor.max = values.min(axis=0).tolist(), values.max(axis=0).tolist()
        accessor.byteOffset = None  # Only allowed beside a bufferView, where 0 is the default.
        used = np.flatnonzero(values.any(axis=1))
        index, index_type = _indices(used, len(values))
        if not sparse or index.nbytes + values[used].nbytes >= values.nbytes:
            accessor.bufferView = self._view(values.tobytes(), ARRAY_BUFFER, 4 * values.shape[1])
        elif len(
            used
        ):  # An accessor without a view is all zeros, which is what a target that leaves a part still needs.
            accessor.sparse = self.gltf.Sparse(
                count=len(used),
                indices=self.gltf.AccessorSparseIndices(
                    bufferView=self._view(index.tobytes()), componentType=index_type
                ),
                values=self.gltf.AccessorSparseValues(bufferView=self._view(values[used].tobytes())),
            )
        self.document.accessors.append(accessor)
        return len(self.document.accessors) - 1

    def _add_triangles(self, faces: np.ndarray) -> int:
        index, kind = _indices(faces.ravel(), int(faces.max()) + 1)
        view = self._view(index.tobytes(), ELEMENT_ARRAY_BUFFER)
        self.document.accessors.append(
            self.gltf.Accessor(bufferView=view, componentType=kind, count=index.size, type="SCALAR")
        )
        return len(self.document.accessors) - 1

    def add_texture(self, png: bytes) -> None:
        """Embeds the only texture, number 0."""
        self.document.images.append(self.gltf.Image(bufferView=self._view(png), mimeType="image/png", name="skin"))
        self.document.samplers.append(self.gltf.Sampler(magFilter=9729, minFilter=9987, wrapS=33071, wrapT=33071))
        self.document.textures.append(self.gltf.Texture(source=0, sampler=0))

    def add_mesh(self, part: int, attributes, faces, targets, names, sparse: bool) -> None:
        """One part as a node with a mesh, a material of its own and, if `targets` has arrays, named morph targets."""
        gltf, name = self.gltf, PARTS[part] if part < len(PARTS) else f"part_{part}"
        primitive = gltf.Primitive(mode=4, material=len(self.document.materials), indices=self._add_triangles(faces))
        for key, values in attributes.items():
            setattr(primitive.attributes, key, self._accessor(values, bounds=key == "POSITION"))
        surface = gltf.PbrMetallicRoughness(metallicFactor=0.0, roughnessFactor=ROUGHNESS[min(part, 2)])
        if "TEXCOORD_0" in attributes:
            surface.baseColorTexture = gltf.TextureInfo(index=0)
        self.document.materials.append(gltf.Material(name=name, pbrMetallicRoughness=surface, doubleSided=True))
        mesh = gltf.Mesh(name=name, primitives=[primitive])
        if targets:
            for number in range(len(names)):
                stored = {k: self._accessor(v[number], k == "POSITION", sparse) for k, v in targets.items()}
                primitive.targets.append(stored)
            mesh.weights, mesh.extras = [0.0] * len(names), {"targetNames": names}
        self.document.meshes.append(mesh)
        self.document.nodes.append(gltf.Node(name=name, mesh=len(self.document.meshes) - 1))

    def to_bytes(self, extras: dict[str, str]) -> bytes:
        """The finished document: all parts under one root node."""
        gltf, children = self.gltf, list(range(len(self.document.nodes)))
        self.document.nodes.append(gltf.Node(name="head", children=children))
        self.document.scenes, self.document.scene = [gltf.Scene(nodes=[len(children)])], 0
        self.document.asset = gltf.Asset(version="2.0", generator="facerig_jax", extras=extras)
        self.binary.extend(b"\0" * (-len(self.binary) % 4))
        self.document.buffers = [gltf.Buffer(byteLength=len(self.binary))]
        self.document.set_binary_blob(bytes(self.binary))
        return b"".join(self.document.save_to_bytes())


def _indices(values: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """Little-endian vertex numbers and their component type: 16 bits where the mesh allows it."""
    return (values.astype("<u2"), UINT16) if size < 65535 else (values.astype("<u4"), UINT32)

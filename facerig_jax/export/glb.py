"""rig.glb: the rig as binary glTF 2.0 with named morph targets, through pygltflib.

glTF's frame (specification 2.0, section 3.4) is metres, y up, front towards +z, the subject's left towards +x: the head
frame of this library in another unit. Its v coordinate runs down the picture, ours runs up.
"""

from __future__ import annotations

import numpy as np

from facerig_jax.checks import check_choice, check_shape
from facerig_jax.io.files import atomic_write, encode_image, optional_import
from facerig_jax.rig.neural import linearize
from facerig_jax.types import HeadModel, Rig

DETAILS = ("full", "coarse")
PARTS = ("skin", "eyes", "mouth")
ROUGHNESS = (0.6, 0.15, 0.4)
FLOAT, UINT16, UINT32 = 5126, 5123, 5125
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
APPROXIMATION = "linear approximation of a learned rig; rig.npz holds the exact one"
# Bytes: a texture that is larger as PNG is stored as JPEG, so that a file with a grainy one stays small too.
PNG_LIMIT = {"full": 1_000_000, "coarse": 200_000}
JPEG_QUALITY = 92
STILL = 1e-7  # Metres, and normal components: smaller displacements are written as zero.


def write_glb(
    path, rig: Rig, head: HeadModel, texture, sparse: bool = True, textured_parts=(0,), detail: str = "full"
) -> None:
    """Writes the neutral face as one mesh, and every code of the rig as a named morph target; atomic.

    The mesh has one primitive for each of the head's parts, so that one node and one set of K weights drive them all:
    each primitive has all K targets (positions and normals) in the same order, with their names in
    `mesh.extras.targetNames`. The skin carries the texture; eyes and mouth interior, where the head has them, carry the
    rig's albedo as vertex colours. Every accessor has a bufferView, without which many importers refuse a file. A
    learned rig's targets are its meshes at code 1, one code at a time, whose displacements add up: a linear
    approximation, as `asset.extras` say.

    Args:
      path: file to write.
      rig: one rig (no batch axes); its code_names name the targets.
      head: the head the rig was made with (faces, uv, part).
      texture: (S, S, 3) sRGB, uint8 or float in [0, 1], first row at v = 1; stored as PNG, or as JPEG where that
        would be large.
      sparse: store a displacement as glTF sparse accessor where that is smaller (as Blender's own exporter does).
      textured_parts: which of the head's parts (0 skin, 1 eyes, 2 mouth) the texture covers.
      detail: 'full': all vertices; 'coarse': the head's coarse mesh alone, its vertices in their order within each
        part, with normals of its own.

    Raises:
      ValueError: shapes of rig, head and texture do not belong together, or the head has no such detail.
      ImportError: pygltflib is missing.
      WriteError: see `files.atomic_write`.

    Example:
      write_glb("out/rig.glb", fit.rig, head, texture)
    """
    data = glb_bytes(rig, head, texture, sparse, textured_parts, detail)
    with atomic_write(path) as file:
        file.write(data)


def glb_bytes(
    rig: Rig, head: HeadModel, texture, sparse: bool = True, textured_parts=(0,), detail: str = "full"
) -> bytes:
    """The bytes that `write_glb` writes."""
    gltf = optional_import("pygltflib", "Writing GLB")
    extras = {"head": head.name, "detail": detail} | ({"rig": APPROXIMATION} if rig.neural is not None else {})
    rig = linearize(rig)
    neutral, deltas, names = _metres(rig, head)
    faces, count = _detail(head, detail)
    neutral, deltas = neutral[:count], deltas[:, :count]
    normals = vertex_normals(neutral, faces, weld := weld_indices(neutral, deltas))
    normal_deltas = np.stack([vertex_normals(neutral + d, faces, weld) for d in deltas]) - normals if names else deltas
    uv = np.asarray(head.uv, np.float32) * [1, -1] + [0, 1]
    part_of_face = np.asarray(head.part)[faces[:, 0]]
    file = _Builder(gltf, zeros=count)
    file.add_texture(*_picture(texture, PNG_LIMIT[detail]))
    for part in np.unique(part_of_face).tolist():
        index, corners = np.unique(faces[part_of_face == part], return_inverse=True)
        attributes = {"POSITION": neutral[index], "NORMAL": normals[index]}
        if part in textured_parts:
            attributes["TEXCOORD_0"] = uv[index]
        else:
            attributes["COLOR_0"] = np.clip(np.asarray(rig.albedo, np.float32)[index], 0, 1)
        targets = [{"POSITION": d[index], "NORMAL": n[index]} for d, n in zip(deltas, normal_deltas, strict=True)]
        file.add_primitive(part, attributes, corners.reshape(-1, 3), targets, sparse)
    return file.to_bytes(names, extras)


def _detail(head: HeadModel, detail: str) -> tuple[np.ndarray, int]:
    """Triangles (F, 3) of the asked detail, and how many of the head's first vertices they lie on."""
    check_choice("detail", detail, DETAILS)
    if detail == "full":
        return np.asarray(head.faces), len(head.mean)
    if head.coarse_faces is None:
        raise ValueError(f"detail: the head '{head.name}' has no coarse mesh, so only 'full' can be written.")
    return np.asarray(head.coarse_faces), head.n_coarse


def _picture(texture, limit: int) -> tuple[bytes, str]:
    """The texture's file and its kind: PNG up to `limit` bytes, JPEG beyond."""
    png = encode_image(texture)
    return (png, "image/png") if len(png) <= limit else (encode_image(texture, "JPEG", JPEG_QUALITY), "image/jpeg")


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
    """Collects accessors and primitives into one glTF document with one mesh and one binary buffer."""

    def __init__(self, gltf, zeros: int):
        """`zeros`: as many rows of zeros as the largest accessor of displacements asks for."""
        self.gltf, self.document, self.binary = gltf, gltf.GLTF2(), bytearray()
        self.mesh = gltf.Mesh(name="head", primitives=[])
        self.still: dict[int, int] = {}  # Vertices -> accessor of so many zeros.
        self.zero_rows = zeros
        self.zero_view: int | None = None

    def _view(self, data: bytes, target: int | None = None, stride: int | None = None) -> int:
        """Appends bytes, aligned to 4; returns the number of their bufferView."""
        self.binary.extend(b"\0" * (-len(self.binary) % 4))
        view = self.gltf.BufferView(buffer=0, byteOffset=len(self.binary), byteLength=len(data), target=target)
        view.byteStride = stride
        self.document.bufferViews.append(view)
        self.binary.extend(data)
        return len(self.document.bufferViews) - 1

    def _zeros(self) -> int:
        """The one view of zeros under all sparse accessors, made when the first of them asks."""
        if self.zero_view is None:
            self.zero_view = self._view(bytes(12 * self.zero_rows), ARRAY_BUFFER, 12)
        return self.zero_view

    def _accessor(self, view: int, values: np.ndarray, bounds: bool, sparse=None) -> int:
        """Appends an accessor of (n, 2 or 3) float32 that lie, but for what `sparse` replaces, in `view`."""
        accessor = self.gltf.Accessor(bufferView=view, byteOffset=0, componentType=FLOAT, count=len(values))
        accessor.type, accessor.sparse = f"VEC{values.shape[1]}", sparse
        if bounds:
            accessor.min, accessor.max = values.min(axis=0).tolist(), values.max(axis=0).tolist()
        self.document.accessors.append(accessor)
        return len(self.document.accessors) - 1

    def _attribute(self, values: np.ndarray, bounds: bool) -> int:
        values = np.ascontiguousarray(values, np.float32)
        view = self._view(values.tobytes(), ARRAY_BUFFER, 4 * values.shape[1])
        return self._accessor(view, values, bounds)

    def _displacements(self, values: np.ndarray, bounds: bool, sparse: bool) -> int:
        """Accessor of (n, 3): one for all that are zero, and a sparse one where that is asked for and smaller."""
        used, count = np.flatnonzero(values.any(axis=1)), len(values)
        if not len(used):
            if count not in self.still:
                self.still[count] = self._accessor(self._zeros(), values, bounds=True)
            return self.still[count]
        index, index_type = _indices(used, count)
        moved = np.ascontiguousarray(values[used], np.float32)
        if not sparse or index.nbytes + moved.nbytes >= 12 * count:
            return self._attribute(values, bounds)
        replaced = self.gltf.Sparse(
            count=len(used),
            indices=self.gltf.AccessorSparseIndices(bufferView=self._view(index.tobytes()), componentType=index_type),
            values=self.gltf.AccessorSparseValues(bufferView=self._view(moved.tobytes())),
        )
        return self._accessor(self._zeros(), values, bounds, replaced)

    def _triangles(self, faces: np.ndarray) -> int:
        index, kind = _indices(faces.ravel(), int(faces.max()) + 1)
        view = self._view(index.tobytes(), ELEMENT_ARRAY_BUFFER)
        self.document.accessors.append(
            self.gltf.Accessor(bufferView=view, componentType=kind, count=index.size, type="SCALAR")
        )
        return len(self.document.accessors) - 1

    def add_texture(self, picture: bytes, kind: str) -> None:
        """Embeds the only texture, number 0."""
        self.document.images.append(self.gltf.Image(bufferView=self._view(picture), mimeType=kind, name="skin"))
        self.document.samplers.append(self.gltf.Sampler(magFilter=9729, minFilter=9987, wrapS=33071, wrapT=33071))
        self.document.textures.append(self.gltf.Texture(source=0, sampler=0))

    def add_primitive(self, part: int, attributes, faces, targets, sparse: bool) -> None:
        """One part, with a material of its own and one morph target for each of `targets`."""
        gltf, name = self.gltf, PARTS[part] if part < len(PARTS) else f"part_{part}"
        primitive = gltf.Primitive(mode=4, material=len(self.document.materials), indices=self._triangles(faces))
        for key, values in attributes.items():
            setattr(primitive.attributes, key, self._attribute(values, bounds=key == "POSITION"))
        for target in targets:
            stored = {key: self._displacements(values, key == "POSITION", sparse) for key, values in target.items()}
            primitive.targets.append(stored)
        surface = gltf.PbrMetallicRoughness(metallicFactor=0.0, roughnessFactor=ROUGHNESS[min(part, 2)])
        if "TEXCOORD_0" in attributes:
            surface.baseColorTexture = gltf.TextureInfo(index=0)
        self.document.materials.append(gltf.Material(name=name, pbrMetallicRoughness=surface, doubleSided=True))
        self.mesh.primitives.append(primitive)

    def to_bytes(self, names: list[str], extras: dict[str, str]) -> bytes:
        """The finished document: one node with the mesh, whose targets have these names."""
        gltf = self.gltf
        if names:
            self.mesh.weights, self.mesh.extras = [0.0] * len(names), {"targetNames": names}
        self.document.meshes.append(self.mesh)
        self.document.nodes.append(gltf.Node(name="head", mesh=0))
        self.document.scenes, self.document.scene = [gltf.Scene(nodes=[0])], 0
        self.document.asset = gltf.Asset(version="2.0", generator="facerig_jax", extras=extras)
        self.binary.extend(b"\0" * (-len(self.binary) % 4))
        self.document.buffers = [gltf.Buffer(byteLength=len(self.binary))]
        self.document.set_binary_blob(bytes(self.binary))
        return b"".join(self.document.save_to_bytes())


def _indices(values: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """Little-endian vertex numbers and their component type: 16 bits where the mesh allows it."""
    return (values.astype("<u2"), UINT16) if size < 65535 else (values.astype("<u4"), UINT32)

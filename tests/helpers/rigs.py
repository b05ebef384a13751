"""Small heads and rigs for tests of what comes out of a fit, linear and learned."""

import numpy as np
import pytest
import trimesh

from facerig_jax.types import HeadModel, LandmarkEmbedding, NeuralRig, Rig, RigWeights

NAMES = tuple(f"shape{number:02d}" for number in range(52))
PARTS = {0: "skin", 1: "eyes", 2: "mouth"}


def small_head() -> tuple[HeadModel, Rig]:
    """A 180 mm sphere as skin, with local random shapes; an eyeball that follows one shape; teeth that are still.

    The skin's first ten vertices are doubled, as along a uv seam: triangles alternate between a vertex and its double.
    """
    skin, eye, teeth = (trimesh.creation.icosphere(n, r) for n, r in [(3, 90.0), (1, 12.0), (0, 10.0)])
    meshes = [skin.vertices, eye.vertices + [30, 20, 80], teeth.vertices + [0, -30, 70]]
    vertices, part = np.concatenate(meshes), np.repeat([0, 1, 2], [len(m) for m in meshes])
    starts = np.cumsum([0] + [len(m) for m in meshes])
    faces = np.concatenate([m.faces + s for m, s in zip((skin, eye, teeth), starts, strict=False)])
    doubled, count = np.arange(10), len(vertices)
    vertices, part = np.concatenate([vertices, vertices[doubled]]), np.concatenate([part, part[doubled]])
    faces[::2] = np.where(faces[::2] < 10, faces[::2] + count, faces[::2])
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(52, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    weight = np.clip(directions @ vertices.T / 90 - 0.8, 0, 1) * 20 * (part == 0)
    basis = weight[..., None] * directions[:, None]
    basis[7, part == 1] = [0, 0, 1.5]
    size = len(vertices)
    embedding = LandmarkEmbedding(
        np.zeros((68, 3), np.int32), np.ones((68, 3), np.float32) / 3, np.ones(68, np.float32)
    )
    head = HeadModel(
        mean=vertices.astype(np.float32),
        identity_basis=np.zeros((2, size, 3), np.float32),
        expression_basis=basis.astype(np.float32),
        albedo_mean=np.full((size, 3), -1, np.float32),
        albedo_basis=np.zeros((1, size, 3), np.float32),
        faces=faces.astype(np.int32),
        quads=np.zeros((0, 4), np.int32),
        uv=(vertices[:, :2] / 200 + 0.5).astype(np.float32),
        face_mask=np.ones(size, np.float32),
        part=part.astype(np.int32),
        regions={},
        landmarks68=embedding,
        landmarks_dense=None,
        mirror=None,
        expression_names=NAMES,
        name="sphere",
    )
    albedo = np.where(part[:, None] == 0, [0.4, 0.25, 0.2], [0.8, 0.8, 0.75]).astype(np.float32)
    rig = Rig(head.mean, head.expression_basis, albedo, np.zeros(2, np.float32), np.ones(1, np.float32), None, NAMES)
    return head, rig


def embedded_head() -> tuple[HeadModel, Rig]:
    """The head of the package, with its mean face."""
    head_module = pytest.importorskip("facerig_jax.head")
    head = head_module.load_head()
    zero = np.zeros(head.albedo_basis.shape[0], np.float32)
    albedo = np.asarray(head_module.albedo(head, zero))
    identity = np.zeros(head.identity_basis.shape[0], np.float32)
    rig = Rig(head.mean, head.expression_basis, albedo, identity, zero, None, head.expression_names, head.unit_mm)
    return head, rig


def vertices_of(head, part) -> np.ndarray:
    """Vertices that the faces of one part use, ascending."""
    faces = np.asarray(head.faces)
    return np.unique(faces[np.asarray(head.part)[faces[:, 0]] == part])


TEXTURE = np.zeros((64, 64, 3), np.uint8)
TEXTURE[:32] = [230, 20, 20]  # The upper half, v > 0.5, is red.
TEXTURE[32:] = [20, 20, 230]


def read_accessor(document, number) -> np.ndarray:
    """An accessor's values with the sparse part applied, by glTF 2.0 sections 3.6.2.3 and 5.1."""
    accessor, blob = document.accessors[number], document.binary_blob()
    kinds = {5126: "<f4", 5125: "<u4", 5123: "<u2"}
    width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}[accessor.type]

    def read(view, offset, kind, count):
        start = document.bufferViews[view].byteOffset + (offset or 0)
        return np.frombuffer(blob, kind, count, start)

    kind = kinds[accessor.componentType]
    values = np.zeros(accessor.count * width, kind)
    if accessor.bufferView is not None:
        values = read(accessor.bufferView, accessor.byteOffset, kind, accessor.count * width)
    values = values.reshape(accessor.count, width).copy()
    if accessor.sparse is not None:
        sparse = accessor.sparse
        rows = read(
            sparse.indices.bufferView, sparse.indices.byteOffset, kinds[sparse.indices.componentType], sparse.count
        )
        values[rows] = read(sparse.values.bufferView, sparse.values.byteOffset, kind, sparse.count * width).reshape(
            -1, width
        )
    if accessor.min:
        np.testing.assert_array_equal(values.min(axis=0), np.float32(accessor.min))
        np.testing.assert_array_equal(values.max(axis=0), np.float32(accessor.max))
    return values


def learned_rig(head, codes: int = 52, modes: int = 52, dynamic: bool = True, maps: int = 2, seed: int = 0) -> Rig:
    """A rig with random small networks; as many codes as modes: named codes, in linear colours."""
    rng, width, gate = np.random.default_rng(seed), 4, 2

    def random(*shape, scale=0.5):
        return (scale * rng.normal(size=shape)).astype(np.float32)

    def texels(size):
        return random(size, size, gate * (codes + width), scale=0.8)

    def output():
        block = {f"conv{k}": {"kernel": random(3, 3, width, width)} for k in (1, 2)}
        return {"block": block, "out": {"kernel": random(1, 1, width, 3)}}

    neural = NeuralRig(
        weights=RigWeights(
            random(modes, codes, scale=0.1),
            random(modes, modes, scale=0.1),
            tuple(texels(8 * (k + 1)) for k in range(maps)),
            texels(16) if dynamic else None,
        ),
        outputs=tuple(output() for _ in range(maps)),
        albedo_output=output() if dynamic else None,
        uv=np.asarray(head.uv),
        named_codes=codes == modes,
        expression_gain=0.7,
        linear_colour=codes == modes or not dynamic,
    )
    basis = np.asarray(head.expression_basis)[: min(modes, len(head.expression_basis))]
    names = tuple(head.expression_names[:codes]) if codes == modes else tuple(f"expression_{k}" for k in range(codes))
    albedo = rng.uniform(0.2, 0.8, np.shape(head.mean)).astype(np.float32)
    identity = random(min(2, len(head.identity_basis)))
    return Rig(np.asarray(head.mean), basis, albedo, identity, np.zeros(0, np.float32), neural, names, head.unit_mm)

"""rig.glb: what it holds, how large it is, and that those who read glTF read it: numbers against `apply_rig`."""

import json
import subprocess
from pathlib import Path

import assimp_py
import numpy as np
import pygltflib
import pytest
import trimesh
from helpers.rigs import PARTS, TEXTURE, embedded_head, learned_rig, read_accessor, small_head, vertices_of
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkIOGeometry import vtkGLTFReader

from facerig_jax.export import export_rig, glb
from facerig_jax.rig.apply import apply_rig
from facerig_jax.rig.neural import linearize

FOLDER = Path(__file__).parent
LIMITS = {"full": 10_000_000, "coarse": 3_000_000}


def coarse_alone(head, rig):
    """The head and rig that have nothing but the vertices of the coarse mesh."""
    count = head.n_coarse
    head = head.replace(
        faces=head.coarse_faces, mean=head.mean[:count], part=head.part[:count], uv=head.uv[:count], coarse_faces=None
    )
    basis = rig.expression_basis[:, :count]
    return head, rig.replace(neutral=rig.neutral[:count], albedo=rig.albedo[:count], expression_basis=basis)


@pytest.fixture(scope="module", params=["small", "small, dense", "learned", "embedded", "coarse"])
def case(request, tmp_path_factory):
    """The head and linear rig that a file shows, and the file.

    'learned': of a learned rig, shown by its linear approximation; 'coarse': of the embedded head's coarse mesh.
    """
    head, rig = embedded_head() if request.param in ("embedded", "coarse") else small_head()
    rig = learned_rig(head) if request.param == "learned" else rig
    file = tmp_path_factory.mktemp("glb") / "rig.glb"
    options = {"small, dense": {"sparse": False}, "coarse": {"detail": "coarse"}}
    glb.write_glb(file, rig, head, TEXTURE, **options.get(request.param, {}))
    rig = linearize(rig)
    return (*(coarse_alone(head, rig) if request.param == "coarse" else (head, rig)), file)


def parts_of(head) -> dict[int, str]:
    """Number and name of each part that the head has, in the order of the file."""
    return {number: PARTS[number] for number in np.unique(head.part).tolist()}


def some_code(count: int = 52) -> np.ndarray:
    """A code of which every entry differs, so that no two targets can be mixed up."""
    return np.linspace(0.1, 0.9, count, dtype=np.float32)


def posed_metres(rig, code) -> np.ndarray:
    return np.asarray(apply_rig(rig, code)[0]) * rig.unit_mm / 1000


# What is in the file


def test_one_node_moves_all_parts_by_one_set_of_weights(case):
    head, rig, file = case
    document = pygltflib.GLTF2().load(file)
    (mesh,), (node,) = document.meshes, document.nodes
    assert (node.mesh, document.scenes[0].nodes) == (0, [0])
    assert mesh.weights == [0.0] * 52
    assert mesh.extras["targetNames"] == list(rig.code_names)
    assert [document.materials[primitive.material].name for primitive in mesh.primitives] == [*parts_of(head).values()]
    assert {len(primitive.targets) for primitive in mesh.primitives} == {52}


def test_every_accessor_has_a_buffer_view(case):
    document = pygltflib.GLTF2().load(case[2])
    assert [n for n, accessor in enumerate(document.accessors) if accessor.bufferView is None] == []


def test_all_sparse_accessors_lie_over_one_view_of_zeros():
    head, rig = small_head()
    document = pygltflib.GLTF2.load_from_bytes(glb.glb_bytes(rig, head, TEXTURE))
    base = {accessor.bufferView for accessor in document.accessors if accessor.sparse}
    assert len(base) == 1
    view = document.bufferViews[base.pop()]
    start = view.byteOffset or 0
    assert not any(document.binary_blob()[start : start + view.byteLength])
    assert view.byteLength >= 12 * max(accessor.count for accessor in document.accessors if accessor.sparse)


def test_glb_reloads_with_unchanged_vertices_triangles_and_targets(case):
    head, rig, file = case
    document = pygltflib.GLTF2().load(file)
    part, faces = np.asarray(head.part), np.asarray(head.faces)
    unit, basis = rig.unit_mm / 1000, np.asarray(rig.expression_basis)
    for number, primitive in zip(parts_of(head), document.meshes[0].primitives, strict=True):
        index = vertices_of(head, number)
        position = read_accessor(document, primitive.attributes.POSITION)
        np.testing.assert_allclose(position, np.asarray(rig.neutral)[index] * unit, atol=1e-6)
        corners = index[read_accessor(document, primitive.indices).reshape(-1, 3)]
        np.testing.assert_array_equal(corners, faces[part[faces[:, 0]] == number])
        for target, delta in zip(primitive.targets, basis, strict=True):
            np.testing.assert_allclose(read_accessor(document, target["POSITION"]), delta[index] * unit, atol=1e-6)


def test_sparse_and_dense_files_hold_the_same_numbers():
    head, rig = small_head()
    files = [glb.glb_bytes(rig, head, TEXTURE, kind) for kind in (True, False)]
    sparse, dense = map(pygltflib.GLTF2.load_from_bytes, files)
    assert len(sparse.accessors) == len(dense.accessors)
    for number in range(len(dense.accessors)):
        np.testing.assert_array_equal(read_accessor(sparse, number), read_accessor(dense, number))
    assert len(files[0]) <= 0.5 * len(files[1])


def test_each_part_has_a_material_of_its_own_and_the_uncovered_ones_vertex_colours(case):
    head, rig, file = case
    document = pygltflib.GLTF2().load(file)
    primitives = document.meshes[0].primitives
    assert [primitive.material for primitive in primitives] == list(range(len(document.materials)))
    for (part, name), primitive, material in zip(parts_of(head).items(), primitives, document.materials, strict=True):
        assert (material.pbrMetallicRoughness.baseColorTexture is not None) == (name == "skin")
        if name != "skin":
            colours = read_accessor(document, primitive.attributes.COLOR_0)
            np.testing.assert_allclose(colours, np.asarray(rig.albedo)[vertices_of(head, part)], atol=1e-6)


def test_normals_are_unit_smooth_across_seams_and_those_of_the_posed_mesh():
    head, rig = small_head()
    document = pygltflib.GLTF2.load_from_bytes(glb.glb_bytes(rig, head, TEXTURE))
    primitive = document.meshes[0].primitives[0]
    normals = read_accessor(document, primitive.attributes.NORMAL)
    skin = vertices_of(head, 0)
    outward = np.asarray(head.mean)[skin] / 90
    assert (normals * outward).sum(axis=1).min() > 0.99
    doubled = np.flatnonzero(np.isin(skin, len(head.mean) - 10 + skin[skin < 10]))
    assert len(doubled) > 3
    np.testing.assert_array_equal(
        normals[np.flatnonzero(np.isin(skin, skin[doubled] - len(head.mean) + 10))], normals[doubled]
    )
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    posed = trimesh.Trimesh(np.asarray(head.mean) + np.asarray(rig.expression_basis)[3], head.faces, process=False)
    whole = glb.vertex_normals(posed.vertices, head.faces)
    moved = normals + read_accessor(document, primitive.targets[3]["NORMAL"])
    single = (skin > 200) & (skin < 600)  # Away from the seam, where each vertex has all its triangles.
    np.testing.assert_allclose(moved[single], whole[skin][single], atol=1e-5)


def test_a_rig_without_codes_or_names_is_written():
    head, rig = small_head()
    still = rig.replace(expression_basis=rig.expression_basis[:0], code_names=())
    document = pygltflib.GLTF2.load_from_bytes(glb.glb_bytes(still, head, TEXTURE))
    assert not any(primitive.targets for primitive in document.meshes[0].primitives)
    assert not document.meshes[0].weights
    unnamed = rig.replace(expression_basis=rig.expression_basis[:2], code_names=())
    document = pygltflib.GLTF2.load_from_bytes(glb.glb_bytes(unnamed, head, TEXTURE))
    assert document.meshes[0].extras["targetNames"] == ["code_000", "code_001"]


def test_head_units_other_than_millimetres_are_honoured():
    head, rig = small_head()
    micrometres = rig.replace(neutral=1000 * rig.neutral, expression_basis=1000 * rig.expression_basis, unit_mm=1e-3)
    a, b = (pygltflib.GLTF2.load_from_bytes(glb.glb_bytes(r, head, TEXTURE)) for r in (rig, micrometres))
    for number in (1, 4):
        np.testing.assert_allclose(read_accessor(a, number), read_accessor(b, number), atol=1e-7)


def test_large_meshes_get_32_bit_indices():
    assert glb._indices(np.arange(3), 65534)[1] == 5123
    assert glb._indices(np.arange(3), 65535)[1] == 5125


# Detail and size


@pytest.mark.parametrize("detail", LIMITS)
def test_a_person_with_a_grainy_texture_stays_within_the_limit(detail, tmp_path, rng):
    """Grain of 6 grey levels, as from a photo in poor light: 2 MB as PNG."""
    head, rig = embedded_head()
    code = rng.normal(size=len(head.identity_basis)).astype(np.float32)
    rig = rig.replace(neutral=rig.neutral + np.tensordot(code, head.identity_basis, 1), identity_code=code)
    texture = np.clip(150 + 6 * rng.normal(size=(1024, 1024, 3)), 0, 255).astype(np.uint8)
    export_rig(rig, tmp_path / "rig.glb", head, texture, detail)
    assert (tmp_path / "rig.glb").stat().st_size <= LIMITS[detail]
    (picture,) = (geometry.visual.material.baseColorTexture for geometry in by_part(tmp_path / "rig.glb", {0: "skin"}))
    assert picture.format == "JPEG"
    assert np.abs(np.asarray(picture, float) - texture).mean() < 6


def test_the_coarse_file_has_the_coarse_mesh_in_its_own_order_with_its_own_normals():
    head, rig = embedded_head()
    document = pygltflib.GLTF2.load_from_bytes(glb.glb_bytes(rig, head, TEXTURE, detail="coarse"))
    stored = [primitive.attributes for primitive in document.meshes[0].primitives]
    neutral = np.asarray(rig.neutral)[:4781] / 1000
    for name, expected in {"POSITION": neutral, "NORMAL": glb.vertex_normals(neutral, head.coarse_faces)}.items():
        found = np.concatenate([read_accessor(document, getattr(attributes, name)) for attributes in stored])
        assert len(found) == head.n_coarse == 4781
        np.testing.assert_allclose(found, expected, atol=1e-6 if name == "POSITION" else 1e-3)
    corners = sum(document.accessors[primitive.indices].count for primitive in document.meshes[0].primitives)
    assert corners == 3 * len(head.coarse_faces)
    assert document.asset.extras["detail"] == "coarse"


def test_a_detail_that_is_not_there_is_refused(tmp_path):
    head, rig = small_head()
    with pytest.raises(ValueError, match="the head 'sphere' has no coarse mesh, so only 'full' can be written"):
        export_rig(rig, tmp_path / "a.glb", head, TEXTURE, "coarse")
    with pytest.raises(ValueError, match=r"detail of a \.glb file: 'corse' is not one of .*mean 'coarse'"):
        export_rig(rig, tmp_path / "a.glb", head, TEXTURE, "corse")
    with pytest.raises(ValueError, match=r"detail of a \.ply file: 'coarse' is not one of 'full'"):
        export_rig(rig, tmp_path / "a.ply", head, TEXTURE, "coarse")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expression_basis": np.zeros((52, 3, 3))}, "rig.expression_basis: expected shape"),
        ({"albedo": np.zeros((3, 3))}, "rig.albedo: expected shape"),
        ({"code_names": ("a",)}, "expected 52 names, got 1"),
        ({"neutral": np.full((716, 3), np.nan)}, "not finite|expected shape"),
    ],
)
def test_rigs_that_do_not_belong_to_the_head_are_refused(change, message):
    head, rig = small_head()
    with pytest.raises(ValueError, match=message):
        glb.glb_bytes(rig.replace(**change), head, TEXTURE)


# Those who read it


def by_part(path, parts) -> list:
    """The file's meshes as trimesh reads them, found by the name of their material."""
    meshes = {mesh.visual.material.name: mesh for mesh in trimesh.load(path, process=False).geometry.values()}
    return [meshes[name] for name in parts.values()]


def test_trimesh_reads_the_glb_facing_forward_in_metres_with_v_down(case):
    head, rig, file = case
    skin = by_part(file, parts_of(head))[0]
    extent = np.ptp(np.asarray(rig.neutral)[np.asarray(head.part) == 0], axis=0) * rig.unit_mm / 1000
    np.testing.assert_allclose(np.ptp(skin.vertices, axis=0), extent, atol=1e-6)
    assert 0.1 < np.ptp(skin.vertices[:, 1]) < 0.5
    foremost = skin.vertices[:, 2].argmax()
    assert skin.vertex_normals[foremost, 2] > 0.5
    index = vertices_of(head, 0)
    np.testing.assert_allclose(skin.visual.uv, np.asarray(head.uv)[index], atol=1e-6)  # trimesh turns v back up.
    picture = np.asarray(skin.visual.material.baseColorTexture)
    np.testing.assert_array_equal(picture[..., :3], TEXTURE)


def vtk_parts(path) -> list:
    """The polygons that VTK finds in a GLB, in the order of the file."""
    reader = vtkGLTFReader()
    reader.SetFileName(str(path))
    reader.Update()
    leaves, found = reader.GetOutput().NewIterator(), []
    while not leaves.IsDoneWithTraversal():
        found.append(leaves.GetCurrentDataObject())
        leaves.GoToNextItem()
    return found


def test_vtk_reads_every_target_of_every_part(case):
    head, rig, file = case
    code, parts = some_code(), vtk_parts(file)
    assert len(parts) == len(parts_of(head))
    rest, posed = (posed_metres(rig, c) for c in (0 * code, code))
    for number, data in zip(parts_of(head), parts, strict=True):
        index, arrays = vertices_of(head, number), data.GetPointData()
        assert data.GetNumberOfCells() == (np.asarray(head.part)[np.asarray(head.faces)[:, 0]] == number).sum()
        points = vtk_to_numpy(data.GetPoints().GetData())
        np.testing.assert_allclose(points, rest[index], atol=1e-6)
        moved = sum(w * vtk_to_numpy(arrays.GetArray(f"target{k}_position")) for k, w in enumerate(code))
        np.testing.assert_allclose(points + moved, posed[index], atol=1e-5)


def test_assimp_reads_every_part(case):
    head, rig, file = case
    scene, rest = assimp_py.import_file(str(file), assimp_py.Process_Triangulate), posed_metres(rig, 0 * some_code())
    assert scene.num_meshes == len(parts_of(head))
    for number, mesh in zip(parts_of(head), scene.meshes, strict=True):
        faces = np.asarray(head.faces)[np.asarray(head.part)[np.asarray(head.faces)[:, 0]] == number]
        assert mesh.num_vertices == len(np.unique(faces))
        corners = np.asarray(mesh.vertices).reshape(-1, 3)[np.asarray(mesh.indices)]  # Assimp renumbers vertices.
        np.testing.assert_allclose(corners, rest[faces].reshape(-1, 3), atol=1e-6)
        assert scene.materials[mesh.material_index]["NAME"] == PARTS[number]


def node(script: str, *arguments, check: bool = True) -> subprocess.CompletedProcess:
    """Runs one of the tests' scripts for node."""
    done = subprocess.run(["node", FOLDER / script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done


def test_three_js_moves_every_vertex_to_where_apply_rig_does(case, node_folder, tmp_path):
    head, rig, file = case
    code, parts = some_code(), parts_of(head)
    (tmp_path / "weights.json").write_text(json.dumps(dict(zip(rig.code_names, code.tolist(), strict=True))))
    meshes = json.loads(node("gltf_three.mjs", node_folder, file, tmp_path / "weights.json").stdout)
    assert [mesh["material"] for mesh in meshes] == list(parts.values())
    assert all(mesh["names"] == list(rig.code_names) for mesh in meshes)
    assert [mesh["picture"] for mesh in meshes] == ["image/png"] + [None] * (len(meshes) - 1)
    assert [mesh["vertexColours"] for mesh in meshes] == [name != "skin" for name in parts.values()]
    for number, mesh in zip(parts, meshes, strict=True):
        found = np.asarray(mesh["positions"]).reshape(-1, 3)
        np.testing.assert_allclose(found, posed_metres(rig, code)[vertices_of(head, number)], atol=1e-5)


def test_glb_is_valid_by_the_khronos_validator(case, node_folder):
    issues = json.loads(node("gltf_validate.mjs", node_folder, case[2]).stdout)
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"]


def test_the_validator_script_reports_an_invalid_file(node_folder, tmp_path):
    head, rig = small_head()
    document = pygltflib.GLTF2.load_from_bytes(glb.glb_bytes(rig, head, TEXTURE))
    document.accessors[1].max = [0.0, 0.0, 0.0]
    (tmp_path / "bad.glb").write_bytes(b"".join(document.save_to_bytes()))
    assert node("gltf_validate.mjs", node_folder, tmp_path / "bad.glb", check=False).returncode == 1

"""A person's own data: folders, meshes, the Stirling/ESRC layout, which views are chosen, what is refused.

All faces here are synthetic: the head's own meshes, and grey pictures with made-up landmarks; one test detects a face.
"""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import trimesh
from PIL import Image

from facerig_jax.data.folders import SourceConfig, choose_views, folder_source, read_scan
from facerig_jax.data.landmark_files import read_landmarks
from facerig_jax.data.registered import read_registered, save_registered
from facerig_jax.data.scans import find_scans, read_scan_files
from facerig_jax.data.stirling import stirling_scans, stirling_source
from facerig_jax.head import load_head
from facerig_jax.io.files import InputError
from facerig_jax.io.mesh_files import write_obj, write_ply, write_points7
from facerig_jax.io.meshes import read_mesh, read_points

PHOTOS = Path(__file__).parents[1] / "docs" / "photos"
TETRAHEDRON = (
    np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]]),
    np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]]),
)
SMALL = SourceConfig(n_views=2, size=64)


@pytest.fixture(scope="module")
def plain_head():
    return load_head()


def picture(path, width=80, height=60, grey=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), grey, np.uint8)).save(path)


def points468(shift=0.0):
    return np.random.default_rng(0).uniform(10, 50, (468, 3)) + shift


def person(folder, n_photos=2, landmarks=True):
    """A subject's folder with grey photos p1, p2, ..., p10 of rising brightness, and their landmarks."""
    names = [f"p{number}.png" for number in range(1, n_photos + 1)]
    for number, name in enumerate(names):
        picture(folder / name, grey=10 * (number + 1))
    if landmarks:
        np.savez(folder / "landmarks.npz", **{name: points468(number) for number, name in enumerate(names)})
    return folder


# Meshes and points


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_ply_is_read_as_trimesh_wrote_it(tmp_path, encoding):
    mesh = trimesh.Trimesh(*TETRAHEDRON, process=False, vertex_colors=np.full((4, 4), 77, np.uint8))
    (tmp_path / "a.ply").write_bytes(trimesh.exchange.ply.export_ply(mesh, encoding=encoding))
    found = read_mesh(tmp_path / "a.ply")
    np.testing.assert_allclose(found.vertices, TETRAHEDRON[0], atol=1e-6)
    np.testing.assert_array_equal(found.faces, TETRAHEDRON[1])


def test_what_we_write_is_read_back(tmp_path):
    write_ply(tmp_path / "a.ply", *TETRAHEDRON)
    write_obj(tmp_path / "a.obj", *TETRAHEDRON, np.zeros((4, 2)), "no.png")
    for suffix in ("ply", "obj"):
        found = read_mesh(tmp_path / f"a.{suffix}")
        np.testing.assert_allclose(found.vertices, TETRAHEDRON[0])
        np.testing.assert_array_equal(found.faces, TETRAHEDRON[1])


def test_polygons_become_fans_in_every_format(tmp_path):
    corners = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n2 2 0\n"
    header = "ply\nformat ascii 1.0\nelement vertex 5\nproperty float x\nproperty float y\nproperty float z\n"
    header += "element face 2\nproperty list uchar int vertex_index\nend_header\n"
    (tmp_path / "a.ply").write_text(header + corners + "4 0 1 2 3\n3 2 4 3\n")
    lines = [f"v {line}" for line in corners.splitlines()] + ["f 1/1/1 2/2/2 3/3/3 4/4/4", "f -3 -1 -2"]
    (tmp_path / "a.obj").write_text("\n".join(["# a comment", "o thing", *lines]))
    binary = (
        header.replace("ascii", "binary_big_endian").encode()
        + read_mesh(tmp_path / "a.ply").vertices.astype(">f4").tobytes()
    )
    for polygon in ([0, 1, 2, 3], [2, 4, 3]):
        binary += bytes([len(polygon)]) + np.array(polygon, ">i4").tobytes()
    (tmp_path / "b.ply").write_bytes(binary)
    for name in ("a.ply", "a.obj", "b.ply"):
        np.testing.assert_array_equal(read_mesh(tmp_path / name).faces, [[0, 1, 2], [0, 2, 3], [2, 4, 3]])


def test_every_vertex_of_an_obj_stays_in_its_place_whatever_its_groups_and_materials_use(tmp_path):
    """Two materials, a corner with two texture coordinates, and vertices that no face names, first and last."""
    corners = np.array([[9, 9, 9], [0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [7, 7, 7]], float)
    lines = [f"v {x} {y} {z}" for x, y, z in corners] + ["vt 0 0", "vt 1 1", "o left", "usemtl a", "f 2/1 3/1 4/2"]
    (tmp_path / "a.obj").write_text("\n".join([*lines, "o right", "usemtl b", "f 2/2 4/1 5/1"]))
    found = read_mesh(tmp_path / "a.obj")
    np.testing.assert_array_equal(found.vertices, corners)
    np.testing.assert_array_equal(found.faces, [[1, 2, 3], [1, 3, 4]])


DAMAGED = {
    "empty.ply": b"",
    "text.ply": b"hello",
    "header.ply": b"ply\nformat ascii 1.0\nelement vertex 3\n",
    "short.ply": b"ply\nformat binary_little_endian 1.0\nelement vertex 3\nproperty float x\nproperty float y\n"
    b"property float z\nend_header\n12345",
    "words.ply": b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
    b"end_header\n1 2 three\n",
    "index.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 4\n",
    "flat.obj": b"v 0 0\nv 1 0\n",
    "none.obj": b"# nothing\n",
    "mesh.stl": b"solid",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_meshes_are_refused_in_one_sentence(tmp_path, name):
    (tmp_path / name).write_bytes(DAMAGED[name])
    with pytest.raises(InputError, match=name) as caught:
        read_mesh(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_truncated_mesh_never_raises_anything_else(tmp_path):
    write_ply(tmp_path / "a.ply", *TETRAHEDRON)
    whole = (tmp_path / "a.ply").read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "b.ply").write_bytes(whole[:length])
        with pytest.raises(InputError):
            read_mesh(tmp_path / "b.ply")


def test_points_with_and_without_names(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(f"{i} {i + 1},{i + 2}" for i in range(7)))
    (tmp_path / "a.lnd").write_text("\n".join(f"point{i} {i} {i + 1} {i + 2}" for i in range(7)) + "\n\n")
    expected = np.arange(7)[:, None] + np.arange(3)
    for name in ("a.txt", "a.lnd"):
        np.testing.assert_array_equal(read_points(tmp_path / name), expected)
    (tmp_path / "b.txt").write_text("1 2 3\n4 5 6\n")
    with pytest.raises(InputError, match="7 or 68 or 468 lines"):
        read_points(tmp_path / "b.txt")
    (tmp_path / "b.txt").write_text("1 2 x\n")
    with pytest.raises(InputError, match="three numbers"):
        read_points(tmp_path / "b.txt")


# Registered faces


def test_a_registered_face_is_checked_in_words(tmp_path, plain_head):
    mean = plain_head.mean
    save_registered(tmp_path / "a.npz", mean, plain_head.face_mask)
    np.testing.assert_array_equal(read_registered(tmp_path / "a.npz", plain_head).vertices, mean)
    write_ply(tmp_path / "few.ply", *TETRAHEDRON)
    save_registered(tmp_path / "metres.npz", mean / 1000, plain_head.face_mask)
    save_registered(tmp_path / "nan.npz", mean * np.nan, plain_head.face_mask)
    np.savez(tmp_path / "other.npz", vertices=mean)
    cases = {
        "few.ply": f"4 vertices, and the head makehuman_head has {len(mean)}.*experiments.register",
        "metres.npz": "0.001 times as large",
        "nan.npz": "not finite",
        "other.npz": "schema_version",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=message):
            read_registered(tmp_path / name, plain_head)


# Which views


def test_view_choice_is_a_function_of_index_and_seed_alone():
    literal = {(0, 3): [2, 4, 7], (1, 3): [0, 2, 3]}
    for (seed, index), expected in literal.items():
        chosen, mask = choose_views(9, 3, index, seed)
        again, _ = choose_views(9, 3, index, seed)
        np.testing.assert_array_equal(chosen, again)
        assert len(set(chosen)) == 3
        assert (np.diff(chosen) > 0).all()
        assert mask.all()
        np.testing.assert_array_equal(chosen, expected)
    counts = np.bincount(np.concatenate([choose_views(9, 3, index, 0)[0] for index in range(300)]), minlength=9)
    assert counts.min() > 70
    np.testing.assert_array_equal(choose_views(9, 3, 5, None)[0], [0, 1, 2])


def test_too_few_photos_are_padded_and_masked():
    chosen, mask = choose_views(2, 4, 0, 0)
    np.testing.assert_array_equal(chosen, [0, 1, 0, 0])
    np.testing.assert_array_equal(mask, [1, 1, 0, 0])


# Folders


def test_subjects_have_the_same_shapes_whatever_their_photos(tmp_path, plain_head):
    person(tmp_path / "anna", 1)
    person(tmp_path / "bert", 5)
    (tmp_path / ".hidden").mkdir()
    source = folder_source(tmp_path, plain_head, SourceConfig(n_views=3, size=64))
    assert len(source) == 2
    shapes = [jax.tree.map(lambda a: (a.shape, a.dtype), source(index)) for index in range(2)]
    assert shapes[0] == shapes[1]
    anna, bert = source(0), source(1)
    assert anna.images.shape == (3, 64, 64, 3)
    np.testing.assert_array_equal(anna.view_mask, [1, 0, 0])
    np.testing.assert_array_equal(bert.view_mask, [1, 1, 1])
    np.testing.assert_array_equal(anna.image_size, [[48, 64]] * 3)
    np.testing.assert_array_equal(bert.images[:, 0, 0, 0], [10, 20, 30])
    assert anna.neutral is None
    assert anna.vertices is None


def test_photos_are_in_natural_order_and_landmarks_follow_the_reduction(tmp_path, plain_head):
    person(tmp_path / "anna", 10)
    subject = folder_source(tmp_path, plain_head, SourceConfig(n_views=10, size=64))(0)
    np.testing.assert_array_equal(subject.images[:, 0, 0, 0], 10 * np.arange(1, 11))
    expected = (points468(3.0) + [0.5, 0.5, 0]) * 0.8 - [0.5, 0.5, 0]  # 80 px wide, reduced to 64
    np.testing.assert_allclose(subject.landmarks[3], expected, atol=1e-4)


def test_draws_give_other_photos_of_the_same_people(tmp_path, plain_head):
    person(tmp_path / "anna", 9)
    person(tmp_path / "bert", 9)
    source = folder_source(tmp_path, plain_head, SourceConfig(n_views=2, size=64, seed=0, draws=4))
    assert len(source) == 8
    brightness = [tuple(source(index).images[:, 0, 0, 0]) for index in range(0, 8, 2)]
    assert len(set(brightness)) > 1
    np.testing.assert_array_equal(source(4).images, source(4).images)
    for index in (-1, 8):
        with pytest.raises(IndexError, match=r"0\.\.7"):
            source(index)


def with_truth(root, head, name="anna", motion=None):
    """A subject with a registered neutral as PLY, moved rigidly, and one face per photo, 5 mm higher."""
    folder = person(root / name)
    move = motion or (lambda vertices: vertices)
    write_ply(folder / "registered.ply", move(head.mean), head.faces)
    for stem in ("p1", "p2"):
        write_ply(folder / f"{stem}.ply", move(head.mean + [0, 5.0, 0]), head.faces)
    return folder


def test_truth_from_elsewhere_is_laid_onto_the_mean_face(tmp_path, plain_head):
    turn = np.array([[0.96, 0.28, 0], [-0.28, 0.96, 0], [0, 0, 1.0]])
    with_truth(tmp_path, plain_head, motion=lambda vertices: vertices @ turn.T + [30, 20, -10])
    subject = folder_source(tmp_path, plain_head, SMALL)(0)
    np.testing.assert_allclose(subject.neutral, plain_head.mean, atol=1e-2)
    np.testing.assert_allclose(subject.vertices, np.stack([plain_head.mean + [0, 5.0, 0]] * 2), atol=1e-2)
    np.testing.assert_array_equal(subject.known, plain_head.face_mask)


def test_truth_of_the_register_command_is_taken_as_it_is(tmp_path, plain_head):
    person(tmp_path / "photos" / "anna")
    known = plain_head.face_mask * (np.arange(len(plain_head.mean)) % 2)
    save_registered(tmp_path / "out" / "anna" / "registered.npz", plain_head.mean + 3.0, known)
    subject = folder_source(tmp_path / "photos", plain_head, SMALL, registered=tmp_path / "out")(0)
    np.testing.assert_allclose(subject.neutral, plain_head.mean + 3.0)
    np.testing.assert_array_equal(subject.known, known)
    assert subject.vertices is None
    config = SourceConfig(n_views=2, size=64, neutral_photos=True)
    subject = folder_source(tmp_path / "photos", plain_head, config, registered=tmp_path / "out")(0)
    np.testing.assert_allclose(subject.vertices, np.stack([plain_head.mean + 3.0] * 2))


def test_truth_for_some_is_refused(tmp_path, plain_head):
    folder = with_truth(tmp_path, plain_head)
    (folder / "p2.ply").unlink()
    with pytest.raises(InputError, match="p2.png: no face mesh.*1 of 2 photos"):
        folder_source(tmp_path, plain_head, SMALL)
    (folder / "p1.ply").unlink()
    person(tmp_path / "bert")
    with pytest.raises(InputError, match="bert: no registered.*1 of 2 subjects"):
        folder_source(tmp_path, plain_head, SMALL)


def test_what_cannot_be_used_is_refused_in_one_sentence(tmp_path, plain_head):
    with pytest.raises(InputError, match="no folder"):
        folder_source(tmp_path / "none", plain_head)
    with pytest.raises(InputError, match="holds no folders"):
        folder_source(tmp_path, plain_head)
    (tmp_path / "anna").mkdir()
    with pytest.raises(InputError, match="holds no photos"):
        folder_source(tmp_path, plain_head)
    folder = person(tmp_path / "anna")
    with pytest.raises(InputError, match="neutral_photos"):
        folder_source(tmp_path, plain_head, SourceConfig(neutral_photos=True))
    np.savez(folder / "landmarks.npz", **{"p1.png": np.zeros((68, 2))})
    with pytest.raises(InputError, match=r"p1.png should be finite numbers \(468, 3\)"):
        folder_source(tmp_path, plain_head, SMALL)(0)
    (folder / "landmarks.npz").write_bytes(b"no")
    read_landmarks.cache_clear()
    with pytest.raises(InputError, match="not a readable"):
        folder_source(tmp_path, plain_head, SMALL)(0)


def test_missing_landmarks_are_detected_and_not_kept(tmp_path, plain_head):
    (tmp_path / "anna").mkdir()
    shutil.copy(PHOTOS / "frontal.jpg", tmp_path / "anna")
    picture(tmp_path / "anna" / "wall.png")
    source = folder_source(tmp_path, plain_head, SourceConfig(n_views=2, size=256))
    subject = source(0)
    np.testing.assert_array_equal(subject.view_mask, [1, 0])  # no face on the wall
    inside = (subject.landmarks[0, :, :2] > 0) & (subject.landmarks[0, :, :2] < subject.image_size[0, ::-1])
    assert inside.all()
    assert not (tmp_path / "anna" / "landmarks.npz").exists()
    (tmp_path / "anna" / "frontal.jpg").unlink()
    with pytest.raises(InputError, match="no face was found"):
        folder_source(tmp_path, plain_head, SourceConfig(n_views=2, size=256))(0)


# Raw scans


def test_raw_scans_are_found_with_their_landmarks(tmp_path, plain_head):
    folder = person(tmp_path / "anna")
    write_ply(folder / "neutral.ply", *TETRAHEDRON)
    write_points7(folder / "points7.txt", np.arange(21.0).reshape(7, 3))
    write_ply(folder / "smile.ply", *TETRAHEDRON)
    found = find_scans(tmp_path)
    assert [(files.subject, files.name, files.is_neutral) for files in found] == [
        ("anna", "neutral", True),
        ("anna", "smile", False),
    ]
    assert found[1].points is None
    assert [files.name for files in find_scans(folder)] == ["neutral", "smile"]
    mesh, points = read_scan_files(found[0], unit_mm=10.0)
    np.testing.assert_allclose(mesh.vertices, 10 * TETRAHEDRON[0])
    np.testing.assert_allclose(points, 10 * np.arange(21.0).reshape(7, 3))
    mesh, points = read_scan(folder_source(tmp_path, plain_head, SMALL), 0)
    assert len(mesh.faces) == 4
    assert points.shape == (7, 3)
    with pytest.raises(InputError, match=r"no neutral\.ply"):
        find_scans(person(tmp_path / "empty"))


# Stirling/ESRC, a made-up tree


@pytest.fixture
def stirling(tmp_path, plain_head):
    """Two synthetic subjects in the layout: M1001 with N and A, F1002 with N; F1003 has no scan."""
    root = tmp_path / "stirling"
    for folder, stem in (("M_3D_N", "m1001_N"), ("M_3D_A", "m1001_A"), ("F_3D_N", "F1002_N")):
        (root / folder).mkdir(parents=True, exist_ok=True)
        write_obj(root / folder / f"{stem}.obj", *TETRAHEDRON, np.zeros((4, 2)), "no.png")
    (root / "annotations" / "M_3D_N").mkdir(parents=True)
    (root / "annotations" / "M_3D_N" / "m1001_N.lnd").write_text("\n".join(f"p{i} {i} 0 0" for i in range(7)))
    photos = root / "Subset_2D_FG2018" / "HQ"
    names = ("M1001_001.png", "m1001_A_left.png", "F1002_001.png", "F1003_001.png")
    for name in names:
        picture(photos / name)
    np.savez(photos / "landmarks.npz", **{name: points468() for name in names})
    for name, stems in (("M1001", ("registered", "A")), ("F1002", ("registered",))):
        for stem in stems:
            shift = 5.0 if stem == "A" else 0.0
            save_registered(tmp_path / "out" / name / f"{stem}.npz", plain_head.mean + shift, plain_head.face_mask)
    return root


def test_stirling_scans_are_listed_neutral_first(stirling):
    found = stirling_scans(stirling)
    assert [(files.subject, files.name, files.points is not None) for files in found] == [
        ("F1002", "N", False),
        ("M1001", "N", True),
        ("M1001", "A", False),
    ]


def test_stirling_subjects_have_the_face_of_each_photo(stirling, tmp_path, plain_head):
    source = stirling_source(stirling, plain_head, SMALL, registered=tmp_path / "out")
    assert [entry.subject for entry in source.entries] == ["F1002", "M1001"]
    woman, man = source(0), source(1)
    np.testing.assert_array_equal(woman.view_mask, [1, 0])
    np.testing.assert_allclose(man.neutral, plain_head.mean)
    np.testing.assert_allclose(man.vertices, np.stack([plain_head.mean, plain_head.mean + 5.0]), atol=1e-4)
    assert jax.tree.map(np.shape, woman) == jax.tree.map(np.shape, man)


def test_stirling_folders_that_are_not_there_are_refused(stirling, tmp_path, plain_head):
    with pytest.raises(InputError, match="no folder"):
        stirling_source(stirling, plain_head, photos="2D")
    with pytest.raises(InputError, match="no scans"):
        stirling_scans(tmp_path / "out")
    shutil.rmtree(stirling / "F_3D_N")
    shutil.rmtree(stirling / "M_3D_N")
    with pytest.raises(InputError, match="no subject has both"):
        stirling_source(stirling, plain_head)

"""Registration: its parts by hand and by known answers, our own subjects' scans within the bar, and the command."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial
from helpers.blobs import sphere

from experiments.evaluation.scanner import ScannerConfig, resample
from facerig_jax.data.registered import read_registered
from facerig_jax.detect.landmarks import POINTS7
from facerig_jax.evaluate.vertex import vertex_error
from facerig_jax.head import landmark_positions, load_head, vertices
from facerig_jax.io.mesh_files import write_ply, write_points7
from facerig_jax.register import RegisterConfig, Scan, register_scan
from facerig_jax.register.detail import normal_detail
from facerig_jax.register.files import read_registration, write_registration
from facerig_jax.register.fit import Matches, Model, Stage, State, step
from facerig_jax.register.modes import SmoothConfig, farthest_points, smooth_modes
from facerig_jax.register.picture import registration_picture
from facerig_jax.register.points import scan_landmarks
from facerig_jax.register.scan import check_scan, prepare
from facerig_jax.synthetic.subject import SubjectConfig, make_subject

ROOT = Path(__file__).parents[1]
BAR_MM = 0.5
# Fewer samples and modes than by default: quicker, and a little worse. `python -m experiments.register --check=20` runs
# the defaults.
QUICK = RegisterConfig(samples=1200, smooth=SmoothConfig(rank=120))
SEED = 1_000_100


@pytest.fixture(scope="module")
def plain_head():
    return load_head()


# Parts


def test_farthest_points_on_a_line_halve_it():
    line = np.stack([np.arange(9.0), np.zeros(9), np.zeros(9)], 1)
    np.testing.assert_array_equal(farthest_points(line, 4), [0, 8, 4, 2])


def test_smooth_modes_have_the_deviation_that_was_asked_for_and_fade_far_away(rng):
    points = np.concatenate([rng.uniform(-40, 40, (500, 3)) * [1, 1, 0], [[0, 0, 900.0]]])
    region = np.arange(501) < 500
    config = SmoothConfig(lengths=(15.0, 40.0), deviation=(0.3, 0.4), rank=200)
    modes = smooth_modes(points, region, config)
    np.testing.assert_allclose(np.linalg.norm(modes[:500], axis=1), 0.5, rtol=0.02)
    assert np.abs(modes[500]).max() == 0
    near = modes[0] @ modes[:500].T
    distance = np.linalg.norm(points[:500] - points[0], axis=1)
    expected = 0.3**2 * np.exp(-(distance**2) / 450) + 0.4**2 * np.exp(-(distance**2) / 3200)
    np.testing.assert_allclose(near, expected, atol=2e-3)


def plate(side=41, spacing=2.0):
    x, y = np.meshgrid(np.arange(side) * spacing, np.arange(side) * spacing)
    index = np.arange(side * side).reshape(side, side)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    faces = np.concatenate([np.stack([a, b, d], -1).reshape(-1, 3), np.stack([a, d, c], -1).reshape(-1, 3)])
    return np.stack([x, y, 0 * x], -1).reshape(-1, 3), faces


def test_detail_follows_what_is_measured_and_bridges_a_hole_smoothly():
    points, faces = plate()
    wave = np.sin(points[:, 0] / 15)
    hole = np.linalg.norm(points - [40, 40, 0], axis=1) < 6
    found = normal_detail(points, faces, np.where(hole, 77.0, wave), 1.0 * ~hole, 0.05, 1.0, 10.0)
    assert np.abs(found - wave)[~hole].max() < 0.05
    assert np.abs(found - wave)[hole].max() < 0.3
    nothing = normal_detail(points, faces, wave, np.zeros(len(points)), 0.05, 1.0, 10.0)
    np.testing.assert_allclose(nothing, 0, atol=1e-12)


def test_detail_prior_has_the_deviation_that_was_asked_for():
    """A single measurement of noise s moves its vertex by gap d^2 / (d^2 + s^2), d the prior's deviation."""
    points, faces = plate()
    middle = np.arange(len(points)) == 20 * 41 + 20
    found = normal_detail(points, faces, 1.0 * middle, 1.0 * middle, 0.5, 0.5, 6.0)
    np.testing.assert_allclose(found[middle], 0.5, atol=0.06)


def test_the_border_of_a_plate_is_its_rim_for_a_mesh_and_for_a_cloud():
    points, faces = plate()
    bowl = points + np.array([0, 0, 1]) * -((points[:, :1] - 40) ** 2 + (points[:, 1:2] - 40) ** 2) / 300
    rim = ((points[:, :2] == 0) | (points[:, :2] == 80)).any(1)
    mesh = prepare(Scan(bowl, faces, None))
    np.testing.assert_array_equal(mesh.border, rim)
    cloud = prepare(Scan(bowl, None, None))
    assert cloud.border[rim].mean() > 0.95
    inner = ((points[:, :2] > 12) & (points[:, :2] < 68)).all(1)
    assert not cloud.border[inner].any()
    np.testing.assert_allclose((mesh.normals * cloud.normals).sum(1)[inner], 1, atol=0.01)
    assert mesh.normals[inner, 2].min() > 0.5


def test_normals_point_outward_whichever_way_the_triangles_turn():
    points, faces = (np.asarray(array) for array in sphere(24, 48))
    for turned in (faces, faces[:, ::-1], None):
        surface = prepare(Scan(80.0 * points.astype(float), turned, None))
        assert (surface.normals * points).sum(1).mean() > 0.98
    place, normal, on_border = prepare(Scan(80.0 * points.astype(float), faces, None)).closest(
        np.array([[0, 0, 100.0]])
    )
    np.testing.assert_allclose(place, [[0, 0, 80]], atol=0.5)
    np.testing.assert_allclose(normal, [[0, 0, 1]], atol=0.02)
    assert not on_border.any()


def test_steps_with_exact_planes_recover_pose_and_codes(rng):
    base, modes = rng.normal(size=(400, 3)) * 50, rng.normal(size=(3, 400, 3))
    model = Model(base, modes, np.zeros((400, 1)))
    codes, turn = np.array([0.5, -1.0, 2.0]), scipy.spatial.transform.Rotation.from_rotvec([0.05, -0.1, 0.08])
    target = turn.apply(base + np.tensordot(codes, modes, 1)) + [3.0, -2.0, 5.0]
    state = State(np.eye(3), np.zeros(3), np.zeros(3), np.zeros((1, 3)))
    normals = rng.normal(size=(400, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    for _ in range(6):
        points, turned = (target - state.shift) @ state.rotation, normals @ state.rotation
        matches = Matches(points, turned, np.ones(400))
        stage = Stage(1, smooth=False, noise=1e-4, gate=(1, 1))
        state = step(model, state, np.arange(400), matches, scan_landmarks(None, None, 1.0), stage)
    np.testing.assert_allclose(state.codes, codes, atol=1e-5)
    np.testing.assert_allclose(state.rotation, turn.as_matrix(), atol=1e-6)
    np.testing.assert_allclose(state.shift, [3, -2, 5], atol=1e-4)


def test_landmarks_without_a_place_on_the_skin_are_left_out(plain_head):
    """Of 68 the jaw line, of 468 those without trust, and what is unknown; the rest lies where the head has it."""
    for count, embedding, expected in (
        (7, None, 7),
        (68, plain_head.landmarks68, 51),
        (468, plain_head.landmarks_dense, 419),
    ):
        rows = list(POINTS7) if embedding is None else slice(None)
        points = np.asarray(landmark_positions(embedding or plain_head.landmarks68, plain_head.mean), float)[rows]
        found = scan_landmarks(plain_head, points, 1.0)
        assert len(found.target) == expected
        places = np.einsum("lc,lcx->lx", found.barycentric, plain_head.mean[found.corners])
        np.testing.assert_allclose(places, found.target, atol=1e-4)
        points[40 if count > 7 else 0] = np.nan
        assert len(scan_landmarks(plain_head, points, 1.0).target) == expected - 1
    with pytest.raises(ValueError, match="468 landmarks"):
        scan_landmarks(plain_head.replace(landmarks_dense=None), np.zeros((468, 3)), 1.0)


# What is refused


def bad_scans(head):
    points7 = np.array(
        [[-45, 30, 80], [-16, 30, 90], [16, 30, 90], [45, 30, 80], [0, -9, 115], [-25, -30, 108], [25, -30, 108]]
    )
    cloud = np.asarray(head.mean, float)[head.face_mask > 0.5]
    yield "few", Scan(cloud[:100], None, points7), "100 usable vertices"
    yield "shape", Scan(cloud[:, :2], None, points7), "should be"
    yield "points", Scan(cloud, None, points7[:6]), "7, 68 or 468"
    yield "unknown", Scan(cloud, None, np.where(np.arange(7)[:, None] < 3, points7, np.nan)), "3 landmarks are known"
    yield "metres", Scan(cloud / 1000, None, points7 / 1000), "millimetres"
    yield "elsewhere", Scan(cloud + 300.0, None, points7), "another frame"
    yield "faces", Scan(cloud, np.array([[0, 1, len(cloud)]]), points7), "there are"


@pytest.mark.parametrize("number", range(7))
def test_a_scan_that_cannot_be_used_is_refused_in_one_sentence(plain_head, number):
    _, scan, message = list(bad_scans(plain_head))[number]
    with pytest.raises(ValueError, match=message) as caught:
        check_scan(scan)
    assert str(caught.value).count("\n") == 0


def test_landmarks_in_the_wrong_order_are_refused(plain_head, scanned):
    _, scan, _ = scanned
    with pytest.raises(ValueError, match="right order"):
        register_scan(plain_head, Scan(scan.vertices, scan.faces, scan.points[[3, 2, 1, 0, 4, 6, 5]]))
    with pytest.raises(ValueError, match="landmarks are needed"):
        register_scan(plain_head, Scan(scan.vertices, scan.faces, None))


def test_vertices_that_are_not_finite_or_unused_are_dropped(scanned):
    _, scan, _ = scanned
    broken = scan.vertices.copy()
    broken[::100] = np.nan
    clean = check_scan(Scan(np.concatenate([broken, [[0, 0, 0.0]]]), scan.faces, scan.points))
    assert np.isfinite(clean.vertices).all()
    np.testing.assert_array_equal(np.unique(clean.faces), np.arange(len(clean.vertices)))


# Whole registrations


@pytest.fixture(scope="module")
def scanned(plain_head):
    """A subject 1 mm off the basis (P, 3), its scan in a frame of its own, and the way there."""
    draw = jax.jit(lambda head: make_subject(head, SEED, 0, SubjectConfig(off_basis=1.0)).neutral)
    truth = np.asarray(draw(jax.tree.map(jnp.asarray, plain_head)), np.float64)
    scan, motion = resample(plain_head, truth, np.random.default_rng(0))
    return truth, scan, motion


@pytest.fixture(scope="module")
def registered(plain_head, scanned):
    return register_scan(plain_head, scanned[1], QUICK)


def errors(head, found, truth, motion):
    """(P,) mm in the scan's frame, and the mean after similarity alignment."""
    rotation, shift = motion
    plain = np.linalg.norm(found.in_scan_frame() - (truth @ rotation.T + shift), axis=1)
    mask = jnp.asarray(head.face_mask)
    arrays = (jnp.asarray(array, jnp.float32) for array in (found.vertices, truth))
    return plain, float(vertex_error(*arrays, mask))


def test_a_resampled_scan_comes_back_within_half_a_millimetre(plain_head, scanned, registered):
    """Corresponding vertices: another topology, holes, 0.1 mm noise, landmarks 1 mm off, any frame."""
    truth, scan, motion = scanned
    assert not np.isin(np.round(scan.vertices, 3), np.round(truth, 3)).all(1).any()
    plain, aligned = errors(plain_head, registered, truth, motion)
    face = plain_head.face_mask > 0.5
    assert plain[face].mean() < BAR_MM
    assert aligned < BAR_MM
    assert plain[registered.known > 0].mean() < 0.4
    assert registered.statistics["mean_mm"] < 0.15
    assert plain[plain_head.part == 1].mean() < 1.0  # the eyeballs come along


def test_what_the_scan_does_not_show_is_not_known(plain_head, scanned, registered):
    _, scan, _ = scanned
    apart = scipy.spatial.cKDTree(scan.vertices).query(registered.in_scan_frame())[0]
    assert registered.known[apart > 4].max() == 0
    assert 0.5 < registered.statistics["known_share"] < 1
    assert set(np.unique(registered.known)) == {0, 1}
    assert (registered.known <= plain_head.face_mask).all()


def test_eyeballs_stay_round(plain_head, registered):
    """They move with the identity and as a whole: what smooth modes add is a shift."""
    expected = plain_head.mean + np.tensordot(registered.identity, plain_head.identity_basis, 1)
    right = np.flatnonzero((plain_head.part == 1) & (plain_head.mean[:, 0] < 0))
    np.testing.assert_allclose(np.ptp(registered.vertices[right] - expected[right], axis=0), 0, atol=1e-4)


def test_an_open_mouth_and_a_smile_follow_from_the_neutral_without_landmarks(plain_head, scanned, registered):
    truth, _, (rotation, shift) = scanned
    code = np.zeros(52)
    shown = [plain_head.expression_names.index(name) for name in ("jawOpen", "mouthSmileLeft", "mouthSmileRight")]
    code[shown] = 0.6
    moved = np.asarray(vertices(plain_head, jnp.zeros(100), jnp.asarray(code, jnp.float32))) - plain_head.mean + truth
    scanner = ScannerConfig(rotated=False)
    scan, _ = resample(plain_head, moved, np.random.default_rng(1), scanner)
    scan = Scan(scan.vertices @ rotation.T + shift + 2.0, scan.faces, None)  # the head moved a little
    found = register_scan(plain_head, scan, QUICK, neutral=registered)
    face = plain_head.face_mask > 0.5
    plain = np.linalg.norm(found.in_scan_frame() - (moved @ rotation.T + shift + 2.0), axis=1)
    assert plain[face].mean() < BAR_MM
    difference = (found.vertices - registered.vertices) - (moved - truth)
    size = np.linalg.norm(moved - truth, axis=1)[face].mean()
    assert np.linalg.norm(difference, axis=1)[face].mean() < 0.1 * size
    np.testing.assert_allclose(found.expression[shown], 0.6, atol=0.2)


def test_files_hold_the_registration_and_are_what_training_reads(tmp_path, plain_head, scanned, registered):
    write_registration(tmp_path / "registered", plain_head, scanned[1], registered, picture=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["registered.npz", "registered.ply"]
    back = read_registration(tmp_path / "registered.npz", plain_head)
    np.testing.assert_allclose(back.in_scan_frame(), registered.in_scan_frame(), atol=1e-3)
    assert back.statistics == pytest.approx(registered.statistics, abs=1e-6)
    for suffix in (".npz", ".ply"):
        face = read_registered(tmp_path / f"registered{suffix}", plain_head)
        np.testing.assert_allclose(face.vertices, registered.vertices, atol=1e-3)
    np.testing.assert_array_equal(read_registered(tmp_path / "registered.npz", plain_head).known, registered.known)


def test_the_picture_shows_scan_result_and_distance(plain_head, scanned, registered):
    picture = registration_picture(plain_head, scanned[1], registered, size=96)
    assert picture.shape[2] == 3
    assert picture.std() > 20
    cloud = Scan(scanned[1].vertices, None, scanned[1].points)
    assert registration_picture(plain_head, cloud, registered, size=96).shape == picture.shape


def test_the_command_registers_a_folder_keeps_what_is_there_and_goes_on_after_a_bad_scan(tmp_path, scanned):
    _, scan, _ = scanned
    for name in ("anna", "bert"):
        write_ply(tmp_path / "scans" / name / "neutral.ply", scan.vertices, scan.faces)
    write_points7(tmp_path / "scans" / "anna" / "points7.txt", scan.points)
    command = [sys.executable, "-m", "experiments.register", f"--scans={tmp_path}/scans", f"--out={tmp_path}/out"]
    settings = {"cwd": ROOT, "capture_output": True, "text": True, "check": False}
    # One thread each: two that wait for each other beside other tests take four times as long.
    settings["env"] = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    first = subprocess.run([*command, "--nopictures"], **settings)
    assert first.returncode == 1
    assert "bert/neutral" in first.stderr
    assert "no landmarks beside it" in first.stderr
    assert "1 of 2 scans were not registered" in first.stderr.splitlines()[-1]
    assert "Traceback" not in first.stderr
    made = tmp_path / "out" / "anna" / "registered.npz"
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == [
        "register.csv",
        "registered.npz",
        "registered.ply",
    ]
    before = made.stat().st_mtime_ns
    write_points7(tmp_path / "scans" / "bert" / "points7.txt", scan.points * np.nan)
    again = subprocess.run([*command, "--nopictures"], **settings)
    assert "0 landmarks are known" in again.stderr
    assert made.stat().st_mtime_ns == before

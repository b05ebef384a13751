"""What the errors of an evaluation say in cases where the answer is known."""

import shutil
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers.blobs import DIRECTIONS, RADII, moved, rotation_matrix, sphere, with_nose
from helpers.tiny import tiny_head

from experiments.evaluation import compare, methods
from experiments.evaluation.image_errors import PARTS, landmark_nme, photometric_error
from experiments.evaluation.samples import seven_points
from experiments.evaluation.scans import ScanProtocols
from facerig_jax.detect.landmarks import LANDMARKS68
from facerig_jax.evaluate.scan_protocols import face_crop, nose_tip_of_scan, now_distances, point_to_plane_rmse
from facerig_jax.evaluate.vertex import deformation_error, vertex_error
from facerig_jax.geometry.light import sh_basis, shade
from facerig_jax.geometry.mesh import vertex_normals
from facerig_jax.io.files import InputError
from facerig_jax.io.mesh_files import write_ply, write_points7
from facerig_jax.numerics import linear_to_srgb
from facerig_jax.raster.render import render_mesh

ASTRONAUT = Path(__file__).parents[1] / "docs" / "photos_astronaut" / "astronaut.jpg"


@pytest.fixture(scope="module")
def ball():
    """A ball of radius 50 mm, its outward normals, and seven points that put all of it inside the scored region."""
    directions, faces = sphere(24, 48)
    points = np.array([[-80, 0, 0], [-20, 1, 0], [20, -1, 0], [80, 0, 0], [0, -10, 3], [-20, -30, 0], [20, -30, 0.0]])
    return 50 * directions, faces, directions, points


# True vertex error


def test_vertex_error_of_a_similar_copy_is_zero_and_of_a_rigid_copy_without_scale(rng):
    truth = rng.normal(size=(200, 3)) * 60
    mask = jnp.asarray(rng.uniform(size=200) < 0.5, jnp.float32)
    (similar,) = moved(rng, truth, scale=0.37)
    (rigid,) = moved(rng, truth)
    as_array = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
    truth = as_array(truth)
    assert vertex_error(as_array(similar), truth, mask) < 2e-4
    assert vertex_error(as_array(rigid), truth, mask, with_scale=False) < 2e-4
    assert vertex_error(as_array(similar), truth, mask, with_scale=False) > 10


def test_a_mesh_offset_by_one_millimetre_along_its_normals_is_one_millimetre_off(ball, rng):
    """On a ball no rigid motion makes up for it; a scale does."""
    vertices, _, normals, _ = ball
    mask = jnp.ones(len(vertices))
    (larger,) = moved(rng, vertices + normals)
    larger, truth = jnp.asarray(larger, jnp.float32), jnp.asarray(vertices, jnp.float32)
    np.testing.assert_allclose(vertex_error(larger, truth, mask, with_scale=False), 1, atol=1e-4)
    np.testing.assert_allclose(vertex_error(larger, truth, mask), 0, atol=1e-3)


def test_deformation_error_sees_motion_alone(rng):
    """The truth in another frame and unit scores 0, a rig that does not move the size of the true motion."""
    neutral, motion = rng.normal(size=(50, 3)) * 50, rng.normal(size=(3, 50, 3))
    rotation, mask = rotation_matrix(rng), jnp.ones(50)
    posed = neutral + motion
    other, other_posed = 0.2 * neutral @ rotation.T + 7, 0.2 * posed @ rotation.T + 7
    arrays = [jnp.asarray(x, jnp.float32) for x in (other_posed, other, posed, neutral)]
    np.testing.assert_allclose(deformation_error(*arrays, mask), 0, atol=1e-3)
    still = jnp.broadcast_to(arrays[1], arrays[0].shape)
    expected = np.linalg.norm(motion, axis=-1).mean(-1)
    np.testing.assert_allclose(deformation_error(still, *arrays[1:], mask), expected, rtol=1e-4)


# Scan protocols


def test_metrical_now_of_a_mesh_offset_by_one_millimetre_is_one_millimetre(ball, rng):
    """A lopsided blob, all of it scored: no rigid motion makes up for a layer of 1 mm. Finely meshed, because turning
    the vertices of one mesh over the flat triangles of the other gains 1/8 edge^2 / radius."""
    directions, faces = sphere(60, 120)
    points, vertices = ball[3], with_nose(directions * RADII)
    normals = np.asarray(vertex_normals(jnp.asarray(vertices, jnp.float32), faces))
    assert face_crop(vertices, points).all()
    larger, larger_points = moved(rng, vertices + normals, points)
    distances = now_distances(vertices, points, larger, faces, larger_points, metrical=True)
    np.testing.assert_allclose(distances.mean(), 1, atol=0.03)
    np.testing.assert_allclose(np.quantile(distances, [0.01, 0.99]), 1, atol=0.3)
    assert now_distances(vertices, points, larger, faces, larger_points).mean() < 0.2


def test_point_to_plane_is_zero_for_a_similar_copy_and_knows_the_residual_of_a_step(ball, rng):
    vertices, faces, _, points = ball
    copy, copy_points = moved(rng, vertices, points, scale=2.2)
    assert point_to_plane_rmse(vertices, points, vertices[0], copy, faces, copy_points) < 1e-3
    # A step of height h against a plane: the best line leaves h (1/2 - 3 |x| / 4), root mean square h / 4.
    x, y = np.meshgrid(np.linspace(-60, 60, 61), np.linspace(-60, 60, 61))
    scan = np.stack([x, y, np.where(x > 0, 1.0, 0.0)], -1).reshape(-1, 3)
    plate = np.array([[-300, -300, 0], [300, -300, 0], [300, 300, 0], [-300, 300, 0]], float)
    flat = points * [1, 1, 0]
    error = point_to_plane_rmse(scan, flat, np.zeros(3), plate, np.array([[0, 1, 2], [0, 2, 3]]), flat)
    np.testing.assert_allclose(error, 0.25, atol=0.01)


def test_point_to_plane_looks_at_95_mm_around_the_nose_only(ball):
    """A wall 96 mm from the nose tip does not count; one at 94 mm does."""
    _, _, _, points = ball
    x, y = np.meshgrid(np.linspace(-60, 60, 31), np.linspace(-60, 60, 31))
    plane = np.stack([x, y, 0 * x], -1).reshape(-1, 3)
    plate = np.array([[-300, -300, 0], [300, -300, 0], [300, 300, 0], [-300, 300, 0]], float)
    faces, flat = np.array([[0, 1, 2], [0, 2, 3]]), points * [1, 1, 0]

    def error(distance):
        scan = np.concatenate([plane, [[0, 0, distance]]])
        return point_to_plane_rmse(scan, flat, np.zeros(3), plate, faces, flat)

    assert error(96) < 1e-6 < 1 < error(94)


def test_the_nose_tip_of_a_scan_does_not_depend_on_its_frame(rng):
    vertices, _ = sphere(12, 24)
    vertices = vertices * RADII
    points = vertices[rng.choice(len(vertices), 8, replace=False)]
    scan, scan_points = moved(rng, vertices, points)
    tip = nose_tip_of_scan(scan, scan_points[:7], points[:7], points[7])
    np.testing.assert_allclose(tip, scan_points[7], atol=1e-9)


def test_now_agrees_with_a_second_implementation(rng):
    """The text of the protocol once more: brute-force distances, and a general optimiser instead of our own.

    The general one stops at the kinks of the distance, so that ours may end lower, never higher.
    """
    vertices, faces = sphere(12, 20)
    scan = with_nose(np.asarray(vertices, float) * RADII)
    points = with_nose(DIRECTIONS / np.linalg.norm(DIRECTIONS, axis=1, keepdims=True) * RADII)
    stretch = [1.05, 0.97, 1.03]
    for metrical, size in ((False, 0.6), (True, 1.0)):
        guess, guess_points = moved(rng, scan * stretch, points * stretch, scale=size)
        ours = now_distances(scan, points, guess, faces, guess_points, metrical)
        theirs = second_now(scan, points, guess, faces, guess_points, metrical)
        assert len(ours) == len(theirs) > 30
        assert np.mean(ours**2) < 1.001 * np.mean(theirs**2)
        np.testing.assert_allclose(ours.mean(), theirs.mean(), rtol=2e-3)
        np.testing.assert_allclose(ours, theirs, atol=0.2)
        assert ours.mean() > 1  # there is something to agree on


def second_now(scan, scan_points, vertices, faces, points, metrical):
    bridge = 0.5 * scan_points[1] + 0.5 * scan_points[2]
    nose = scan_points[4]
    eyes, height = scan_points[0] - scan_points[3], bridge - nose
    radius = 1.4 * (np.sqrt(eyes @ eyes) + np.sqrt(height @ height)) / 2
    near = [p for p in scan if np.sqrt(np.sum((p - (0.7 * nose + 0.3 * bridge)) ** 2)) <= radius]
    near = np.array(near)

    def place(x, what):
        turn = scipy.spatial.transform.Rotation.from_rotvec(x[:3])
        scale = 1.0 if metrical else x[6]
        return scale * turn.apply(what - points.mean(0)) + x[3:6]

    def on_points(x):
        return (place(x, points) - scan_points).ravel()

    def on_surface(x):
        # Scan to prediction; and a scale that must not be negative.
        gap = brute_distance(near, place(x, vertices), faces)
        return np.append(gap, 0 if metrical else 100 * (abs(x[6]) - x[6]))

    starts = [
        np.concatenate([turn, scan_points.mean(0), [1.5]]) for turn in 2 * np.random.default_rng(3).normal(size=(12, 3))
    ]
    fits = [scipy.optimize.least_squares(on_points, start) for start in starts]
    first = min(fits, key=lambda fit: fit.cost).x
    rng, best = np.random.default_rng(4), None
    for _ in range(5):  # shaken loose from the kinks
        start = first if best is None else best.x + 1e-3 * rng.normal(size=7)
        found = scipy.optimize.least_squares(on_surface, start, x_scale="jac", max_nfev=15)
        best = found if best is None or found.cost < best.cost else best
    x = best.x
    return np.abs(brute_distance(near, place(x, vertices), faces))


def brute_distance(points, vertices, faces):
    """(n,) smallest distance to any triangle, negative behind it: to its plane where the foot is in, else its edges."""
    corners = vertices[faces]  # (F, 3, 3)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    height = np.einsum("nfx,fx->nf", points[:, None] - corners[None, :, 0], normal)
    foot = points[:, None] - height[..., None] * normal
    inside, nearest = np.ones(height.shape, bool), np.full(height.shape, np.inf)
    for a, b in ((0, 1), (1, 2), (2, 0)):
        edge = corners[:, b] - corners[:, a]
        inside &= np.einsum("nfx,fx->nf", foot - corners[None, :, a], np.cross(normal, edge)) >= 0
        along = np.einsum("nfx,fx->nf", points[:, None] - corners[None, :, a], edge) / np.sum(edge**2, 1)
        on_edge = corners[None, :, a] + np.clip(along, 0, 1)[..., None] * edge
        nearest = np.minimum(nearest, np.linalg.norm(points[:, None] - on_edge, axis=-1))
    nearest, rows = np.where(inside, np.abs(height), nearest), np.arange(len(points))
    chosen = nearest.argmin(1)
    return np.copysign(nearest[rows, chosen], height[rows, chosen])


# In the image


def test_landmark_error_by_part_sees_only_its_part():
    """Two pixels on the mouth's points alone, over an outer-eye distance that is known."""
    head = tiny_head()
    rng = np.random.default_rng(1)
    order = jnp.asarray(np.stack([np.arange(68)] * 3, 1), jnp.int32)  # a head whose landmarks are its vertices
    corner = jnp.asarray(np.eye(3)[np.zeros(68, int)], jnp.float32)
    head = head.replace(landmarks68=head.landmarks68.replace(triangle=order, barycentric=corner))
    truth = rng.uniform(0, 100, (2, len(head.mean), 3)).astype(np.float32)
    truth[:, 45] = truth[:, 36] + [30, 40, 5]
    guess = truth.copy()
    guess[:, 48:68, 1] += 2
    found = landmark_nme(head, jnp.asarray(guess), jnp.asarray(truth))
    assert set(found) == {"all", *PARTS}
    np.testing.assert_allclose(found["mouth"], 2 / 50, rtol=1e-4)
    np.testing.assert_allclose(found["all"], 2 / 50 * 20 / 68, rtol=1e-4)
    assert all(np.all(found[part] == 0) for part in ("contour", "brows", "nose", "eyes"))


def test_photometric_error_is_small_for_the_truth_and_known_for_a_grey_level():
    """A photo that is the render itself; then the same photo brighter by a tenth everywhere."""
    head, size = tiny_head(), 64
    shape = np.asarray(head.mean) - np.asarray(head.mean).mean(0)
    posed = shape * (0.8 * size / np.ptp(shape[:, 0])) * [1, -1, 1] + [31.5, 31.5, 0]
    posed = jnp.asarray(posed, jnp.float32)
    albedo = jnp.asarray(np.random.default_rng(0).uniform(0.2, 0.5, posed.shape), jnp.float32)
    light = jnp.zeros((9, 3)).at[0].set(0.8).at[3].set(0.3)
    colours = albedo * shade(sh_basis(vertex_normals(posed * jnp.array([[1.0, -1.0, 1.0]]), head.faces)), light)
    linear, _ = render_mesh(posed, head.faces, colours, size, size, background=0.0)
    photo = linear_to_srgb(jnp.clip(linear, 0, 1))[None]
    inside = jnp.ones((1, size, size))
    error, psnr = photometric_error(head, posed[None], albedo[None], photo, inside)
    assert error[0] < 0.01
    assert psnr[0] > 35
    flat = jnp.full_like(albedo, 0.35)
    assert photometric_error(head, posed[None], flat[None], photo, inside)[0][0] > 3 * error[0]
    # What lies outside the photo does not count.
    half = inside.at[:, :, 32:].set(0)
    spoilt = photo.at[:, :, 32:].set(0.0)
    whole = photometric_error(head, posed[None], albedo[None], spoilt, inside)[0][0]
    assert photometric_error(head, posed[None], albedo[None], spoilt, half)[0][0] < whole


def test_errors_are_the_same_compiled_and_mapped():
    """vmap over subjects equals a loop."""
    rng = np.random.default_rng(2)
    guess, truth = (jnp.asarray(rng.normal(size=(3, 40, 3)), jnp.float32) for _ in range(2))
    mask = jnp.ones(40)
    looped = [vertex_error(a, b, mask) for a, b in zip(guess, truth, strict=True)]
    np.testing.assert_allclose(jax.vmap(vertex_error, (0, 0, None))(guess, truth, mask), looped, rtol=1e-4)


# All of them on one head


def test_scan_protocols_score_zero_where_they_are_invariant(head, rng):
    """The embedded head's own mean as the scan; predictions are copies of it in another frame."""
    protocols = ScanProtocols(head)
    scan = protocols.scan_of(protocols.mean)
    assert scan.points.shape == (7, 3)
    assert 1000 < face_crop(scan.vertices, scan.points).sum() < len(scan.vertices)
    (rigid,) = moved(rng, protocols.mean)
    found, distances = protocols(scan, rigid)
    assert set(found) == {*(f"{n}_{s}" for n in ("now", "now_metrical") for s in ("mean", "median")), "fg2018", "plane"}
    assert max(found.values()) < 1e-3  # landmarks are computed in single precision
    assert set(distances) == {"now", "now_metrical"}
    found, _ = protocols(scan, 1.1 * rigid)
    assert max(found[name] for name in ("now_mean", "fg2018", "plane")) < 1e-3
    assert found["now_metrical_mean"] > 0.5


def test_seven_points_are_found_among_more():
    dense = np.arange(3 * 468).reshape(468, 3)
    sparse = dense[list(LANDMARKS68)]
    seven = seven_points(dense)
    np.testing.assert_array_equal(seven_points(sparse), seven)
    np.testing.assert_array_equal(seven_points(seven), seven)
    np.testing.assert_array_equal(seven[[0, 3]], dense[[33, 263]])  # outer eye corners, the subject's right first


def test_scanned_people_are_measured_one_by_one_and_pooled(head, tmp_path, monkeypatch):
    """One person is the mean face, in another frame; the other's scan has twice as many points, all 1 mm off."""
    protocols = ScanProtocols(head)
    scan = protocols.scan_of(protocols.mean)
    normals = np.asarray(vertex_normals(jnp.asarray(scan.vertices, jnp.float32), protocols.faces))
    off = np.concatenate([scan.vertices + normals, scan.vertices - normals])
    for name, vertices in (("a", scan.vertices + [5, 0, 0]), ("b", off)):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(ASTRONAUT, folder / "view_0.jpg")
        write_ply(folder / "neutral.ply", vertices, np.zeros((0, 3), int))
        write_points7(folder / "points7.txt", scan.points + ([5, 0, 0] if name == "a" else 0))
    monkeypatch.setattr(methods, "as_shipped", lambda head: [methods.mean_face(head)])
    monkeypatch.setattr(compare, "trained_rows", lambda *_: [methods.mean_face(head).named("other")])
    options = types.SimpleNamespace(subjects=str(tmp_path), views=1, weights=[], allow_untrained=False)
    first, second, pooled = compare.scanned(options)
    assert [row["subject"] for row in (first, second, pooled)] == ["a", "b", "pooled"]
    assert list(first) == ["subject", "mean face median", "mean face mean", "other median", "other mean"]
    assert first["mean face mean"] < 1e-3
    np.testing.assert_allclose(second["mean face mean"], 1, atol=0.1)
    np.testing.assert_allclose(pooled["mean face mean"], 2 / 3, atol=0.1)
    assert pooled["mean face mean"] == pooled["other mean"]
    with pytest.raises(InputError, match="--what=subjects needs --subjects=DIR"):
        next(compare.scanned(types.SimpleNamespace(subjects=None)))

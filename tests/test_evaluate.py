"""Scan protocols: what a rigid or similar copy scores, what a known error scores, and who may change the result."""

import numpy as np
import pytest
from helpers.blobs import DIRECTIONS, RADII, moved, rotation_matrix, sphere, with_nose

from facerig_jax.evaluate.scan_protocols import face_crop, fg2018_rmse, now_distances, procrustes, refine
from facerig_jax.geometry.surface_distance import closest_points, triangle_normals


@pytest.fixture(scope="module")
def blob():
    """An ellipsoid with a lopsided nose in mm, without any symmetry: vertices, faces, 7 points on it."""
    vertices, faces = sphere(24, 48)
    directions = DIRECTIONS / np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)
    return with_nose(np.asarray(vertices, np.float64) * RADII), np.asarray(faces), with_nose(directions * RADII)


# The scored region


def test_face_crop_by_hand():
    """Eyes 90 mm apart, bridge 40 mm above the nose bottom: centre 12 mm up, radius 1.4 * (90 + 40) / 2 = 91 mm."""
    points = np.array(
        [[-45, 40, 0], [-15, 40, 0], [15, 40, 0], [45, 40, 0], [0, 0, 0], [-25, -20, 0], [25, -20, 0]], float
    )
    scan = np.array([[0, 12 + 90.9, 0], [0, 12 + 91.1, 0], [90.9, 12, 0], [0, 12, -91.1]])
    np.testing.assert_array_equal(face_crop(scan, points), [True, False, True, False])
    np.testing.assert_array_equal(face_crop(scan, points, 1.2), [False] * 4)


# Alignment from points


def test_procrustes_recovers_a_similarity_and_keeps_scale_when_told(rng):
    source = rng.normal(size=(7, 3))
    rotation, shift = rotation_matrix(rng), rng.normal(size=3)
    target = 3.0 * source @ rotation.T + shift
    scale, found, translation = procrustes(source, target)
    np.testing.assert_allclose(scale, 3)
    np.testing.assert_allclose(found, rotation, atol=1e-12)
    np.testing.assert_allclose(translation, shift, atol=1e-12)
    assert procrustes(source, target, with_scale=False)[0] == 1


def test_procrustes_reflects_only_where_it_may(rng):
    source = rng.normal(size=(7, 3))
    mirrored = source * np.array([-1, 1, 1])
    assert np.linalg.det(procrustes(source, mirrored)[1]) > 0
    np.testing.assert_allclose(procrustes(source, mirrored, reflection=True)[1], np.diag([-1, 1, 1]), atol=1e-12)


# Surface distance


def test_closest_points_on_one_triangle():
    vertices, faces = np.array([[0, 0, 0], [10, 0, 0], [0, 10, 0]], float), np.array([[0, 1, 2]])
    distance, closest, triangle = closest_points(np.array([[2, 3, 4], [-3, 0, 0], [13, 0, 4.0]]), vertices, faces)
    np.testing.assert_allclose(distance, [4, 3, 5], atol=1e-9)
    np.testing.assert_allclose(closest, [[2, 3, 0], [0, 0, 0], [10, 0, 0]], atol=1e-9)
    np.testing.assert_array_equal(triangle, 0)
    np.testing.assert_allclose(triangle_normals(vertices, faces), [[0, 0, 1]])


# NoW


def test_the_same_mesh_under_a_similarity_scores_zero(blob, rng):
    vertices, faces, points = blob
    moved_vertices, moved_points = moved(rng, vertices, points, scale=0.37)
    assert now_distances(vertices, points, moved_vertices, faces, moved_points).max() < 1e-3


def test_the_same_mesh_under_a_rigid_motion_scores_zero_when_scale_counts(blob, rng):
    vertices, faces, points = blob
    moved_vertices, moved_points = moved(rng, vertices, points)
    assert now_distances(vertices, points, moved_vertices, faces, moved_points, metrical=True).max() < 1e-3


def test_scale_counts_only_in_the_metrical_score(blob):
    vertices, faces, points = blob
    larger = (1.1 * vertices, faces, 1.1 * points)
    assert now_distances(vertices, points, *larger).mean() < 1e-3
    assert 0.5 < now_distances(vertices, points, *larger, metrical=True).mean() < 7


def test_the_score_does_not_depend_on_the_prediction_frame_or_unit(blob, rng):
    vertices, faces, points = blob
    other = vertices * np.array([1.03, 0.98, 1.04])
    plain = now_distances(vertices, points, other, faces, points)
    shifted, shifted_points = moved(rng, other, points, scale=1e-3)
    np.testing.assert_allclose(now_distances(vertices, points, shifted, faces, shifted_points), plain, atol=2e-3)


def test_the_distances_are_in_the_unit_of_the_scan(blob):
    vertices, faces, points = blob
    other = vertices * np.array([1.03, 0.98, 1.04])
    plain = now_distances(vertices, points, other, faces, points)
    scaled = now_distances(10 * vertices, 10 * points, other, faces, points)
    np.testing.assert_allclose(scaled, 10 * plain, atol=2e-2)


def test_points_that_are_wrong_cost_little_after_the_refinement(blob, rng):
    vertices, faces, points = blob
    noisy = points + rng.normal(size=points.shape) * 1.5
    assert now_distances(vertices, points, vertices, faces, noisy).mean() < 0.02
    assert fg2018_rmse(vertices, points, vertices, faces, noisy) > 0.1


def test_a_step_of_one_millimetre_scores_what_the_best_plane_leaves():
    """A scan with a step of height h in its middle, against a plane: the best line through a step is known."""
    x, y = np.meshgrid(np.linspace(-60, 60, 61), np.linspace(-60, 60, 61))
    height = 1.0
    scan = np.stack([x, y, np.where(x > 0, height, 0.0)], -1).reshape(-1, 3)
    plate = np.array([[-200, -200, 0], [200, -200, 0], [200, 200, 0], [-200, 200, 0]], float)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    aligned = refine(scan, plate, faces, with_scale=False)
    # The least-squares line through a step of height h on [-1, 1]: residual h (1/2 - 3x/4), mean of its size h 5/24.
    np.testing.assert_allclose(closest_points(scan, aligned, faces)[0].mean(), height * 5 / 24, atol=0.01)


def test_refinement_never_ends_with_a_larger_error(blob, rng):
    vertices, faces, _ = blob
    other = vertices * np.array([1.04, 0.96, 1.02]) + rng.normal(size=3)
    scan = vertices[vertices[:, 2] > 0]
    before = np.mean(closest_points(scan, other, faces)[0] ** 2)
    after = np.mean(closest_points(scan, refine(scan, other, faces), faces)[0] ** 2)
    assert after < before


# FG2018


def test_fg2018_is_zero_for_a_similar_copy_and_known_for_a_raised_surface(blob, rng):
    vertices, faces, points = blob
    copy, copy_points = moved(rng, vertices, points, scale=2.2)
    assert fg2018_rmse(vertices, points, copy, faces, copy_points) < 1e-6
    plate = np.array([[-200, -200, 1], [200, -200, 1], [200, 200, 1], [-200, 200, 1]], float)
    flat = np.array(
        [[-45, 40, 0], [-15, 40, 0], [15, 40, 0], [45, 40, 0], [0, 0, 0], [-25, -20, 0], [25, -20, 0]], float
    )
    scan = np.stack([*np.meshgrid(np.linspace(-90, 90, 31), np.linspace(-90, 90, 31)), np.zeros((31, 31))], -1)
    assert abs(fg2018_rmse(scan.reshape(-1, 3), flat, plate, np.array([[0, 1, 2], [0, 2, 3]]), flat) - 1) < 1e-9

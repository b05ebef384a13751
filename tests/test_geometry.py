"""Rotation, camera, crops, sampling and alignment: literals, inverses, and the method's gradient rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from facerig_jax.geometry.alignment import similarity
from facerig_jax.geometry.camera import from_image, normalized_to_pose, project, to_image
from facerig_jax.geometry.crop import crop_around, crop_image, inside_photo, to_crop, to_photo, zoom_points, zoomed
from facerig_jax.geometry.rotation import euler_to_matrix, matrix_to_euler, rotate
from facerig_jax.geometry.sampling import bilinear, central_differences, image_to_map_points, sample_smooth
from facerig_jax.types import Crop


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


def random_angles(rng, n):
    """Pitch and roll all around, yaw inside the open half circle."""
    return rng.uniform(-1, 1, (n, 3)) * np.array([np.pi, 0.49 * np.pi, np.pi])


# Rotation


def test_euler_matrices_are_rotations(rng):
    matrix = euler_to_matrix(jnp.asarray(random_angles(rng, 50)))
    np.testing.assert_allclose(matrix @ matrix.mT, np.broadcast_to(np.eye(3), matrix.shape), atol=1e-12)
    np.testing.assert_allclose(jnp.linalg.det(matrix), 1, atol=1e-12)


@pytest.mark.parametrize(
    ("angles", "source", "target"),
    [
        ((np.pi / 2, 0, 0), (0, 1, 0), (0, 0, 1)),  # pitch takes up to forward
        ((0, np.pi / 2, 0), (0, 0, 1), (1, 0, 0)),  # yaw takes forward to the subject's left
        ((0, 0, np.pi / 2), (1, 0, 0), (0, 1, 0)),  # roll takes left to up
        ((np.pi / 2, 0, np.pi / 2), (0, 1, 0), (0, 0, 1)),  # pitch comes first ...
        ((0, np.pi / 2, np.pi / 2), (0, 0, 1), (0, 1, 0)),  # ... and roll last
    ],
)
def test_each_angle_turns_about_its_axis(angles, source, target):
    np.testing.assert_allclose(euler_to_matrix(jnp.array(angles)) @ jnp.array(source, float), target, atol=1e-12)


def test_angles_come_back_from_their_matrix(rng):
    angles = jnp.asarray(random_angles(rng, 50))
    np.testing.assert_allclose(matrix_to_euler(euler_to_matrix(angles)), angles, atol=1e-10)


def test_rotate_is_the_matrix_product_of_every_point(rng):
    matrix, points = euler_to_matrix(jnp.asarray(random_angles(rng, 4))), jnp.asarray(rng.normal(size=(4, 7, 3)))
    looped = [[m @ p for p in each] for m, each in zip(matrix, points, strict=True)]
    np.testing.assert_allclose(rotate(matrix, points), looped, atol=1e-12)


# Camera


def test_projection_by_hand():
    """Scale 2 px/mm, shift (10, -4) px, a quarter yaw: (0, 0, 5) turns to (5, 0, 0) -> x 20, y -4; u 148, v 131."""
    pose = jnp.array([0, np.pi / 2, 0, 2.0, 10.0, -4.0])
    projected = project(jnp.array([[0.0, 0.0, 5.0]]), pose)
    np.testing.assert_allclose(projected, [[20.0, -4.0, 0.0]], atol=1e-12)
    np.testing.assert_allclose(to_image(projected, 256, 256), [[148.0, 131.0, 0.0]], atol=1e-12)


def test_the_image_origin_follows_the_reference_in_images_that_are_not_square():
    image = to_image(jnp.array([[0.0, 0.0, 3.0]]), 100, 60)
    np.testing.assert_allclose(image, [[30.0, 49.0, 3.0]])


def test_projection_agrees_with_a_numpy_transcription(rng):
    points, pose = rng.normal(size=(9, 3)) * 80, np.r_[rng.normal(size=3) * 0.4, 1.3, 4.0, -7.0]
    distance = 500.0
    turned = points @ np.asarray(euler_to_matrix(jnp.asarray(pose[:3]))).T
    expected = pose[3] * turned * distance / (distance - turned[:, 2:]) + np.r_[pose[4:], 0]
    np.testing.assert_allclose(project(jnp.asarray(points), jnp.asarray(pose), 1 / distance), expected, rtol=1e-12)


def test_inverse_distance_zero_is_exactly_orthographic(rng):
    points, pose = jnp.asarray(rng.normal(size=(9, 3))), jnp.asarray(rng.normal(size=6))
    expected = pose[3] * rotate(euler_to_matrix(pose[:3]), points) + jnp.array([*pose[4:], 0.0])[None]
    np.testing.assert_array_equal(project(points, pose, 0.0), expected)


def test_perspective_keeps_depth_order_and_straight_lines(rng):
    pose, inverse_distance = jnp.array([0.2, -0.5, 0.1, 1.5, 3.0, 4.0]), 1 / 300
    points = jnp.asarray(rng.uniform(-90, 90, (40, 3)))
    depth = rotate(euler_to_matrix(pose[:3]), points)[:, 2]
    np.testing.assert_array_equal(jnp.argsort(project(points, pose, inverse_distance)[:, 2]), jnp.argsort(depth))
    ends = jnp.asarray(rng.uniform(-90, 90, (20, 2, 3)))
    middle = 0.3 * ends[:, :1] + 0.7 * ends[:, 1:]
    posed = jnp.concatenate([ends, middle], 1).reshape(-1, 3)
    posed = project(posed, pose, inverse_distance).reshape(-1, 3, 3)
    area = jnp.cross(posed[:, 1] - posed[:, 0], posed[:, 2] - posed[:, 0])
    np.testing.assert_allclose(area, 0, atol=1e-8)


def test_points_behind_the_camera_stay_finite_with_finite_gradient():
    gradient = jax.grad(lambda p: jnp.sum(project(p, jnp.array([0, 0, 0, 1.0, 0, 0]), 1 / 100.0)))(
        jnp.array([[1.0, 2.0, 100.0], [1.0, 2.0, 500.0]])
    )
    assert np.isfinite(gradient).all()


def test_image_and_projected_frame_are_inverse(rng):
    points = jnp.asarray(rng.normal(size=(5, 3)) * 50)
    np.testing.assert_allclose(from_image(to_image(points, 120, 90)[:, :2], 120, 90), points[:, :2], atol=1e-12)


def test_projection_gradients_agree_with_finite_differences(rng):
    points, pose = jnp.asarray(rng.normal(size=(4, 3))), jnp.asarray(rng.normal(size=6))
    check_grads(lambda *a: project(*a), (points, pose, jnp.asarray(0.05)), order=1, modes=("fwd", "rev"))


def test_normalised_zero_pose_is_the_published_middle():
    expected = [0.1, 0, 0, 2.25e-3, 10, -10]
    np.testing.assert_allclose(normalized_to_pose(jnp.array([[0.1, 0, 0, 2, 1, -1.0]] * 3)), [expected] * 3)


# Sampling


def bilinear_numpy(image, points):
    """One point and one neighbour at a time."""
    height, width, channels = image.shape
    out = np.zeros((len(points), channels))
    for k, (u, v) in enumerate(points):
        for row in (int(np.floor(v)), int(np.floor(v)) + 1):
            for col in (int(np.floor(u)), int(np.floor(u)) + 1):
                if 0 <= row < height and 0 <= col < width:
                    out[k] += image[row, col] * (1 - abs(u - col)) * (1 - abs(v - row))
    return out


@pytest.fixture
def sampling(rng):
    """A map (8, 11, 3) and positions inside it, on its rim, across its rim and far outside."""
    inside = rng.uniform(0, 1, (30, 2)) * np.array([10, 7])
    special = [[0, 0], [10, 7], [-0.5, 3], [10.5, 7.5], [3, -0.25], [-2, 3], [4, 9], [1e6, -1e6]]
    return jnp.asarray(rng.normal(size=(8, 11, 3))), jnp.asarray(np.concatenate([inside, special]))


@pytest.mark.parametrize("sampler", [bilinear, sample_smooth])
def test_samples_equal_a_numpy_transcription_and_are_zero_outside(sampler, sampling):
    image, points = sampling
    np.testing.assert_allclose(sampler(image, points), bilinear_numpy(*map(np.asarray, sampling)), atol=1e-12)
    np.testing.assert_array_equal(sampler(image, points)[-3:], 0)


def test_samples_at_positions_that_are_not_finite_do_not_crash(sampling):
    values = bilinear(sampling[0], jnp.array([[jnp.nan, 1.0], [jnp.inf, 2.0]]))
    assert values.shape == (2, 3)


def test_central_differences_copy_their_inner_neighbour_at_the_border():
    row = jnp.array([0.0, 1.0, 4.0, 9.0])[None, :, None] * jnp.ones((3, 1, 1))
    du, dv = central_differences(row)
    np.testing.assert_array_equal(du[0, :, 0], [2, 2, 4, 4])
    np.testing.assert_array_equal(dv, jnp.zeros((3, 4, 1)))


def slopes_at(image, points):
    return jnp.stack([bilinear(slope, points) for slope in central_differences(image)], -1)


@pytest.mark.parametrize("derivative", [jax.jacfwd, jax.jacrev])
def test_derivative_by_position_is_the_sampled_central_difference(derivative, sampling):
    image, points = sampling
    jacobian = jax.vmap(derivative(lambda p: sample_smooth(image, p)))(points)
    np.testing.assert_allclose(jacobian, slopes_at(image, points), atol=1e-12)


def test_second_derivative_is_that_of_the_sampled_slope_maps(sampling):
    image, points = sampling
    points = points[:30]  # away from the rim, where the kernel has kinks
    second = jax.vmap(jax.jacfwd(jax.jacrev(lambda p: sample_smooth(image, p))))(points)
    expected = jax.vmap(jax.jacfwd(lambda p: slopes_at(image, p)))(points)
    np.testing.assert_allclose(second, expected, atol=1e-12)


def test_derivative_by_the_map_is_the_usual_one(sampling):
    image, points = sampling
    check_grads(lambda image: sample_smooth(image, points), (image,), order=1, modes=("fwd", "rev"))
    usual, custom = (
        jax.grad(lambda image, f=f: jnp.sum(f(image, points) * jnp.arange(3.0)[None]))(image)
        for f in (bilinear, sample_smooth)
    )
    np.testing.assert_allclose(custom, usual, atol=1e-12)


def test_map_points_take_corners_to_corners():
    corners = jnp.array([[0.0, 0.0], [255.0, 191.0]])
    np.testing.assert_allclose(image_to_map_points(corners, (192, 256), (48, 64)), [[0, 0], [63, 47]])


# Crops


def test_crop_and_photo_positions_are_inverse(rng):
    crop = Crop(jnp.asarray(rng.uniform(0.2, 3, 4)), jnp.asarray(rng.normal(size=(4, 2)) * 30), 64)
    points = jnp.asarray(rng.normal(size=(4, 6, 3)) * 50)
    np.testing.assert_allclose(to_photo(to_crop(points, crop), crop), points, atol=1e-11)
    np.testing.assert_allclose(to_crop(points, crop)[..., 2], points[..., 2] * crop.scale[:, None], atol=1e-11)


def test_a_crop_is_centred_on_the_points_with_its_margin():
    crop = crop_around(jnp.array([[10.0, 20.0], [50.0, 40.0]]), 64, 1.6)
    np.testing.assert_allclose(to_photo(jnp.array([[31.5, 31.5], [-0.5, -0.5], [63.5, 63.5]]), crop)[0], [30, 30])
    np.testing.assert_allclose(1 / crop.scale, 40 * 1.6 / 64)


def test_a_zoomed_crop_is_the_same_window(rng):
    crop = Crop(jnp.asarray(rng.uniform(0.2, 3, 4)), jnp.asarray(rng.normal(size=(4, 2)) * 30), 64)
    points = jnp.asarray(rng.normal(size=(4, 6, 3)) * 50)
    finer = zoomed(crop, 160)
    assert finer.size == 160
    np.testing.assert_allclose(to_crop(points, finer), zoom_points(to_crop(points, crop), 160 / 64), atol=1e-9)
    corner = jnp.full((4, 1, 2), -0.5)
    np.testing.assert_allclose(to_photo(corner, finer), to_photo(corner, crop), atol=1e-9)


@pytest.mark.parametrize("scale", [0.25, 1.0, 2.5])
def test_a_white_dot_lands_where_to_crop_says(scale):
    position = np.array([37.0, 22.0])
    yx = np.indices((60, 80))
    dot = np.exp(-0.5 * ((yx[1] - position[0]) ** 2 + (yx[0] - position[1]) ** 2) / 2.0**2)
    crop = Crop(jnp.asarray(scale), jnp.array([21.3, 9.6]), 96)
    image = np.asarray(crop_image(jnp.asarray(dot)[..., None], crop))[..., 0]
    centre = [(np.indices(image.shape)[axis] * image).sum() / image.sum() for axis in (1, 0)]
    np.testing.assert_allclose(centre, to_crop(jnp.asarray(position)[None], crop)[0], atol=0.02)


def test_a_crop_larger_than_the_photo_is_black_outside_and_exact_inside():
    crop = Crop(jnp.asarray(1.0), jnp.array([-8.0, -4.0]), 32)
    image = crop_image(jnp.full((16, 16, 3), 0.7), crop)
    np.testing.assert_allclose(image[5:19, 9:23], 0.7, atol=1e-6)
    np.testing.assert_array_equal(image[22:], 0)
    np.testing.assert_array_equal(image[:, :7], 0)


def test_inside_photo_keeps_its_border_and_knows_height_from_width():
    points, size = jnp.array([[0.0, 0.0], [1.0, 1.0], [78.0, 38.0], [79.0, 39.0], [38.0, 78.0]]), jnp.array([40, 80])
    np.testing.assert_array_equal(inside_photo(points, size), [False, True, True, False, False])
    np.testing.assert_array_equal(inside_photo(points, size, border=0.0), [True, True, True, True, False])


# Alignment


def test_alignment_recovers_a_random_similarity(rng):
    source, weight = rng.normal(size=(20, 3)), rng.uniform(0.1, 1, 20)
    rotation = euler_to_matrix(jnp.asarray(random_angles(rng, 1)[0]))
    target = 2.5 * source @ rotation.T + jnp.array([[1.0, -2.0, 3.0]])
    fit = similarity(jnp.asarray(source), target, jnp.asarray(weight))
    np.testing.assert_allclose(fit.scale, 2.5, rtol=1e-10)
    np.testing.assert_allclose(fit.rotation, rotation, atol=1e-10)
    np.testing.assert_allclose(fit(jnp.asarray(source)), target, atol=1e-10)


def test_alignment_ignores_points_without_weight(rng):
    source = jnp.asarray(rng.normal(size=(10, 3)))
    target = (source + 4).at[7:].add(100.0)
    fit = similarity(source, target, jnp.array([1.0] * 7 + [0.0] * 3))
    np.testing.assert_allclose(fit(source)[:7], target[:7], atol=1e-10)


def test_alignment_never_reflects(rng):
    source = jnp.asarray(rng.normal(size=(10, 3)))
    rotation = similarity(source, source * jnp.array([[-1.0, 1.0, 1.0]])).rotation
    np.testing.assert_allclose(jnp.linalg.det(rotation), 1, atol=1e-10)


def test_alignment_without_scale_keeps_size(rng):
    source = jnp.asarray(rng.normal(size=(10, 3)))
    fit = similarity(source, 3 * source + 1, with_scale=False)
    np.testing.assert_allclose(fit.scale, 1)
    np.testing.assert_allclose(fit.rotation, np.eye(3), atol=1e-10)

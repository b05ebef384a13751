"""Synthetic subjects: the same from the same numbers, possible faces, and images that agree with their truth."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from subjects import PHOTOS, SIZE, small_head, subject

import facerig_jax
from facerig_jax.data.subjects import HELD_OUT_SEED, VALIDATION_SEED
from facerig_jax.data.synthetic import SyntheticSource, training_seed
from facerig_jax.data.synthetic_people import CONFLICTS, NEED_OPEN_JAW, random_expression, smooth_displacement
from facerig_jax.data.synthetic_plain import random_light
from facerig_jax.geometry.camera import project, to_image
from facerig_jax.geometry.light import sh_basis, shade
from facerig_jax.head.model import vertices


@pytest.fixture(scope="module")
def drawn():
    return subject()[0]


def test_the_same_seed_and_index_give_the_same_subject_and_others_do_not(drawn):
    jax.tree.map(np.testing.assert_array_equal, drawn, subject.__wrapped__()[0])
    other, _ = subject(1)
    assert float(jnp.abs(other.identity - drawn.identity).max()) > 0.1
    assert float(jnp.abs(other.images - drawn.images).mean()) > 0.01


def test_images_are_finite_srgb_with_a_face_that_is_neither_black_nor_burnt(drawn):
    images = np.asarray(drawn.images)
    assert images.shape == (PHOTOS.n_views, SIZE, SIZE, 3)
    assert images.min() >= 0
    assert images.max() <= 1
    middle = images[:, SIZE // 3 : -SIZE // 3, SIZE // 3 : -SIZE // 3]
    assert 0.15 < middle.mean() < 0.9


def test_vertices_follow_from_the_codes_and_their_image_from_the_camera(drawn):
    head = small_head()
    expected = vertices(head, drawn.identity[None], drawn.expression)
    np.testing.assert_allclose(drawn.vertices, expected, atol=1e-3)
    posed = to_image(project(drawn.vertices, drawn.pose, drawn.inverse_distance), SIZE, SIZE)
    np.testing.assert_allclose(drawn.vertices_img, posed, atol=1e-3)


def test_the_face_lies_inside_the_photo(drawn):
    inside = (drawn.vertices_img[..., :2] > 0) & (drawn.vertices_img[..., :2] < SIZE - 1)
    assert float(jnp.mean(jnp.all(inside, -1)[:, small_head().face_mask > 0.5])) > 0.95


def test_every_field_that_a_generator_knows_is_filled(drawn):
    unknown = {field.name for field in dataclasses.fields(drawn) if getattr(drawn, field.name) is None}
    assert unknown == {"image_size", "view_mask"}
    assert drawn.landmarks.shape == (PHOTOS.n_views, 468, 3)
    assert drawn.light.shape == (PHOTOS.n_views, 9, 3)
    assert 18 <= float(drawn.traits.age) <= 85


def test_a_source_gives_the_subjects_of_its_seed(drawn):
    source = SyntheticSource(small_head(), 0, PHOTOS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), source(0), drawn)
    assert len(source) > 10**9


@pytest.mark.parametrize("seed", [-1, VALIDATION_SEED, HELD_OUT_SEED, HELD_OUT_SEED + 5])
def test_seeds_of_validation_and_evaluation_are_refused_by_training(seed):
    with pytest.raises(ValueError, match="kept for validation and evaluation"):
        training_seed(seed)
    assert training_seed(VALIDATION_SEED - 1) == VALIDATION_SEED - 1


def test_poses_stay_within_their_limits(drawn):
    limit = np.deg2rad([PHOTOS.pitch, PHOTOS.yaw, PHOTOS.roll])
    assert (np.abs(drawn.pose[:, :3]) <= limit).all()
    near, far = PHOTOS.distance
    assert ((1 / drawn.inverse_distance > near * 0.999) & (1 / drawn.inverse_distance < far * 1.001)).all()


@pytest.fixture(scope="module")
def expressions():
    """Many draws (n, 52) of the whole set of shapes, every third one active, and their names."""
    head = facerig_jax.load_head()
    draw = jax.jit(jax.vmap(lambda key: random_expression(key, head, 0.35)))
    return np.asarray(draw(jax.random.split(jax.random.key(1), 3000))), head.expression_names


def test_expressions_are_sparse_weights_in_the_unit_interval(expressions):
    weight, _ = expressions
    assert weight.min() >= 0
    assert weight.max() <= 1
    assert 0.1 < np.mean(weight > 0) < 0.4


def stem(name):
    return name.removesuffix("Left").removesuffix("Right")


@pytest.mark.parametrize("pair", CONFLICTS, ids="-".join)
def test_impossible_pairs_are_never_drawn_together(pair, expressions):
    weight, names = expressions
    sides = ("jawLeft", "jawRight", "mouthLeft", "mouthRight")
    columns = [[i for i, n in enumerate(names) if (n if n in sides else stem(n)) == kept] for kept in pair]
    assert all(columns), f"{pair} names no shape of the head"
    first, second = (weight[:, column].max(1) for column in columns)
    assert first.max() > 0
    assert second.max() > 0
    assert not np.any((first > 0) & (second > 0))


def test_shapes_that_need_an_open_jaw_are_limited_by_it(expressions):
    weight, names = expressions
    jaw = weight[:, names.index("jawOpen")]
    for name in NEED_OPEN_JAW:
        assert (weight[:, names.index(name)] <= 0.9 * jaw + 1e-6).all()


def test_left_and_right_move_together(expressions):
    weight, names = expressions
    left, right = (weight[:, names.index(f"mouthSmile{side}")] for side in ("Left", "Right"))
    np.testing.assert_array_equal(left > 0, right > 0)
    moved = left > 0
    ratio = left[moved] / right[moved]
    assert ratio.min() >= 0.5 - 1e-6
    assert ratio.max() <= 2 + 1e-6


def test_off_basis_displacement_is_a_millimetre_and_smooth():
    head = small_head()
    field = smooth_displacement(jax.random.key(3), head)
    mask = head.face_mask > 0.5
    rms = jnp.sqrt(jnp.mean(jnp.sum(field[mask] ** 2, -1)))
    np.testing.assert_allclose(rms, 1.0, rtol=0.1)
    edges = head.faces[:, :2]
    step = jnp.linalg.norm(field[edges[:, 0]] - field[edges[:, 1]], axis=-1)
    length = jnp.linalg.norm(head.mean[edges[:, 0]] - head.mean[edges[:, 1]], axis=-1)
    assert float(jnp.max(step / jnp.maximum(length, 0.3))) < 0.6


def test_environment_light_is_the_clamped_cosine_of_its_lamps():
    """Its strongest direction is bright, the opposite one dark, and no direction is far below zero."""
    normals = jax.random.normal(jax.random.key(5), (400, 3))
    normals = normals / jnp.linalg.norm(normals, axis=-1, keepdims=True)
    for seed in range(5):
        light, direction, _ = random_light(jax.random.key(seed))
        towards, away = shade(sh_basis(jnp.stack([direction, -direction])), light)
        assert (towards > away).all()
        assert float(shade(sh_basis(normals), light).min()) > -0.05

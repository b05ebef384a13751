"""Synthetic subjects: the same from the same numbers, possible faces, and images that agree with their truth."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.subjects import PHOTOS, SIZE, small_head, subject

import facerig_jax
from facerig_jax.data.subjects import HELD_OUT_SEED, VALIDATION_SEED
from facerig_jax.geometry.camera import project, to_image
from facerig_jax.geometry.light import sh_basis, shade
from facerig_jax.head.model import landmark_positions, vertices
from facerig_jax.synthetic.cover import draw_glasses, put_before, put_on
from facerig_jax.synthetic.imitated_landmarks import imitate_landmarks
from facerig_jax.synthetic.light import lit_by
from facerig_jax.synthetic.noise import spots, value_noise
from facerig_jax.synthetic.people import (
    CONFLICTS,
    NEED_OPEN_JAW,
    lower_lids_sometimes,
    move,
    random_expression,
    random_motion,
    smile_sometimes,
    smooth_displacement,
)
from facerig_jax.synthetic.placement import draw_placement, place
from facerig_jax.synthetic.plain import random_light
from facerig_jax.synthetic.sensor import compress
from facerig_jax.synthetic.subject import TRAIN, make_subject, synthetic_source, training_seed
from facerig_jax.synthetic.wear import draw_wear, make_shell

KEY = jax.random.key(8)


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
    source = synthetic_source(small_head(), 0, PHOTOS)
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


def test_colours_are_placed_elsewhere_on_the_skin_and_nowhere_else():
    head = small_head()
    skin, face = np.asarray(head.part) == 0, np.asarray(head.face_mask) > 0.5
    rest = jnp.asarray(head.mean)
    placement = draw_placement(jax.random.key(3), head, 2.5)
    moved = np.asarray(place(placement, rest))
    np.testing.assert_array_equal(moved[~skin], rest[~skin])
    distance = np.linalg.norm(moved - np.asarray(rest), axis=-1)
    assert 1.5 < np.sqrt(np.mean(distance[face] ** 2)) < 3.5
    assert 5 < distance[face].max() <= 10
    still = place(placement.replace(uv=head.uv), rest)
    assert np.quantile(np.linalg.norm(still - rest, axis=-1)[face], 0.95) < 0.3  # mm: what the texels cost
    white = place(placement, jnp.asarray(skin, jnp.float32)[:, None])
    np.testing.assert_allclose(white[skin], 1.0, atol=1e-4)  # nothing of eyes and mouth gets onto the skin


@pytest.mark.thorough
def test_a_wider_spread_moves_the_shape_and_placed_colours_leave_it(drawn):
    placed = subject(placement=2.5)[0]
    np.testing.assert_allclose(placed.vertices_img, drawn.vertices_img, atol=1e-3)
    assert float(jnp.abs(placed.albedo - drawn.albedo).max()) > 0.02
    assert float(jnp.abs(placed.images - drawn.images).max()) > 0.02
    wide = subject(spread=3.0)[0]
    factor = wide.identity / drawn.identity
    np.testing.assert_allclose(factor, factor[0], rtol=1e-4)
    assert 1 < float(factor[0]) < 3


def test_environment_light_is_the_clamped_cosine_of_its_lamps():
    """Its strongest direction is bright, the opposite one dark, and no direction is far below zero."""
    normals = jax.random.normal(jax.random.key(5), (400, 3))
    normals = normals / jnp.linalg.norm(normals, axis=-1, keepdims=True)
    for seed in range(5):
        light, direction, _ = random_light(jax.random.key(seed))
        towards, away = shade(sh_basis(jnp.stack([direction, -direction])), light)
        assert (towards > away).all()
        assert float(shade(sh_basis(normals), light).min()) > -0.05


# The photographic renderer.
PHOTO = dataclasses.replace(TRAIN, n_views=2, size=64, hand=0.5, glasses=1.0)


@pytest.fixture(scope="module")
def photographed():
    return subject(**{f.name: getattr(PHOTO, f.name) for f in dataclasses.fields(PHOTO)})[0]


def test_photos_are_finite_and_their_truth_follows_from_the_camera(photographed):
    images = np.asarray(photographed.images)
    assert images.shape == (2, 64, 64, 3)
    assert np.isfinite(images).all()
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.std() > 0.05
    posed = to_image(project(photographed.vertices, photographed.pose, photographed.inverse_distance), 64, 64)
    np.testing.assert_allclose(photographed.vertices_img, posed, atol=1e-3)
    for leaf in jax.tree.leaves(photographed):
        assert np.isfinite(leaf).all()


def test_photos_of_one_number_are_the_same_and_of_others_not(photographed):
    changes = {f.name: getattr(PHOTO, f.name) for f in dataclasses.fields(PHOTO)}
    again, _ = subject.__wrapped__(0, **changes)
    jax.tree.map(np.testing.assert_array_equal, photographed, again)
    other, _ = subject.__wrapped__(1, **changes)
    assert float(jnp.abs(other.images - photographed.images).mean()) > 0.03


def test_imitated_landmarks_miss_the_exact_ones_by_about_what_the_detector_does():
    """On renders the detector misses trusted points by 1.5 to 4 mm (experiments.synthesize --what=detect)."""
    head = facerig_jax.load_head()
    draw = jax.jit(jax.vmap(imitate_landmarks, (0,) + (None,) * 7), static_argnums=7)
    codes = jnp.zeros(head.identity_basis.shape[0]), jnp.zeros(head.expression_basis.shape[0])
    pose, inverse = jnp.array([0.0, 0.2, 0.1, 1.0, 3.0, 4.0]), jnp.array(1 / 700)
    keys = jax.random.split(jax.random.key(0), 50)
    found = draw(keys, jax.tree.map(jnp.asarray, head), jnp.asarray(head.mean), *codes, pose, inverse, 256)
    exact = to_image(project(landmark_positions(head.landmarks_dense, head.mean), pose, inverse), 256, 256)
    miss = jnp.linalg.norm((found - exact[None])[..., :2], axis=-1)[:, head.landmarks_dense.weight > 0]
    assert 0.5 < float(jnp.median(miss)) < 4.0


def test_a_neutral_face_stays_still_whoever_it_belongs_to():
    head = small_head()
    motion = random_motion(jax.random.key(0), head, 1.0)
    still = move(motion, head, head.mean, jnp.zeros(len(head.expression_names)))
    np.testing.assert_allclose(still, head.mean, atol=1e-3)
    weight = jnp.full(len(head.expression_names), 0.5)
    plain = head.mean + jnp.tensordot(weight, head.expression_basis, 1)
    extra = jnp.linalg.norm(move(motion, head, head.mean, weight) - plain, axis=-1).max()
    assert 0.3 < float(extra) < 0.5 * float(jnp.linalg.norm(plain - head.mean, axis=-1).max())
    unchanged = move(random_motion(jax.random.key(0), head, 0.0), head, head.mean, weight)
    np.testing.assert_allclose(unchanged, plain, atol=1e-3)


def test_noise_belongs_to_the_place_and_is_continuous():
    place = tuple(jax.random.normal(jax.random.key(i), (500,)) * 20 for i in range(3))
    seed = jnp.uint32(5)
    noise = value_noise(place, seed)
    np.testing.assert_array_equal(noise, value_noise(place, seed))
    assert 0 <= float(noise.min()) < 0.25
    assert 0.75 < float(noise.max()) <= 1
    assert float(jnp.abs(value_noise(tuple(p + 1e-3 for p in place), seed) - noise).max()) < 0.02
    assert float(jnp.abs(value_noise(place, seed + 1) - noise).mean()) > 0.1
    strength, _ = spots(place, seed, 0.5)
    assert 0 < float((strength > 0).mean()) < 0.4
    np.testing.assert_array_equal(spots(place, seed, 0.0)[0], 0)


def test_hair_and_hats_lie_outside_the_head_and_nothing_is_left_where_none_is_worn():
    head = small_head()
    beard = jnp.zeros(len(head.mean))
    draw = jax.jit(lambda key, hair, hat: make_shell(head, draw_wear(key, 1.0, 30.0, 0.0, hair, hat), beard))
    bare = draw(jax.random.key(0), 0.0, 0.0)
    np.testing.assert_array_equal(bare.faces, 0)
    covered = [draw(jax.random.key(i), 1.0, 1.0) for i in range(6)]
    top = head.mean[: head.n_coarse, 1] > 120
    assert all(float(shell.height[top].min()) > 0 for shell in covered if float(shell.height[top].max()) > 0)
    assert any(float(shell.cloth.max()) > 0 for shell in covered)


def test_glasses_are_hidden_by_what_is_nearer_and_hands_by_nothing():
    glasses = draw_glasses(jax.random.key(0), 1.0).replace(colour=jnp.zeros(3))
    picture, eyes = jnp.ones((3, 96, 96)), jnp.array([[-31.0, 27.0, 0.0], [31.0, 27.0, 0.0]])
    pose = jnp.array([0.0, 0.0, 0.0, 0.6, 0.0, 0.0])
    draw = jax.jit(lambda depth: put_on(glasses, picture, depth, eyes, pose, jnp.array(0.0), 96))
    behind, before = draw(jnp.full((96, 96), -200.0)), draw(jnp.full((96, 96), 200.0))
    assert float(behind.min()) < 0.5
    np.testing.assert_allclose(before, picture)
    cover = jax.jit(
        lambda key: put_before(key, picture, jnp.full((68, 2), 48.0), 0.6, jnp.zeros(3), jnp.ones((9, 3)), 96)
    )
    changed = [float((jnp.abs(cover(jax.random.key(i)) - picture).max(0) > 0.1).mean()) for i in range(4)]
    assert all(0.01 < share < 0.8 for share in changed), changed


def test_compression_keeps_smooth_pictures_and_cuts_fine_noise():
    u = jnp.linspace(0.2, 0.8, 64)
    smooth = jnp.broadcast_to(u, (3, 64, 64))
    rough = jnp.clip(smooth + 0.05 * jax.random.normal(jax.random.key(1), (3, 64, 64)), 0, 1)
    lost = [float(jnp.abs(compress(x, jax.random.key(2)).transpose(2, 0, 1) - x).mean()) for x in (smooth, rough)]
    assert lost[0] < 0.01
    assert max(lost[1], 1e-9) >= lost[0]


def test_a_wall_before_the_lamp_casts_a_shadow():
    corners = jnp.array([[-60.0, -60, 0], [60, -60, 0], [60, 60, 0], [-60, 60, 0]])
    wall = jnp.array([[0, 1, 2], [0, 2, 3]], jnp.int32)
    points = jnp.array([[0.0, 0.0, -80.0], [150.0, 0.0, -80.0], [0.0, 0.0, 30.0]])
    lit = lit_by(points, wall, corners, jnp.array([0.0, 0.0, 1.0]))
    np.testing.assert_allclose(lit, [0, 1, 1], atol=0.1)


def test_an_unknown_renderer_is_refused():
    with pytest.raises(ValueError, match="renderer"):
        make_subject(small_head(), 0, 0, dataclasses.replace(PHOTOS, renderer="painting"))


# What each setting does, switched off where TRAIN has it on; everything rare happens to everybody here.
OFTEN = dataclasses.replace(
    TRAIN, n_views=1, size=64, hair=1.0, headwear=1.0, glasses=1.0, beard=1.0, hand=1.0, low_lids=1.0
)
SWITCHES = {
    **dict.fromkeys(("personal", "fine_shape", "detail", "hair", "headwear", "glasses", "beard", "hand"), 0.0),
    **dict.fromkeys(
        ("shadows", "sensor", "noise", "specular", "sharp_light", "off_basis", "expressiveness", "low_lids"), 0.0
    ),
    "spread": 3.0,
    "placement": 2.5,
    "scene": False,
    "skin": "waves",
    "light": "many",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_changes_the_photos_and_only_shape_switches_the_shape(name):
    draw = jax.jit(make_subject, static_argnames="config")
    head = small_head()
    other = dataclasses.replace(OFTEN, **{name: SWITCHES[name]})
    pairs = [(draw(head, 0, i, OFTEN), draw(head, 0, i, other)) for i in range(8)]
    assert max(float(jnp.abs(a.images - b.images).mean()) for a, b in pairs) > 1e-3
    moved = max(float(jnp.abs(a.vertices - b.vertices).max()) for a, b in pairs)
    assert (moved > 1e-2) == (name in ("personal", "fine_shape", "off_basis", "expressiveness", "low_lids", "spread"))
    jax.clear_caches()  # some twenty programs as large as these are more than a process may map, see conftest


def test_smiles_exclude_frowns_and_stay_in_the_unit_interval():
    head = facerig_jax.load_head()
    names = list(head.expression_names)
    full = jnp.ones(len(names))
    smiling = smile_sometimes(jax.random.key(0), head, full, 1.0)
    assert float(smiling[names.index("mouthSmileLeft")]) > 0.2
    assert float(smiling[names.index("mouthFrownLeft")]) == 0
    np.testing.assert_array_equal(smile_sometimes(jax.random.key(0), head, full, 0.0), full)


def test_low_lids_are_half_closed_or_closed_and_never_wide():
    names = list(facerig_jax.load_head().expression_names)
    lids, wide = (np.array([name.startswith(start) for name in names]) for start in ("eyeBlink", "eyeWide"))
    keys = jax.random.split(jax.random.key(0), 50)
    lower = jax.jit(jax.vmap(lower_lids_sometimes, (0, None, None, None)))
    head, before = small_head().replace(expression_names=tuple(names)), jnp.full(len(names), 0.2)
    lowered = np.asarray(lower(keys, head, before, 1.0))
    assert lowered[:, lids].min() > 0.25
    assert (lowered[:, lids] > 0.95).any()
    assert (lowered[:, wide] == 0).all()
    np.testing.assert_allclose(lowered[:, ~lids & ~wide], 0.2)
    np.testing.assert_allclose(lower(keys, head, before, 0.0), 0.2)

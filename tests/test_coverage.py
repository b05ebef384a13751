"""What hides the face or its colours: covers that are worn in every photo, hard shadows, and darkness."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.subjects import CONFIG, HYPER, SIZE, small_head, small_params, subject
from PIL import Image, ImageDraw

import facerig_jax
from facerig_jax.config import Hyper, as_arrays
from facerig_jax.fit import coverage
from facerig_jax.fit.linear_points import PointModel
from facerig_jax.fit.parameters import Parameters
from facerig_jax.fit.photometric import colour_data, colour_trust, light_level
from facerig_jax.fit.preprocess import Coverage, Crops
from facerig_jax.fit.residuals import PointData
from facerig_jax.geometry.light import ambient_light
from facerig_jax.head.model import landmark_positions
from facerig_jax.numerics import linear_to_srgb, srgb_to_linear
from facerig_jax.report import notes
from facerig_jax.types import Crop

NAMES = list(coverage.REGIONS)
BLUE, BLACK, WHITE = (120, 165, 190), (22, 20, 20), (235, 235, 238)


def photos(index=0):
    """Photos (V, S, S, 3) uint8 of a subject and the truth."""
    made, landmarks = subject(index)
    return np.round(255 * np.asarray(made.images)).astype(np.uint8), made, landmarks


def points68(made):
    return np.asarray(landmark_positions(small_head().landmarks68, made.vertices_img))[..., :2]


def painted(images, made, polygons, colour):
    """The photos with polygons, made from the 68 landmarks (68, 2) of each, filled with a colour."""
    done = []
    for image, points in zip(images, points68(made), strict=True):
        picture = Image.fromarray(image)
        for polygon in polygons(points):
            ImageDraw.Draw(picture).polygon([tuple(map(float, point)) for point in polygon], fill=colour)
        done.append(np.asarray(picture))
    return np.stack(done)


def mask(points):
    return [np.concatenate([points[1:16], points[29:30]])]


def fringe(points):
    up = points[27] - points[8]
    return [[points[17], points[19], points[24], points[26], points[26] + up, points[17] + up]]


def lenses(points):
    for eye in (points[36:42], points[42:48]):
        middle, reach = eye.mean(0), 0.9 * np.linalg.norm(eye[3] - eye[0])
        yield middle + reach * np.array([[-1, -0.7], [1, -0.7], [1, 0.7], [-1, 0.7]])


def half_shadow(images, made):
    """What lies to one side of the line from chin to nose bridge, at 15 % of the light."""
    done = []
    for image, points in zip(images, points68(made), strict=True):
        down = points[8] - points[27]
        across = np.array([down[1], -down[0]]) / np.linalg.norm(down)
        place = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), -1) - points[27]
        light = np.where(place @ across > 0, 1.0, 0.15)[..., None]
        linear = np.asarray(srgb_to_linear(jnp.asarray(image / 255))) * light
        done.append(np.round(255 * np.asarray(linear_to_srgb(jnp.asarray(linear)))).astype(np.uint8))
    return np.stack(done)


def darkened(images, gain):
    """The photos with `gain` times the light, in 8 bits."""
    linear = gain * np.asarray(srgb_to_linear(jnp.asarray(images / 255)))
    return np.round(255 * np.asarray(linear_to_srgb(jnp.asarray(linear)))).astype(np.uint8)


def observe(images):
    """The photos as crops of their own."""
    n_views = len(images)
    linear = srgb_to_linear(jnp.asarray(images, jnp.float32) / 255)
    points, ones = jnp.zeros((n_views, 468, 3)), jnp.ones(n_views)
    crop = Crop(ones, jnp.zeros((n_views, 2)), SIZE)
    return Crops(linear, linear_to_srgb(linear), jnp.ones(images.shape[:3]), points, points[..., 0], ones, crop)


def truth(made):
    albedo = jnp.zeros(small_head().albedo_basis.shape[0])
    light = jnp.broadcast_to(ambient_light(), (len(made.pose), 9, 3))
    return Parameters(made.identity, albedo, made.pose, made.inverse_distance, made.expression, light)


@jax.jit
def _find(head, observed, x, hyper):
    return coverage.find_cover(head, observed, x, hyper, CONFIG)


def find(images, made):
    found = _find(small_head(), observe(images), truth(made), as_arrays(Hyper()))
    return [name for name, there in zip(NAMES, found.found, strict=True) if there > 0], found


@pytest.mark.parametrize("index", range(6))
def test_nothing_covers_a_bare_face(index):
    images, made, _ = photos(index)
    names, found = find(images, made)
    assert names == [], found.share
    assert float(found.amount.max()) == 0


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("colour", [BLUE, BLACK, WHITE])
def test_a_mask_is_found_and_the_upper_face_is_not(index, colour):
    images, made, _ = photos(index)
    names, found = find(painted(images, made, mask, colour), made)
    assert "lower" in names, found.share
    assert "forehead" not in names, found.share
    place = np.asarray(found.place)
    points = np.asarray(landmark_positions(small_head().landmarks68, small_head().mean))
    low, high = place[:, 1] < points[33, 1] - 5, place[:, 1] > points[19, 1]
    seen = np.abs(place[:, 0]) < 40
    assert np.asarray(found.amount)[low & seen].mean() > 0.7
    assert np.asarray(found.amount)[high & seen].mean() < 0.1


@pytest.mark.parametrize(("polygons", "name"), [(fringe, "forehead"), (lenses, "eyes")])
def test_dark_glasses_and_a_fringe_are_found_where_they_are(polygons, name):
    for index in range(3):
        images, made, _ = photos(index)
        names, found = find(painted(images, made, polygons, BLACK), made)
        assert names == [name], (index, found.share)


def test_a_hard_shadow_over_one_half_is_found():
    for index in range(3):
        images, made, _ = photos(index)
        names, found = find(half_shadow(images, made), made)
        assert names == ["right"], (index, found.share)


def test_what_covers_one_photo_of_two_is_no_cover():
    images, made, _ = photos(0)
    images[0] = painted(images, made, mask, BLUE)[0]
    names, found = find(images, made)
    assert names == [], found.share


def test_a_photo_that_is_only_padding_does_not_count():
    images, made, _ = photos(0)
    observed, x = observe(painted(images, made, mask, BLUE)), truth(made)
    alone = observed.replace(view_mask=jnp.array([1.0, 0.0, 0.0]))
    noise = alone.replace(linear=alone.linear.at[1:].set(0.0))
    first, second = (_find(small_head(), seen, x, as_arrays(Hyper())) for seen in (alone, noise))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_view_at_all_is_finite_and_uncovered():
    images, made, _ = photos(0)
    found = _find(
        small_head(), observe(images).replace(view_mask=jnp.zeros(len(images))), truth(made), as_arrays(Hyper())
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert float(found.found.sum()) == 0


def test_covered_points_keep_little_weight_and_others_theirs():
    place = jnp.array([[0.0, 0, 0], [100.0, 0, 0]])
    cover = Coverage(place, jnp.ones(2), jnp.array([1.0, 0.0]), jnp.zeros(5), jnp.zeros(5))
    model = PointModel(place, jnp.zeros((1, 2, 3)), jnp.zeros((1, 2, 3)))
    data = PointData(model, jnp.zeros((3, 2, 2)), jnp.full((3, 2), 2.0), jnp.ones(2), jnp.zeros((1, 2, 2)))
    weight = coverage.uncover(data, cover).weight
    np.testing.assert_allclose(weight, np.tile([2 * coverage.GUESSED, 2.0], (3, 1)), rtol=1e-5)


# Fits


def fit(images, landmarks, **hyper):
    options = {"landmarks": landmarks, "config": CONFIG, "hyper": HYPER.replace(**hyper)}
    return facerig_jax.fit_rig(images, small_params(), small_head(), **options)


def skin(rig):
    """(3,) mean sRGB of the face, 0..255."""
    face = np.asarray(small_head().face_mask) > 0.5
    return 255 * np.asarray(linear_to_srgb(jnp.mean(rig.albedo[face], 0)))


@pytest.mark.thorough
def test_a_mask_colours_no_skin_and_what_is_guessed_under_it_pulls_little():
    """The landmarks under the mask lie 2 px too low, as a detector may guess them."""
    images, made, landmarks = photos(0)
    bare = fit(images, landmarks)
    head = small_head()
    nose = landmark_positions(head.landmarks68, head.mean)[33, 1]
    under = landmark_positions(head.landmarks_dense, head.mean)[:, 1] < nose
    worn, guessed = painted(images, made, mask, BLUE), landmarks + jnp.array([[[0.0, 2.0, 0.0]]]) * under[None, :, None]
    told, untold = fit(worn, guessed), fit(worn, guessed, cover_share=2.0, shadow_step=9.0)
    assert coverage.describe_cover(told.cover.regions)
    assert not coverage.describe_cover(untold.cover.regions)
    tone, untold_tone = (np.abs(skin(f.rig) - skin(bare.rig)).max() for f in (told, untold))
    assert tone < min(10, untold_tone), (tone, untold_tone)
    away, before = (np.linalg.norm(f.rig.identity_code - bare.rig.identity_code) for f in (told, untold))
    assert away < before, (away, before)


def test_a_bare_face_is_fitted_as_if_nobody_looked_for_covers():
    images, _, landmarks = photos(0)
    looked, blind = fit(images, landmarks), fit(images, landmarks, cover_share=2.0, shadow_step=9.0)
    np.testing.assert_array_equal(looked.rig.neutral, blind.rig.neutral)
    np.testing.assert_array_equal(looked.rig.albedo, blind.rig.albedo)


# Darkness


def test_colours_of_lit_faces_count_fully_and_of_dark_ones_less_and_less():
    bright = srgb_to_linear(jnp.array([255.0, 120.0, 64.0, 38.0, 20.0, 10.0, 5.0]) / 255)
    trust = np.asarray(colour_trust(bright, Hyper()))
    np.testing.assert_array_equal(trust[:2], 1)
    assert (np.diff(trust[2:]) < 0).all()
    assert 0.8 < trust[3] < 1
    assert trust[4] < 0.6
    assert trust[6] < 0.05
    assert float(colour_trust(jnp.array([0.0]), Hyper())[0]) > 0


@functools.partial(jax.jit, static_argnames="config")
def _level(head, observed, x, hyper, config):
    return light_level(colour_data(head, observed, x, hyper, config, 1.5))


def test_the_light_of_a_dark_photo_is_expected_as_dark_as_the_photo():
    images, made, _ = photos(0)
    x, hyper = truth(made), as_arrays(Hyper())
    bright, dark = (
        _level(small_head(), observe(pictures), x, hyper, CONFIG) for pictures in (images, darkened(images, 0.02))
    )
    np.testing.assert_allclose(dark / bright, 0.02, rtol=0.1)


@pytest.mark.parametrize("gain", [0.05, 0.01])
def test_dark_photos_do_not_turn_the_skin_brown(gain):
    images, _, landmarks = photos(0)
    bright, dark = fit(images, landmarks), fit(darkened(images, gain), landmarks)
    assert np.abs(skin(dark.rig) - skin(bright.rig)).max() < 15, (skin(dark.rig), skin(bright.rig))


# Words


def test_very_dark_photos_are_named_and_others_not():
    brightness = jnp.asarray(np.asarray(srgb_to_linear(jnp.array([90.0, 10.0, 10.0]) / 255)))
    said = notes.dark_notes(brightness, [0, 0, 1], ["a.jpg", "b.jpg", "c.jpg"])
    assert len(said) == 1
    assert said[0].startswith("b.jpg is very dark (mean level of the face: 10 of 255)")
    everywhere = notes.dark_notes(brightness[1:], [0, 5], ["b.jpg"])
    assert len(everywhere) == 2
    assert "no photo is bright enough" in everywhere[1]


def test_covers_are_named_in_words():
    said = coverage.describe_cover([1, 0, 0, 0, 1])
    assert len(said) == 2
    assert said[0].startswith("The lower face is not skin in any photo")
    assert "shadow" in said[1]
    assert "left half" in said[1]
    assert coverage.describe_cover([0] * 5) == []

"""The front door: one compiled program, transforms of it, masks, statuses, and refusals in words."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.subjects import CONFIG, HYPER, POINTS_ONLY, SIZE, small_head, small_params, subject

import facerig_jax
from facerig_jax import Status
from facerig_jax.config import as_arrays

# The same program as the classical solver's in test_solvers.py, compiled once.
pytestmark = pytest.mark.xdist_group("classical")


def fit(images, landmarks=None, config=CONFIG, **changes):
    options = {"landmarks": landmarks, "config": config, "hyper": HYPER, **changes}
    return facerig_jax.fit_rig(images, small_params(), small_head(), **options)


@pytest.fixture(scope="module")
def photos():
    """Photos (3, S, S, 3) and exact landmarks (3, 468, 3) of one subject."""
    made, landmarks = subject()
    return made.images, landmarks


@pytest.fixture(scope="module")
def fitted(photos):
    return fit(*photos)


def first_view(result):
    """What a fit says of the person and of the first view."""
    views = result.views
    return (
        result.rig.neutral,
        result.rig.albedo,
        jax.tree.map(lambda x: x[0], (views.pose, views.expression, views.light, views.crop, views.status)),
    )


def assert_close(a, b, tolerance):
    """Every leaf agrees to `tolerance` of its largest value."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=tolerance * max(1e-6, float(np.abs(y).max())))


def assert_finite(tree):
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


# One program


def test_a_fit_has_its_documented_shapes_and_is_finite(fitted):
    head, n_views = small_head(), 3
    n_vertices, n_codes = head.mean.shape[0], head.expression_basis.shape[0]
    assert fitted.rig.neutral.shape == (n_vertices, 3)
    assert fitted.rig.expression_basis.shape == (n_codes, n_vertices, 3)
    assert fitted.rig.albedo.shape == (n_vertices, 3)
    assert fitted.rig.code_names == head.expression_names
    shapes = {name: getattr(fitted.views, name).shape for name in ("pose", "expression", "light", "status")}
    assert shapes == {
        "pose": (n_views, 6),
        "expression": (n_views, n_codes),
        "light": (n_views, 9, 3),
        "status": (n_views,),
    }
    assert fitted.trace.landmarks.taken.shape == (CONFIG.landmark_steps,)
    np.testing.assert_array_equal(fitted.trace.identity[-1], fitted.rig.identity_code)
    assert fitted.trace.identity.shape[0] == 1 + len(HYPER.blur)
    assert fitted.trace.photometric.after.shape == (len(HYPER.blur), CONFIG.photometric_steps)
    assert fitted.trace.expression.after.shape == (n_views, CONFIG.expression_steps)
    assert_finite(fitted)
    assert int(fitted.status) == Status.OK


# Views that do not count


def test_a_photo_without_a_face_only_masks_its_own_view(photos):
    images = photos[0].at[1].set(0.0)
    with_black = fit(images, config=POINTS_ONLY)
    masked = fit(photos[0], config=POINTS_ONLY, view_mask=jnp.array([1, 0, 1]))
    assert with_black.views.status.tolist() == [Status.OK, Status.NO_FACE, Status.OK]
    assert int(with_black.status) == Status.OK
    assert_close(first_view(with_black), first_view(masked), 1e-5)
    assert_finite(with_black)


def test_photos_without_any_face_give_the_status_and_finite_numbers():
    nothing = fit(jnp.zeros((3, SIZE, SIZE, 3)), config=POINTS_ONLY)
    assert int(nothing.status) == Status.NO_FACE
    assert nothing.views.status.tolist() == [Status.NO_FACE] * 3
    assert_finite(nothing)


def test_a_view_that_cannot_be_used_is_masked_in_the_colours_too(photos):
    """Landmarks that are not finite, and landmarks outside the photo."""
    images, landmarks = photos
    masked = fit(images, landmarks, view_mask=jnp.array([1, 0, 1]))
    for broken, status in (
        (landmarks.at[1].set(jnp.nan), Status.NO_FACE),
        (landmarks.at[1].add(500.0), Status.OUT_OF_FRAME),
    ):
        result = fit(images.at[1].set(0.0), broken)
        assert result.views.status.tolist() == [Status.OK, status, Status.OK]
        assert_close(first_view(result), first_view(masked), 1e-4)
        assert_finite(result)


def test_landmark_weight_zero_leaves_a_point_out(photos):
    images, landmarks = photos
    weight = jnp.ones(landmarks.shape[1]).at[::5].set(0.0)
    moved = landmarks.at[:, ::5].add(jnp.array([3.0, -2.0, 0.0])[None, None])
    # The crop follows all points, so they are moved inwards only where the box is not set by them.
    low, high = landmarks[..., :2].min(1, keepdims=True) + 4, landmarks[..., :2].max(1, keepdims=True) - 4
    kept = jnp.all((landmarks[..., :2] > low) & (landmarks[..., :2] < high), -1, keepdims=True)
    moved = jnp.where(kept, moved, landmarks)
    a, b = (fit(images, points, landmark_weight=weight).rig.identity_code for points in (landmarks, moved))
    np.testing.assert_allclose(a, b, atol=1e-3)


# Refusals


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("images", {"images": np.zeros((SIZE, SIZE, 3))}),
        ("images", {"images": np.zeros((2, SIZE, SIZE, 4))}),
        ("landmarks", {"landmarks": np.zeros((2, 68, 3))}),
        ("view_mask", {"view_mask": np.ones(3)}),
        ("image_size", {"image_size": np.ones((3, 2))}),
    ],
)
def test_wrong_shapes_are_refused_in_words(name, arguments):
    arguments = {"images": np.zeros((2, SIZE, SIZE, 3)), **arguments}
    with pytest.raises(ValueError, match=f"{name}.*(shape|broadcast)"):
        facerig_jax.fit_rig(**arguments, params=small_params(), head=small_head())


def test_every_status_has_words():
    assert len({status.words for status in Status}) == len(Status)
    assert facerig_jax.describe(jnp.array(Status.NO_FACE)) == "no face found"


# The rig


def test_apply_rig_of_a_zero_code_is_the_neutral(fitted):
    vertices, albedo = facerig_jax.apply_rig(fitted.rig, jnp.zeros(6))
    np.testing.assert_array_equal(vertices, fitted.rig.neutral)
    np.testing.assert_array_equal(albedo, fitted.rig.albedo)


def test_apply_rig_moves_by_the_named_shape(fitted):
    index = fitted.rig.code_names.index("jawOpen")
    vertices, _ = facerig_jax.apply_rig(fitted.rig, jnp.zeros(6).at[index].set(0.5))
    np.testing.assert_allclose(vertices - fitted.rig.neutral, 0.5 * fitted.rig.expression_basis[index], atol=1e-4)


def test_apply_rig_batches_jits_and_has_gradients(fitted, rng):
    code = jnp.asarray(rng.uniform(size=(2, 3, 6)), jnp.float32)
    vertices, albedo = jax.jit(facerig_jax.apply_rig)(fitted.rig, code)
    assert vertices.shape == albedo.shape == (2, 3, *fitted.rig.neutral.shape)
    np.testing.assert_allclose(vertices[1, 2], facerig_jax.apply_rig(fitted.rig, code[1, 2])[0], atol=1e-4)
    gradient = jax.grad(lambda code: jnp.sum(facerig_jax.apply_rig(fitted.rig, code)[0][..., 1]))(code)
    expected = fitted.rig.expression_basis[..., 1].sum(-1)
    np.testing.assert_allclose(gradient, np.broadcast_to(expected, gradient.shape), rtol=1e-3, atol=0.1)


def test_apply_rig_refuses_a_code_of_another_width(fitted):
    with pytest.raises(ValueError, match="expression: expected shape"):
        facerig_jax.apply_rig(fitted.rig, jnp.zeros(52))


def test_a_fit_survives_export_and_back(photos):
    """Written down, read in and called, the program gives the same Fit: all its types are known."""
    images, landmarks = (x[:1] for x in photos)

    def short(images, landmarks, head, hyper):
        return facerig_jax.fit_rig(images, {}, head, landmarks=landmarks, hyper=hyper, config=POINTS_ONLY)

    arguments = (images, landmarks, small_head(), as_arrays(HYPER))
    written = jax.export.export(jax.jit(short))(*arguments).serialize()
    again = jax.export.deserialize(bytearray(written)).call(*arguments)
    direct = short(*arguments)
    assert jax.tree.structure(again) == jax.tree.structure(direct)
    assert_close(again, direct, 1e-5)

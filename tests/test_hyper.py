"""Every number that a default fit depends on is live: traced, and it changes the result."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.subjects import subject

import facerig_jax
from facerig_jax import Hyper

# The default solver with the weights that ship, on a small crop.
CONFIG = dataclasses.replace(
    facerig_jax.FitConfig(),
    crop_size=96,
    max_points=200,
    flow=dataclasses.replace(facerig_jax.FlowConfig(), passes=2, points=200),
)
# These say from when on something is taken to be covered, or to lie in a hard shadow.
OTHERWISE = {"cover_share": 4.0, "shadow_step": 1e-3}
# The landmark below the nose, and what masks are made of.
NOSE, BLUE = 2, (0.2, 0.35, 0.6)
NUMBERS = [field.name for field in dataclasses.fields(Hyper)]


@functools.cache
def photos():
    """Two photos of a subject with a blue mask, the second of them dark, and exact landmarks."""
    made, landmarks = subject()
    images = np.asarray(made.images[:2], np.float32).copy()
    for image, points in zip(images, np.asarray(landmarks[:2, :, :2]), strict=True):
        (left, _), (right, bottom) = points.min(0), points.max(0)
        image[int(points[NOSE, 1]) : int(bottom), int(left) : int(right)] = BLUE
    return jnp.stack([images[0], 0.08 * images[1]]), landmarks[:2]


@functools.cache
def fit(name: str | None = None):
    """A default fit, with one number a tenth larger (thresholds: far from where they are)."""
    images, landmarks = photos()
    hyper = Hyper()
    if name:
        factor = OTHERWISE.get(name, 1.1)
        hyper = hyper.replace(**{name: jax.tree.map(lambda x: factor * x, getattr(hyper, name))})
    return facerig_jax.fit_rig(images, *facerig_jax.load(), landmarks=landmarks, hyper=hyper, config=CONFIG)


def said(result):
    """What a fit says of the person and of every photo."""
    views = result.views
    found = (result.rig.neutral, result.rig.albedo, views.pose, views.expression, views.light, result.cover.regions)
    return [np.asarray(x) for x in found]


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_changes_a_default_fit_and_compiles_nothing(name):
    before, count = said(fit()), facerig_jax.api._fit._cache_size()
    after = said(fit(name))
    assert facerig_jax.api._fit._cache_size() == count
    assert all(np.isfinite(x).all() for x in after)
    assert any(np.abs(a - b).max() > 1e-6 * np.abs(b).max() for a, b in zip(after, before, strict=True)), name


def test_the_same_numbers_give_the_same_fit():
    images, landmarks = photos()
    arguments = (images, *facerig_jax.load())
    again = facerig_jax.fit_rig(*arguments, landmarks=landmarks, hyper=Hyper(colour=0.06), config=CONFIG)
    jax.tree.map(np.testing.assert_array_equal, again, fit())


def test_one_blur_more_is_another_program_and_a_fit_of_its_own():
    images, landmarks = photos()
    hyper = Hyper(blur=(3.0, 1.0, 0.4))
    arguments = (images, *facerig_jax.load())
    shape = jax.eval_shape(
        functools.partial(facerig_jax.fit_rig, landmarks=landmarks, hyper=hyper, config=CONFIG), *arguments
    )
    assert shape.trace.photometric.after.shape == (3, CONFIG.photometric_steps)

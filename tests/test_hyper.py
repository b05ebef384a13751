"""Every number that a default fit depends on is live: traced, and it changes the result."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.subjects import small_head, subject

import facerig_jax
from facerig_jax import Hyper

# The default solver with the weights that ship, on a small crop.
CONFIG = dataclasses.replace(
    facerig_jax.FitConfig(),
    crop_size=96,
    max_points=200,
    flow=dataclasses.replace(facerig_jax.FlowConfig(), passes=2, points=200),
)
# These say from when on something is taken to be covered or in shadow: no clean face comes near.
THRESHOLDS = ("cover_share", "shadow_step")
NUMBERS = [field.name for field in dataclasses.fields(Hyper)]


@functools.cache
def photos():
    """Two photos of a subject, the second of them dark, and exact landmarks."""
    made, landmarks = subject()
    return jnp.stack([made.images[0], 0.08 * made.images[1]]), landmarks[:2]


@functools.cache
def fit(name: str | None = None):
    """A default fit, with one number a tenth larger (thresholds: far lower)."""
    images, landmarks = photos()
    hyper = Hyper()
    if name:
        factor = 1e-3 if name in THRESHOLDS else 1.1
        hyper = hyper.replace(**{name: jax.tree.map(lambda x: factor * x, getattr(hyper, name))})
    return facerig_jax.fit_rig(
        images, facerig_jax.load()[0], small_head(), landmarks=landmarks, hyper=hyper, config=CONFIG
    )


def said(result):
    """What a fit says of the person and of every photo."""
    views = result.views
    return [np.asarray(x) for x in (result.rig.neutral, result.rig.albedo, views.pose, views.expression, views.light)]


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_changes_a_default_fit_and_compiles_nothing(name):
    before, count = said(fit()), facerig_jax.api._fit._cache_size()
    after = said(fit(name))
    assert facerig_jax.api._fit._cache_size() == count
    assert all(np.isfinite(x).all() for x in after)
    assert any(np.abs(a - b).max() > 1e-6 * np.abs(b).max() for a, b in zip(after, before, strict=True)), name


def test_the_same_numbers_give_the_same_fit():
    images, landmarks = photos()
    arguments = (images, facerig_jax.load()[0], small_head())
    again = facerig_jax.fit_rig(*arguments, landmarks=landmarks, hyper=Hyper(colour=0.06), config=CONFIG)
    jax.tree.map(np.testing.assert_array_equal, again, fit())


def test_one_blur_more_is_another_program_and_a_fit_of_its_own():
    images, landmarks = photos()
    hyper = Hyper(blur=(3.0, 1.0, 0.4))
    arguments = (images, facerig_jax.load()[0], small_head())
    shape = jax.eval_shape(
        functools.partial(facerig_jax.fit_rig, landmarks=landmarks, hyper=hyper, config=CONFIG), *arguments
    )
    assert shape.trace.photometric.after.shape == (3, CONFIG.photometric_steps)

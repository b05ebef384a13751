"""The front door of the learned solver: refusals in words, statuses, the frozen rig; one small program for all."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.subjects import small_head, small_params, subject
from helpers.tiny import FOR_SMALL_HEAD as CONFIG
from helpers.tiny import SIZES, tiny_params

import facerig_jax
from facerig_jax import api
from facerig_jax.config import BASE, FitConfig
from facerig_jax.fit import status as codes
from facerig_jax.geometry.camera import resized_pose
from facerig_jax.networks.model import count_parameters, init_params
from facerig_jax.networks.weights import TRAINED, trained


def fit(images, landmarks, params=None, **changes):
    params = {**small_params(), "learned": tiny_params(CONFIG)} if params is None else params
    options = {"solver": "learned", "config": CONFIG, **changes}
    return facerig_jax.fit_rig(images, params, small_head(), landmarks=landmarks, **options)


@pytest.fixture(scope="module")
def photos():
    made, landmarks = subject()
    return made.images, landmarks


@pytest.fixture(scope="module")
def fitted(photos):
    return fit(*photos)


def test_a_fit_is_finite_and_complete(fitted):
    head = small_head()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted))
    assert fitted.rig.neutral.shape == head.mean.shape
    assert fitted.rig.code_names == head.expression_names
    assert fitted.views.expression.shape == (2, 6)
    assert fitted.trace["steps"]["total"].shape == (3, 2)
    assert int(fitted.status) == codes.OK
    assert set(np.asarray(fitted.views.status)) <= {codes.OK, codes.POOR_FIT}


def test_the_frozen_rig_gives_the_meshes_of_the_last_step(fitted):
    vertices, albedo = facerig_jax.apply_rig(fitted.rig, fitted.views.expression)
    coarse = small_head().n_coarse
    wanted = fitted.trace["stages"]["vertices"][-1][:, :coarse]
    np.testing.assert_allclose(vertices[:, :coarse], wanted, atol=2e-3)
    np.testing.assert_allclose(albedo[:, :coarse], fitted.trace["stages"]["albedo"][-1][:, :coarse], atol=1e-4)


def test_the_frozen_rig_takes_any_leading_axes_and_is_differentiable(fitted):
    code = jnp.linspace(0, 0.5, 12).reshape(2, 1, 6)
    vertices, albedo = facerig_jax.apply_rig(fitted.rig, code)
    assert vertices.shape == albedo.shape == (2, 1, *small_head().mean.shape)
    one, _ = facerig_jax.apply_rig(fitted.rig, code[1, 0])
    np.testing.assert_allclose(vertices[1, 0], one, atol=1e-4)
    slope = jax.grad(lambda code: facerig_jax.apply_rig(fitted.rig, code)[0].std())(code)
    assert np.isfinite(slope).all()
    assert np.abs(slope).max() > 0
    with pytest.raises(ValueError, match=r"expression: expected shape \(..., 6\), got \(5,\)"):
        facerig_jax.apply_rig(fitted.rig, jnp.zeros(5))


def test_a_photo_without_a_face_is_left_out(photos, fitted):
    images, landmarks = photos
    lost = fit(images, landmarks.at[1].set(jnp.nan))
    assert list(np.asarray(lost.views.status)) == [int(fitted.views.status[0]), codes.NO_FACE]
    assert int(lost.status) == codes.OK
    assert np.isfinite(lost.rig.neutral).all()


def test_without_trained_weights_it_refuses_in_words(photos):
    with pytest.raises(ValueError, match=r"the learned solver needs params\['learned'\]"):
        fit(*photos, params={"detector": small_params()["detector"]})
    with pytest.raises(ValueError, match=r"No trained weights of this preset .* load\('base', allow_untrained=True\)"):
        facerig_jax.load("base")
    with pytest.raises(ValueError, match="'bse' is not one of 'trained', 'base', 'paper'. Did you mean 'base'?"):
        facerig_jax.load("bse", allow_untrained=True)


def test_the_trained_weights_are_small_and_for_the_embedded_head_alone(photos):
    params, config = trained()
    assert TRAINED.stat().st_size < 25e6
    assert api.solver_settings("learned", None, None)[0] == config
    assert count_parameters(facerig_jax.load()[0]["learned"]) == count_parameters(params) > 0
    other = small_head().replace(mean=small_head().mean[:-1])
    with pytest.raises(ValueError, match="head: the trained weights are for the embedded head; use solver='classical'"):
        facerig_jax.fit_rig(photos[0], head=other)


def test_settings_and_weights_of_another_solver_are_refused_in_words(photos):
    with pytest.raises(ValueError, match="solver='learned' takes LearnedConfig, got FitConfig"):
        fit(*photos, config=facerig_jax.FitConfig())
    with pytest.raises(ValueError, match="solver='learned' takes EnergyWeights, got Hyper"):
        fit(*photos, hyper=facerig_jax.Hyper())
    with pytest.raises(ValueError, match="'learnt' is not one of 'classical', 'learned'. Did you mean 'learned'"):
        fit(*photos, solver="learnt")
    with pytest.raises(ValueError, match=r"params: .* has shape .*, these settings need"):
        fit(*photos, config=BASE)


def test_started_from_the_classical_fit_untrained_steps_leave_it_as_it_is(photos):
    start = FitConfig(crop_size=2 * SIZES.image_size, blur=(), landmark_steps=3)
    still = dataclasses.replace(CONFIG, start=start, stages=1, steps=1, update="fixed", step_bias=((-12,) * 5,) * 3)
    params = {**small_params(), "learned": init_params(jax.random.key(0), still)}
    images, landmarks = photos
    ours = fit(images, landmarks, params, config=still)
    theirs = facerig_jax.fit_rig(images, params, small_head(), solver="classical", landmarks=landmarks, config=start)
    np.testing.assert_allclose(ours.rig.neutral, theirs.rig.neutral, atol=1e-5)
    np.testing.assert_allclose(ours.rig.albedo, theirs.rig.albedo, atol=1e-5)
    np.testing.assert_allclose(ours.views.expression, theirs.views.expression, atol=1e-5)
    in_its_crop = resized_pose(theirs.views.pose, 2 * SIZES.image_size, SIZES.image_size)
    np.testing.assert_allclose(ours.views.pose, in_its_crop, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours.views.inverse_distance, theirs.views.inverse_distance, rtol=1e-5)
    assert np.abs(theirs.rig.identity_code).max() > 0.1

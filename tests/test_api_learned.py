"""The front door of solvers with networks: refusals in words, statuses, the frozen rig; one small program for all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.subjects import small_head, small_params, subject
from helpers.tiny import FOR_SMALL_HEAD as CONFIG
from helpers.tiny import tiny_params

import facerig_jax
from facerig_jax import Status, api
from facerig_jax.inorig.config import BASE, EnergyWeights
from facerig_jax.networks.tree import count_parameters
from facerig_jax.weights import TRAINED, trained

# The same program as the published method's in test_solvers.py, compiled once.
pytestmark = pytest.mark.xdist_group("published")


def fit(images, landmarks, params=None, **changes):
    params = {**small_params(), "learned": tiny_params(CONFIG)} if params is None else params
    options = {"config": CONFIG, **changes}
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
    assert fitted.views.expression.shape == (3, 6)
    assert fitted.trace["steps"]["total"].shape == (3, 2)
    assert int(fitted.status) == Status.OK
    assert set(np.asarray(fitted.views.status)) <= {Status.OK, Status.POOR_FIT}


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
    kept = [int(status) for status in fitted.views.status]
    assert lost.views.status.tolist() == [kept[0], Status.NO_FACE, kept[2]]
    assert int(lost.status) == Status.OK
    assert np.isfinite(lost.rig.neutral).all()


def test_without_trained_weights_it_refuses_in_words(photos):
    with pytest.raises(ValueError, match=r"needs the networks' weights, params\['learned'\]"):
        fit(*photos, params={"detector": small_params()["detector"]})
    with pytest.raises(ValueError, match=r"No trained weights of this preset .* load\('base', allow_untrained=True\)"):
        facerig_jax.load("base")
    with pytest.raises(ValueError, match="'bse' is not one of 'trained', 'base', 'paper'. Did you mean 'base'?"):
        facerig_jax.load("bse", allow_untrained=True)


def test_the_trained_weights_are_small_and_for_the_embedded_head_alone(photos):
    params, config = trained()
    assert TRAINED.stat().st_size < 25e6
    assert api.settings(None, None) == (config, facerig_jax.Hyper())
    assert count_parameters(facerig_jax.load()[0]["learned"]) == count_parameters(params) > 0
    other = small_head().replace(mean=small_head().mean[:-1])
    with pytest.raises(ValueError, match="head: the trained weights are for the embedded head; use config=CLASSICAL"):
        facerig_jax.fit_rig(photos[0], head=other)


def test_settings_and_weights_of_another_solver_are_refused_in_words(photos):
    with pytest.raises(ValueError, match="hyper: expected EnergyWeights, got Hyper"):
        fit(*photos, hyper=facerig_jax.Hyper())
    with pytest.raises(ValueError, match="hyper: expected Hyper, got EnergyWeights"):
        fit(*photos, config=facerig_jax.FitConfig(), hyper=EnergyWeights())
    with pytest.raises(ValueError, match="hyper.blur: at least one is needed"):
        fit(*photos, config=facerig_jax.FitConfig(), hyper=facerig_jax.Hyper(blur=()))
    with pytest.raises(ValueError, match="config: expected FitConfig or InorigConfig, got str"):
        fit(*photos, config="classical")
    with pytest.raises(ValueError, match=r"params: .* has shape .*, these settings need"):
        fit(*photos, config=BASE)
    with pytest.raises(ValueError, match=r"params: .* has shape .*, these settings need None"):
        fit(*photos, config=facerig_jax.FitConfig())


def test_the_solver_s_name_is_a_deprecated_spelling_of_its_settings():
    with pytest.warns(DeprecationWarning, match="solver= is deprecated"):
        assert api.settings(None, None, "classical") == (facerig_jax.CLASSICAL, facerig_jax.classical_hyper())
    with pytest.warns(DeprecationWarning, match="deprecated"):
        assert api.settings(None, None, "learned") == api.settings(None, None)
    with (
        pytest.warns(DeprecationWarning, match="depre"),
        pytest.raises(ValueError, match="'learnt' is not one of .* Did you mean"),
    ):
        api.settings(None, None, "learnt")
    with pytest.warns(DeprecationWarning, match="EnergyWeights is now facerig_jax.inorig.config.EnergyWeights"):
        assert facerig_jax.EnergyWeights is EnergyWeights
    with pytest.raises(AttributeError, match="no attribute 'Hypr'"):
        facerig_jax.Hypr  # noqa: B018

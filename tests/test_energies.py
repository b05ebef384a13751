"""Energies and light agree with the published implementation (tests/data/golden_units.npz) and finite differences."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.dome import face_model, inputs
from helpers.goldens import relative, vertex_embedding
from jax.test_util import check_grads

from facerig_jax.geometry.camera import to_image
from facerig_jax.geometry.light import ambient_light, sh_basis, shade, solve_light
from facerig_jax.geometry.mesh import vertex_normals
from facerig_jax.geometry.sampling import bilinear
from facerig_jax.inorig.feature_energy import feature_energy
from facerig_jax.inorig.landmark_energy import contour_points, landmark68_points, landmark_energy
from facerig_jax.inorig.photometric_energy import photometric_energy

GOLDEN = Path(__file__).parent / "data" / "golden_units.npz"
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


def test_landmark_energy_residual_and_gradient_equal_the_published_code(golden):
    embedding = vertex_embedding(face_model()["kpt_ind"])
    full, face = golden["land_full_mask"][0, :, 0], golden["land_face_mask"][0, :, 0]
    detected = jnp.asarray(golden["land_kpts"][0])

    def energy(projected):
        points = jax.vmap(lambda v, a, b, d: landmark68_points(v, a, b, d, embedding))(
            to_image(projected, 256, 256), full, face, detected
        )
        return landmark_energy(points, detected)

    (value, residual), gradient = jax.value_and_grad(energy, has_aux=True)(jnp.asarray(golden["land_vert"][0]))
    assert relative(value, golden["land_E"]) < TOLERANCE
    assert relative(residual / 255, golden["land_res"][0]) < TOLERANCE
    assert relative(gradient, golden["land_grad"][0]) < TOLERANCE


def test_feature_energy_residual_and_gradient_equal_the_published_code(golden):
    features = jnp.asarray(golden["feat_in"][0].transpose(0, 2, 1))
    mask = golden["feat_mask"][0, :, 0]
    (value, residual), gradient = jax.value_and_grad(feature_energy, has_aux=True)(features, mask)
    assert relative(value, golden["feat_E"]) < TOLERANCE
    assert relative(residual, golden["feat_res"][0]) < TOLERANCE
    assert relative(gradient.transpose(0, 2, 1), golden["feat_grad"][0]) < TOLERANCE


def test_light_solve_equals_the_published_code(golden):
    model = face_model()
    images = jnp.asarray(inputs(model, 2, 3)["ori_images"][0].transpose(0, 2, 3, 1))
    faces = model["tri"][:, [2, 1, 0]]
    for view, projected in enumerate(jnp.asarray(golden["land_vert"][0])):
        albedo, observed = golden["light_albedo"][0].T, golden["light_colors_gt"][0, view].T
        basis = sh_basis(vertex_normals(projected, faces))
        mask = golden["land_face_mask"][0, view, 0]
        light = solve_light(basis, albedo, observed, mask, ambient_light(jnp.float64))
        sampled = bilinear(images[view], to_image(projected, 256, 256)[:, :2])
        assert relative(sampled, observed) < TOLERANCE
        assert relative(light, golden["light_sh"][0, view].reshape(9, 3)) < TOLERANCE
        assert relative(albedo * shade(basis, light), golden["light_colors"][0, view].T) < TOLERANCE


def test_light_solve_keeps_the_old_light_when_nothing_is_seen():
    basis = jnp.ones((12, 9))
    old = ambient_light(jnp.float64) * 0.7
    light = solve_light(basis, jnp.ones((12, 3)), jnp.ones((12, 3)), jnp.zeros(12), old)
    np.testing.assert_array_equal(light, old)


def test_light_solve_recovers_a_known_light(rng):
    normals = rng.normal(size=(500, 3))
    basis = sh_basis(jnp.asarray(normals / np.linalg.norm(normals, axis=1, keepdims=True)))
    truth, albedo = jnp.asarray(rng.normal(size=(9, 3))), jnp.asarray(rng.uniform(0.1, 1, (500, 3)))
    light = solve_light(basis, albedo, albedo * shade(basis, truth), jnp.ones(500), ambient_light(jnp.float64))
    np.testing.assert_allclose(light, truth, atol=1e-9)


def test_a_hidden_contour_point_slides_to_the_nearest_visible_vertex():
    vertices = jnp.array([[0.0, 0.0], [10.0, 0.0], [20.0, 0.0]])
    detected = jnp.array([[11.0, 1.0], [11.0, 1.0]])
    points = contour_points(vertices[:2], jnp.array([False, True]), vertices, jnp.array([True, True, False]), detected)
    np.testing.assert_array_equal(points, [[10.0, 0.0], [10.0, 0.0]])
    unchanged = contour_points(vertices[:2], jnp.array([False, False]), vertices, jnp.zeros(3, bool), detected)
    np.testing.assert_array_equal(unchanged, vertices[:2])


def landmark(points, mask):
    return landmark_energy(points, jnp.zeros_like(points), view_mask=mask)


def feature(features, mask):
    return feature_energy(features, jnp.ones(features.shape[:2]), mask)


def photometric(colours, mask):
    return photometric_energy(colours, jnp.full_like(colours, 0.5), jnp.ones(colours.shape[:2], bool), mask)


@pytest.mark.parametrize(("energy", "channels"), [(landmark, 2), (feature, 4), (photometric, 3)])
class TestContractOfEveryEnergy:
    """Shapes, finite gradients, jit == eager, vmap == loop, padding does not count, V = 1 works."""

    def test_padding_views_change_nothing(self, energy, channels, rng):
        x = jnp.asarray(rng.normal(size=(3, 7, channels)))
        padded = jnp.concatenate([x, 1e3 * jnp.ones((2, 7, channels))])
        value, residual = energy(x, jnp.ones(3))
        padded_value, padded_residual = energy(padded, jnp.array([1.0, 1, 1, 0, 0]))
        np.testing.assert_allclose(padded_value, value, rtol=1e-12)
        np.testing.assert_allclose(padded_residual[:3], residual, rtol=1e-12)

    def test_one_view_is_finite_and_so_is_none(self, energy, channels, rng):
        x = jnp.asarray(rng.normal(size=(1, 7, channels)))
        for mask in (jnp.ones(1), jnp.zeros(1)):
            (value, residual), gradient = jax.value_and_grad(energy, has_aux=True)(x, mask)
            assert np.isfinite(value)
            assert np.isfinite(residual).all()
            assert np.isfinite(gradient).all()

    def test_jit_and_vmap_agree_with_plain_calls(self, energy, channels, rng):
        x = jnp.asarray(rng.normal(size=(2, 3, 7, channels)))
        looped = [energy(a, jnp.ones(3)) for a in x]
        batched = jax.jit(jax.vmap(energy, (0, None)))(x, jnp.ones(3))
        np.testing.assert_allclose(batched[0], [value for value, _ in looped], rtol=1e-12)
        np.testing.assert_allclose(batched[1], [residual for _, residual in looped], rtol=1e-12)

    def test_gradient_agrees_with_finite_differences(self, energy, channels, rng):
        x = jnp.asarray(rng.normal(size=(3, 7, channels)))
        check_grads(lambda x: energy(x, jnp.ones(3))[0], (x,), order=1, modes=("fwd", "rev"), rtol=1e-5)


def test_feature_energy_of_one_view_is_zero(rng):
    value, _ = feature(jnp.asarray(rng.normal(size=(1, 5, 2))), jnp.ones(1))
    assert value == 0

"""The classical solver's normal equations against autodiff and dense formulas, its steps, its tables, and recovery."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.blobs import sphere
from helpers.subjects import CONFIG, HYPER, small_head, small_params, subject

import facerig_jax
from facerig_jax.config import Hyper, as_arrays
from facerig_jax.detect.landmarks import LANDMARKS68
from facerig_jax.evaluate.vertex import vertex_error
from facerig_jax.fit import residuals
from facerig_jax.fit.landmarks import landmark_data
from facerig_jax.fit.levenberg_marquardt import (
    LADDER,
    Normal,
    levenberg_marquardt,
    normal_of_views,
    promised_fall,
    solve_damped,
)
from facerig_jax.fit.linear_points import PointModel, dense_landmark_model, evaluate, surface_model
from facerig_jax.fit.parameters import GEOMETRY, MOTION, Parameters, columns, flatten, places, unflatten
from facerig_jax.fit.photometric import Colours, apart
from facerig_jax.fit.pipeline import first_guess
from facerig_jax.fit.preprocess import cut_out
from facerig_jax.fit.stages import fit_landmarks, fit_views
from facerig_jax.geometry.mesh import vertex_normals
from facerig_jax.geometry.rotation import euler_to_matrix
from facerig_jax.head.model import landmark_positions
from facerig_jax.head.topology import ordered_rings, tangent_stencil

SIZE = 32
N_VIEWS, N_IDENTITY, N_ALBEDO, N_EXPRESSION, N_POINTS = 2, 3, 2, 2, 7


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def hyper(double):
    return as_arrays(Hyper(), jnp.float64)


@pytest.fixture
def x(double, rng):
    """Parameters of two views, faces in the middle of the crop, some weights outside [0, 1]."""
    pose = np.c_[rng.normal(size=(N_VIEWS, 3)) * 0.2, [0.9, 1.1], rng.normal(size=(N_VIEWS, 2))]
    light = rng.normal(size=(N_VIEWS, 9, 3)) * 0.1
    light[:, 0] += 0.8
    return Parameters(
        identity=jnp.asarray(rng.normal(size=N_IDENTITY)),
        albedo=jnp.asarray(rng.normal(size=N_ALBEDO)),
        pose=jnp.asarray(pose),
        inverse_distance=jnp.array([2e-3, 8e-3]),
        expression=jnp.array([[0.4, -0.2], [1.3, 0.7]]),
        light=jnp.asarray(light),
    )


def point_model(rng, channels):
    def draw(scale, *shape):
        return jnp.asarray(rng.normal(size=(*shape, N_POINTS, channels)) * scale)

    return PointModel(draw(4.0), draw(0.5, N_IDENTITY), draw(0.5, N_EXPRESSION))


@pytest.fixture
def landmarks(double, rng):
    return residuals.PointData(
        model=point_model(rng, 3),
        detected=jnp.asarray(rng.uniform(10, 22, (N_VIEWS, N_POINTS, 2))),
        weight=jnp.asarray(rng.uniform(0, 1, (N_VIEWS, N_POINTS))).at[1, 2].set(0.0),
        deviation=jnp.asarray(rng.uniform(0.5, 2, N_POINTS)),
        common=jnp.asarray(rng.normal(size=(3, N_POINTS, 2))),
    )


@pytest.fixture
def colours(double, rng):
    yx = np.indices((SIZE, SIZE)) / SIZE
    image = 0.5 + 0.3 * np.stack([np.sin(5 * yx[0] + 3 * c * yx[1] + c) for c in range(3)], -1)
    return residuals.ColourData(
        model=point_model(rng, 9),
        albedo_mean=jnp.asarray(rng.normal(size=(N_POINTS, 3)) * 0.2 - 1),
        albedo_basis=jnp.asarray(rng.normal(size=(N_ALBEDO, N_POINTS, 3)) * 0.2),
        detail=jnp.asarray(rng.uniform(0.05, 0.5, (N_POINTS, 1))),
        image=jnp.asarray(np.stack([image, image[::-1]])),
        brightness=jnp.array([0.4, 0.6]),
    )


@pytest.fixture
def seen(double, rng):
    """Photometric weights (V, n, 3), one point hidden in one view and one in both."""
    weight = jnp.asarray(rng.uniform(0.2, 1, (N_VIEWS, N_POINTS, 1))) * jnp.ones((1, 1, 3))
    return weight.at[0, 1].set(0.0).at[:, 4].set(0.0)


def assert_quadratic_model(normal: Normal, energy, x: Parameters):
    """Energy and gradient are those of `energy`; the Hessian is symmetric and positive semidefinite."""
    value, gradient = jax.jit(jax.value_and_grad(lambda vector: energy(unflatten(vector, x))))(flatten(x))
    np.testing.assert_allclose(normal.energy, value, rtol=1e-10)
    np.testing.assert_allclose(normal.gradient, gradient, atol=1e-9 * float(jnp.abs(gradient).max()))
    np.testing.assert_allclose(normal.hessian, normal.hessian.T, atol=1e-9 * float(normal.hessian.max()))
    eigenvalues = np.linalg.eigvalsh(normal.hessian)
    assert eigenvalues[0] > -1e-9 * eigenvalues[-1]


# Landmarks


def test_landmark_system_has_the_gradient_and_hessian_of_its_residuals(x, landmarks):
    whiten = jax.jit(residuals.point_whitening)(x, landmarks)
    geometry = places(x, GEOMETRY)
    every = np.arange(len(flatten(x)))
    normal = jax.jit(residuals.point_normal, static_argnums=3)(x, landmarks, whiten, SIZE)
    normal = normal.take(np.where(np.isin(every, geometry), np.searchsorted(geometry, every), -1))
    assert_quadratic_model(normal, lambda x: residuals.point_energy(x, landmarks, whiten, SIZE), x)
    jacobian = jax.jit(jax.jacfwd(lambda v: residuals.point_pixels(unflatten(v, x), landmarks, SIZE)))(flatten(x))
    inverse = dense_landmark_precision(x, landmarks)
    flat = jacobian.reshape(N_VIEWS, 2 * N_POINTS, -1)
    expected = jnp.einsum("vai,vab,vbj->ij", flat, inverse, flat)
    np.testing.assert_allclose(normal.hessian, expected, atol=1e-8 * float(expected.max()))


def dense_landmark_precision(x, data):
    """(V, 2 L, 2 L) inverse covariance of the pixel residuals: own and common noise in mm, turned and scaled to px."""
    precision = []
    for view in range(N_VIEWS):
        roll, scale = x.pose[view, 2], x.pose[view, 3]
        # A displacement in mm along the head's right and up, as pixels (u right, v down).
        to_pixels = scale * np.diag([1, -1]) @ np.asarray(euler_to_matrix(jnp.array([0.0, 0.0, 1.0]) * roll))[:2, :2]
        seen = np.asarray(data.weight[view]) > 0
        common = np.einsum("ij,nlj->nli", to_pixels, np.asarray(data.common)).reshape(3, -1)
        own = np.where(seen, np.asarray(data.deviation) ** 2 / np.where(seen, data.weight[view], 1), 1e12)
        covariance = common.T @ common + float(scale) ** 2 * np.diag(np.repeat(own, 2))
        precision.append(np.linalg.inv(covariance))
    return jnp.asarray(np.stack(precision))


def test_whitening_gives_the_energy_of_the_dense_noise_covariance(x, landmarks):
    residual = residuals.point_pixels(x, landmarks, SIZE).reshape(N_VIEWS, -1)
    expected = 0.5 * jnp.einsum("va,vab,vb->", residual, dense_landmark_precision(x, landmarks), residual)
    energy = residuals.point_energy(x, landmarks, residuals.point_whitening(x, landmarks), SIZE)
    np.testing.assert_allclose(energy, expected, rtol=1e-8)


# Colours


def test_colour_system_has_the_gradient_of_its_energy(x, colours, seen, hyper):
    residual, slope = jax.jit(residuals.colour_terms)(x, colours)
    blocks = jax.jit(residuals.colour_jacobian)(x, colours)
    normal = jax.jit(residuals.colour_normal)(residual, slope, *blocks, seen, colours.detail, hyper)

    def energy(x):  # the detail's slope is held during a step
        return residuals.colour_energy(residuals.colour_terms(x, colours)[0], slope, seen, colours.detail, hyper)

    assert_quadratic_model(normal, energy, x)


def test_colour_jacobian_is_that_of_its_residuals(x, colours):
    shared, own = jax.jit(residuals.colour_jacobian)(x, colours)
    jacobian = jax.jit(jax.jacfwd(lambda v: residuals.colour_terms(unflatten(v, x), colours)[0]))(flatten(x))
    np.testing.assert_allclose(shared, jacobian[..., : x.n_shared], atol=1e-9)
    by_view = jacobian[..., x.n_shared :].reshape(*jacobian.shape[:3], N_VIEWS, x.n_own)
    for view in range(N_VIEWS):
        np.testing.assert_allclose(own[view], by_view[view, :, :, view], atol=1e-9)
        np.testing.assert_allclose(by_view[view, :, :, 1 - view], 0, atol=1e-12)


def test_integrating_the_detail_out_is_the_dense_gaussian(x, colours, seen, hyper):
    """Per vertex and channel: r' (S + detail^2 s s')^-1 r with S = diag(colour^2 / weight)."""
    residual, slope = (np.asarray(a) for a in jax.jit(residuals.colour_terms)(x, colours))
    total = 0.0
    for point in range(N_POINTS):
        for channel in range(3):
            use = np.asarray(seen)[:, point, channel] > 0
            r, s = residual[use, point, channel], slope[use, point, channel]
            noise = np.diag(float(hyper.colour) ** 2 / np.asarray(seen)[use, point, channel])
            covariance = noise + float(colours.detail[point, 0]) ** 2 * np.outer(s, s)
            total += 0.5 * r @ np.linalg.solve(covariance, r) if use.any() else 0.0
    energy = residuals.colour_energy(jnp.asarray(residual), jnp.asarray(slope), seen, colours.detail, hyper)
    np.testing.assert_allclose(energy, total / hyper.colour_count, rtol=1e-9)


def test_a_hidden_vertex_has_no_say(x, colours, seen, hyper):
    residual, slope = jax.jit(residuals.colour_terms)(x, colours)
    other = residual.at[:, 4].add(100.0)
    a, b = (residuals.colour_energy(r, slope, seen, colours.detail, hyper) for r in (residual, other))
    np.testing.assert_array_equal(a, b)


# Priors


@pytest.mark.parametrize("prior", ["unit_interval", "normal"])
def test_prior_system_has_the_gradient_of_its_energy(prior, x, hyper):
    level, head = jnp.array([0.7, 1.2]), SimpleNamespace(unit_mm=0.5, expression_prior=prior)
    normal = residuals.prior_normal(x, level, hyper, head)
    assert_quadratic_model(normal, lambda x: residuals.prior_normal(x, level, hyper, head).energy, x)


def test_priors_rest_at_the_mean_face_in_plain_light(x, hyper):
    level, head = jnp.array([0.7, 1.2]), SimpleNamespace(unit_mm=1.0, expression_prior="unit_interval")
    rest = jax.tree.map(jnp.zeros_like, x).replace(
        pose=x.pose,
        inverse_distance=jnp.broadcast_to(hyper.inverse_distance_mean, (N_VIEWS,)),
        light=jnp.zeros((N_VIEWS, 9, 3)).at[:, 0].set(level[:, None]),
    )
    normal = residuals.prior_normal(rest, level, hyper, head)
    np.testing.assert_allclose(normal.energy, 0, atol=1e-12)
    np.testing.assert_allclose(normal.gradient, 0, atol=1e-9)


def test_only_blendshapes_are_bounded(x, hyper):
    """The soft bound is felt outside [0, 1] by blendshape weights, and never by N(0, 1) coefficients."""
    level = jnp.ones(N_VIEWS)

    def stiffness(expression, prior):
        head = SimpleNamespace(unit_mm=1.0, expression_prior=prior)
        normal = residuals.prior_normal(x.replace(expression=jnp.full((N_VIEWS, 2), expression)), level, hyper, head)
        return float(unflatten(jnp.diagonal(normal.hessian), x).expression[0, 0])

    assert stiffness(0.5, "unit_interval") < stiffness(1.5, "unit_interval") == stiffness(-0.5, "unit_interval")
    assert stiffness(0.5, "normal") == stiffness(1.5, "normal") == stiffness(-0.5, "normal")


# Steps


def test_unknowns_flatten_and_unflatten_are_inverse(x):
    vector = flatten(x)
    assert vector.shape == (x.n_shared + N_VIEWS * x.n_own,)
    jax.tree.map(np.testing.assert_array_equal, unflatten(vector, x), x)


def test_blocks_of_views_are_the_dense_normal_equations(double, rng):
    shared, own = jnp.asarray(rng.normal(size=(3, 5, 2))), jnp.asarray(rng.normal(size=(3, 5, 4)))
    residual = jnp.asarray(rng.normal(size=(3, 5)))
    dense = np.zeros((3, 5, 2 + 12))
    for view in range(3):
        dense[view, :, :2], dense[view, :, 2 + 4 * view : 6 + 4 * view] = shared[view], own[view]
    dense = dense.reshape(15, -1)
    normal = normal_of_views(shared, own, residual)
    np.testing.assert_allclose(normal.hessian, dense.T @ dense, atol=1e-12)
    np.testing.assert_allclose(normal.gradient, dense.T @ residual.reshape(-1), atol=1e-12)
    np.testing.assert_allclose(normal.energy, 0.5 * (residual**2).sum())


def normal_of(residual, x):
    """Gauss-Newton model of half the squares of residual(x)."""
    jacobian, value = jax.jacfwd(residual)(x), residual(x)
    return Normal(jacobian.T @ jacobian, jacobian.T @ value, 0.5 * jnp.sum(value**2))


def minimise(residual, start, n_steps, damping=1e-3):
    return levenberg_marquardt(
        lambda x: None,
        lambda x, _: normal_of(residual, x),
        lambda x, _: 0.5 * jnp.sum(residual(x) ** 2),
        start,
        damping,
        n_steps,
    )


def test_a_linear_problem_is_solved_in_one_step_whatever_its_units(double, rng):
    units = jnp.array([1e3, 1.0, 1e-4])
    matrix, truth = jnp.asarray(rng.normal(size=(8, 3))) * units[None], jnp.asarray(rng.normal(size=3)) / units
    solved, _ = minimise(lambda x: matrix @ (x - truth), jnp.zeros(3), 1, damping=0.0)
    np.testing.assert_allclose(solved, truth, rtol=1e-9)


def rosenbrock(x):
    return jnp.array([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def test_rosenbrock_falls_at_every_step_to_its_minimum(double):
    solved, descent = minimise(rosenbrock, jnp.array([-1.2, 1.0]), 40)
    assert (descent.after <= descent.before).all()
    np.testing.assert_allclose(descent.before[1:], descent.after[:-1], rtol=1e-12)
    np.testing.assert_allclose(descent.start, descent.before[0], rtol=1e-12)
    np.testing.assert_allclose(solved, [1, 1], atol=1e-6)


def overshooting(x):
    """A residual whose full Gauss-Newton step, and many shorter ones, raise the energy."""
    return jnp.array([jnp.arctan(10 * x[0])])


@pytest.mark.parametrize("damping", [1e-7, 1e-3, 0.0])
def test_one_step_takes_the_rung_that_lowers_the_energy_when_lower_ones_raise_it(double, damping):
    start = jnp.array([0.3])
    normal = normal_of(overshooting, start)
    full = start + solve_damped(normal, jnp.asarray(1e-3))
    assert 0.5 * jnp.sum(overshooting(full) ** 2) > normal.energy  # a step that one damping alone would lose
    _, descent = minimise(overshooting, start, 3, damping=damping)
    assert descent.moved
    assert (descent.after <= descent.before).all()


def test_the_rung_taken_is_the_best_of_the_ladder(double):
    start = jnp.array([-1.2, 1.0])
    _, descent = minimise(rosenbrock, start, 1, damping=1e-2)
    normal = normal_of(rosenbrock, start)
    energies = [
        0.5 * jnp.sum(rosenbrock(start + solve_damped(normal, jnp.asarray(1e-2 * rung))) ** 2) for rung in LADDER
    ]
    taken = int(np.argmin(np.abs(1e-2 * np.array(LADDER) - descent.taken[0])))
    np.testing.assert_allclose(descent.after[0], energies[taken], rtol=1e-12)
    enough = normal.energy - 0.99 * (normal.energy - min(energies))  # the least damped of those that do as well
    assert energies[taken] <= enough
    assert all(energy > enough for energy in energies[:taken])


def test_a_stage_that_stays_says_whether_its_gradient_is_small(double):
    at_rest = minimise(rosenbrock, jnp.array([1.0, 1.0]), 3)[1]
    assert not at_rest.moved
    assert not at_rest.stalled
    uphill = levenberg_marquardt(  # an energy that falls nowhere, whatever its linearisation says
        lambda x: None,
        lambda x, _: normal_of(rosenbrock, x),
        lambda x, _: jnp.sum(jnp.abs(x - jnp.array([-1.2, 1.0]))) + 1.0,
        jnp.array([-1.2, 1.0]),
        1e-3,
        3,
    )[1]
    assert not uphill.moved
    assert uphill.stalled
    np.testing.assert_array_equal(uphill.before, uphill.after)


def test_the_promised_fall_of_an_undamped_step_is_that_of_a_quadratic(double, rng):
    matrix, offset = jnp.asarray(rng.normal(size=(6, 3))), jnp.asarray(rng.normal(size=6))
    normal = normal_of(lambda x: matrix @ x - offset, jnp.zeros(3))
    move = solve_damped(normal, jnp.asarray(0.0))
    fall = normal.energy - 0.5 * jnp.sum((matrix @ move - offset) ** 2)
    np.testing.assert_allclose(promised_fall(normal, move), fall, rtol=1e-9)


def test_a_step_that_is_not_finite_is_undone(double):
    solved, descent = minimise(lambda x: jnp.sqrt(x), jnp.array([1e-3]), 5, damping=1e-3)
    assert np.isfinite(solved).all()
    assert np.isfinite(descent.after).all()


def test_held_unknowns_do_not_move(double):
    start = jnp.array([-1.2, 1.0])
    solved, _ = levenberg_marquardt(
        lambda x: None,
        lambda x, _: normal_of(rosenbrock, x).take(np.array([1])),
        lambda x, _: 0.5 * jnp.sum(rosenbrock(x) ** 2),
        start,
        1e-3,
        10,
        np.array([1]),
    )
    np.testing.assert_allclose(solved, [-1.2, 1.44], atol=1e-5)
    assert solved[0] == start[0]


def test_a_system_of_fewer_unknowns_is_the_smaller_one(double, rng):
    jacobian, residual = jnp.asarray(rng.normal(size=(9, 4))), jnp.asarray(rng.normal(size=9))
    normal = Normal(jacobian.T @ jacobian, jacobian.T @ residual, 0.5 * residual @ residual)
    step = solve_damped(normal.take(np.array([0, 2])), jnp.asarray(0.0))
    np.testing.assert_allclose(step, np.linalg.lstsq(jacobian[:, [0, 2]], -residual, rcond=None)[0], atol=1e-10)
    ignored = normal.take(np.array([2, -1]))
    assert float(jnp.abs(ignored.hessian[1]).max()) == float(ignored.gradient[1]) == 0


def test_places_and_columns_name_the_same_unknowns(x):
    vector = flatten(x)
    np.testing.assert_array_equal(
        vector[places(x, MOTION)], np.concatenate([np.r_[x.pose[v], x.expression[v]] for v in range(N_VIEWS)])
    )
    shared, own = columns(x, MOTION)
    assert shared.size == 0
    second = vector[x.n_shared + x.n_own :]
    np.testing.assert_array_equal(second[own], np.r_[x.pose[1], x.expression[1]])


# Tables


def stencil_normals(vertices, faces):
    ring, weight = tangent_stencil(faces, len(vertices))
    tangents = np.einsum("pmc,pmt->ptc", vertices[ring], weight)
    normal = np.cross(tangents[:, 0], tangents[:, 1])
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def test_tangents_give_the_normals_of_a_sphere():
    vertices, faces = sphere(24, 48)
    expected = vertex_normals(jnp.asarray(vertices, jnp.float32), faces)
    cosine = np.sum(stencil_normals(vertices, faces) * np.asarray(expected), 1)
    assert np.degrees(np.arccos(cosine.min())) < 3


def test_tangents_give_normals_on_a_boundary_too():
    vertices, faces = sphere(24, 48)
    front = faces[(vertices[faces][..., 1] > 0.2).all(1)]
    used = np.unique(front)
    compact = np.full(len(vertices), -1)
    compact[used] = np.arange(len(used))
    vertices, faces = vertices[used], compact[front]
    _, closed = ordered_rings(faces, len(vertices))
    assert 0 < np.sum(~closed) < len(vertices)
    cosine = np.sum(stencil_normals(vertices, faces) * vertices, 1)
    assert np.degrees(np.arccos(cosine[closed].min())) < 3
    assert np.degrees(np.arccos(cosine[~closed].min())) < 25


def test_tangents_of_the_head_agree_with_its_normals():
    head = facerig_jax.load_head()
    tangents = np.einsum("pmc,pmt->ptc", head.mean[head.ring], head.ring_weight)
    normal = np.cross(tangents[:, 0], tangents[:, 1])
    normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    cosine = np.sum(normal * np.asarray(vertex_normals(head.mean, head.faces)), 1)[head.face_mask > 0.5]
    assert np.mean(cosine > np.cos(np.radians(10))) > 0.98


def test_rings_run_once_around_each_vertex():
    _, faces = sphere(4, 6)
    rings, closed = ordered_rings(faces, faces.max() + 1)
    assert closed.all()
    for vertex, ring in enumerate(rings):
        ring = ring[ring >= 0]
        edges = {(a, b) for face in faces if vertex in face for a, b in [np.roll(face, -list(face).index(vertex))[1:]]}
        assert set(zip(ring, np.roll(ring, -1), strict=True)) == edges


def test_point_models_agree_with_the_head():
    head = small_head()
    made, _ = subject()
    model = dense_landmark_model(head)
    np.testing.assert_allclose(
        evaluate(model, made.identity, made.expression[0]),
        landmark_positions(head.landmarks_dense, made.vertices[0]),
        atol=1e-3,
    )
    index = jnp.arange(0, head.mean.shape[0], 500)
    surface = evaluate(surface_model(head, index), made.identity, made.expression[0])
    np.testing.assert_allclose(surface[:, :3], made.vertices[0][index], atol=1e-3)


# Recovery


@pytest.fixture(scope="module")
def recovery():
    """A neutral subject inside the basis, without noise, and its fit to exact landmarks."""
    made, landmarks = subject(2, expressiveness=0.0, noise=0.0)
    hyper = HYPER.replace(landmark_mm=0.1)
    return made, facerig_jax.fit_rig(
        made.images,
        small_params(),
        small_head(),
        landmarks=landmarks,
        hyper=hyper,
        config=CONFIG,
    )


def test_a_subject_inside_the_basis_is_recovered_from_exact_landmarks(recovery):
    made, result = recovery
    head = small_head()
    error, mean_error = (
        float(vertex_error(shape, made.neutral, head.face_mask)) for shape in (result.rig.neutral, head.mean)
    )
    assert error < 0.3 * mean_error
    np.testing.assert_allclose(result.views.pose[:, :3], made.pose[:, :3], atol=0.03)
    assert float(jnp.abs(result.views.expression).max()) < 0.2


def test_energies_fall_in_every_stage(recovery):
    trace = recovery[1].trace
    for stage in (trace.landmarks, trace.photometric, trace.expression):
        assert np.isfinite(stage.after).all()
        assert (stage.after <= stage.before).all()
        assert np.all(stage.moved)
        assert (stage.after[..., -1] < stage.start[..., -1]).all()


POINTS_ONLY = dataclasses.replace(CONFIG, photometric_steps=0)


def points_fit(head, config=POINTS_ONLY):
    """Fit of the recovery subject to its exact landmarks alone, and that subject."""
    made, landmarks = subject(2, expressiveness=0.0, noise=0.0)
    if config.landmarks == "68":  # the detector's points of those names lie elsewhere on the mesh
        exact = landmark_positions(head.landmarks68, made.vertices_img)
        landmarks = landmarks.at[:, np.array(LANDMARKS68)].set(exact)
    return facerig_jax.fit_rig(made.images, small_params(), head, landmarks=landmarks, config=config), made


@pytest.fixture(scope="module")
def millimetres():
    return points_fit(small_head())[0]


def test_the_length_unit_of_the_head_does_not_matter(millimetres):
    """A head in micrometres, like BFM's, gives the same face, pose and camera."""
    head = small_head()
    scaled = {name: 1e3 * getattr(head, name) for name in ("mean", "identity_basis", "expression_basis")}
    result, _ = points_fit(head.replace(**scaled, unit_mm=1e-3))
    np.testing.assert_allclose(result.rig.neutral * 1e-3, millimetres.rig.neutral, atol=0.02)
    np.testing.assert_allclose(result.views.pose[:, :3], millimetres.views.pose[:, :3], atol=1e-3)
    np.testing.assert_allclose(result.views.pose[:, 3] * 1e3, millimetres.views.pose[:, 3], rtol=1e-3)
    np.testing.assert_allclose(result.views.inverse_distance, 1e-3 * millimetres.views.inverse_distance, rtol=0.05)


def test_the_68_points_alone_bring_the_face_nearer_than_the_mean():
    head = small_head()
    result, made = points_fit(head, dataclasses.replace(POINTS_ONLY, landmarks="68"))
    error, mean_error = (
        float(vertex_error(shape, made.neutral, head.face_mask)) for shape in (result.rig.neutral, head.mean)
    )
    assert error < 0.9 * mean_error


# The last fit, every view alone


@pytest.fixture(scope="module")
def last_fit():
    """`fit_views` of the recovery subject's views, compiled, from what the landmarks give, and its inputs."""
    head, (made, points) = small_head(), subject(2, noise=0.0)
    count = len(made.images)
    size = jnp.broadcast_to(jnp.array(made.images.shape[1:3]), (count, 2))
    images, hyper = made.images.astype(jnp.float32), as_arrays(HYPER)
    weight, usable = jnp.ones(points.shape[:2]), jnp.ones(count, bool)
    observed = cut_out(images, points, weight, usable, size, head, CONFIG.crop_size, 1.35)

    @jax.jit
    def before(observed):
        data = landmark_data(head, observed, hyper, CONFIG)
        x, _ = fit_landmarks(head, data, observed, first_guess(head, observed, hyper, CONFIG), hyper, CONFIG)
        return x, data

    @jax.jit
    def run(x, data, observed):
        return fit_views(head, data, observed, x, hyper, CONFIG)

    return run, *before(observed), observed


def test_the_last_fit_lowers_every_view_and_holds_the_person(last_fit):
    run, x, data, observed = last_fit
    end, descent = run(x, data, observed)
    assert descent.taken.shape == (x.n_views, CONFIG.expression_steps)
    assert np.all(descent.moved)
    np.testing.assert_array_equal(end.identity, x.identity)
    np.testing.assert_array_equal(end.albedo, x.albedo)
    np.testing.assert_array_equal(end.light, x.light)
    assert float(jnp.abs(end.expression - x.expression).max()) > 0


def test_a_view_that_overshoots_undoes_no_other_view_s_step(last_fit):
    """Landmarks far off in the second view: the first ends as it would beside a good one."""
    run, x, data, observed = last_fit
    good, _ = run(x, data, observed)
    points = observed.landmarks.at[1].add(jnp.array([25.0, -18.0, 0.0])[None])
    bad, descent = run(x, data.replace(detected=points[..., :2]), observed.replace(landmarks=points))
    assert bool(descent.moved[0])
    np.testing.assert_allclose(bad.expression[0], good.expression[0], atol=1e-5)
    np.testing.assert_allclose(bad.pose[0], good.pose[0], rtol=1e-5, atol=1e-5)
    assert float(jnp.abs(bad.pose[1] - good.pose[1]).max()) > 1e-2


def test_a_view_alone_sees_the_energy_of_all_views_as_a_function_of_its_own_unknowns(x, colours, seen, hyper):
    """What `apart` makes of the other views differs from the joint energy by a constant."""
    whole = Colours(colours, jnp.arange(N_POINTS), colours.detail[:, 0], jnp.ones(seen.shape[:2]))
    apart_data = jax.jit(apart)(x, whole, seen, hyper).data

    def joint(view, change):
        residual, slope = residuals.colour_terms(moved(view, change), colours)
        return residuals.colour_energy(residual, slope, seen, colours.detail, hyper)

    def moved(view, change):
        return x.replace(pose=x.pose.at[view, 4:].add(change))

    def alone(view, change):
        one = jax.tree.map(lambda value: value[view][None], moved(view, change))
        one = one.replace(identity=x.identity, albedo=x.albedo)
        data = colours.replace(
            image=colours.image[view][None],
            brightness=colours.brightness[view][None],
            albedo_mean=apart_data.albedo_mean[view],
            detail=apart_data.detail[view],
        )
        residual, slope = residuals.colour_terms(one, data)
        return residuals.colour_energy(residual, slope, seen[view][None], data.detail, hyper)

    change = jnp.array([0.7, -0.4])
    for view in range(N_VIEWS):
        joint_fall = joint(view, change) - joint(view, 0 * change)
        np.testing.assert_allclose(alone(view, change) - alone(view, 0 * change), joint_fall, rtol=1e-6)

"""What every solver promises at the front door: one table of solvers, one test a promise, few compiled programs.

A solver's promises share two programs: `fit_rig` called as it is, on three views (`Runs.three`, `Runs.padded`), and the
fit of one view inside a larger program, for two subjects side by side, of photos in whole numbers, with traced
settings, compiled without optimisation (`Runs.alone`). That they agree proves that padding, the type of the photos,
jit, vmap and the compiler's rewriting do not change a fit.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.subjects import CONFIG, HYPER, POINTS_ONLY, small_head, small_params, subject
from helpers.tiny import FOR_SMALL_HEAD as PUBLISHED
from helpers.tiny import tiny_params

import facerig_jax
from facerig_jax import Hyper, Status
from facerig_jax.geometry.light import sh_basis, shade
from facerig_jax.inorig.config import EnergyWeights
from facerig_jax.types import Descent
from facerig_jax.weights import trained

SLOW = pytest.mark.slow
# Where not all solvers are asked at once.
RARE = {"landmarks alone": (), "classical": pytest.mark.thorough}


# The door: all that depends on how a solver is chosen and on what a fit's trace looks like.


@dataclasses.dataclass(frozen=True)
class Solver:
    """A row of the table.

    options: what `fit_rig` is told to choose it, on small photos.
    learned: () -> params['learned'].
    usual:   traced settings.
    other:   others.
    descends: whether it minimises what its trace tells of, and if not, why not.
    reads_colours: whether photos matter beside given landmarks.
    tolerance: of the same fit computed in another way, relative to the largest value of each kind.
    """

    options: dict
    learned: Callable
    usual: object
    other: object
    descends: bool | str = True
    reads_colours: bool = True
    tolerance: float = 2e-3


def small_default():
    """The settings that ship, on a smaller crop, with fewer looks and fewer vertices: the network is as it is."""
    config = trained()[1]
    flow = dataclasses.replace(config.flow, passes=2, points=200)
    return dataclasses.replace(config, crop_size=96, max_points=200, flow=flow)


SOLVERS = {
    "landmarks alone": Solver(
        options={"config": POINTS_ONLY},
        learned=dict,
        usual=HYPER,
        other=HYPER.replace(landmark_mm=2.0, damping=0.1),
        reads_colours=False,
    ),
    "classical": Solver(
        options={"config": CONFIG},
        learned=dict,
        usual=HYPER,
        other=HYPER.replace(landmark_mm=2.0, damping=0.1, colour=0.2),
    ),
    "default": Solver(
        options={"config": small_default()},
        learned=lambda: facerig_jax.load()[0]["learned"],
        usual=Hyper(),
        other=Hyper(flow_noise=9.0, colour=0.1),
    ),
    "published": Solver(
        options={"config": PUBLISHED},
        learned=lambda: tiny_params(PUBLISHED),
        usual=EnergyWeights(),
        other=EnergyWeights(landmark=0.05),
        descends="its steps are learned, and these networks are not trained",
    ),
}


def fit(solver: Solver, images, landmarks, view_mask=None, **changes):
    options = {**solver.options, "params": params(solver), "head": small_head(), "hyper": solver.usual, **changes}
    return facerig_jax.fit_rig(images, landmarks=landmarks, view_mask=view_mask, **options)


def params(solver: Solver) -> dict:
    return {"detector": small_params()["detector"], "learned": solver.learned()}


def energies(result) -> dict[str, tuple]:
    """Energies of every stage's start and end under its last step's weights, by the stage's name."""
    named = {field.name: getattr(result.trace, field.name) for field in dataclasses.fields(result.trace)}
    found = {name: stage for name, stage in named.items() if isinstance(stage, Descent)}
    for stage in found.values():
        assert np.all(stage.after <= stage.before)
        assert np.all(stage.moved)
    return {name: (np.asarray(stage.start)[..., -1], np.asarray(stage.after)[..., -1]) for name, stage in found.items()}


# Normals that a face shows: all that lie within 60 degrees of the camera's direction.
_ANGLES = np.stack(np.meshgrid(np.linspace(0, np.pi / 3, 4), np.linspace(0, 2 * np.pi, 9)), -1).reshape(-1, 2)
FACING = jnp.array([[np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), np.cos(t)] for t, p in _ANGLES], jnp.float32)


# The programs, each compiled once


COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: COMPILED.append(event) if event == "/jax/core/compile/backend_compile_duration" else None
)


class Runs:
    """The fits of one solver that its promises are read off."""

    def __init__(self, solver: Solver):
        self.solver = solver

    @functools.cached_property
    def three(self):
        """Of three photos of a subject."""
        return fit(self.solver, *photos(0, 3), jnp.ones(3))

    @functools.cached_property
    def padded(self):
        """Of the first photo of each of two subjects, and of two grey photos that do not count."""
        given = [photos(index, 3) for index in range(2)]
        given = [(images.at[1:].set(0.3), landmarks.at[1:].set(0.3)) for images, landmarks in given]
        return [fit(self.solver, *pair, jnp.array([1.0, 0, 0])) for pair in given]

    @functools.cached_property
    def alone(self):
        """Of the first photo of each of the two, in whole numbers, side by side in a larger, unoptimised program."""

        def both(images, landmarks, hyper, params, head):
            one = functools.partial(fit, self.solver, hyper=hyper, params=params, head=head)
            return jax.vmap(one)(images, landmarks)

        images, landmarks = jax.tree.map(lambda *x: jnp.stack(x), photos(0, 1), photos(1, 1))
        images = jnp.round(images * 255).astype(jnp.uint8)
        found = unoptimised(both, images, landmarks, self.solver.usual, params(self.solver), small_head())
        return [jax.tree.map(lambda x, i=index: x[i], found) for index in range(2)]


def unoptimised(function, *arguments):
    """Its result, where XLA's backend was told to translate and not to improve: half the time to compile."""
    options = {"xla_backend_optimization_level": 0}
    return jax.jit(function).lower(*arguments).compile(compiler_options=options)(*arguments)


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in SOLVERS])
def runs(request):
    return Runs(SOLVERS[request.param])


def photos(index: int, count: int):
    """The first photos (V, S, S, 3) of a subject, float but as 8 bits hold them, and exact landmarks (V, 468, 3)."""
    made, landmarks = subject(index) if count <= 3 else subject(index, n_views=8)
    return jnp.round(made.images[:count] * 255) / 255, landmarks[:count]


def views_of(result, chosen):
    """What a fit says of the person and of the chosen views."""
    views = result.views
    shading = shade(sh_basis(FACING)[None], views.light)  # a face says little of light from behind it
    kept = (views.pose, views.inverse_distance, views.expression, shading, views.crop, views.status)
    kept = jax.tree.map(lambda x: x[np.array(chosen)], kept)
    return (result.rig.neutral, result.rig.albedo, result.rig.identity_code, *kept)


def assert_close(a, b, tolerance):
    """Every leaf agrees to `tolerance` of its largest value."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * max(1e-6, float(np.abs(y).max())))


def assert_good(result, n_views: int):
    """Finite everywhere, nothing wrong, and as many views as there were photos."""
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result))
    assert int(result.status) == Status.OK
    assert set(np.asarray(result.views.status).tolist()) <= {Status.OK, Status.POOR_FIT}
    assert len(result.views.status) == n_views
    assert result.rig.neutral.shape == small_head().mean.shape


# The promises


def test_one_view_and_three_give_a_finite_rig(runs):
    assert_good(runs.three, 3)
    assert_good(runs.alone[0], 1)


def test_every_energy_falls_or_it_is_said_why_not(runs):
    if runs.solver.descends is not True:
        assert runs.solver.descends
        return
    found = energies(runs.three)
    assert found
    for name, (before, after) in found.items():
        assert np.all(after < before), (name, before, after)


def test_views_in_another_order_give_the_same_rig(runs):
    order = [2, 0, 1]
    images, landmarks = (x[jnp.array(order)] for x in photos(0, 3))
    other = fit(runs.solver, images, landmarks, jnp.ones(3))
    assert_close(views_of(other, [0, 1, 2]), views_of(runs.three, order), runs.solver.tolerance)


def test_what_lies_under_the_mask_is_not_looked_at(runs):
    """Two real photos of the person under the mask, and grey ones."""
    masked = fit(runs.solver, *photos(0, 3), jnp.array([1.0, 0, 0]))
    assert masked.views.status[1:].tolist() == [Status.PADDING] * 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(masked))
    assert_close(views_of(masked, [0]), views_of(runs.padded[0], [0]), 1e-6)


def test_one_view_side_by_side_in_a_larger_program_is_fitted_as_one_by_one_and_padded(runs):
    for alone, padded in zip(runs.alone, runs.padded, strict=True):
        assert_close(views_of(alone, [0]), views_of(padded, [0]), runs.solver.tolerance)


def test_other_numbers_compile_nothing_new_and_give_another_fit(runs):
    images, landmarks = photos(0, 3)
    heavier = jax.device_put(jax.tree.map(lambda x: 1.0001 * np.asarray(x), params(runs.solver)))
    given = 1 - images, landmarks + 1, jnp.ones(3)
    same, before = runs.three, len(COMPILED)
    other = fit(runs.solver, *given, params=heavier, hyper=runs.solver.other)
    assert len(COMPILED) == before
    assert np.abs(np.asarray(other.rig.neutral) - np.asarray(same.rig.neutral)).max() > 0


@pytest.mark.parametrize("name", [pytest.param(name, marks=RARE.get(name, SLOW)) for name in SOLVERS])
def test_the_gradient_by_photos_and_landmarks_is_finite(name):
    solver = SOLVERS[name]

    def total(images, landmarks, params, head):
        rig = fit(solver, images, landmarks, params=params, head=head).rig
        return jnp.sum(rig.neutral) + jnp.sum(rig.albedo)

    by_images, by_landmarks = unoptimised(jax.grad(total, (0, 1)), *photos(0, 1), params(solver), small_head())
    assert np.isfinite(by_images).all()
    assert np.isfinite(by_landmarks).all()
    assert (float(jnp.abs(by_images).max()) > 0) == solver.reads_colours
    assert float(jnp.abs(by_landmarks).max()) > 0


@SLOW
@pytest.mark.parametrize("name", SOLVERS)
def test_five_views_are_eight_of_which_three_do_not_count(name):
    solver = SOLVERS[name]
    eight, five = fit(solver, *photos(0, 8), jnp.ones(8)), fit(solver, *photos(0, 5))
    assert_good(eight, 8)
    assert_good(five, 5)
    masked = fit(solver, *photos(0, 8), jnp.array([1.0] * 5 + [0] * 3))
    assert_close(views_of(masked, range(5)), views_of(five, range(5)), solver.tolerance)


@pytest.mark.thorough
def test_the_one_argument_form_is_the_explicit_form_under_jit_too():
    """Called as it is, it is the same program: it compiles nothing, and gives the same bits.

    Of the landmarks alone, because the door is the same for all; of the default test_quality.py proves it.
    """
    short = functools.partial(facerig_jax.fit_rig, **SOLVERS["landmarks alone"].options)
    whole = jnp.round(subject()[0].images[:1] * 255).astype(jnp.uint8)
    explicit = short(whole / 255, *facerig_jax.load())
    assert int(explicit.status) == Status.OK
    before = len(COMPILED)
    jax.tree.map(np.testing.assert_array_equal, short(whole / 255), explicit)
    assert len(COMPILED) == before
    inside = jax.jit(short)(whole / 255)  # with weights and head as constants, which XLA folds: rounded otherwise
    np.testing.assert_allclose(inside.views.landmarks, explicit.views.landmarks, atol=1e-3)
    np.testing.assert_allclose(inside.rig.neutral, explicit.rig.neutral, atol=0.1)

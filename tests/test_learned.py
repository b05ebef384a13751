"""The learned solver: its shape as a program, masks and batches, gradients through its steps, every ablation switch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny

from experiments.goldens import see_all
from facerig_jax.geometry.camera import to_image
from facerig_jax.head.coarse import thin
from facerig_jax.inorig.config import EnergyWeights
from facerig_jax.inorig.energies import measure
from facerig_jax.inorig.freeze import freeze
from facerig_jax.inorig.stages import begin, place, run_stage, solve_stages, step_exponents
from facerig_jax.numerics import srgb_to_linear
from facerig_jax.raster.visibility import visible
from facerig_jax.rig.neural import neural_mesh
from facerig_jax.weights import check_params

# The dome is too flat to tell all of the light in float32.
WEIGHTS = EnergyWeights(light_ridge=1e-3)
# Without networks that decode: the same program, much faster to compile.
LINEAR = tiny.changed(linear_rig=True)
THOROUGH, SLOW = pytest.mark.thorough, pytest.mark.slow


@functools.partial(jax.jit, static_argnames=("config", "see"))
def fit(params, head, observed, weights, config=tiny.CONFIG, see=visible):
    return solve_stages(params, head, observed, weights, config, see=see)


def solve(observed, config=tiny.CONFIG, see=visible, weights=WEIGHTS):
    """state and trace of the tiny head and networks."""
    return fit(tiny.tiny_params(config), tiny.tiny_head(), observed, weights, config, see)


@pytest.fixture(scope="module")
def observed():
    return tiny.observe(tiny.tiny_head(), np.random.default_rng(0))


@pytest.fixture(scope="module")
def solved(observed):
    return solve(observed)


@pytest.fixture(scope="module")
def linear(observed):
    return solve(observed, LINEAR, see_all)


@functools.partial(jax.jit, static_argnames="config")
def start(params, head, observed, weights, config):
    """Problem and state before the first stage."""
    return begin(params, head, observed, weights, config, see=see_all)


def padded(observed, rng, garbage: float = 1.0):
    """One view more, that does not count, with random contents."""
    more = jax.tree.map(lambda x: garbage * rng.uniform(size=(1, *x.shape[1:])).astype(np.float32), observed)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), observed, more)
    return both.replace(view_mask=jnp.append(observed.view_mask, 0.0))


def assert_close(a, b, tolerance=2e-4):
    """Trees of equal shapes, relative to each array's largest value."""
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(x, y, atol=tolerance * (np.max(np.abs(y)) + 1e-6), err_msg=name)


def is_finite(tree) -> bool:
    return all(np.isfinite(x).all() for x in jax.tree.leaves(tree) if np.issubdtype(x.dtype, np.floating))


class TestProgram:
    @pytest.fixture(scope="class")
    @classmethod
    def program(cls, observed):
        head, params = tiny.tiny_head(), tiny.tiny_params()
        return jax.make_jaxpr(lambda *inputs: solve_stages(*inputs, tiny.CONFIG))(
            params, head, observed, EnergyWeights()
        ).jaxpr

    def test_it_is_one_scan_over_stages_with_a_scan_over_steps_in_each_branch(self, program):
        stages = [scan for scan in inside(program, "scan") if scan.params["length"] == 3]
        assert len(stages) == 1, "one scan over stages, none of the same length beside it"
        switches = [switch for switch in inside(stages[0], "cond") if len(switch.params["branches"]) == 3]
        assert len(switches) == 1
        for branch in switches[0].params["branches"]:
            steps = [scan for scan in inside(branch.jaxpr, "scan") if scan.params["length"] == 3]
            assert len(steps) == 1
        nested = [scan for scan in inside(stages[0], "scan") if scan.params["length"] == 3]
        assert len(nested) == 3, "the steps' scans are those of the branches"

    def test_new_photos_and_weights_of_energies_do_not_recompile(self, observed, solved):
        count = fit._cache_size()
        other = observed.replace(photo=observed.photo * 0.5, colour=observed.colour * 0.5)
        first, _ = solve(other)
        second, _ = solve(other, weights=EnergyWeights(feature=0.1, landmark=0.5, photometric=2.0, light_ridge=0.1))
        assert fit._cache_size() == count
        assert (first.pose != solved[0].pose).any()
        assert (first.pose != second.pose).any()

    @pytest.mark.parametrize(("stages", "steps"), [(1, 2), (2, 1), (3, 1)])
    def test_stages_and_steps_are_as_many_as_asked_for(self, stages, steps, observed):
        config = dataclasses.replace(LINEAR, stages=stages, steps=steps)
        state, trace = jax.eval_shape(lambda *x: solve_stages(*x, config), *self.inputs(config, observed))
        assert {x.shape[:2] for x in jax.tree.leaves(trace["steps"])} == {(stages, steps)}
        assert {x.shape[0] for x in jax.tree.leaves(trace["stages"])} == {stages}
        assert len(state.rig.weights.texels) == stages - 1
        assert (state.rig.weights.albedo_texels is None) == (stages < 3)

    def inputs(self, config, observed):
        return tiny.tiny_params(config), tiny.tiny_head(), observed, EnergyWeights()


def inside(jaxpr, name: str) -> list:
    """The equations of primitive `name` in a jaxpr or an equation's own, not looking inside those that are found."""
    found = []
    for equation in equations_of(jaxpr):
        if equation.primitive.name == name:
            found.append(equation)
        else:
            found += inside(equation, name)
    return found


def equations_of(thing):
    if hasattr(thing, "eqns"):
        return thing.eqns
    parameters = jax.tree.leaves(
        list(thing.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
    )
    closed = [getattr(x, "jaxpr", x) for x in parameters]
    return [equation for x in closed if hasattr(x, "eqns") for equation in x.eqns]


class TestTrace:
    def test_everything_is_finite_and_moves(self, solved):
        state, trace = solved
        assert is_finite(solved)
        assert trace["steps"]["total"].shape == (3, 3)
        assert trace["steps"]["projected"].shape == (3, 3, 2, 289, 3)
        assert (trace["stages"]["projected"][1:] != trace["stages"]["projected"][:-1]).any()
        for leaf in jax.tree.leaves(trace["steps"]["gradient"]):
            assert leaf[2, 2].any() or leaf.shape[-1] == tiny.SIZES.expression_code

    def test_the_total_is_the_weighted_sum(self, solved):
        steps = solved[1]["steps"]
        total = 0.25 * steps["feature"] + 0.025 * steps["landmark"] + steps["photometric"]
        np.testing.assert_allclose(steps["total"], total, rtol=1e-5)
        assert all((steps[name] > 0).all() for name in ("feature", "landmark", "photometric"))

    def test_a_step_goes_down_the_gradient_by_its_size(self, solved):
        steps = jax.tree.map(np.asarray, solved[1]["steps"])
        x, slope, size = steps["x"], steps["gradient"], steps["size"]
        scale, bias = np.array(tiny.CONFIG.step_scale[0]), np.array(tiny.CONFIG.step_bias[0])
        np.testing.assert_allclose(size, 10.0 ** (scale * steps["exponent"] + bias), rtol=1e-4)
        assert np.abs(steps["exponent"]).max() < 1
        for number, part in enumerate(("identity", "expression", "albedo")):
            moved = np.diff(getattr(x.code, part), axis=1)
            share = size[:, 1:, (0, 3, 4)[number], None]
            np.testing.assert_allclose(moved, -share * getattr(slope.code, part)[:, 1:], rtol=1e-2, atol=1e-6)
        for number, part in ((1, "pose"), (2, "expression")):
            moved = np.diff(getattr(x, part), axis=1)
            wanted = -2 * size[:, 1:, number, None, None] * getattr(slope, part)[:, 1:]
            np.testing.assert_allclose(moved, wanted, rtol=1e-2, atol=1e-6, err_msg="times the number of views")

    def test_the_frozen_rig_is_the_solvers_last_decode(self, solved):
        state, trace = solved
        rig = freeze(state.whole, tiny.tiny_params(), tiny.tiny_head(), tiny.CONFIG)
        vertices, albedo = jax.jit(neural_mesh)(rig, state.expression)
        assert_close(vertices, trace["stages"]["vertices"][-1], 1e-5)
        assert_close(albedo, srgb_to_linear(trace["stages"]["albedo"][-1]), 1e-5)
        assert_close(rig.neutral, trace["stages"]["neutral"][-1], 1e-5)


class TestMasksAndBatches:
    def test_a_masked_view_changes_nothing_whatever_it_shows(self, observed, rng):
        one = observed.replace(view_mask=jnp.array([1.0, 0.0]))
        other = jax.tree.map(lambda x: x.at[1].set(jnp.asarray(rng.uniform(size=x.shape[1:]), x.dtype)), one)
        other = other.replace(view_mask=one.view_mask)
        (first, trace), (second, other_trace) = solve(one), solve(other)
        for name in ("total", "landmark", "photometric"):
            assert_close(other_trace["steps"][name], trace["steps"][name], 1e-5)
        assert_close((second.rig, second.pose[0], second.light[0]), (first.rig, first.pose[0], first.light[0]), 1e-4)
        assert not trace["steps"]["feature"].any(), "one view has nothing to be consistent with"
        assert is_finite((trace, other_trace))

    @THOROUGH
    def test_a_batch_of_padded_subjects_is_each_subject_alone(self, observed, solved, rng):
        other = tiny.observe(tiny.tiny_head(), np.random.default_rng(1))
        batch = jax.tree.map(lambda *x: jnp.stack(x), padded(observed, rng), padded(other, rng, garbage=0.3))
        params, head = tiny.tiny_params(), tiny.tiny_head()
        state, trace = jax.jit(jax.vmap(lambda x: solve_stages(params, head, x, WEIGHTS, tiny.CONFIG)))(batch)
        for number, (alone, steps) in enumerate((solved, solve(other))):
            for name in ("total", "feature", "landmark", "photometric"):
                assert_close(trace["steps"][name][number], steps["steps"][name])
            for part in ("identity", "expression", "albedo"):
                batched, single = (getattr(x["steps"]["x"].code, part) for x in (trace, steps))
                assert_close(batched[number], single, 1e-3)
            for name in ("pose", "expression", "light", "projected"):
                assert_close(getattr(state, name)[number, :2], getattr(alone, name), 1e-3)
            assert_close(state.rig.neutral[number], alone.rig.neutral)

    def test_a_single_view_is_finite(self, observed):
        alone = jax.tree.map(lambda x: x[:1], observed)
        state, trace = solve(alone, LINEAR, see_all)
        assert is_finite((state, trace))
        assert not trace["steps"]["feature"].any()
        assert (trace["steps"]["landmark"] > 0).all()

    @SLOW
    def test_a_single_view_is_finite_with_all_networks(self, observed):
        state, trace = solve(jax.tree.map(lambda x: x[:1], observed))
        assert is_finite((state, trace))
        assert not trace["steps"]["feature"].any()

    @pytest.mark.parametrize("stages", [pytest.param(1, marks=THOROUGH), pytest.param(3, marks=SLOW)])
    def test_bfloat16_networks_are_finite_and_near(self, stages, observed):
        config = tiny.changed(stages=stages, dtype="bfloat16")
        params = tiny.tiny_params(tiny.changed(stages=stages))
        state, trace = fit(params, tiny.tiny_head(), observed, EnergyWeights(), config, see_all)
        assert is_finite((state, trace))
        assert {x.dtype for x in jax.tree.leaves((state, trace))} <= {np.dtype("float32"), np.dtype(bool)}
        assert_close(trace["steps"]["landmark"][0, 0], 5.5574, 0.1)


def stage_problem(observed, stage: int, config, dtype=jnp.float64):
    """Problem and state before one stage, with nothing flat about them; energy features, photos linear in position.

    The method's sampler has a gradient rule of its own, which is the exact one only on such maps.
    """

    def cast(tree):
        return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)

    head, params = cast(tiny.tiny_head()), cast(tiny.tiny_params(config))
    size, channels, rng = tiny.SIZES.image_size, tiny.SIZES.features, np.random.default_rng(2)
    photo = np.stack([ramp(size, rng, 3, 0.5, 0.2) for _ in range(2)])
    colour = np.concatenate([photo, np.ones_like(photo[..., :1])], -1)
    observed = cast(observed).replace(photo=jnp.asarray(photo), colour=jnp.asarray(colour))
    problem, state = start(params, head, observed, WEIGHTS, config)
    maps = tuple(jnp.asarray(np.stack([ramp(side, rng, channels, 0.0, 1.0) for _ in range(2)])) for side in (8, 16, 32))
    texels = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), state.rig.weights)
    weights = texels if stage else state.rig.weights
    state = state.replace(
        rig=state.rig.replace(weights=weights),
        whole=state.whole.replace(weights=weights),
        expression=jnp.asarray(0.3 * rng.normal(size=state.expression.shape)),
    )
    return dataclasses.replace(problem, pyramids=dataclasses.replace(problem.pyramids, energy=maps)), state


def ramp(size: int, rng, channels: int, middle: float, swing: float) -> np.ndarray:
    """(S, S, C) linear in position."""
    v, u = np.mgrid[:size, :size][..., None] / (size - 1) - 0.5
    return middle + swing * (u * rng.uniform(-1, 1, channels) + v * rng.uniform(-1, 1, channels))


@pytest.fixture
def nothing_detached(monkeypatch):
    """Where the method stops gradients, they flow: what is left is the plain derivative of the program."""
    monkeypatch.setattr(jax.lax, "stop_gradient", lambda x: x)


class TestGradients:
    @pytest.mark.usefixtures("nothing_detached")
    @pytest.mark.parametrize("stage", [pytest.param(n, marks=SLOW if n < 2 else THOROUGH) for n in range(3)])
    def test_a_stage_agrees_with_finite_differences(self, stage, observed, rng):
        config = tiny.changed(detach=False, geometry_from_colour=True, steps=2)
        with jax.enable_x64(True):
            problem, state = stage_problem(observed, stage, config)
            stages = problem.params["stages"]

            def values(params, pose, expression):
                own = {**problem.params, "stages": (*stages[:stage], params, *stages[stage + 1 :])}
                first = state.replace(pose=pose, expression=expression)
                end, trace = run_stage(dataclasses.replace(problem, params=own), stage, config, see_all, first)
                return trace["stages"]["projected"], trace["stages"]["albedo"], end.pose, end.expression

            tiny.check_slopes(values, (stages[stage], state.pose, state.expression), rng)

    @SLOW
    @pytest.mark.usefixtures("nothing_detached")
    def test_all_nine_steps_agree_with_finite_differences(self, observed, rng):
        """Without the feature energy, whose sampler has its own rule, and on photos that are linear in position."""
        config = tiny.changed(detach=False, geometry_from_colour=True, energies=("landmark", "photometric"))
        with jax.enable_x64(True):
            problem, _ = stage_problem(observed, 0, config)

            def values(params):
                end, trace = solve_stages(params, problem.head, problem.observed, problem.weights, config, see=see_all)
                return trace["stages"]["projected"], trace["steps"]["x"].pose, end.pose, end.expression

            tiny.check_slopes(values, (problem.params,), rng)

    @pytest.mark.parametrize(
        "config",
        [pytest.param(LINEAR, marks=THOROUGH), pytest.param(tiny.CONFIG, marks=SLOW)],
        ids=["linear", "all"],
    )
    def test_reverse_mode_through_nine_steps_is_the_same_with_checkpoints(self, config, observed):
        head, params = tiny.tiny_head(), tiny.tiny_params(config)

        @functools.partial(jax.jit, static_argnums=1)
        def slope(params, config):
            def loss(params):
                _, trace = solve_stages(params, head, observed, WEIGHTS, config, see=see_all)
                return jnp.mean(trace["stages"]["projected"] ** 2) + jnp.mean(trace["stages"]["neutral"] ** 2) * 1e-8

            return jax.grad(loss)(params)

        kept = slope(params, config)
        assert is_finite(kept)
        for name in ("rgb", "energy_fpn"):
            assert any(x.any() for x in jax.tree.leaves(kept[name])), "through the gradient: second order"
        for stage in kept["stages"]:
            assert all(x.any() for x in jax.tree.leaves(stage["step"]))
            decoders = [stage[name] for name in ("identity", "expression", "identity_uv", "expression_uv")]
            assert all(x.any() for x in jax.tree.leaves(decoders)) != config.linear_rig
        assert_close(slope(params, dataclasses.replace(config, checkpoint=True)), kept, 1e-3)

    @THOROUGH
    @pytest.mark.parametrize("detach", [True, False])
    def test_detaching_stops_what_flows_between_stages(self, detach, observed):
        config = dataclasses.replace(LINEAR, detach=detach)
        problem, state = start(tiny.tiny_params(config), tiny.tiny_head(), observed, WEIGHTS, config)

        @jax.jit
        def slope(pose, neutral):
            first = state.replace(pose=pose, rig=state.rig.replace(neutral=neutral))
            return jnp.sum(run_stage(problem, 1, config, see_all, first)[1]["stages"]["projected"] ** 2)

        found = jax.grad(slope, (0, 1))(state.pose, state.rig.neutral)
        assert [bool(x.any()) for x in found] == [not detach] * 2

    @THOROUGH
    @pytest.mark.parametrize("detach", [True, False])
    def test_detaching_stops_what_flows_through_the_statistics(self, detach, observed):
        config = dataclasses.replace(LINEAR, detach=detach)
        problem, state = start(tiny.tiny_params(config), tiny.tiny_head(), observed, WEIGHTS, config)

        @jax.jit
        def slope(pose):
            def exponents(pose):
                found = measured(problem, state, pose, config)
                return jnp.sum(step_exponents(problem.params["stages"][0], 0, found, jnp.ones(2), config))

            return jax.grad(exponents)(pose)

        assert slope(state.pose).any() != detach


def measured(problem, state, pose, config, stage: int = 0):
    """The energies of the state's rig at another pose."""
    posed = place(problem, state.rig, stage, pose, state.expression, state.inverse_distance, config)
    features, head = problem.pyramids.energy[stage], problem.head
    return measure(posed, state.light, state.seen, features, problem.observed, head, problem.weights, config)


@pytest.fixture(scope="module")
def beginning(observed):
    """Problem and state before the first stage, without networks that decode."""
    return start(tiny.tiny_params(LINEAR), tiny.tiny_head(), observed, WEIGHTS, LINEAR)


@THOROUGH
class TestAblations:
    @pytest.mark.parametrize("without", ["feature", "landmark", "photometric"])
    def test_an_energy_left_out_is_zero_and_so_are_its_statistics(self, without, beginning):
        others = tuple(name for name in LINEAR.energies if name != without)
        problem, state = beginning

        @functools.partial(jax.jit, static_argnums=1)
        def run(pose, config):
            return measured(problem, state, pose, config)

        whole, less = run(state.pose, LINEAR), run(state.pose, dataclasses.replace(LINEAR, energies=others))
        assert less.terms[without] == 0
        assert not less.residual[without].any()
        assert whole.residual[without].any()
        assert {name: less.terms[name] for name in others} == {name: whole.terms[name] for name in others}
        weighted = getattr(WEIGHTS, without) * whole.terms[without]
        np.testing.assert_allclose(less.total, whole.total - weighted, rtol=1e-4, atol=1e-6)
        assert weighted > 0

    def test_fixed_steps_have_the_sizes_of_the_biases(self, observed):
        _, trace = solve(observed, dataclasses.replace(LINEAR, update="fixed"), see_all)
        assert not trace["steps"]["exponent"].any()
        wanted = np.broadcast_to(10.0 ** np.array(LINEAR.step_bias, float)[:, None], (3, 3, 5))
        np.testing.assert_allclose(trace["steps"]["size"], wanted, rtol=1e-5)

    @pytest.mark.parametrize("dynamic", [True, False])
    def test_only_a_dynamic_albedo_differs_between_views(self, dynamic, observed, rng):
        config = tiny.changed(dynamic_albedo=dynamic)
        head, params = tiny.tiny_head(), tiny.tiny_params(config)
        problem, state = start(params, head, observed, WEIGHTS, config)
        assert (state.rig.weights.albedo_texels is None) != dynamic
        weights = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), state.rig.weights)
        expression = jnp.asarray(rng.normal(size=state.expression.shape), jnp.float32)
        albedo = place(
            problem, state.rig.replace(weights=weights), 2, state.pose, expression, state.inverse_distance, config
        ).albedo
        assert (albedo[0] != albedo[1]).any() == dynamic
        with pytest.raises(ValueError, match="stages/2/albedo/out"):
            check_params(params, tiny.changed(dynamic_albedo=not dynamic))

    def test_a_linear_rig_lies_in_the_span_of_its_bases(self, linear):
        state, trace = linear
        head = tiny.tiny_head()
        used = head.identity_basis[: tiny.SIZES.identity_code]
        assert_close(state.rig.neutral, head.mean + jnp.tensordot(state.rig.identity, used, 1), 1e-6)
        wanted = state.rig.neutral[None] + jnp.tensordot(state.expression, head.expression_basis[:4], 1)
        assert_close(trace["stages"]["vertices"][-1], wanted, 1e-6)
        assert np.ptp(trace["stages"]["albedo"][-1], axis=0).max() == 0
        assert state.rig.identity.any()
        assert state.expression.any()

    @pytest.mark.parametrize("moves", [True, False])
    def test_colours_move_geometry_only_where_asked(self, moves, beginning):
        problem, state = beginning
        config = dataclasses.replace(LINEAR, geometry_from_colour=moves)

        @jax.jit
        def slope(pose):
            return jax.grad(lambda pose: measured(problem, state, pose, config).terms["photometric"])(pose)

        found = slope(state.pose)
        assert np.isfinite(found).all()
        assert found.all() if moves else not found.any()

    def test_the_coarse_mesh_is_solved_and_the_whole_is_decoded(self, observed, linear):
        state, trace = solve(observed, dataclasses.replace(LINEAR, coarse=True), see_all)
        head = tiny.tiny_head()
        few = thin(head)
        assert trace["stages"]["projected"].shape == (3, 2, few.mean.shape[0], 3)
        assert state.whole.neutral.shape == head.mean.shape
        count = head.n_coarse
        assert_close(state.whole.neutral[:count], state.rig.neutral[:count], 1e-6)
        assert_close(state.whole.identity, state.rig.identity, 1e-6)
        _, fine = linear
        assert_close(trace["steps"]["landmark"][0, 0], fine["steps"]["landmark"][0, 0], 1e-5)
        assert_close(trace["stages"]["landmarks"], fine["stages"]["landmarks"], 0.02)

    @pytest.mark.parametrize("visibility", ["step", "stage"])
    def test_visibility_is_looked_up_at_every_step_or_once_a_stage(self, visibility, observed, linear):
        start = to_image(linear[1]["start"]["projected"], 64, 64)

        def see(vertices, faces, size):
            """Nothing is seen once the head has moved."""
            there = jnp.max(jnp.abs(vertices - start)) < 1e-3
            return jnp.broadcast_to(there, vertices.shape[:2])

        config = dataclasses.replace(LINEAR, visibility=visibility, stages=1, step_bias=((-3.0,) * 5,) * 3)
        _, trace = solve(observed, config, see)
        seen = trace["steps"]["photometric"][0] > 0
        assert seen.tolist() == ([True, False, False] if visibility == "step" else [True, True, True])

    def test_dense_landmarks_are_fitted_where_asked(self, rng):
        head = tiny.tiny_head()
        observed = tiny.observe(head, rng, landmarks="dense")
        state, trace = solve(observed, dataclasses.replace(LINEAR, landmarks="dense"), see_all)
        assert trace["stages"]["landmarks"].shape == (3, 2, 20, 2)
        assert trace["steps"]["landmark"][-1, -1] < trace["steps"]["landmark"][0, 0]
        assert is_finite((state, trace))

"""Rig decoders: one contract for every stage and kind, gradients, what zero means; the thin head; the frozen rig."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from jax.test_util import check_grads

import facerig_jax
from facerig_jax.head.coarse import thin
from facerig_jax.head.model import landmark_positions, vertices
from facerig_jax.inorig.decode import IDENTITY_MM, RigCode, decode, first_rig
from facerig_jax.inorig.freeze import freeze
from facerig_jax.inorig.rig_parts import WEIGHT_RANGE
from facerig_jax.inorig.space import RigSpace
from facerig_jax.rig.neural import (
    blend_albedo,
    displace,
    linearize,
    mode_weights,
    neural_mesh,
    shade_albedo,
    texel_networks,
)
from facerig_jax.types import RigWeights

SIZES = tiny.SIZES
STATIC, LINEAR = tiny.changed(dynamic_albedo=False), tiny.changed(linear_rig=True)
NAMED = tiny.changed(named_codes=True, expression_gain=0.5)
CASES = {
    "first stage": (0, tiny.CONFIG),
    "second stage": (1, tiny.CONFIG),
    "last stage, dynamic albedo": (2, tiny.CONFIG),
    "last stage, static albedo": (2, STATIC),
    "first stage, named codes": (0, NAMED),
    "linear rig": (1, LINEAR),
}
cases = pytest.mark.parametrize(("stage", "config"), list(CASES.values()), ids=list(CASES))


def as_dtype(tree, dtype):
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def random_code(rng, dtype=jnp.float32) -> RigCode:
    lengths = (SIZES.identity_code, SIZES.expression_code, SIZES.albedo_code)
    return RigCode(*(jnp.asarray(rng.normal(size=n), dtype) for n in lengths))


def random_space(rng, stage: int, dtype=jnp.float32) -> RigSpace:
    side, albedo_side, n = SIZES.uv_sizes[stage], SIZES.albedo_uv_sizes[stage], SIZES.uv_width
    expression = (16 * n,) if stage == 0 else (side, side, n)
    shapes = ((side, side, n), expression, (albedo_side, albedo_side, SIZES.albedo_width))
    return RigSpace(*(jnp.asarray(rng.uniform(0, 1, shape), dtype) for shape in shapes))


@functools.cache
def compiled(stage: int, config):
    """decode(space, code, before, params, head) of one stage as one program."""
    return jax.jit(lambda space, code, before, params, head: decode(params, stage, space, code, before, head, config))


def chain(rng, stage: int, config, dtype=jnp.float32):
    """space, code, before, params and head of a stage, on top of the stages before it."""
    head, params = as_dtype((tiny.tiny_head(), tiny.tiny_params(config)["stages"]), dtype)
    rig = first_rig(head, config)
    for number in range(stage):
        rig = compiled(number, config)(
            random_space(rng, number, dtype), random_code(rng, dtype), rig, params[number], head
        )
    return random_space(rng, stage, dtype), random_code(rng, dtype), rig, params[stage], head


def whole_rig(rng, config=tiny.CONFIG):
    """A decoded rig after all stages, frozen."""
    rig = compiled(2, config)(*chain(rng, 2, config))
    return freeze(rig, tiny.tiny_params(config), tiny.tiny_head(), config)


@cases
class TestContractOfEveryDecoder:
    def test_shapes_and_precision_are_kept(self, stage, config, rng):
        inputs = chain(rng, stage, config)
        out = compiled(stage, config)(*inputs)
        before = inputs[2]
        assert jax.tree.structure(out) == jax.tree.structure(before)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), out) == jax.tree.map(lambda x: (x.shape, x.dtype), before)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(out))
        assert (out.neutral != before.neutral).any()

    def test_jit_agrees_with_eager(self, stage, config, rng):
        space, code, before, params, head = chain(rng, stage, config)
        eager = decode(params, stage, space, code, before, head, config)
        jitted = compiled(stage, config)(space, code, before, params, head)
        for a, b in zip(jax.tree.leaves(eager), jax.tree.leaves(jitted), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5 * (1e-6 + np.max(np.abs(a))))

    def test_vmap_over_subjects_is_a_loop(self, stage, config, rng):
        space, code, before, params, head = chain(rng, stage, config)
        twice = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), (space, code))
        run = compiled(stage, config)
        batched = jax.jit(jax.vmap(run, (0, 0, None, None, None)))(*twice, before, params, head)
        for number in range(2):
            single = run(*jax.tree.map(lambda x, number=number: x[number], twice), before, params, head)
            for a, b in zip(jax.tree.leaves(batched), jax.tree.leaves(single), strict=True):
                np.testing.assert_allclose(a[number], b, atol=1e-5 * (1e-6 + np.max(np.abs(b))))

    @pytest.mark.thorough
    def test_gradients_agree_with_finite_differences(self, stage, config, rng):
        with jax.enable_x64(True):
            space, code, before, params, head = chain(rng, stage, config, jnp.float64)
            run = compiled(stage, config)

            def values(code, space, decoders):
                rig = run(space, code, before, {**params, **decoders}, head)
                return rig.neutral * (head.unit_mm / IDENTITY_MM), rig.weights, rig.albedo

            decoders = {name: params[name] for name in ("identity", "expression", "albedo")}
            if config.linear_rig:
                tiny.check_slopes(lambda code: values(code, space, decoders), (code,), rng)
            else:
                tiny.check_slopes(values, (code, space, decoders), rng)


@pytest.mark.parametrize("config", [tiny.CONFIG, NAMED, STATIC], ids=["paper", "named codes", "static albedo"])
def test_what_earlier_stages_made_stays(config, rng):
    space, code, before, params, head = chain(rng, 1, config)
    after = compiled(1, config)(space, code, before, params, head)
    np.testing.assert_array_equal(after.weights.first, before.weights.first)
    np.testing.assert_array_equal(after.weights.second, before.weights.second)
    np.testing.assert_array_equal(after.weights.texels[1], 0)
    np.testing.assert_array_equal(after.identity, before.identity)
    assert np.abs(after.weights.texels[0]).max() <= WEIGHT_RANGE


def test_the_first_stage_adds_the_linear_modes_that_its_code_names(rng):
    space, code, before, params, head = chain(rng, 0, tiny.CONFIG)
    run = compiled(0, tiny.CONFIG)
    quiet = jax.tree.map(jnp.zeros_like, params["identity"])
    out = run(space, code, before, {**params, "identity": quiet}, head)
    wanted = head.mean + jnp.tensordot(code.identity, head.identity_basis[:6], 1)
    np.testing.assert_allclose(out.neutral, wanted, rtol=1e-5)
    np.testing.assert_array_equal(out.identity, code.identity)


def test_a_linear_rig_adds_identity_up_and_keeps_the_last_albedo(rng):
    space, code, before, params, head = chain(rng, 1, LINEAR)
    out = compiled(1, LINEAR)(space, code, before, params, head)
    np.testing.assert_allclose(out.identity, before.identity + code.identity, rtol=1e-6)
    span = head.identity_basis[: SIZES.identity_code].reshape(SIZES.identity_code, -1)
    moved = np.asarray(out.neutral - head.mean).reshape(-1)
    rest = moved - span.T @ np.linalg.lstsq(span.T, moved, rcond=None)[0]
    assert np.abs(rest).max() < 1e-4 * np.abs(moved).max()
    tone = head.albedo_mean + jnp.tensordot(code.albedo, head.albedo_basis, 1)
    np.testing.assert_allclose(out.albedo, jnp.clip(tone, 0, 1), atol=1e-6)
    assert not any(x.any() for x in jax.tree.leaves(out.weights))


def test_albedo_stays_in_its_range_whatever_the_change(rng):
    albedo, change = jnp.asarray(rng.uniform(0, 1, (2, 500, 3)), jnp.float32)
    change = jnp.tanh(20 * (change - 0.5))
    for _ in range(4):
        albedo = blend_albedo(albedo, change)
        assert albedo.min() >= 0
        assert albedo.max() <= 1
    np.testing.assert_allclose(blend_albedo(jnp.array([0.2, 0.2, 0.2]), jnp.array([-1.0, 0, 1])), [0, 0.2, 1])
    np.testing.assert_allclose(blend_albedo(jnp.array([0.2, 0.2]), jnp.array([-0.5, 0.5])), [0.1, 0.6], rtol=1e-6)


def random_weights(rng, dtype=np.float64) -> RigWeights:
    """Weights of a whole tiny rig within their range."""
    k, n, gate = SIZES.codes, SIZES.uv_width, SIZES.gate
    shapes = [(4, k), (4, 4), (8, 8, gate * (k + n)), (16, 16, gate * (k + n)), (16, 16, gate * (k + n))]
    first, second, coarse, fine, tone = (jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)
    return RigWeights(first, second, (coarse, fine), tone)


def motion_inputs(rng, dtype=jnp.float64):
    """basis, weights, outputs, expression, uv and the albedo's output of `displace` and `shade_albedo`."""
    head, stages = as_dtype((tiny.tiny_head(), tiny.tiny_params()["stages"]), dtype)
    outputs = tuple(stage["expression_out"] for stage in stages[1:])
    expression = jnp.asarray(rng.normal(size=(2, SIZES.codes)), dtype)
    return head.expression_basis[:4], random_weights(rng, dtype), outputs, expression, head.uv, stages[2]["albedo_out"]


class TestGradientsOfEveryFunction:
    """Against finite differences in float64."""

    @pytest.fixture(autouse=True)
    def _double(self):
        with jax.enable_x64(True):
            yield

    def test_blend_albedo(self, rng):
        albedo, change = jnp.asarray(rng.uniform(0.1, 0.9, (5, 3))), jnp.asarray(rng.uniform(0.1, 1, (5, 3)))
        for sign in (-1, 1):
            check_grads(blend_albedo, (albedo, sign * change), order=2, modes=("fwd", "rev"), rtol=1e-5)

    @pytest.mark.parametrize("named", [False, True])
    def test_mode_weights(self, named, rng):
        weights, expression = random_weights(rng), jnp.asarray(rng.normal(size=(2, 4)))
        function = jax.jit(lambda a, b, x: mode_weights(weights.replace(first=a, second=b), x, named, 3.0))
        check_grads(function, (weights.first, weights.second, expression), order=2, modes=("rev",), rtol=1e-5)

    def test_texel_networks(self, rng):
        texels, expression = random_weights(rng).texels[0], jnp.asarray(rng.normal(size=(2, 4)))
        function = jax.jit(lambda texels, expression: texel_networks(texels, expression, SIZES.uv_width))
        check_grads(function, (texels, expression), order=2, modes=("rev",), rtol=1e-5)

    def test_displace(self, rng):
        basis, weights, outputs, expression, uv, _ = motion_inputs(rng)

        def function(weights, outputs, expression):
            return displace(basis, weights, outputs, expression, uv, unit_mm=1e-3, named_codes=False, gain=3.0)

        tiny.check_slopes(function, (weights.replace(albedo_texels=None), outputs, expression), rng)

    def test_shade_albedo(self, rng):
        _, weights, _, expression, uv, output = motion_inputs(rng)
        albedo = jnp.asarray(rng.uniform(0.1, 0.9, (uv.shape[0], 3)))

        def function(albedo, weights, output, expression):
            return shade_albedo(albedo, weights, output, expression, uv)

        tiny.check_slopes(function, (albedo, weights, output, expression), rng)


class TestMotion:
    def run(self, weights, expression, rng, outputs=None):
        basis, _, usual, _, uv, _ = motion_inputs(rng, jnp.float32)
        options = {"unit_mm": 1e-3, "named_codes": False, "gain": 3.0}
        return displace(basis, weights, usual if outputs is None else outputs, expression, uv, **options)

    def test_zero_code_moves_nothing(self, rng):
        assert not self.run(random_weights(rng, jnp.float32), jnp.zeros((2, 4)), rng).any()

    def test_zero_weights_move_nothing(self, rng):
        weights = jax.tree.map(jnp.zeros_like, random_weights(rng, jnp.float32))
        assert not self.run(weights, jnp.ones((2, 4)), rng).any()

    def test_stages_add_up_and_views_do_not_mix(self, rng):
        weights, codes = random_weights(rng, jnp.float32), jnp.asarray(rng.normal(size=(2, 4)), jnp.float32)
        _, _, outputs, _, _, _ = motion_inputs(rng, jnp.float32)
        whole = self.run(weights, codes, rng)
        still = weights.replace(first=jnp.zeros_like(weights.first))
        parts = self.run(weights, codes, rng, ()) + self.run(still, codes, rng)
        np.testing.assert_allclose(whole, parts, atol=1e-5 * np.abs(whole).max())
        np.testing.assert_allclose(self.run(weights, codes[1:], rng)[0], whole[1], atol=1e-5 * np.abs(whole).max())
        assert (self.run(weights, codes, rng, outputs[:1]) != whole).any()

    def test_named_codes_are_the_modes_weights_where_the_network_gives_nothing(self, rng):
        weights = jax.tree.map(jnp.zeros_like, random_weights(rng, jnp.float32))
        codes = jnp.asarray(rng.normal(size=(2, 4)), jnp.float32)
        np.testing.assert_array_equal(mode_weights(weights, codes, True, 0.5), codes)
        assert np.abs(mode_weights(random_weights(rng, jnp.float32), codes, True, 0.5) - codes).max() <= 0.5

    def test_albedo_without_a_dynamic_map_is_the_same_in_all_views(self, rng):
        _, weights, _, expression, uv, output = motion_inputs(rng, jnp.float32)
        albedo = jnp.asarray(rng.uniform(0, 1, (uv.shape[0], 3)), jnp.float32)
        for absent in ((weights.replace(albedo_texels=None), output), (weights, None)):
            still = shade_albedo(albedo, *absent, expression, uv)
            np.testing.assert_array_equal(still, np.broadcast_to(albedo, (2, *albedo.shape)))
        moved = shade_albedo(albedo, weights, output, expression, uv)
        assert (moved[0] != moved[1]).any()
        assert moved.min() >= 0
        assert moved.max() <= 1
        np.testing.assert_allclose(shade_albedo(albedo, weights, output, 0 * expression, uv)[0], albedo, atol=1e-6)


@pytest.fixture(scope="module", params=["tiny", "embedded"])
def any_head(request):
    return tiny.tiny_head() if request.param == "tiny" else jax.tree.map(jnp.asarray, facerig_jax.load_head())


class TestThinHead:
    def test_landmarks_of_any_code_stay_where_they_were(self, any_head, rng):
        coarse = thin(any_head)
        identity, expression = (
            jnp.asarray(rng.normal(size=basis.shape[0]), jnp.float32)
            for basis in (any_head.identity_basis, any_head.expression_basis)
        )
        whole, few = (vertices(head, identity, expression) for head in (any_head, coarse))
        for name in ("landmarks68", "landmarks_dense"):
            before, after = getattr(any_head, name), getattr(coarse, name)
            np.testing.assert_array_equal(landmark_positions(after, few), landmark_positions(before, whole))
            np.testing.assert_array_equal(after.weight, before.weight)

    def test_the_coarse_mesh_is_the_same_surface(self, any_head):
        coarse = thin(any_head)
        np.testing.assert_array_equal(coarse.mean[: any_head.n_coarse], any_head.mean[: any_head.n_coarse])
        assert np.array_equal(np.unique(coarse.faces), np.arange(any_head.n_coarse)), "landmarks carry no triangle"
        assert not coarse.face_mask[any_head.n_coarse :].any()
        np.testing.assert_allclose(area(coarse), area(any_head), rtol=0.03)
        np.testing.assert_allclose(normal_sum(coarse), normal_sum(any_head), atol=0.01 * area(any_head))

    def test_every_per_vertex_array_has_the_new_length(self, any_head):
        coarse = thin(any_head)
        count = coarse.mean.shape[0]
        assert count == any_head.n_coarse + 3 * (68 + any_head.landmarks_dense.triangle.shape[0])
        for name in ("uv", "albedo_mean", "face_mask", "part"):
            assert getattr(coarse, name).shape[0] == count
        for name in ("identity_basis", "expression_basis", "albedo_basis"):
            assert getattr(coarse, name).shape[1] == count

    def test_a_head_without_a_coarse_mesh_stays_as_it_is(self, any_head):
        coarse = thin(any_head)
        assert thin(coarse) is coarse


def crosses(head):
    corners = np.asarray(head.mean, np.float64)[np.asarray(head.faces)]
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2


def area(head) -> float:
    return np.linalg.norm(crosses(head), axis=1).sum()


def normal_sum(head) -> np.ndarray:
    return crosses(head).sum(0)


class TestFrozenRig:
    @pytest.mark.parametrize("config", [tiny.CONFIG, STATIC, LINEAR, NAMED], ids=["paper", "static", "linear", "named"])
    def test_it_is_still_without_expression_and_in_range_with_it(self, config, rng):
        rig = whole_rig(rng, config)
        assert rig.n_codes == SIZES.codes == len(rig.code_names)
        still, _ = neural_mesh(rig, jnp.zeros((1, 4)))
        np.testing.assert_allclose(still[0], rig.neutral, atol=1e-5 * np.abs(rig.neutral).max())
        moved, albedo = neural_mesh(rig, jnp.asarray(rng.normal(size=(3, 4)), jnp.float32))
        assert np.isfinite(moved).all()
        assert (moved[0] != moved[1]).any()
        assert albedo.min() >= 0
        assert albedo.max() <= 1
        assert (config is tiny.CONFIG or config is NAMED) == bool((albedo[0] != albedo[1]).any())

    def test_applying_it_commutes_with_vmap_and_has_finite_gradients(self, rng):
        rig = whole_rig(rng)
        codes = jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)
        apply = jax.jit(facerig_jax.apply_rig)
        batched, looped = jax.jit(jax.vmap(apply, (None, 0)))(rig, codes), [apply(rig, code) for code in codes]
        direct = apply(rig, codes[None])
        for number, name in enumerate(("vertices", "albedo")):
            wanted = np.stack([pair[number] for pair in looped])
            tolerance = 1e-5 * np.abs(wanted).max()
            np.testing.assert_allclose(batched[number], wanted, atol=tolerance, err_msg=name)
            np.testing.assert_allclose(direct[number][0], wanted, atol=tolerance, err_msg=name)
        slope = jax.jit(jax.grad(lambda code: sum(jnp.sum(x) for x in apply(rig, code))))(codes[0])
        assert np.isfinite(slope).all()
        assert slope.all()

    def test_its_gradient_agrees_with_finite_differences(self, rng):
        rig = whole_rig(rng)
        with jax.enable_x64(True):
            rig = as_dtype(rig, jnp.float64)
            code = jnp.asarray(rng.normal(size=4))
            tiny.check_slopes(lambda code: facerig_jax.apply_rig(rig, code), (code,), rng)

    def test_its_linear_rig_is_exact_at_single_codes(self, rng):
        rig = whole_rig(rng)
        linear = linearize(rig)
        assert linear.neural is None
        assert linear.expression_basis.shape == (4, *rig.neutral.shape)
        ones = jnp.concatenate([jnp.eye(4), jnp.zeros((1, 4))])
        wanted, _ = neural_mesh(rig, ones)
        found, _ = facerig_jax.apply_rig(linear, ones)
        np.testing.assert_allclose(found, wanted, atol=2e-6 * np.abs(wanted).max())
        both = jnp.ones(4)
        assert np.abs(facerig_jax.apply_rig(linear, both)[0] - facerig_jax.apply_rig(rig, both)[0]).max() > 1
        assert linearize(linear) is linear

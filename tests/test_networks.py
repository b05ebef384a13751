"""Every network against literals and its own contract; sizes, initialisation and the import of published weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.dome import recipe
from jax.test_util import check_grads

from facerig_jax.inorig.config import BASE, PAPER
from facerig_jax.inorig.import_published import UNUSED, import_published, published_key
from facerig_jax.inorig.params import (
    check_sizes,
    feature_maps,
    image_modules,
    normalize_images,
    parameter_shapes,
    stage_modules,
)
from facerig_jax.inorig.rig_parts import ViewEncoder
from facerig_jax.networks import layers
from facerig_jax.networks.tree import apply, count_parameters
from facerig_jax.weights import check_params, init_params


def by_path(tree) -> dict:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


class TestSizes:
    def test_the_paper_preset_has_the_published_number_of_parameters(self):
        assert count_parameters(parameter_shapes(PAPER)) == 54_727_093

    def test_the_base_preset_is_small(self):
        count = count_parameters(parameter_shapes(BASE))
        assert count <= 6_000_000
        assert 4 * count <= 25e6, "bytes in float32"

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"norm": "layer"}, "networks.norm: 'layer' is not one of 'batch', 'group'"),
            ({"dtype": "float16"}, "networks.dtype: 'float16'.*Did you mean 'bfloat16'"),
            ({"update": "learnt"}, "update: 'learnt'.*Did you mean 'learned'"),
            ({"landmarks": "86"}, "landmarks: '86'"),
            ({"visibility": "steps"}, "visibility: 'steps'.*Did you mean 'step'"),
            ({"energies": ("features",)}, "energies: 'features'.*Did you mean 'feature'"),
            ({"image_size": 100}, "image_size: a multiple of 64 is needed, got 100"),
            ({"stages": 4}, "stages, steps: 1 to 3 .* got 4 and 3"),
            ({"steps": 0}, "stages, steps: .* got 3 and 0"),
            ({"named_codes": True, "codes": 3}, r"named codes are one per mode \(4\), got 3"),
            ({"uv_sizes": (8, 10, 16)}, "uv_sizes: multiples of 4 are needed"),
            ({"albedo_uv_sizes": (8, 10, 16)}, "uv_sizes: multiples of 4 are needed"),
        ],
    )
    def test_sizes_that_cannot_be_built_are_refused_in_words(self, changes, message):
        with pytest.raises(ValueError, match=message):
            check_sizes(tiny.changed(**changes))
        check_sizes(tiny.CONFIG)


@pytest.fixture(scope="module")
def numbered():
    shapes = recipe.state_dict_shapes()
    return {key: np.broadcast_to(np.float32(number), shape) for number, (key, shape) in enumerate(shapes)}


class TestImport:
    """A state dict whose every entry is filled with a number of its own."""

    def test_every_key_is_used_exactly_once(self, numbered):
        wanted = sorted(key for key in numbered if not UNUSED.match(key))
        assert sorted(published_key(path) for path in by_path(parameter_shapes(PAPER))) == wanted
        loaded = {path: np.asarray(leaf) for path, leaf in by_path(import_published(numbered)).items()}
        keys = list(numbered)
        assert {path: keys[int(leaf.ravel()[0])] for path, leaf in loaded.items()} == {
            path: published_key(path) for path in loaded
        }
        assert all(np.ptp(leaf) == 0 for leaf in loaded.values())

    def test_layouts_are_turned(self, numbered):
        def numbers(key):
            return np.arange(numbered[key].size, dtype=np.float32).reshape(numbered[key].shape)

        conv, linear = "opt_layer.rgb_net.block0.0.0.weight", "regressor.pose_fc.3.weight"
        loaded = import_published({**numbered, conv: numbers(conv), linear: numbers(linear)})
        np.testing.assert_array_equal(loaded["rgb"]["conv7"]["conv"]["kernel"], numbers(conv).transpose(2, 3, 1, 0))
        np.testing.assert_array_equal(loaded["pose"]["out"]["kernel"], numbers(linear).T)

    def test_a_wrong_state_dict_is_refused_by_its_key(self, numbered):
        key = "opt_layer.step_net2.net.8.bias"
        missing = {other: x for other, x in numbered.items() if other != key}
        with pytest.raises(ValueError, match=f"{key} is missing"):
            import_published(missing)
        with pytest.raises(ValueError, match="opt_layer.extra.weight is not part of the network"):
            import_published({**numbered, "opt_layer.extra.weight": np.zeros(3)})
        with pytest.raises(ValueError, match=rf"{key} has shape \(5,\), expected \(4,\)"):
            import_published({**numbered, key: np.zeros(5)})
        conv = "opt_layer.rgb_net.block0.0.0.weight"
        with pytest.raises(ValueError, match=rf"{conv} has shape \(7, 7, 3, 16\), expected \(16, 3, 7, 7\)"):
            import_published({**numbered, conv: np.zeros((7, 7, 3, 16))})

    def test_what_plays_no_part_is_ignored(self, numbered):
        more = {"opt_layer.fpn.layer2.out_conv.bn1.num_batches_tracked": 7, "opt_layer.anchor_ep_norms": np.zeros(9)}
        assert count_parameters(import_published({**numbered, **more})) == 54_727_093

    def test_other_precisions_are_kept_or_converted(self, numbered):
        leaf = import_published(numbered, dtype=jnp.bfloat16)["pose"]["out"]["bias"]
        assert leaf.dtype == jnp.bfloat16


def plain_conv(x, kernel, dilation):
    reach = dilation * (kernel.shape[0] - 1) // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        [(reach, reach)] * 2,
        rhs_dilation=(dilation,) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


class TestSameConv:
    @pytest.fixture(autouse=True)
    def _double(self):
        with jax.enable_x64(True):
            yield

    def inputs(self, rng, size):
        return jnp.asarray(rng.normal(size=(2, 9, 7, 3))), jnp.asarray(rng.normal(size=(size, size, 3, 2)))

    @pytest.mark.parametrize(
        ("size", "dilation"),
        [(1, 1), (3, 1), (3, 2), (3, 4), (7, 1)]
        + [pytest.param(*case, marks=pytest.mark.slow) for case in ((1, 2), (1, 4), (7, 2), (7, 4))],
    )
    def test_values_and_both_orders_of_gradients_are_those_of_xla(self, size, dilation, rng):
        x, kernel = self.inputs(rng, size)
        direction = (jnp.asarray(rng.normal(size=x.shape)), jnp.asarray(rng.normal(size=kernel.shape)))

        @functools.partial(jax.jit, static_argnums=0)
        def everything(conv, x, kernel):
            def loss(x, kernel):
                return jnp.sum(jnp.sin(conv(x, kernel, dilation)))

            def slope(x, kernel):
                return sum(jnp.vdot(a, b) for a, b in zip(jax.grad(loss, (0, 1))(x, kernel), direction, strict=True))

            return conv(x, kernel, dilation), jax.grad(loss, (0, 1))(x, kernel), jax.grad(slope, (0, 1))(x, kernel)

        ours, xla = (everything(conv, x, kernel) for conv in (layers.same_conv, plain_conv))
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9), ours, xla)

    @pytest.mark.parametrize(("size", "dilation"), [(1, 1), (3, 1), (3, 4)])
    def test_gradients_agree_with_finite_differences(self, size, dilation, rng):
        conv = jax.jit(lambda x, kernel: layers.same_conv(x, kernel, dilation))
        check_grads(conv, self.inputs(rng, size), order=2, modes=("rev",), rtol=1e-6)


def test_the_convolution_layer_pads_strides_and_dilates_as_stated():
    x = jnp.arange(25.0).reshape(1, 5, 5, 1)
    ones = {"kernel": jnp.ones((3, 3, 1, 1))}
    padded = np.pad(np.arange(25.0).reshape(5, 5), 4)

    def sum_around(row, column, reach):
        return padded[row + 4 - reach : row + 5 + reach : reach, column + 4 - reach : column + 5 + reach : reach].sum()

    for stride, dilation in ((1, 1), (2, 1), (1, 2), (1, 4)):
        out = layers.conv(1, 3, stride, dilation).apply({"params": ones}, x)[0, ..., 0]
        wanted = [[sum_around(v, u, dilation) for u in range(0, 5, stride)] for v in range(0, 5, stride)]
        np.testing.assert_allclose(out, wanted, rtol=1e-6)


def test_frozen_batch_norm_is_the_affine_map_of_its_statistics():
    params = {
        name: jnp.array(x)
        for name, x in {"scale": [2.0, 1], "bias": [0.5, 0], "mean": [1.0, 0], "var": [4.0, 1]}.items()
    }
    x = jnp.array([[[[3.0, 5.0]]]])
    out = layers.FrozenBatchNorm().apply({"params": params}, x)
    np.testing.assert_allclose(out[0, 0, 0], [2 * (3 - 1) / np.sqrt(4 + 1e-5) + 0.5, 5 / np.sqrt(1 + 1e-5)], rtol=1e-6)


def test_group_norm_normalises_four_groups_of_neighbouring_channels(rng):
    x = rng.normal(3, 2, (2, 3, 5, 8)).astype(np.float32)
    scale, bias = rng.normal(size=(2, 8)).astype(np.float32)
    grouped = x.reshape(2, 15, 4, 2)
    mean, variance = (f(grouped, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    wanted = ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape) * scale + bias
    out = layers.norm("group", "norm").apply({"params": {"scale": scale, "bias": bias}}, x)
    np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-5)


def test_upsampling_repeats_pixels():
    x = jnp.array([[1.0, 2.0], [3.0, 4.0]])[None, ..., None]
    wanted = [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    np.testing.assert_array_equal(layers.upsample(x)[0, ..., 0], wanted)


def test_images_are_normalised_by_imagenet():
    image = jnp.array([[[[0.485, 0.456, 0.406], [0.485 + 0.229, 0.456 - 0.224, 0.406]]]])
    np.testing.assert_allclose(normalize_images(image)[0, 0], [[0, 0, 0], [1, -1, 0]], atol=1e-6)


def test_feature_maps_halve_from_the_finest_on(rng):
    params, sizes = tiny.tiny_params(), tiny.SIZES
    images = jnp.zeros((2, 64, 64, 3))
    maps = jax.eval_shape(lambda params: feature_maps(params, images, sizes), params)
    assert [x.shape[1] for x in maps["rgb"]] == [1, 2, 4, 8, 16, 32, 64]
    assert [x.shape[1] for x in maps["albedo"]] == [4, 8, 16, 32, 64]
    for name in ("energy_fpn", "rig_fpn", "albedo_fpn"):
        assert [x.shape for x in maps[name]] == [(2, 8, 8, 4), (2, 16, 16, 4), (2, 32, 32, 4)]


GROUP_NORM = tiny.changed(norm="group")
# Place in the parameters, stage (None: sees images), settings, shapes of the inputs.
MAPS = tuple((2, size, size, width) for size, width in ((2, 8), (4, 8), (8, 8), (16, 4), (32, 4)))
UV8, UV16, UV_VIEWS = (8, 8, 4), (16, 16, 4), (2, 8, 8, 7)
NETWORKS = [
    ("rgb", None, tiny.CONFIG, [(2, 64, 64, 3)]),
    pytest.param("rgb", None, GROUP_NORM, [(2, 128, 128, 3)], marks=pytest.mark.slow),
    ("albedo", None, GROUP_NORM, [(2, 64, 64, 3)]),
    pytest.param("pose", None, tiny.CONFIG, [(2, 64, 64, 3)], marks=pytest.mark.slow),
    ("energy_fpn", None, tiny.CONFIG, [MAPS]),
    ("albedo_fpn", None, tiny.CONFIG, [MAPS[1:]]),
    ("identity_uv", 0, tiny.CONFIG, [UV_VIEWS, (2,)]),
    ("expression_vector", 0, tiny.CONFIG, [UV8]),
    ("identity", 0, tiny.CONFIG, [(6,), UV8]),
    ("expression", 0, tiny.CONFIG, [(5,), (64,)]),
    ("expression", 1, tiny.CONFIG, [(5,), UV8]),
    ("expression_out", 1, tiny.CONFIG, [(2, 8, 8, 4)]),
    ("albedo", 0, tiny.CONFIG, [(4,), UV8]),
    ("albedo", 2, tiny.CONFIG, [(4,), UV16]),
    ("albedo_out", 2, tiny.CONFIG, [(2, 16, 16, 4)]),
    ("step", 0, tiny.CONFIG, [(6,)]),
    ("albedo_step", 0, tiny.CONFIG, [(3,)]),
]


@pytest.mark.parametrize(
    ("name", "stage", "config", "shapes"), NETWORKS, ids=lambda x: str(x) if isinstance(x, str | int) else ""
)
class TestContractOfEveryNetwork:
    """jit == eager (XLA's CPU compiler has got that wrong before), precision kept, bfloat16 near, gradients finite."""

    @pytest.fixture
    def network(self, name, stage, config, shapes, rng):
        module = (image_modules(config.networks) if stage is None else stage_modules(config, stage))[name]
        inputs = jax.tree.map(
            lambda shape: jnp.asarray(rng.uniform(0.1, 1, shape), jnp.float32), shapes, is_leaf=is_shape
        )
        abstract = jax.eval_shape(lambda *x: module.init(jax.random.key(0), *x)["params"], *inputs)
        return module, tiny.noise(abstract), inputs

    def test_jit_agrees_with_eager_and_bfloat16_is_near(self, network):
        module, params, inputs = network
        eager = module.apply({"params": params}, *inputs)
        jitted = apply(module, params, *inputs)
        half = apply(module, params, *inputs, dtype="bfloat16")
        for a, b, c in zip(*(jax.tree.leaves(x) for x in (eager, jitted, half)), strict=True):
            assert a.dtype == b.dtype == c.dtype == jnp.float32
            scale = np.max(np.abs(a)) + 1e-6
            np.testing.assert_allclose(b / scale, a / scale, atol=2e-5)
            np.testing.assert_allclose(c / scale, a / scale, atol=0.15)

    def test_gradients_are_finite_and_reach_every_kernel(self, network):
        module, params, inputs = network

        @jax.jit
        def gradient(params):
            return jax.grad(lambda p: sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(apply(module, p, *inputs))))(
                params
            )

        for path, slope in by_path(gradient(params)).items():
            assert np.isfinite(slope).all(), path
            assert slope.any() or not path.endswith("kernel"), path


def test_parameters_of_other_settings_are_refused_by_path():
    params = tiny.tiny_params()
    check_params(params, tiny.CONFIG)
    with pytest.raises(ValueError, match=r"params: pose/.* has shape \(.*\), these settings need None"):
        check_params(params, tiny.changed(pose_blocks=()))
    with pytest.raises(ValueError, match=r"params: stages/0/expression/hidden/kernel has shape .* need \(70, 8\)"):
        check_params(params, tiny.changed(expression_code=6))


def is_shape(x):
    return isinstance(x, tuple) and all(isinstance(size, int) for size in x)


def test_a_view_encoder_ignores_masked_views(rng):
    module = ViewEncoder(4)
    x = jnp.asarray(rng.normal(size=(3, 8, 8, 7)), jnp.float32)
    params = tiny.noise(jax.eval_shape(lambda: module.init(jax.random.key(0), x, jnp.ones(3))["params"]))
    run = jax.jit(lambda x, mask: apply(module, params, x, mask))
    wanted = run(x, jnp.array([1.0, 1, 0]))
    np.testing.assert_allclose(run(x.at[2].set(1e3), jnp.array([1.0, 1, 0])), wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(run(x[:2], jnp.ones(2)), wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(run(x[jnp.array([1, 0, 2])], jnp.array([1.0, 1, 0])), wanted, rtol=1e-5, atol=1e-5)
    assert np.abs(run(x, jnp.ones(3)) - wanted).max() > 1e-3


@pytest.fixture(scope="module")
def params():
    return by_path(init_params(jax.random.key(0), tiny.CONFIG))


class TestInitialisation:
    def test_the_last_layers_start_at_zero_as_published(self, params):
        zero = {path for path, leaf in params.items() if path.endswith("kernel") and not leaf.any()}
        wanted = {"pose/out"} | {
            f"stages/{stage}/{name}" for stage in range(3) for name in ("identity/out", "step/out", "albedo_step/out")
        }
        wanted |= {"stages/0/albedo/out", "stages/1/albedo/out", "stages/2/albedo_out/out"}
        wanted |= {f"stages/{stage}/expression_out/out" for stage in (1, 2)}
        assert zero == {f"{name}/kernel" for name in wanted}

    def test_kernels_have_about_the_stated_deviation(self, params):
        kernels = {path: x for path, x in params.items() if path.endswith("kernel") and x.any() and x.size > 400}
        assert len(kernels) > 20
        for path, x in kernels.items():
            scaled = np.asarray(x) * np.sqrt(np.prod(x.shape[:-1]))
            assert abs(scaled.std() - 1) < 0.15, path
            assert abs(scaled.mean()) < 0.15, path

    def test_norms_start_as_the_identity(self, params):
        assert all((x == 1).all() for path, x in params.items() if path.endswith(("scale", "var")))
        assert all((x == 0).all() for path, x in params.items() if path.endswith(("bias", "mean")))

    def test_named_codes_start_with_no_correction(self):
        params = by_path(init_params(jax.random.key(0), tiny.changed(named_codes=True)))
        assert not params["stages/0/expression/out/kernel"].any()
        assert params["stages/1/expression/out/kernel"].any()

    def test_two_keys_give_two_networks_and_one_key_gives_one(self, params):
        again = by_path(init_params(jax.random.key(0), tiny.CONFIG))
        other = by_path(init_params(jax.random.key(1), tiny.CONFIG))
        path = "rgb/conv7/conv/kernel"
        np.testing.assert_array_equal(again[path], params[path])
        assert (other[path] != params[path]).any()

"""All networks of the learned solver: their parameters as one tree, and the functions that apply them.

params
  pose                       initial pose (absent without `pose_blocks`)
  rgb, albedo                backbones
  energy_fpn, rig_fpn, albedo_fpn
  flow                       where the classical start looks (only with `flow`)
  stages: tuple of dicts
    identity_uv, expression_uv, albedo_uv   view encoders
    expression_vector        first stage only
    identity, expression, expression_out, albedo, albedo_out   decoders
    step, albedo_step        step-size networks
"""

from __future__ import annotations

import functools
import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from facerig_jax.checks import check_choice
from facerig_jax.config import FlowConfig, LearnedConfig, NetworkConfig
from facerig_jax.networks import rig_parts as parts
from facerig_jax.networks.backbone import Backbone, FeaturePyramid, PoseRegressor
from facerig_jax.networks.flow import GROUPS, FlowNet

# Red, green and blue of ImageNet's photos, which the backbones' inputs are normalised by.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The three numbers that a view's UV map appends to the features: the vertex's position.
N_POSITION = 3
# What the solver adds to them where it starts from a fit, see inorig.stages.find_clues.
N_CLUES = 16
# And what the flow network says to them, where there is one.
N_OFFSETS = 3
# Channels of the maps that the flow network sees, see fit.correspondences.flow_maps.
N_FLOW = 17
N_STEPS = 4
# The backbone behind each pyramid.
PYRAMIDS = {"energy_fpn": "rgb", "rig_fpn": "rgb", "albedo_fpn": "albedo"}


@struct.dataclass
class Pyramids:
    """Feature maps of the views, one tuple entry a stage, (V, h, w, C) each."""

    energy: tuple[jax.Array, ...]
    rig: tuple[jax.Array, ...]
    albedo: tuple[jax.Array, ...]


def normalize_images(images: jax.Array) -> jax.Array:
    """sRGB in [0, 1] (..., 3) -> what the backbones were trained on."""
    axes = range(images.ndim - 1)
    mean, std = (jnp.expand_dims(jnp.array(x, images.dtype), axes) for x in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


def image_modules(config: NetworkConfig) -> dict[str, nn.Module]:
    """The networks that see whole images or their maps, by their place in the parameters."""
    modules = {
        "rgb": Backbone(config.widths, config.rgb_blocks, config.norm),
        "albedo": Backbone(config.widths, config.albedo_blocks, config.norm),
    }
    modules |= {name: FeaturePyramid(config.features) for name in PYRAMIDS}
    if config.pose_blocks:
        modules["pose"] = PoseRegressor(config.widths, config.pose_blocks, config.pose_hidden, config.norm)
    return modules


def flow_module(config: FlowConfig) -> FlowNet:
    """The network of `fit.correspondences`."""
    return FlowNet(config.widths, config.place)


def stage_modules(config: LearnedConfig, stage: int) -> dict[str, nn.Module]:
    """The networks of one stage, by their place in its parameters."""
    sizes = config.networks
    n, a, k = sizes.uv_width, sizes.albedo_width, sizes.codes
    modules = {
        "identity_uv": parts.ViewEncoder(n),
        "expression_uv": parts.ViewEncoder(n),
        "albedo_uv": parts.ViewEncoder(a),
        "identity": parts.MapDecoder(n, n, 3),
        "step": parts.StepNetwork(sizes.step_hidden, N_STEPS),
        "albedo_step": parts.StepNetwork(sizes.albedo_step_hidden, 1),
    }
    if stage == 0:
        modules["expression_vector"] = parts.VectorEncoder()
        outputs = sizes.modes * (k + sizes.modes)
        modules["expression"] = parts.WeightMaker(sizes.gate_hidden, outputs)
    else:
        modules["expression"] = parts.MapDecoder(n // 4, n, sizes.gate * (k + n))
        modules["expression_out"] = parts.MapOutput()
    if stage == 2 and config.dynamic_albedo:
        modules["albedo"] = parts.MapDecoder(a // 4, a, sizes.albedo_gate * (k + a))
        modules["albedo_out"] = parts.MapOutput()
    else:
        modules["albedo"] = parts.MapDecoder(a // 4, a, 3)
    return modules


def _stage_inputs(config: LearnedConfig, stage: int) -> dict[str, tuple]:
    """Stand-in inputs of one stage's networks, of the right shapes."""
    sizes = config.networks
    side, albedo_side = sizes.uv_sizes[stage], sizes.albedo_uv_sizes[stage]
    n, a = sizes.uv_width, sizes.albedo_width
    zeros, mask = jnp.zeros, jnp.ones(1)
    seen = sizes.features + N_POSITION + (N_CLUES if config.start is not None else 0)
    seen = seen + (N_OFFSETS if config.flow is not None else 0)
    view, albedo_view = ((1, s, s, seen) for s in (side, albedo_side))
    uv, albedo_uv = zeros((side, side, n)), zeros((albedo_side, albedo_side, a))
    code = zeros(sizes.expression_code)
    return {
        "identity_uv": (zeros(view), mask),
        "expression_uv": (zeros(view), mask),
        "albedo_uv": (zeros(albedo_view), mask),
        "expression_vector": (uv,),
        "identity": (zeros(sizes.identity_code), uv),
        "expression": (code, zeros(16 * n)) if stage == 0 else (code, uv),
        "expression_out": (uv[None],),
        "albedo": (zeros(sizes.albedo_code), albedo_uv),
        "albedo_out": (albedo_uv[None],),
        "step": (zeros(sizes.features + 2),),
        "albedo_step": (zeros(3),),
    }


def init_params(key: jax.Array, config: LearnedConfig) -> dict:
    """Untrained parameters: kernels of deviation 1 / sqrt(fan in), last layers zero as published.

    One draw, cut up on the host: a compiled initialiser of 900 arrays takes 10 to 30 s to build.

    Args:
      key: random key, not traced.
      config: static settings.

    Returns:
      Nested dict of arrays, see this module's text.

    Raises:
      ValueError: a size in `config` is not allowed.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(parameter_shapes(config))
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    sizes = [math.prod(leaf.shape) for _, leaf in leaves]
    noise = np.asarray(jax.random.normal(key, (sum(sizes),), np.float32))
    noise = np.split(noise, np.cumsum(sizes)[:-1])
    values = [
        _first_value(path, leaf.shape, draw, config) for path, (_, leaf), draw in zip(paths, leaves, noise, strict=True)
    ]
    return jax.tree_util.tree_unflatten(structure, values)


def _first_value(path: str, shape: tuple[int, ...], noise: np.ndarray, config: LearnedConfig) -> jax.Array:
    kind = path.rsplit("/", 1)[-1]
    if kind in ("scale", "var"):
        return jnp.asarray(np.ones(shape, np.float32))
    if kind != "kernel" or starts_at_zero(path, config):
        return jnp.asarray(np.zeros(shape, np.float32))
    return jnp.asarray(noise.reshape(shape) / np.float32(math.prod(shape[:-1]) ** 0.5))


def starts_at_zero(path: str, config: LearnedConfig) -> bool:
    """Whether a kernel, given by its path, is zero at first (docs/method.md section 7).

    These are the layers that give displacements, albedo, step sizes and the pose. Those that make the weights of the
    small per-person networks are not: zero would stop every gradient. With named codes the first stage's are too,
    because there the code itself moves the modes.
    """
    dynamic = "stages/2/albedo/out/kernel" if config.dynamic_albedo else None
    made = re.fullmatch(r"stages/\d/expression/out/kernel", path)
    if path == dynamic or (made and not (path.startswith("stages/0") and config.networks.named_codes)):
        return False
    return path.endswith("/out/kernel")


@functools.cache
def parameter_shapes(config: LearnedConfig) -> dict:
    """The parameters as jax.ShapeDtypeStruct."""
    check_sizes(config)

    def shapes():
        size = config.networks.image_size
        image, modules = jnp.zeros((1, size, size, 3)), image_modules(config.networks)

        def first(module: nn.Module, *inputs):
            return module.init(jax.random.key(0), *inputs)["params"]

        seen = ("rgb", "albedo", "pose") if config.stages else ()
        params = {name: first(modules[name], image) for name in seen if name in modules}
        for pyramid, backbone in PYRAMIDS.items() if config.stages else ():
            maps = apply(modules[backbone], params[backbone], image)[:-1]
            params[pyramid] = first(modules[pyramid], maps)
        if config.flow is not None:
            side = config.flow.uv_size
            params["flow"] = first(flow_module(config.flow), jnp.zeros((1, side, side, N_FLOW)))
        stages = (stage_modules(config, stage) for stage in range(config.stages))
        params["stages"] = tuple(
            {name: first(module, *_stage_inputs(config, stage)[name]) for name, module in modules.items()}
            for stage, modules in enumerate(stages)
        )
        return params

    return jax.eval_shape(shapes)


def check_sizes(config: LearnedConfig) -> None:
    """Refuses settings that no network can be built for, in words."""
    sizes = config.networks
    check_choice("networks.norm", sizes.norm, ("batch", "group"))
    check_choice("networks.dtype", sizes.dtype, ("float32", "bfloat16"))
    check_choice("update", config.update, ("learned", "fixed"))
    check_choice("landmarks", config.landmarks, ("dense", "68"))
    check_choice("visibility", config.visibility, ("step", "stage"))
    for energy in config.energies:
        check_choice("energies", energy, ("feature", "landmark", "photometric"))
    if sizes.image_size % 64:
        raise ValueError(f"networks.image_size: a multiple of 64 is needed, got {sizes.image_size}.")
    if not 0 <= config.stages <= 3 or config.steps < 1:
        raise ValueError(f"stages, steps: 0 to 3 and at least 1 are allowed, got {config.stages} and {config.steps}.")
    if not config.stages and config.start is None:
        raise ValueError("stages: without any, there has to be a start.")
    if config.start is not None and not sizes.named_codes:
        raise ValueError("start: the classical solver's fit can be taken over with networks.named_codes alone.")
    if config.start is not None and config.start.crop_margin != config.crop_margin:
        raise ValueError(f"start.crop_margin: the same as crop_margin ({config.crop_margin}) is needed.")
    if config.flow is not None and config.start is None:
        raise ValueError("flow: it serves the classical solver's fit, which start has to ask for.")
    if config.flow is not None and any(width % GROUPS for width in config.flow.widths):
        raise ValueError(f"flow.widths: multiples of {GROUPS} are needed, got {config.flow.widths}.")
    if config.flow is not None and config.flow.uv_size % 2 ** len(config.flow.widths):
        raise ValueError(
            f"flow.uv_size: a multiple of {2 ** len(config.flow.widths)} is needed, got {config.flow.uv_size}."
        )
    if sizes.named_codes and sizes.codes != sizes.modes:
        raise ValueError(f"networks.codes: named codes are one per mode ({sizes.modes}), got {sizes.codes}.")
    if any(size % 4 for size in (*sizes.uv_sizes, *sizes.albedo_uv_sizes)):
        raise ValueError(f"networks.uv_sizes: multiples of 4 are needed, got {sizes.uv_sizes}.")


def check_params(params: dict, config: LearnedConfig) -> None:
    """Refuses parameters that do not belong to the settings.

    Raises:
      ValueError: naming the first one that is missing, left over or of the wrong shape.
    """
    ours, theirs = (
        {
            jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        for tree in (parameter_shapes(config), params)
    )
    for path in sorted(set(ours) | set(theirs)):
        if ours.get(path) != theirs.get(path):
            raise ValueError(f"params: {path} has shape {theirs.get(path)}, these settings need {ours.get(path)}.")


@functools.partial(jax.jit, static_argnums=0, static_argnames="dtype")
def apply(module: nn.Module, params: dict, *inputs, dtype: str = "float32"):
    """A network's output, in the precision of its inputs; 'bfloat16' computes inside in bfloat16.

    Compiled for its own sake: a network that is used several times is traced once.
    """
    if dtype == "float32":
        return module.apply({"params": params}, *inputs)
    half = jax.tree.map(lambda x: x.astype(dtype), (params, inputs))
    out = module.apply({"params": half[0]}, *half[1])
    return jax.tree.map(lambda x: x.astype(jax.tree.leaves(inputs)[0].dtype), out)


def feature_maps(params: dict, images: jax.Array, config: NetworkConfig) -> dict[str, tuple[jax.Array, ...]]:
    """The maps of every backbone and pyramid, by their place in the parameters, each coarse to fine.

    Args:
      params: all networks' parameters.
      images: (V, S, S, 3) normalised, see `normalize_images`.
      config: sizes.

    Returns:
      name -> tuple of (V, h, w, C). The backbones' finest maps feed nothing.
    """
    modules = image_modules(config)
    maps = {name: apply(modules[name], params[name], images, dtype=config.dtype) for name in ("rgb", "albedo")}
    for pyramid, backbone in PYRAMIDS.items():
        maps[pyramid] = apply(modules[pyramid], params[pyramid], maps[backbone][:-1], dtype=config.dtype)
    return maps


def image_features(params: dict, images: jax.Array, config: NetworkConfig) -> Pyramids:
    """Energy, rig and albedo features of every view for each stage; arguments as for `feature_maps`."""
    maps = feature_maps(params, images, config)
    albedo = maps["albedo_fpn"]
    return Pyramids(maps["energy_fpn"], maps["rig_fpn"], tuple(albedo[min(stage + 1, 2)] for stage in range(3)))


def regress_pose(params: dict, images: jax.Array, config: NetworkConfig) -> jax.Array:
    """Initial normalised pose (V, 6) of normalised images (V, S, S, 3)."""
    return apply(image_modules(config)["pose"], params["pose"], images, dtype=config.dtype)


def count_parameters(params) -> int:
    """How many numbers a tree of parameters holds."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))

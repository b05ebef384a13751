"""All networks of the published method: their parameters as one tree, and the functions that apply them.

params
  pose                       initial pose (absent without `pose_blocks`)
  rgb, albedo                backbones
  energy_fpn, rig_fpn, albedo_fpn
  stages: tuple of dicts
    identity_uv, expression_uv, albedo_uv   view encoders
    expression_vector        first stage only
    identity, expression, expression_out, albedo, albedo_out   decoders
    step, albedo_step        step-size networks
"""

from __future__ import annotations

import functools
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from facerig_jax.checks import check_choice
from facerig_jax.inorig import rig_parts as parts
from facerig_jax.inorig.backbone import Backbone, FeaturePyramid, PoseRegressor
from facerig_jax.inorig.config import InorigConfig, NetworkConfig
from facerig_jax.networks.layers import MapOutput
from facerig_jax.networks.tree import apply

# Red, green and blue of ImageNet's photos, which the backbones' inputs are normalised by.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The three numbers that a view's UV map appends to the features: the vertex's position.
N_POSITION = 3
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
    modules: dict[str, nn.Module] = {
        "rgb": Backbone(config.widths, config.rgb_blocks, config.norm),
        "albedo": Backbone(config.widths, config.albedo_blocks, config.norm),
    }
    modules |= {name: FeaturePyramid(config.features) for name in PYRAMIDS}
    if config.pose_blocks:
        modules["pose"] = PoseRegressor(config.widths, config.pose_blocks, config.pose_hidden, config.norm)
    return modules


def stage_modules(config: InorigConfig, stage: int) -> dict[str, nn.Module]:
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
        modules["expression_out"] = MapOutput()
    if stage == 2 and config.dynamic_albedo:
        modules["albedo"] = parts.MapDecoder(a // 4, a, sizes.albedo_gate * (k + a))
        modules["albedo_out"] = MapOutput()
    else:
        modules["albedo"] = parts.MapDecoder(a // 4, a, 3)
    return modules


def _stage_inputs(config: InorigConfig, stage: int) -> dict[str, tuple]:
    """Stand-in inputs of one stage's networks, of the right shapes."""
    sizes = config.networks
    side, albedo_side = sizes.uv_sizes[stage], sizes.albedo_uv_sizes[stage]
    n, a = sizes.uv_width, sizes.albedo_width
    zeros, mask = jnp.zeros, jnp.ones(1)
    seen = sizes.features + N_POSITION
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


def starts_at_zero(path: str, config: InorigConfig) -> bool:
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
def parameter_shapes(config: InorigConfig) -> dict:
    """The parameters as jax.ShapeDtypeStruct."""
    check_sizes(config)

    def shapes():
        size = config.networks.image_size
        image, modules = jnp.zeros((1, size, size, 3)), image_modules(config.networks)

        def first(module: nn.Module, *inputs):
            return module.init(jax.random.key(0), *inputs)["params"]

        params: dict[str, Any] = {
            name: first(modules[name], image) for name in ("rgb", "albedo", "pose") if name in modules
        }
        for pyramid, backbone in PYRAMIDS.items():
            maps = apply(modules[backbone], params[backbone], image)[:-1]
            params[pyramid] = first(modules[pyramid], maps)
        stages = (stage_modules(config, stage) for stage in range(config.stages))
        params["stages"] = tuple(
            {name: first(module, *_stage_inputs(config, stage)[name]) for name, module in modules.items()}
            for stage, modules in enumerate(stages)
        )
        return params

    return jax.eval_shape(shapes)


def check_sizes(config: InorigConfig) -> None:
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
    if not 1 <= config.stages <= 3 or config.steps < 1:
        raise ValueError(f"stages, steps: 1 to 3 and at least 1 are allowed, got {config.stages} and {config.steps}.")
    if sizes.named_codes and sizes.codes != sizes.modes:
        raise ValueError(f"networks.codes: named codes are one per mode ({sizes.modes}), got {sizes.codes}.")
    if any(size % 4 for size in (*sizes.uv_sizes, *sizes.albedo_uv_sizes)):
        raise ValueError(f"networks.uv_sizes: multiples of 4 are needed, got {sizes.uv_sizes}.")


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

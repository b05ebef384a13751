"""Decoding a rig: codes and UV features to neutral, displacement and albedo (docs/method.md section 4)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from facerig_jax.head.model import albedo as linear_albedo
from facerig_jax.inorig.config import InorigConfig
from facerig_jax.inorig.params import stage_modules
from facerig_jax.inorig.rig_parts import WEIGHT_RANGE
from facerig_jax.inorig.space import RigSpace
from facerig_jax.networks.tree import apply
from facerig_jax.numerics import HIGHEST, linear_to_srgb
from facerig_jax.raster.uv import uv_to_vertex
from facerig_jax.rig.neural import blend_albedo
from facerig_jax.types import HeadModel, RigWeights

# Displacement in mm where the identity decoder's last layer gives 1.
IDENTITY_MM = 100.0


@struct.dataclass
class RigCode:
    """The compact code alpha of one stage: identity (A,), expression (A',), albedo (A'')."""

    identity: jax.Array
    expression: jax.Array
    albedo: jax.Array


@struct.dataclass
class DecodedRig:
    """A rig as far as it is decoded; between stages, what the earlier ones left.

    neutral:  (P, 3) head units.
    identity: (I',) linear identity coefficients in it.
    weights:  the expression networks, zero for stages to come.
    albedo:   (P, 3) static albedo.
    tone:     (A,) linear albedo coefficients that the first stage started from.
    """

    neutral: jax.Array
    identity: jax.Array
    weights: RigWeights
    albedo: jax.Array
    tone: jax.Array


def first_rig(
    head: HeadModel, config: InorigConfig, identity: jax.Array | None = None, tone: jax.Array | None = None
) -> DecodedRig:
    """Before the first stage: the head at linear coefficients, by default the mean one, without networks.

    Args:
      head: morphable head.
      config: static settings.
      identity: (I',) coefficients.
      tone: (A,) coefficients of the albedo.
    """
    sizes, dtype = config.networks, head.mean.dtype
    channels = [gate * (sizes.codes + width) for gate, width in _texel_widths(config)]
    maps = [jnp.zeros((size, size, channels[0]), dtype) for size in sizes.uv_sizes[1 : config.stages]]
    last = sizes.albedo_uv_sizes[2]
    dynamic = config.dynamic_albedo and config.stages == 3
    first = jnp.zeros((sizes.modes, sizes.codes), dtype)
    second = jnp.zeros((sizes.modes, sizes.modes), dtype)
    neutral = jnp.asarray(head.mean)
    if identity is None:
        identity = jnp.zeros(min(sizes.identity_code, head.identity_basis.shape[0]), dtype)
    else:
        neutral, identity = _add_modes(neutral, identity, head)
    tone = jnp.zeros(head.albedo_basis.shape[0], dtype) if tone is None else tone
    return DecodedRig(
        neutral=neutral,
        identity=identity,
        weights=RigWeights(
            first, second, tuple(maps), jnp.zeros((last, last, channels[1]), dtype) if dynamic else None
        ),
        albedo=working_albedo(head, tone, config),
        tone=tone,
    )


def working_albedo(head: HeadModel, code: jax.Array, config: InorigConfig) -> jax.Array:
    """The linear model's albedo (P, 3) in the colour space that the solver works in."""
    value = linear_albedo(head, code)
    return value if config.linear_colour or head.albedo_space == "linear" else linear_to_srgb(value)


def _texel_widths(config: InorigConfig):
    sizes = config.networks
    return (sizes.gate, sizes.uv_width), (sizes.albedo_gate, sizes.albedo_width)


def decode(
    params: dict, stage: int, space: RigSpace, code: RigCode, before: DecodedRig, head: HeadModel, config: InorigConfig
) -> DecodedRig:
    """The rig at one stage's code, on top of what earlier stages decoded.

    Args:
      params: the stage's parameters.
      stage: 0, 1 or 2.
      space: the stage's UV features.
      code: the stage's rig code.
      before: the rig at the end of the previous stage.
      head: morphable head.
      config: static settings.

    Returns:
      DecodedRig.
    """
    if config.linear_rig:
        return _decode_linear(stage, code, before, head, config)
    dtype, modules = config.networks.dtype, stage_modules(config, stage)

    def run(name, *inputs):
        return apply(modules[name], params[name], *inputs, dtype=dtype)

    neutral, identity = before.neutral, before.identity
    if stage == 0:
        neutral, used = _add_modes(neutral, code.identity, head)
        identity = identity.at[: used.shape[0]].add(used)
    offset = run("identity", code.identity, space.identity) * (IDENTITY_MM / head.unit_mm)
    weights, albedo = before.weights, before.albedo
    made = run("expression", code.expression, space.expression)
    if stage == 0:
        first, second = jnp.split(made, [weights.first.size])
        weights = weights.replace(first=first.reshape(weights.first.shape), second=second.reshape(weights.second.shape))
    else:
        maps = list(weights.texels)
        maps[stage - 1] = WEIGHT_RANGE * jnp.tanh(made)
        weights = weights.replace(texels=tuple(maps))
    tone = run("albedo", code.albedo, space.albedo)
    if stage == 2 and config.dynamic_albedo:
        weights = weights.replace(albedo_texels=WEIGHT_RANGE * jnp.tanh(tone))
    else:
        albedo = blend_albedo(albedo, uv_to_vertex(jnp.tanh(tone), head.uv))
    return DecodedRig(neutral + uv_to_vertex(offset, head.uv), identity, weights, albedo, before.tone)


def _add_modes(neutral: jax.Array, code: jax.Array, head: HeadModel) -> tuple[jax.Array, jax.Array]:
    """Neutral plus linear identity modes, and the coefficients that were used."""
    count = min(code.shape[0], head.identity_basis.shape[0])
    moved = jnp.tensordot(code[:count], head.identity_basis[:count], 1, precision=HIGHEST)
    return neutral + moved, code[:count]


def _decode_linear(stage: int, code: RigCode, before: DecodedRig, head: HeadModel, config: InorigConfig) -> DecodedRig:
    """Linear modes alone: identity adds up over the stages, albedo is the start's and the last stage's."""
    neutral, used = _add_modes(before.neutral, code.identity, head)
    count = min(code.albedo.shape[0], head.albedo_basis.shape[0])
    tone = before.tone.at[:count].add(code.albedo[:count])
    identity = before.identity.at[: used.shape[0]].add(used)
    return before.replace(neutral=neutral, identity=identity, albedo=working_albedo(head, tone, config))

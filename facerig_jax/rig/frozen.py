"""The frozen rig: a person's learned rig as a function of the expression code alone, without images or encoders."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from facerig_jax.config import LearnedConfig
from facerig_jax.inorig.decode import DecodedRig, displace, mode_weights, shade_albedo
from facerig_jax.numerics import srgb_to_linear
from facerig_jax.types import HeadModel, NeuralRig, Rig


def freeze(decoded: DecodedRig, params: dict, head: HeadModel, config: LearnedConfig) -> Rig:
    """What remains of a fit once its codes are fixed.

    Args:
      decoded: the rig after the last stage.
      params: all networks' parameters.
      head: morphable head.
      config: static settings.

    Returns:
      Rig with K = `config.networks.codes`.
    """
    sizes, stages = config.networks, params["stages"]
    count = min(sizes.modes, head.expression_basis.shape[0])
    named = sizes.named_codes or config.linear_rig
    texels = () if config.linear_rig else decoded.weights.texels
    dynamic = None if config.linear_rig else decoded.weights.albedo_texels
    names = tuple(head.expression_names[:count]) if named and sizes.codes == count else ()
    return Rig(
        neutral=decoded.neutral,
        expression_basis=jnp.asarray(head.expression_basis)[:count],
        albedo=srgb_to_linear(decoded.albedo) if dynamic is None and not config.linear_colour else decoded.albedo,
        identity_code=decoded.identity,
        albedo_code=jnp.zeros(0, decoded.albedo.dtype),
        neural=NeuralRig(
            weights=decoded.weights.replace(texels=texels, albedo_texels=dynamic),
            outputs=tuple(stage["expression_out"] for stage in stages[1:]) if texels else (),
            albedo_output=stages[2]["albedo_out"] if dynamic is not None else None,
            uv=jnp.asarray(head.uv),
            named_codes=named,
            expression_gain=sizes.expression_gain,
            linear_colour=config.linear_colour or dynamic is None,
        ),
        code_names=names or tuple(f"expression_{k}" for k in range(sizes.codes)),
        unit_mm=head.unit_mm,
    )


def neural_mesh(rig: Rig, expression: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Vertices and linear RGB albedo, (V, P, 3) each, of a learned rig at expression codes (V, K)."""
    neural = rig.neural
    moved = displace(
        rig.expression_basis,
        neural.weights,
        neural.outputs,
        expression,
        neural.uv,
        unit_mm=rig.unit_mm,
        named_codes=neural.named_codes,
        gain=neural.expression_gain,
    )
    tone = shade_albedo(rig.albedo, neural.weights, neural.albedo_output, expression, neural.uv)
    return rig.neutral[None] + moved, tone if neural.linear_colour else srgb_to_linear(tone)


def rest_albedo(rig: Rig) -> jax.Array:
    """Linear RGB albedo (P, 3) of any rig without expression."""
    if rig.neural is None:
        return jnp.asarray(rig.albedo)
    return neural_mesh(rig, jnp.zeros((1, rig.n_codes), rig.neutral.dtype))[1][0]


def blendshape_weights(rig: Rig, expression: jax.Array) -> jax.Array:
    """Weights (V, M) of the modes `rig.expression_basis` at codes (V, K); of a linear rig the codes themselves."""
    if rig.neural is None:
        return expression
    weights = mode_weights(rig.neural.weights, expression, rig.neural.named_codes, rig.neural.expression_gain)
    return weights[:, : rig.expression_basis.shape[0]]


def linearize(rig: Rig) -> Rig:
    """The linear rig whose blendshapes are a learned rig's meshes at code 1, one code at a time.

    What file formats with morph targets can hold: combinations of codes add up instead of acting together.

    Args:
      rig: any rig; a linear one is returned as it is.

    Returns:
      Rig with `neural` None and `expression_basis` (K, P, 3).
    """
    if rig.neural is None:
        return rig
    zero = jnp.zeros((1, rig.n_codes), rig.neutral.dtype)
    still, tone = neural_mesh(rig, zero)
    moved = jax.lax.map(lambda code: neural_mesh(rig, code[None])[0][0], jnp.eye(rig.n_codes, dtype=zero.dtype))
    return rig.replace(neutral=still[0], albedo=tone[0], expression_basis=moved - still, neural=None)

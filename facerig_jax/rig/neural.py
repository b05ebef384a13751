"""A learned rig as a function of the expression code alone, without images, and its linear approximation."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from facerig_jax.networks.layers import MapOutput
from facerig_jax.networks.tree import apply
from facerig_jax.numerics import HIGHEST, srgb_to_linear
from facerig_jax.raster.uv import uv_to_vertex
from facerig_jax.types import Rig, RigWeights

# Displacement in mm where an expression map's last layer gives 1.
EXPRESSION_MM = 10.0


def neural_mesh(rig: Rig, expression: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Vertices and linear RGB albedo, (V, P, 3) each, of a learned rig at expression codes (V, K)."""
    neural = rig.neural
    assert neural is not None, "a learned rig"
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


def blend_albedo(albedo: jax.Array, change: jax.Array) -> jax.Array:
    """Moves an albedo in [0, 1] towards 0 (change = -1) or 1 (change = 1), so that it stays in between."""
    return albedo + jnp.where(change < 0, albedo, 1 - albedo) * change


def mode_weights(weights: RigWeights, expression: jax.Array, named_codes: bool, gain: float) -> jax.Array:
    """Weights (V, M) of the linear modes at expression codes (V, K)."""
    hidden = jnp.tanh(jnp.einsum("mk,vk->vm", weights.first, expression, precision=HIGHEST))
    made = gain * jnp.tanh(jnp.einsum("mk,vk->vm", weights.second, hidden, precision=HIGHEST))
    return made.at[:, : expression.shape[1]].add(expression) if named_codes else made


def texel_networks(texels: jax.Array, expression: jax.Array, width: int) -> jax.Array:
    """Every texel's two-layer network at expression codes: (S, S, m (K + n)), (V, K) -> (V, S, S, n)."""
    codes = expression.shape[-1]
    gate = texels.shape[-1] // (codes + width)
    first = texels[..., : codes * gate].reshape(*texels.shape[:-1], codes, gate)
    second = texels[..., codes * gate :].reshape(*texels.shape[:-1], gate, width)
    hidden = jnp.tanh(jnp.einsum("stkj,vk->vstj", first, expression))
    return jnp.tanh(jnp.einsum("stji,vstj->vsti", second, hidden))


def output_map(texels: jax.Array, output: dict, expression: jax.Array, dtype: str) -> jax.Array:
    """The three values (V, S, S, 3) that a map of per-texel networks gives."""
    width = output["out"]["kernel"].shape[-2]
    return apply(MapOutput(), output, texel_networks(texels, expression, width), dtype=dtype)


def look_up(maps: jax.Array, uv: jax.Array) -> jax.Array:
    """Maps (V, S, S, C) at the vertices, (V, P, C)."""
    return jax.vmap(lambda texture: uv_to_vertex(texture, uv))(maps)


def displace(
    basis: jax.Array,
    weights: RigWeights,
    outputs: tuple[dict, ...],
    expression: jax.Array,
    uv: jax.Array,
    *,
    unit_mm: float,
    named_codes: bool,
    gain: float,
    dtype: str = "float32",
) -> jax.Array:
    """Expression displacement of every view.

    Args:
      basis: (M, P, 3) linear modes, head units.
      weights: the person's networks.
      outputs: parameters of the last layers of the maps that are in use, coarse to fine.
      expression: (V, K).
      uv: (P, 2).
      unit_mm: millimetres per head unit.
      named_codes: see NetworkConfig.
      gain: largest weight of a mode that the networks give.
      dtype: precision of the convolutions.

    Returns:
      (V, P, 3) head units.
    """
    share = mode_weights(weights, expression, named_codes, gain)[:, : basis.shape[0]]
    total = jnp.einsum("vm,mpc->vpc", share, basis[: share.shape[1]], precision=HIGHEST)
    for texels, output in zip(weights.texels, outputs, strict=False):
        total = total + look_up((EXPRESSION_MM / unit_mm) * output_map(texels, output, expression, dtype), uv)
    return total


def shade_albedo(
    albedo: jax.Array, weights: RigWeights, output: dict | None, expression: jax.Array, uv: jax.Array, dtype="float32"
) -> jax.Array:
    """The albedo (V, P, 3) of every view: where it depends on the expression, through the per-texel networks."""
    if output is None or weights.albedo_texels is None:
        return jnp.broadcast_to(albedo, (expression.shape[0], *albedo.shape))
    change = jnp.tanh(output_map(weights.albedo_texels, output, expression, dtype))
    return blend_albedo(albedo[None], look_up(change, uv))

"""A rig's mesh under an expression code."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from facerig_jax.checks import check_kind, check_shape
from facerig_jax.numerics import HIGHEST
from facerig_jax.rig.neural import neural_mesh
from facerig_jax.types import Rig


def apply_rig(rig: Rig, expression) -> tuple[jax.Array, jax.Array]:
    """The personalised mesh under an expression code.

    Args:
      rig: Rig.
      expression: (..., K) code, named in `rig.code_names`; for a linear rig the 52 blendshape weights.

    Returns:
      vertices (..., P, 3) in the head frame, head units, and albedo (..., P, 3), linear RGB.

    Raises:
      ValueError: the code's width does not fit the rig.
    """
    check_kind("rig", rig, Rig, "A fit's rig is fit.rig.")
    expression = jnp.asarray(expression)
    check_shape("expression", expression, ..., rig.n_codes)
    if rig.neural is not None:
        vertices, albedo = neural_mesh(rig, expression.reshape(-1, rig.n_codes))
        shape = (*expression.shape[:-1], *vertices.shape[1:])
        return vertices.reshape(shape), albedo.reshape(shape)
    moved = jnp.tensordot(expression, rig.expression_basis, 1, precision=HIGHEST)
    vertices = jnp.expand_dims(rig.neutral, range(expression.ndim - 1)) + moved
    return vertices, jnp.broadcast_to(rig.albedo, vertices.shape)

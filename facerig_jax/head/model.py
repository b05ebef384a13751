"""What a morphable head computes: shapes, albedo and landmark positions, as pure functions of a HeadModel."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from facerig_jax.checks import check_shape
from facerig_jax.numerics import HIGHEST
from facerig_jax.types import HeadModel, LandmarkEmbedding


def neutral(head: HeadModel, identity: jax.Array) -> jax.Array:
    """Shape without expression.

    Args:
      head: the model.
      identity: (..., I) coefficients, N(0, 1) over the population.

    Returns:
      (..., P, 3) head units, head frame.

    Raises:
      ValueError: when `identity` does not fit the basis.
    """
    check_shape("identity", identity, ..., head.identity_basis.shape[0])
    return jnp.expand_dims(head.mean, range(identity.ndim - 1)) + _combine(identity, head.identity_basis)


def vertices(head: HeadModel, identity: jax.Array, expression: jax.Array) -> jax.Array:
    """Shape with expression; leading axes of `identity` and `expression` broadcast.

    Args:
      head: the model.
      identity: (..., I) coefficients, N(0, 1).
      expression: (..., E) blendshape weights, or N(0, 1) coefficients, see `head.expression_prior`.

    Returns:
      (..., P, 3) head units, head frame.

    Raises:
      ValueError: when a code does not fit its basis.

    Example:
      >>> head = load_head()
      >>> smile = jnp.zeros(52).at[head.expression_names.index("mouthSmileLeft")].set(1.0)
      >>> vertices(head, jnp.zeros(100), smile).shape == head.mean.shape
      True
    """
    check_shape("expression", expression, ..., head.expression_basis.shape[0])
    still, moved = neutral(head, identity), _combine(expression, head.expression_basis)
    rank = max(still.ndim, moved.ndim)
    return jnp.expand_dims(still, range(rank - still.ndim)) + jnp.expand_dims(moved, range(rank - moved.ndim))


def albedo(head: HeadModel, code: jax.Array) -> jax.Array:
    """Per-vertex diffuse albedo.

    Args:
      head: the model.
      code: (..., A) coefficients, N(0, 1).

    Returns:
      (..., P, 3) linear RGB in [0, 1].

    Raises:
      ValueError: when `code` does not fit the basis.
    """
    check_shape("code", code, ..., head.albedo_basis.shape[0])
    value = jnp.expand_dims(head.albedo_mean, range(code.ndim - 1)) + _combine(code, head.albedo_basis)
    if head.albedo_space == "log":
        return jnp.exp(jnp.minimum(value, 0.0))
    return jnp.clip(value, 0.0, 1.0)


def landmark_positions(embedding: LandmarkEmbedding, verts: jax.Array) -> jax.Array:
    """Points of the embedding on a mesh: (..., P, 3) vertices to (..., L, 3), unit and frame of `verts`."""
    corners = jnp.take(verts, embedding.triangle, axis=-2)  # (..., L, 3 corners, 3)
    return jnp.einsum("lc,...lcx->...lx", embedding.barycentric, corners, precision=HIGHEST)


def _combine(code: jax.Array, basis: jax.Array) -> jax.Array:
    """(..., K) codes times (K, P, 3) basis."""
    return jnp.tensordot(code, basis, axes=1, precision=HIGHEST)


def dense_landmarks(head: HeadModel, vertices: jax.Array, identity: jax.Array, modes: jax.Array) -> jax.Array:
    """(V, L, 3) dense landmarks of meshes (V, P, 3), head units, as the detector would report them where it is known.

    identity (I',) and modes (V, M) are the linear coefficients in the meshes, which the detector's bias depends on.
    """
    points = landmark_positions(head.landmarks_dense, vertices)
    bias = head.dense_calibration
    if bias is None:
        return points
    count, n_modes = min(len(identity), len(bias.identity)), min(modes.shape[1], len(bias.expression))
    shift = jnp.tensordot(identity[:count], jnp.asarray(bias.identity)[:count], 1, precision=HIGHEST)
    moved = jnp.einsum("vm,mlc->vlc", modes[:, :n_modes], jnp.asarray(bias.expression)[:n_modes], precision=HIGHEST)
    return points + (shift + jnp.asarray(bias.offset))[None] + moved

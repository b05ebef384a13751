"""Rotations from Euler angles, the reference's convention."""

import jax
import jax.numpy as jnp

from facerig_jax.numerics import HIGHEST


def euler_to_matrix(angles: jax.Array) -> jax.Array:
    """R = Rz(roll) Ry(yaw) Rx(pitch), right handed (docs/method.md section 1).

    Args:
      angles: (..., 3) pitch, yaw, roll in radians.

    Returns:
      (..., 3, 3) rotation matrices acting on column vectors.
    """
    (cx, cy, cz), (sx, sy, sz) = (jnp.moveaxis(f(angles), -1, 0) for f in (jnp.cos, jnp.sin))
    rows = (
        (cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
        (sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
        (-sy, cy * sx, cy * cx),
    )
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def matrix_to_euler(rotation: jax.Array) -> jax.Array:
    """The (..., 3) pitch, yaw, roll of rotation matrices (..., 3, 3); |yaw| < pi / 2."""
    pitch = jnp.arctan2(rotation[..., 2, 1], rotation[..., 2, 2])
    yaw = jnp.arcsin(jnp.clip(-rotation[..., 2, 0], -1.0, 1.0))
    roll = jnp.arctan2(rotation[..., 1, 0], rotation[..., 0, 0])
    return jnp.stack([pitch, yaw, roll], -1)


def rotate(rotation: jax.Array, points: jax.Array) -> jax.Array:
    """R x for points (..., P, 3) and rotations (..., 3, 3), at full precision."""
    return jnp.einsum("...ij,...pj->...pi", rotation, points, precision=HIGHEST)

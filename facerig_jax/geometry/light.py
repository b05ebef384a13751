"""Second-order spherical-harmonics light: basis, shading and the closed-form solve (docs/method.md section 5)."""

import jax
import jax.numpy as jnp

from facerig_jax.numerics import HIGHEST

# Floor of |residual|^1.5 in the robust weights, as published.
WEIGHT_FLOOR = 1e-5


def sh_basis(normals: jax.Array) -> jax.Array:
    """[1, nx, ny, nz, nx ny, nx nz, ny nz, nx^2 - ny^2, 3 nz^2 - 1] of unit normals (..., 3) -> (..., 9)."""
    x, y, z = (normals[..., i] for i in range(3))
    return jnp.stack([jnp.ones_like(x), x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1], -1)


def shade(basis: jax.Array, light: jax.Array) -> jax.Array:
    """Irradiance (..., P, 3) of basis (..., P, 9) under light (..., 9, 3)."""
    return jnp.einsum("...pk,...kc->...pc", basis, light, precision=HIGHEST)


def ambient_light(dtype=jnp.float32) -> jax.Array:
    """(9, 3) light of constant irradiance 1: the starting light."""
    return jnp.zeros((9, 3), dtype).at[0].set(1.0)


def solve_light(
    basis: jax.Array, albedo: jax.Array, colours: jax.Array, mask: jax.Array, light_old: jax.Array, ridge: float = 0.0
) -> jax.Array:
    """Weighted least-squares light, one reweighting from the old light's residuals.

    The unknown is fitted to shading samples b = colour / albedo with one weight per vertex for all channels,
    w = 1 / max(|b - B light_old|^1.5, 1e-5). No gradient flows through the result.

    Args:
      basis: (P, 9) SH basis of the normals.
      albedo: (P, 3), positive where mask is.
      colours: (P, 3) observed.
      mask: (P,) non-zero on the vertices to use.
      light_old: (9, 3) light whose residuals give the weights.
      ridge: added to the diagonal of the normal matrix relative to its trace / 9 (0 = as published).

    Returns:
      (9, 3) light; `light_old` where the mask is empty.
    """
    use = mask > 0
    target = colours / jnp.where(use[:, None], albedo, 1.0)
    residual = target - shade(basis, light_old)
    size = jnp.sqrt(jnp.sum(residual**2, -1))
    weight = jnp.where(use, 1.0 / jnp.maximum(size**1.5, WEIGHT_FLOOR), 0.0)
    weighted = basis * weight[:, None]
    normal = jnp.matmul(weighted.T, basis, precision=HIGHEST)
    right = jnp.matmul(weighted.T, jnp.where(use[:, None], target, 0.0), precision=HIGHEST)
    normal = normal + ridge * jnp.trace(normal) / 9 * jnp.eye(9, dtype=basis.dtype)
    enough = jnp.sum(use) >= 9
    solved = jnp.linalg.solve(jnp.where(enough, normal, jnp.eye(9, dtype=basis.dtype)), right)
    return jax.lax.stop_gradient(jnp.where(enough, solved, light_old))

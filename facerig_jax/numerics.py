"""Small numerical helpers shared by all modules."""

import jax
import jax.numpy as jnp

HIGHEST = jax.lax.Precision.HIGHEST


def safe_norm(x: jax.Array, axis: int = -1, keepdims: bool = False, eps: float = 1e-12) -> jax.Array:
    """Euclidean norm whose gradient is finite (zero) at the zero vector."""
    squared = jnp.sum(x * x, axis=axis, keepdims=keepdims)
    positive = squared > eps * eps
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)


def normalize(x: jax.Array, axis: int = -1, eps: float = 1e-12) -> jax.Array:
    """x / |x|; the zero vector stays zero, with zero gradient."""
    norm = safe_norm(x, axis, keepdims=True, eps=eps)
    return jnp.where(norm > 0, x / jnp.where(norm > 0, norm, 1.0), 0.0)


def masked_mean(x: jax.Array, mask: jax.Array, axis=None) -> jax.Array:
    """Mean of x where mask is non-zero (weights allowed); 0 when the mask is empty."""
    mask = jnp.broadcast_to(mask, x.shape).astype(x.dtype)
    return jnp.sum(x * mask, axis) / jnp.maximum(jnp.sum(mask, axis), jnp.finfo(x.dtype).tiny)


def srgb_to_linear(x: jax.Array) -> jax.Array:
    """sRGB in [0, 1] to linear RGB (IEC 61966-2-1)."""
    return jnp.where(x <= 0.04045, x / 12.92, (jnp.maximum(x, 0.04045) + 0.055) ** 2.4 / 1.055**2.4)


def linear_to_srgb(x: jax.Array) -> jax.Array:
    """Linear RGB in [0, 1] to sRGB (IEC 61966-2-1)."""
    return jnp.where(x <= 0.0031308, 12.92 * x, 1.055 * jnp.maximum(x, 0.0031308) ** (1 / 2.4) - 0.055)

"""Photometric energy: rendered against observed vertex colours (docs/method.md section 6)."""

import jax
import jax.numpy as jnp

from facerig_jax.numerics import masked_mean


def photometric_energy(colours: jax.Array, observed: jax.Array, visible: jax.Array, view_mask: jax.Array | None = None):
    """Mean over all vertices and views of the squared colour difference on visible face-region vertices.

    Args:
      colours: (V, P, 3) albedo times shading.
      observed: (V, P, 3) image colours at the projected vertices.
      visible: (V, P) visible face-region vertices; hidden ones count as 0 in the mean.
      view_mask: (V,) views that count. None = all.

    Returns:
      energy: ().
      residual: (V, 3) per view and channel mean squared difference over all vertices.
    """
    squared = jnp.where(visible[..., None], (colours - observed) ** 2, 0.0)
    mask = jnp.ones(colours.shape[0], colours.dtype) if view_mask is None else view_mask.astype(colours.dtype)
    residual = jnp.mean(squared, 1) * mask[:, None]
    return masked_mean(jnp.sum(residual, -1), mask), residual

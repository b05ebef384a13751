"""True vertex error: for truths in the head's own topology (synthetic subjects, registered scans)."""

import jax
import jax.numpy as jnp
import numpy as np

from facerig_jax.geometry.alignment import similarity


@jax.jit
def vertex_error(predicted: jax.Array, truth: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean distance of corresponding vertices after a similarity alignment without reflection.

    Args:
      predicted: (P, 3).
      truth: (P, 3) mm.
      mask: (P,) the face region.

    Returns:
      () mm.
    """
    aligned = similarity(predicted, truth, mask)(predicted)
    return jnp.sum(jnp.linalg.norm(aligned - truth, axis=-1) * mask) / jnp.sum(mask)


def bootstrap_interval(values, n_draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over subjects."""
    values = np.asarray(values)
    draws = np.random.default_rng(seed).integers(0, len(values), (n_draws, len(values)))
    low, high = np.percentile(values[draws].mean(1), [2.5, 97.5])
    return float(low), float(high)

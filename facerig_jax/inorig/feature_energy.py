"""Feature-metric multi-view consistency (docs/method.md section 6)."""

import itertools

import jax
import jax.numpy as jnp

from facerig_jax.numerics import masked_mean


def feature_energy(features: jax.Array, visible: jax.Array, view_mask: jax.Array | None = None):
    """Squared feature distance over vertices seen by both views of a pair, averaged over the pairs.

    Args:
      features: (V, P, C) features sampled at the projected vertices.
      visible: (V, P) visible face-region vertices.
      view_mask: (V,) views that count. None = all.

    Returns:
      energy: (); 0 when fewer than two views count.
      residual: (V, C) mean |difference| over common vertices, averaged over the view's pairs.
    """
    n_views = features.shape[0]
    mask = jnp.ones(n_views, features.dtype) if view_mask is None else view_mask.astype(features.dtype)
    if n_views < 2:
        return jnp.zeros((), features.dtype), jnp.zeros((n_views, features.shape[-1]), features.dtype)
    first, second = (jnp.array(index) for index in zip(*itertools.combinations(range(n_views), 2), strict=True))
    common = visible[first].astype(features.dtype) * visible[second].astype(features.dtype)
    difference = features[first] - features[second]
    pair_mask = mask[first] * mask[second]
    energy = masked_mean(masked_mean(jnp.sum(difference**2, -1), common, axis=-1), pair_mask)
    per_pair = masked_mean(jnp.abs(difference), common[..., None], axis=1) * pair_mask[:, None]
    total = jnp.zeros((n_views, features.shape[-1]), features.dtype).at[first].add(per_pair).at[second].add(per_pair)
    count = jnp.zeros(n_views, features.dtype).at[first].add(pair_mask).at[second].add(pair_mask)
    return energy, total / jnp.maximum(count, 1)[:, None]

"""True vertex error: for truths in the head's own topology (synthetic subjects, registered scans)."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from facerig_jax.geometry.alignment import similarity
from facerig_jax.numerics import HIGHEST, masked_mean


@functools.partial(jax.jit, static_argnames="with_scale")
def vertex_error(predicted: jax.Array, truth: jax.Array, mask: jax.Array, with_scale: bool = True) -> jax.Array:
    """Mean distance of corresponding vertices after a similarity alignment without reflection.

    Args:
      predicted: (P, 3); without scale: mm.
      truth: (P, 3) mm.
      mask: (P,) the face region.
      with_scale: False aligns by rotation and translation alone.

    Returns:
      () mm.
    """
    return masked_mean(vertex_distances(predicted, truth, mask, with_scale), mask)


def vertex_distances(predicted: jax.Array, truth: jax.Array, mask: jax.Array, with_scale: bool = True) -> jax.Array:
    """(P,) mm: the distance of every vertex, arguments as for `vertex_error`; outside the mask it is no error."""
    aligned = similarity(predicted, truth, mask, with_scale)(predicted)
    return jnp.linalg.norm(aligned - truth, axis=-1)


def deformation_error(predicted, neutral, truth, truth_neutral, mask) -> jax.Array:
    """Mean error in mm of every view's expression displacement, turned and scaled as the neutral is aligned.

    Args:
      predicted: (V, P, 3) with expression, in the frame of `neutral`.
      neutral: (P, 3) predicted, without expression.
      truth: (V, P, 3) mm.
      truth_neutral: (P, 3) mm.
      mask: (P,) the face region.

    Returns:
      (V,) mean |scale R (predicted - neutral) - (truth - truth_neutral)| over the face region.
    """
    frame = similarity(neutral, truth_neutral, mask)
    moved = frame.scale * jnp.matmul(predicted - neutral[None], frame.rotation.T, precision=HIGHEST)
    difference = moved - (truth - truth_neutral[None])
    return masked_mean(jnp.linalg.norm(difference, axis=-1), mask[None], axis=-1)

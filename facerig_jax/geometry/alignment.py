"""Similarity alignment of corresponding points (Umeyama 1991)."""

import jax
import jax.numpy as jnp
from flax import struct

from facerig_jax.geometry.camera import from_image
from facerig_jax.geometry.rotation import matrix_to_euler
from facerig_jax.numerics import HIGHEST


@struct.dataclass
class Similarity:
    """x -> scale R x + translation: scale (), rotation (3, 3), translation (3,)."""

    scale: jax.Array
    rotation: jax.Array
    translation: jax.Array

    def __call__(self, points: jax.Array) -> jax.Array:
        """Maps points (..., 3)."""
        turned = self.scale * jnp.matmul(points, self.rotation.T, precision=HIGHEST)
        return turned + jnp.expand_dims(self.translation, range(points.ndim - 1))


def similarity(
    source: jax.Array, target: jax.Array, weight: jax.Array | None = None, with_scale: bool = True
) -> Similarity:
    """The weighted least-squares similarity (no reflection) that takes source to target.

    Args:
      source: (L, 3).
      target: (L, 3).
      weight: (L,) or None.
      with_scale: False keeps scale 1.

    Returns:
      Similarity. Its gradient is not defined where the points are rotationally symmetric.
    """
    weight = jnp.ones(source.shape[0], source.dtype) if weight is None else weight.astype(source.dtype)
    weight = (weight / jnp.maximum(weight.sum(), 1e-12))[:, None]
    source_mean, target_mean = jnp.sum(weight * source, 0), jnp.sum(weight * target, 0)
    centred = source - source_mean[None]
    covariance = jnp.matmul(((target - target_mean[None]) * weight).T, centred, precision=HIGHEST)
    u, singular, vt = jnp.linalg.svd(covariance)
    sign = jnp.ones(3, source.dtype).at[2].set(jnp.sign(jnp.linalg.det(u) * jnp.linalg.det(vt)))
    rotation = jnp.matmul(u * sign[None], vt, precision=HIGHEST)
    spread = jnp.maximum(jnp.sum(weight * centred**2), 1e-12)
    scale = jnp.sum(singular * sign) / spread if with_scale else jnp.ones((), source.dtype)
    return Similarity(scale, rotation, target_mean - scale * jnp.matmul(rotation, source_mean, precision=HIGHEST))


def pose_of_points(mean: jax.Array, detected: jax.Array, weight: jax.Array, size: int) -> jax.Array:
    """(V, 6) poses by a similarity of mean points (L, 3) to detected ones (V, L, 3) crop px; no gradient."""

    def pose(landmarks, weight):
        target = jnp.concatenate([from_image(landmarks[:, :2], size, size), landmarks[:, 2:]], -1)
        fit = similarity(mean, target, jnp.where(jnp.sum(weight) > 0, weight, 1.0))
        return jnp.concatenate([matrix_to_euler(fit.rotation), fit.scale[None], fit.translation[:2]])

    return jax.lax.stop_gradient(jax.vmap(pose)(detected, weight))

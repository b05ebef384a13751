"""Moving per-vertex values into a UV texture and back.

Texel (row i, column j) of an S x S texture sits at uv (j / (S - 1), 1 - i / (S - 1)): v runs up, rows run down, and the
outermost texels lie on the border of the unit square (docs/method.md section 3).
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct

from facerig_jax.checks import check_shape
from facerig_jax.geometry.sampling import bilinear
from facerig_jax.raster.rasterize import barycentrics, image_to_clip, triangle_ids


@struct.dataclass
class UVTable:
    """The mix of three vertices that covers each texel.

    vertices: (S, S, 3) int32 vertex indices; triangle 0's outside every triangle.
    weights:  (S, S, 3) barycentric weights, which sum to 1; all 0 outside every triangle.
    """

    vertices: jax.Array
    weights: jax.Array

    @property
    def covered(self) -> jax.Array:
        """(S, S) bool, texels that lie in some triangle."""
        return jnp.any(self.weights != 0, -1)


@functools.partial(jax.jit, static_argnames="size")
def uv_table(uv: jax.Array, faces: jax.Array, size: int) -> UVTable:
    """Finds the triangle of the UV layout that covers each texel; where several do, the lowest id wins.

    Args:
      uv: (P, 2) in [0, 1], v up.
      faces: (F, 3) int32.
      size: S, texels per side.

    Returns:
      UVTable in the precision of `uv`.

    Raises:
      ValueError: a shape or size is not allowed.
    """
    check_shape("uv", uv, "P", 2)
    points = jnp.concatenate([_texel_points(uv, size), jnp.zeros_like(uv[:, :1])], -1)
    clip = image_to_clip(points, size, size)
    ids = triangle_ids(clip[None], faces, size, size)[0]
    mix = barycentrics(clip, faces, ids)
    covered = ids > 0
    weights = jnp.stack([mix.b0, mix.b1, jnp.where(covered, 1 - mix.b0 - mix.b1, 0)], -1)
    return UVTable(jnp.asarray(faces, jnp.int32)[jnp.where(covered, ids - 1, 0)], weights)


def vertex_to_uv(attributes: jax.Array, table: UVTable) -> jax.Array:
    """Per-vertex values (P, C) -> texture (S, S, C); 0 where no triangle is."""
    check_shape("attributes", attributes, "P", "C")
    return jnp.asarray(sum(attributes[table.vertices[..., k]] * table.weights[..., k, None] for k in range(3)))


def uv_to_vertex(texture: jax.Array, uv: jax.Array) -> jax.Array:
    """Texture (S, S, C) sampled bilinearly at uv (P, 2) -> (P, C); zero outside the unit square."""
    size = check_shape("texture", texture, "S", "S", "C")["S"]
    return bilinear(texture, _texel_points(uv, size))


def _texel_points(uv: jax.Array, size: int) -> jax.Array:
    """uv (P, 2) -> column and row (P, 2) in texels, fractional."""
    return jnp.stack([uv[:, 0] * (size - 1), (size - 1) - uv[:, 1] * (size - 1)], -1)

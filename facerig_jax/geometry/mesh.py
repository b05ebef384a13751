"""Normals of triangle meshes."""

import jax
import jax.numpy as jnp
from jax import lax

from facerig_jax.checks import check_shape
from facerig_jax.numerics import normalize


@jax.jit
def triangle_normals(vertices: jax.Array, faces: jax.Array) -> jax.Array:
    """Unnormalised triangle normals: direction by the right-hand rule, length twice the area.

    Args:
      vertices: (..., P, 3) any right-handed frame (the image frame is not one: its v runs down).
      faces: (F, 3) int32, counter-clockwise seen from outside.

    Returns:
      (..., F, 3) square units of the vertices.
    """
    a, b, c = (vertices.at[..., faces[:, k], :].get(mode="promise_in_bounds") for k in range(3))
    return jnp.cross(b - a, c - a)


@jax.jit
def vertex_normals(vertices: jax.Array, faces: jax.Array) -> jax.Array:
    """Unit vertex normals: the sum of the unnormalised normals of the adjacent triangles, normalised.

    docs/method.md section 5. A vertex without area around it gets the zero normal and a zero gradient.
    The sums are three scatter-adds, one per triangle corner: on a CPU a gather from a padded vertex-to-triangle table
    is 1.4x faster forward but 2x slower for a hundred forward-mode tangents, and needs the topology as numbers.

    Args:
      vertices: (..., P, 3) any right-handed frame (the image frame is not one: its v runs down).
      faces: (F, 3) int32, counter-clockwise seen from outside.

    Returns:
      (..., P, 3) outward unit normals, same frame.

    Raises:
      ValueError: a shape is not the one above.
    """
    check_shape("vertices", vertices, ..., "P", 3)
    check_shape("faces", faces, "F", 3)
    normals = lax.optimization_barrier(triangle_normals(vertices, faces))  # else each scatter computes them again
    total = jnp.zeros_like(vertices)
    for k in range(3):
        total = total.at[..., faces[:, k], :].add(normals, mode="promise_in_bounds")
    return normalize(total)

"""Light of synthetic photos: an environment in spherical harmonics, lamps that cast shadows, occlusion of the sky."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from facerig_jax.geometry.sampling import bilinear
from facerig_jax.numerics import HIGHEST, normalize
from facerig_jax.raster.visibility import depth_map

# Directions of the sky that occlusion is measured from, in the head frame; and size, px, of the depth maps.
_SKY = ((0, 0, 1), (0, 1, 0.6), (0.9, 0.3, 0.7), (-0.9, 0.3, 0.7), (0.8, -0.5, 0.5), (-0.8, -0.5, 0.5), (0, -0.8, 0.7))
_SKY_SIZE, _SHADOW_SIZE, _REACH = 64, 128, 190.0  # reach: mm from the head's middle to the border of a map


@struct.dataclass
class Lamps:
    """Light of one photo, in the camera's axes (x right, y up, z towards the camera).

    environment: (9, 3) spherical-harmonics light that casts no shadow.
    directions, colours: (K, 3) unit vectors to the lamps and their strengths.
    """

    environment: jax.Array
    directions: jax.Array
    colours: jax.Array

    def harmonics(self) -> jax.Array:
        """(9, 3): the environment and the lamps' part in second-order spherical harmonics."""
        lamps = jnp.einsum("lk,lc->kc", lamp_harmonics(self.directions), self.colours, precision=HIGHEST)
        return self.environment + lamps


def lamp_harmonics(directions: jax.Array) -> jax.Array:
    """(K, 9) coefficients of the clamped cosine about (K, 3): 1/4, 1/2, 5/16 (Ramamoorthi and Hanrahan 2001)."""
    x, y, z = (directions[:, i] for i in range(3))
    quadratic = [15 / 16 * x * y, 15 / 16 * x * z, 15 / 16 * y * z, 15 / 64 * (x * x - y * y), 5 / 64 * (3 * z * z - 1)]
    return jnp.stack([jnp.full_like(x, 0.25), x / 2, y / 2, z / 2, *quadratic], -1)


def draw_lamps(key, sharp: float, model: str) -> Lamps:
    """Random light; `sharp` is the largest share of the lamps, `model` 'key' (one lamp) or 'many' (three, coloured)."""
    keys = iter(jax.random.split(key, 8))
    soft = normalize(jax.random.normal(next(keys), (3, 3)) + jnp.array([[0.0, 0.5, 0.6]]))
    amounts = jax.random.uniform(next(keys), (3, 1), minval=0.1, maxval=0.9) * jnp.array([[1.0], [0.6], [0.3]])
    # Warm to cool (blue against red), and a little green against magenta.
    warm = 0.14 * jax.random.normal(next(keys), (5, 1)) * jnp.array([[1.0, 0.1, -1.0]])
    tint = jnp.exp(warm + 0.04 * jax.random.normal(next(keys), (5, 1)) * jnp.array([[-0.5, 1.0, -0.5]]))
    ambient = jax.random.uniform(next(keys), (), minval=0.2, maxval=0.7)
    environment = jnp.zeros((9, 3)).at[0].set(ambient * tint[4])
    environment += jnp.einsum("lk,lc->kc", lamp_harmonics(soft), amounts * tint[:3], precision=HIGHEST)
    share = sharp * jax.random.uniform(next(keys)) ** 1.3
    place = jnp.array([[0.0, 0.6, 0.7]])
    if model == "many":
        directions = normalize(1.3 * jax.random.normal(next(keys), (3, 3)) + place)
        strength = jnp.array([[0.8], [0.5], [0.4]])
        colours = share * strength * jnp.exp(0.35 * jax.random.normal(jax.random.fold_in(key, 1), (3, 3)))
    else:
        directions = normalize(jax.random.normal(next(keys), (1, 3)) + place)
        colours = 1.2 * share * tint[3:4]
    return Lamps((1 - share) * environment, directions, colours)


def sky_occlusion(vertices: jax.Array, normals: jax.Array, faces: jax.Array) -> jax.Array:
    """(P,) share of the sky before each vertex that the head itself does not cover, in [0, 1]; mm, head frame."""
    sky = normalize(jnp.array(_SKY, jnp.float32))
    cosine = jnp.maximum(jnp.matmul(normals, sky.T, precision=HIGHEST), 0)
    lit = jax.lax.map(lambda direction: lit_by(vertices, faces, vertices, direction, _SKY_SIZE, 8.0), sky)
    return jnp.sum(cosine * lit.T, -1) / jnp.maximum(jnp.sum(cosine, -1), 1e-3)


def lit_by(points: jax.Array, faces: jax.Array, vertices: jax.Array, direction, size: int = _SHADOW_SIZE, bias=4.0):
    """(n,) in [0, 1]: whether light from `direction` (3,) reaches points (n, 3) past a mesh; soft edges; mm.

    A depth map as seen from the lamp; a point counts as lit when less than `bias` mm behind it.
    """
    up = jnp.where(jnp.abs(direction[1]) < 0.9, jnp.array([0.0, 1.0, 0.0]), jnp.array([1.0, 0.0, 0.0]))
    right = normalize(jnp.cross(up, direction))
    axes = jnp.stack([right, -jnp.cross(direction, right), direction])  # u right, v down, z to the lamp
    middle, scale = jnp.array([[0.0, -10.0, -80.0]]), size / (2 * _REACH)

    def seen(x):
        turned = scale * jnp.matmul(x - middle, axes.T, precision=HIGHEST)
        return turned + jnp.array([[(size - 1) / 2, (size - 1) / 2, 0]])

    depth = depth_map(seen(vertices)[None], faces, size, size)[0]
    here = seen(points)
    taps = [(0.0, 0.0), (0.7, 0.2), (-0.7, -0.2), (0.2, -0.7), (-0.2, 0.7)]
    behind = [bilinear(depth[..., None], here[:, :2] + jnp.array([tap]))[:, 0] - here[:, 2] for tap in taps]
    return sum(jax.nn.sigmoid((bias * scale - b) / (0.4 * bias * scale)) for b in behind) / len(taps)

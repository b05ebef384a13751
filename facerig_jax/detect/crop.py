"""Turned square windows of a photo, resampled from a mip pyramid: one gather of fixed shape for any window size."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Window:
    """A square window of a photo (leading batch axes allowed).

    centre: (2,) u, v in photo pixels (pixel centres at integers).
    side:   () photo pixels.
    angle:  () rad, direction of the window's u axis in the photo, clockwise as seen (v points down).
    """

    centre: jax.Array
    side: jax.Array
    angle: jax.Array

    def to_photo(self, unit: jax.Array) -> jax.Array:
        """(n, 2 or 3) coordinates in which the window is [0, 1]^2, to photo pixels; z is only scaled. One window."""
        cos, sin = jnp.cos(self.angle), jnp.sin(self.angle)
        x, y = unit[:, 0] - 0.5, unit[:, 1] - 0.5
        uv = [self.centre[0] + self.side * (cos * x - sin * y), self.centre[1] + self.side * (sin * x + cos * y)]
        return jnp.stack([*uv, *(self.side * unit[:, 2:]).T], -1)


@struct.dataclass
class Pyramid:
    """An image and its halvings, flattened one after the other: pixels (N, 3); shapes are static."""

    pixels: jax.Array
    shapes: tuple[tuple[int, int], ...] = struct.field(pytree_node=False)


def build_pyramid(image: jax.Array, smallest: int) -> Pyramid:
    """Halves (H, W, 3) by 2 x 2 means while the longer side stays at least `smallest`; odd sides repeat their edge."""
    levels = [image]
    while max(levels[-1].shape[:2]) >= 2 * smallest:
        h, w, c = levels[-1].shape
        even = jnp.pad(levels[-1], ((0, h % 2), (0, w % 2), (0, 0)), mode="edge")
        levels.append(even.reshape((h + 1) // 2, 2, (w + 1) // 2, 2, c).mean((1, 3)))
    return Pyramid(jnp.concatenate([x.reshape(-1, 3) for x in levels]), tuple((x.shape[0], x.shape[1]) for x in levels))


def resample(pyramid: Pyramid, window: Window, size: int, border: str) -> jax.Array:
    """The window as (size, size, 3), bilinear from the finest pyramid level with at most two pixels per sample.

    border: "zero" (black outside the photo) or "edge" (the nearest pixel). One window; vmap for more.
    """
    grid = (jnp.arange(size, dtype=jnp.float32) + 0.5) / size
    unit = jnp.stack(jnp.meshgrid(grid, grid, indexing="xy"), -1).reshape(-1, 2)
    uv = window.to_photo(unit)
    shapes = jnp.array(pyramid.shapes)
    starts = jnp.cumsum(shapes[:, 0] * shapes[:, 1]) - shapes[:, 0] * shapes[:, 1]
    ratio = jax.lax.stop_gradient(jnp.maximum(window.side / size, 1.0))
    level = jnp.clip(jnp.floor(jnp.log2(ratio) + 1e-3), 0, len(pyramid.shapes) - 1).astype(jnp.int32)
    (h, w), start = shapes[level], starts[level]
    uv = (uv + 0.5) / (jnp.float32(2) ** level) - 0.5
    low = jnp.floor(uv)
    fraction = uv - low
    low = low.astype(jnp.int32)
    total = jnp.zeros((size * size, 3), pyramid.pixels.dtype)
    for du, dv in ((0, 0), (1, 0), (0, 1), (1, 1)):
        u, v = low[:, 0] + du, low[:, 1] + dv
        weight = jnp.abs(1 - du - fraction[:, 0]) * jnp.abs(1 - dv - fraction[:, 1])
        if border == "zero":
            weight = weight * ((u >= 0) & (u < w) & (v >= 0) & (v < h))
        index = start + jnp.clip(v, 0, h - 1) * w + jnp.clip(u, 0, w - 1)
        total = total + weight[:, None] * pyramid.pixels[index]
    return total.reshape(size, size, 3)

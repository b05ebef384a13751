"""Pictures of meshes for reports and synthetic photos: shaded geometry, per-vertex colours, turntables.

Colours are linear RGB until `linear_to_srgb8`, so that averaging over a pixel is right.
"""

import functools
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from facerig_jax.checks import check_shape
from facerig_jax.geometry.mesh import vertex_normals
from facerig_jax.numerics import linear_to_srgb, normalize
from facerig_jax.raster.rasterize import image_to_clip, interpolate, rasterize

# Studio lights of the shaded-geometry picture: direction to the light (x right, y up, z towards the camera), strength.
_LIGHTS = (((-0.65, 0.65, 0.50), 0.75), ((0.85, 0.15, 0.35), 0.16), ((0.0, -0.9, 0.3), 0.04))
_AMBIENT = 0.02
_CLAY = 0.85


@functools.partial(jax.jit, static_argnames=("height", "width", "supersample", "cull"))
def render_mesh(
    vertices_img: jax.Array,
    faces: jax.Array,
    colours: jax.Array,
    height: int,
    width: int,
    supersample: int = 1,
    background: float = 1.0,
    cull: str = "none",
) -> tuple[jax.Array, jax.Array]:
    """Draws a mesh with given per-vertex colours (an albedo, or an albedo already lit).

    Args:
      vertices_img: (P, 3) image frame, px, z towards the camera.
      faces: (F, 3) int32.
      colours: (P, C) linear RGB, or any other quantity.
      height: image height, px (static, like the following).
      width: image width, px.
      supersample: samples per pixel side; 2 smooths edges.
      background: value where nothing is seen.
      cull: 'none', 'back' or 'front', see `rasterize`.

    Returns:
      image (H, W, C) and coverage (H, W) in [0, 1]; over another picture use `composite`.

    Raises:
      ValueError: a shape, size or name is not allowed.
    """
    check_shape("colours", colours, vertices_img.shape[0], "C")
    samples, covered = _shade(vertices_img, faces, colours, height, width, supersample, cull)
    coverage = block_mean(covered[..., None], supersample)
    return block_mean(samples, supersample) + background * (1 - coverage), coverage[..., 0]


@functools.partial(jax.jit, static_argnames=("height", "width", "supersample"))
def render_geometry(
    vertices_img: jax.Array,
    faces: jax.Array,
    height: int,
    width: int,
    supersample: int = 1,
    background: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """Draws a mesh as matt grey clay under fixed studio lights; arguments and result of `render_mesh`, C = 3."""
    upright = vertices_img * jnp.array([[1, -1, 1]], vertices_img.dtype)
    normals = vertex_normals(upright, faces)
    samples, covered = _shade(vertices_img, faces, normals, height, width, supersample, "none")
    grey = clay(normalize(samples)) * covered[..., None]
    coverage = block_mean(covered[..., None], supersample)
    image = block_mean(grey, supersample) + background * (1 - coverage)
    return jnp.broadcast_to(image, (height, width, 3)), coverage[..., 0]


def clay(normals: jax.Array) -> jax.Array:
    """Grey of matt clay under the fixed studio lights: unit normals (..., 3), y up, z to the camera -> (..., 1)."""
    light = jnp.full(normals.shape[:-1], _AMBIENT, normals.dtype)
    for direction, strength in _LIGHTS:
        unit = np.asarray(direction) / np.linalg.norm(direction)
        light += strength * jnp.maximum(sum(normals[..., i] * float(unit[i]) for i in range(3)), 0)
    return _CLAY * light[..., None]


def composite(image: jax.Array, coverage: jax.Array, over: jax.Array, opacity: float = 1.0) -> jax.Array:
    """Lays a rendered picture, drawn with background 0, over another one.

    Args:
      image: (H, W, C) from `render_mesh(..., background=0)`.
      coverage: (H, W) from the same call.
      over: (H, W, C) the picture below.
      opacity: of the mesh, 0 to 1.

    Returns:
      (H, W, C)
    """
    return opacity * image + (1 - opacity * coverage[..., None]) * over


def linear_to_srgb8(image: jax.Array) -> jax.Array:
    """Linear colours -> sRGB bytes, clipped to the displayable range."""
    return jnp.round(255 * linear_to_srgb(jnp.clip(image, 0, 1))).astype(jnp.uint8)


def turntable(
    vertices: jax.Array, faces: jax.Array, colours: jax.Array, n_frames: int = 24, size: int = 256, supersample: int = 2
) -> np.ndarray:
    """Frames of a mesh turning about its vertical axis, scaled to fill the frame.

    Args:
      vertices: (P, 3) head frame: y up, z forward.
      faces: (F, 3) int32.
      colours: (P, 3) linear RGB.
      n_frames: how many; the first looks at the front.
      size: frame side, px.
      supersample: see `render_mesh`.

    Returns:
      (n_frames, size, size, 3) uint8 sRGB; the frames loop seamlessly.
    """
    yaws = 2 * np.pi * np.arange(n_frames) / n_frames

    def frame(yaw):
        return np.asarray(_colour_frame(vertices, faces, colours, yaw, size, supersample))

    with ThreadPoolExecutor() as pool:  # a frame keeps one core busy
        return np.stack(list(pool.map(frame, yaws)))


@functools.partial(jax.jit, static_argnums=(4, 5))
def _colour_frame(vertices, faces, colours, yaw, size: int, supersample: int):
    return linear_to_srgb8(render_mesh(_turned(vertices, yaw, size), faces, colours, size, size, supersample)[0])


def _turned(vertices: jax.Array, yaw: jax.Array, size: int) -> jax.Array:
    """Head frame -> image frame, turned by yaw about the middle of the bounding box, which fits at every yaw."""
    low, high = vertices.min(0, keepdims=True), vertices.max(0, keepdims=True)
    x, y, z = ((vertices - (low + high) / 2)[:, i] for i in range(3))
    radius = jnp.sqrt(jnp.max(x * x + z * z))
    scale = 0.48 * size / jnp.maximum(radius, (high[0, 1] - low[0, 1]) / 2)
    cos, sin = jnp.cos(yaw), jnp.sin(yaw)
    turned = jnp.stack([cos * x + sin * z, -y, cos * z - sin * x], -1)
    return scale * turned + jnp.array([[(size - 1) / 2, (size - 1) / 2, 0]], vertices.dtype)


def _shade(vertices_img, faces, attributes, height: int, width: int, supersample: int, cull: str):
    """Interpolated attributes (sH, sW, C) and coverage (sH, sW), 0 or 1, at supersample s."""
    height, width = supersample * height, supersample * width
    to_corner = jnp.array([[0.5, 0.5, 0]], vertices_img.dtype)
    samples = supersample * (vertices_img + to_corner) - to_corner
    fragments = rasterize(image_to_clip(samples, height, width), faces, height, width, cull)
    return interpolate(attributes, fragments, faces), (fragments.ids > 0).astype(vertices_img.dtype)


def block_mean(image: jax.Array, factor: int) -> jax.Array:
    """(H, W, C) mean over factor x factor blocks of an (sH, sW, C) image, s the factor."""
    height, width, channels = image.shape
    return image.reshape(height // factor, factor, width // factor, factor, channels).mean((1, 3))

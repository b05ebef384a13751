"""Which vertices a view sees, by the method's depth-map rule."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from facerig_jax.checks import check_shape
from facerig_jax.geometry.sampling import bilinear
from facerig_jax.raster.rasterize import DEPTH_RANGE, barycentrics, image_to_clip, triangle_ids

# docs/method.md section 6, both in pixels.
BACKGROUND_DEPTH = -200.0
TOLERANCE = 1.0


@functools.partial(jax.jit, static_argnames=("height", "width", "rasterizer"))
def depth_map(
    vertices_img: jax.Array, faces: jax.Array, height: int, width: int, rasterizer: str = "auto"
) -> jax.Array:
    """Depth of the nearest front-facing surface at every pixel of several views of one topology.

    Args:
      vertices_img: (V, P, 3) image frame, px, z towards the camera.
      faces: (F, 3) int32, counter-clockwise seen from outside.
      height: image height, px.
      width: image width, px.
      rasterizer: see `rasterize.get_rasterizer`.

    Returns:
      (V, H, W) z in px, -200 where no front face is seen.
    """
    clip = image_to_clip(vertices_img, height, width)
    ids = triangle_ids(clip, faces, height, width, cull="back", rasterizer=rasterizer)
    depth = jax.vmap(lambda clip, ids: barycentrics(clip, faces, ids).depth)(clip, ids)
    return jnp.where(ids > 0, -DEPTH_RANGE * depth, BACKGROUND_DEPTH)


@functools.partial(jax.jit, static_argnames=("size", "rasterizer"))
def visible(vertices_img: jax.Array, faces: jax.Array, size: int = 256, rasterizer: str = "auto") -> jax.Array:
    """Visible vertices of each view: those at most one pixel behind the depth map (docs/method.md section 6).

    The map has the resolution of the image, back faces are culled, and it is sampled bilinearly with zero outside the
    image. No gradient. A vertex that is not finite is not visible.

    Args:
      vertices_img: (V, P, 3) image frame, px, z towards the camera.
      faces: (F, 3) int32, counter-clockwise seen from outside.
      size: side of the square image, px.
      rasterizer: see `rasterize.get_rasterizer`.

    Returns:
      (V, P) bool.
    """
    check_shape("vertices_img", vertices_img, "V", "P", 3)
    vertices_img = lax.stop_gradient(vertices_img)
    depth = depth_map(vertices_img, faces, size, size, rasterizer)[..., None]
    surface = jax.vmap(bilinear)(depth, vertices_img[..., :2])[..., 0]
    return (vertices_img[..., 2] > surface - TOLERANCE) & jnp.isfinite(vertices_img).all(-1)

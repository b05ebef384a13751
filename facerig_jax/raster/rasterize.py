"""Rasterization: which triangle each pixel sees, and differentiable interpolation over it.

A backend answers one question without gradients: the id of the nearest triangle at every pixel. Barycentric
coordinates and depth are then computed here from the gathered corners, so that ordinary autodiff, forward or reverse,
gives their exact derivatives with respect to the vertices. Coverage itself (which pixel sees which triangle) is
piecewise constant and has no gradient.

Clip space is OpenGL's: a vertex (x, y, z, w) lands at (x, y, z) / w, with x to the right, y up, the nearest z = -1 and
the farthest z = 1; counter-clockwise triangles face the camera. Row 0 of every image is the top one.
"""

import functools
from typing import Protocol

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from facerig_jax.checks import check_choice, check_shape
from facerig_jax.raster import jax_backend as raster_jax

# Default half depth range of `image_to_clip`, px: wider than any head, and a power of two so that scaling is exact.
DEPTH_RANGE = 2.0**20


class Rasterizer(Protocol):
    """A backend: which triangle each pixel sees.

    Contract: one pixel of a shared edge belongs to exactly one of its triangles; a pixel is covered when its centre is;
    of triangles at equal depth the lowest id wins; depth outside [-1, 1] is cut; a triangle with a vertex that is not
    finite is dropped and harms no other. Never differentiated.
    """

    def __call__(
        self, vertices_clip: jax.Array, faces: jax.Array, height: int, width: int, cull: str = "none"
    ) -> jax.Array:
        """(B, P, 4) clip space, (F, 3) int32 -> (B, H, W) int32 triangle id + 1, 0 where nothing is seen."""


@struct.dataclass
class Fragments:
    """What the pixels of one image see (leading batch axes only under vmap).

    ids:   (H, W) int32 triangle id + 1, 0 = background.
    b0:    (H, W) perspective-correct weight of the triangle's first vertex, 0 on the background.
    b1:    (H, W) weight of its second vertex; the third has 1 - b0 - b1.
    depth: (H, W) z / w in [-1, 1], nearest smallest; 0 on the background.
    """

    ids: jax.Array
    b0: jax.Array
    b1: jax.Array
    depth: jax.Array


RASTERIZERS = ("auto", "jax", "warp", "nvdiffrast")
_STATIC = ("height", "width", "cull", "rasterizer")


def get_rasterizer(name: str = "auto") -> Rasterizer:
    """The backend called `name`, never another in its place.

    'jax' is portable XLA operations; 'warp' (extra `[warp]`) is one compiled kernel, for CPU and CUDA, that sees the
    same; 'nvdiffrast' (installed by hand, non-commercial licence) is CUDA only and coarser, see `nvdiffrast_backend`.
    'auto' is 'jax' everywhere: it alone is always installed and runs on TPUs, and no GPU has been measured yet. Compare
    them on your machine with `python -m experiments.benchmark --what=raster`.

    Args:
      name: one of RASTERIZERS.

    Returns:
      The backend.

    Raises:
      ValueError: no such backend.
      ImportError: its package is missing.
    """
    check_choice("rasterizer", name, RASTERIZERS)
    if name == "warp":
        from facerig_jax.raster import warp_backend

        return warp_backend.triangle_ids
    if name == "nvdiffrast":
        from facerig_jax.raster import nvdiffrast_backend

        return nvdiffrast_backend.triangle_ids
    return raster_jax.triangle_ids


@functools.partial(jax.jit, static_argnames=_STATIC)
def rasterize(
    vertices_clip: jax.Array, faces: jax.Array, height: int, width: int, cull: str = "none", rasterizer: str = "auto"
) -> Fragments:
    """Rasterizes one mesh; vmap for more (the batch goes to the backend in one piece).

    On a CPU, gradients of several frames run faster through `lax.map` than through vmap.

    Args:
      vertices_clip: (P, 4) clip space, see the module's text.
      faces: (F, 3) int32, indices into the vertices, which must be in bounds.
      height: image height, px, at most 8192.
      width: image width, px, at most 8192.
      cull: 'none', 'back' (drop triangles that look clockwise) or 'front'.
      rasterizer: see `get_rasterizer`.

    Returns:
      Fragments of (H, W) arrays; b0, b1 and depth are differentiable with respect to the vertices.

    Raises:
      ValueError: a shape, size or name is not allowed.

    Example:
      fragments = rasterize(image_to_clip(vertices_img, 256, 256), faces, 256, 256, cull="back")
      normals = interpolate(vertex_normals, fragments, faces)
    """
    check_shape("vertices_clip", vertices_clip, "P", 4)
    ids = triangle_ids(vertices_clip[None], faces, height, width, cull, rasterizer)[0]
    return barycentrics(vertices_clip, faces, ids)


@functools.partial(jax.jit, static_argnames=_STATIC)
def triangle_ids(
    vertices_clip: jax.Array, faces: jax.Array, height: int, width: int, cull: str = "none", rasterizer: str = "auto"
) -> jax.Array:
    """As `rasterize`, but ids only: (B, P, 4) clip space -> (B, H, W) int32 triangle id + 1, 0 = background."""
    check_shape("vertices_clip", vertices_clip, "B", "P", 4)
    if check_shape("faces", faces, "F", 3)["F"] == 0:
        raise ValueError("faces: expected at least one triangle, got none.")
    check_choice("cull", cull, ["none", "back", "front"])
    if not (0 < height <= raster_jax.MAX_SIZE and 0 < width <= raster_jax.MAX_SIZE):
        raise ValueError(f"height, width: expected 1 to {raster_jax.MAX_SIZE} pixels, got {height} x {width}.")
    operation = _batched(get_rasterizer(rasterizer), height, width, cull)
    return operation(lax.stop_gradient(vertices_clip), jnp.asarray(faces, jnp.int32))


@functools.cache
def _batched(backend: Rasterizer, height: int, width: int, cull: str):
    """The backend as an operation on (B, P, 4) whose vmap, at any depth, only enlarges B."""

    @jax.custom_batching.custom_vmap
    def operation(vertices_clip, faces):
        return backend(vertices_clip, faces, height, width, cull)

    @operation.def_vmap
    def _(n, batched, vertices_clip, faces):
        vertices_batched, faces_batched = batched
        if faces_batched:  # meshes of different topology: one after the other
            if vertices_batched:
                return lax.map(lambda mesh: operation(*mesh), (vertices_clip, faces)), True
            return lax.map(lambda one: operation(vertices_clip, one), faces), True
        flat = operation(vertices_clip.reshape(-1, *vertices_clip.shape[2:]), faces)
        return flat.reshape(n, -1, height, width), True

    return operation


@jax.jit
def barycentrics(vertices_clip: jax.Array, faces: jax.Array, ids: jax.Array) -> Fragments:
    """Barycentric weights and depth of the pixels of one image, differentiable with respect to the vertices.

    The triangle's corners are seen from the pixel as homogeneous 2D points; the weight of a corner is proportional to
    the area spanned by the other two, which is perspective-correct and needs no division by w.

    Args:
      vertices_clip: (P, 4) clip space.
      faces: (F, 3) int32.
      ids: (H, W) int32 triangle id + 1.

    Returns:
      Fragments with these ids.
    """
    height, width = ids.shape
    dtype = vertices_clip.dtype
    corners = _corners(vertices_clip, faces, ids)
    column = ((2 * jnp.arange(width, dtype=dtype) + 1) / width - 1)[None, :]
    row = (1 - (2 * jnp.arange(height, dtype=dtype) + 1) / height)[:, None]
    x = [corner[..., 0] - column * corner[..., 3] for corner in corners]
    y = [corner[..., 1] - row * corner[..., 3] for corner in corners]
    a0, a1, a2 = (x[i] * y[j] - y[i] * x[j] for i, j in ((1, 2), (2, 0), (0, 1)))
    b0, b1, b2 = (_divide(a, a0 + a1 + a2) for a in (a0, a1, a2))
    z, w = (b0 * corners[0][..., i] + b1 * corners[1][..., i] + b2 * corners[2][..., i] for i in (2, 3))
    return Fragments(ids, b0, b1, _divide(z, w))


@jax.jit
def interpolate(attributes: jax.Array, fragments: Fragments, faces: jax.Array) -> jax.Array:
    """Mixes per-vertex values over the pixels of one image; 0 on the background.

    Args:
      attributes: (P, C) any quantity per vertex.
      fragments: of one image.
      faces: (F, 3) int32, the same as rasterized.

    Returns:
      (H, W, C), differentiable with respect to the attributes and, through the fragments, the vertices.
    """
    check_shape("attributes", attributes, "P", "C")
    b0, b1 = fragments.b0, fragments.b1
    weights = (b0, b1, jnp.where(fragments.ids > 0, 1 - b0 - b1, 0))
    corners = _corners(attributes, faces, fragments.ids)
    return jnp.asarray(sum(weight[..., None] * corner for weight, corner in zip(weights, corners, strict=True)))


def image_to_clip(vertices_img: jax.Array, height: int, width: int, depth_range: float = DEPTH_RANGE) -> jax.Array:
    """Image frame -> clip space of an image of this size, nearest = largest z.

    Args:
      vertices_img: (..., P, 3) px: u right, v down, pixel centres at integers, z towards the camera.
      height: image height, px.
      width: image width, px.
      depth_range: |z| beyond this is cut, px. `Fragments.depth * -depth_range` is z again.

    Returns:
      (..., P, 4) with w = 1.
    """
    u, v, z = (vertices_img[..., i] for i in range(3))
    return jnp.stack([(2 * u + 1) / width - 1, 1 - (2 * v + 1) / height, z / -depth_range, jnp.ones_like(z)], -1)


def _divide(a: jax.Array, b: jax.Array) -> jax.Array:
    """a / b, and 0 with zero gradient where b is 0."""
    return jnp.where(b != 0, a / jnp.where(b != 0, b, 1), 0)


def _corners(table: jax.Array, faces: jax.Array, ids: jax.Array) -> list[jax.Array]:
    """The rows of a (P, C) table at the three vertices of each pixel's triangle, (H, W, C) each; 0 on the background.

    The barrier survives transposition: it keeps XLA CPU from repeating work inside the scatter-add of the gradient.
    Background pixels read arbitrary triangles, all different: were they all to add their zero gradients to one
    vertex, they would queue up for it.
    """
    pixel = jnp.arange(ids.size, dtype=jnp.int32).reshape(ids.shape)
    triangle = jnp.where(ids > 0, ids - 1, pixel % faces.shape[0])
    rows = [_rows(table, _rows(faces[:, k], triangle)) for k in range(3)]
    return [jnp.where((ids > 0)[..., None], row, 0) for row in lax.optimization_barrier(rows)]


def _rows(table: jax.Array, index: jax.Array) -> jax.Array:
    """table[index] for indices known to be in bounds."""
    return jnp.asarray(table).at[index].get(mode="promise_in_bounds")

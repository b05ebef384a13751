"""The Warp rasterizer backend: one compiled kernel, on the CPU or on CUDA, called from inside jit.

Importing this file needs warp-lang (extra `[warp]`, Apache-2.0), which brings its own compilers: no CUDA toolkit, no
PyTorch. The kernel's machine code is cached under $FACERIG_CACHE/warp when that variable is set, else where Warp keeps
it by itself ($WARP_CACHE_PATH, or the user's cache folder).

How it works. Vertices are snapped by the portable backend's own function, so both see the same integers and own the
same pixels. One thread takes a triangle, or every `lanes`-th row of it, walks the pixel box and offers each covered
pixel a 64-bit key, the depth above the triangle id: the smallest key is the nearest triangle, the lowest id among
equals, whatever the order of the threads. Triangles that cross the camera plane or leave the fixed-point range are
tested against all pixels by homogeneous float32 edges, as the portable backend does.

Products and sums are not fused into one rounding (`fuse_fp`), lest the two triangles of an edge round it differently.
"""

import functools
import os
import sys

import jax
import jax.numpy as jnp
from jax import lax

from facerig_jax.raster import jax_backend as raster_jax

_LOADED_BY_US = "warp" not in sys.modules
try:
    import warp as wp
    from warp import jax_kernel
except ImportError as error:
    raise ImportError(
        "The rasterizer 'warp' needs warp-lang 1.19 or newer; install it with: pip install 'facerig_jax[warp]'."
    ) from error

if _LOADED_BY_US:  # whoever uses Warp besides us keeps their own settings
    wp.config.log_level = wp.LOG_WARNING  # neither a banner nor a line per compiled kernel
    wp.config.use_precompiled_headers = False  # they pay off from the second file on, and there is one
    if os.environ.get("FACERIG_CACHE") and not os.environ.get("WARP_CACHE_PATH"):
        wp.config.kernel_cache_dir = os.path.join(os.environ["FACERIG_CACHE"], "warp")

wp.set_module_options({"enable_backward": False, "fuse_fp": False})

_CULL = {"none": 0, "back": 1, "front": 2}
_CUDA_LANES = 8  # threads per triangle; not measured


def triangle_ids(vertices_clip: jax.Array, faces: jax.Array, height: int, width: int, cull: str = "none") -> jax.Array:
    """Which triangle each pixel sees; see `rasterize.Rasterizer` for the contract.

    Args:
      vertices_clip: (B, P, 4) clip space.
      faces: (F, 3) int32.
      height: image height, at most 8192.
      width: image width, at most 8192.
      cull: 'none', 'back' (drop clockwise triangles) or 'front'.

    Returns:
      (B, H, W) int32: triangle id + 1, 0 where nothing is seen.

    Raises:
      RuntimeError: JAX's devices are neither CPUs nor GPUs.
    """
    if jax.default_backend() not in ("cpu", "gpu"):
        raise RuntimeError(f"The rasterizer 'warp' needs JAX on a CPU or CUDA, found {jax.default_backend()}.")
    draw = functools.partial(_draw_images, height=height, width=width, cull=cull)
    vertices_clip, faces = vertices_clip.astype(jnp.float32), faces.astype(jnp.int32)
    return lax.platform_dependent(
        vertices_clip, faces, cpu=functools.partial(draw, lanes=1), cuda=functools.partial(draw, lanes=_CUDA_LANES)
    )


def _draw_images(clip, faces, height: int, width: int, cull: str, lanes: int) -> jax.Array:
    """`triangle_ids` with so many threads per triangle."""
    n_images, n_vertices, _ = clip.shape
    snapped = lax.optimization_barrier(raster_jax._snap(clip.reshape(-1, 4), height, width))
    x, y, z, in_range = (value.reshape(n_images, n_vertices) for value in snapped)
    empty = jnp.broadcast_to(jnp.array([-1, 2**31 - 1], jnp.int32), (n_images, height * width, 2))
    everywhere = wp.JaxModulePreloadMode.ALL_DEVICES  # Warp fails on a default device that is given by its name
    kernel = jax_kernel(_draw, in_out_argnames=["keys"], vmap_method="sequential", module_preload_mode=everywhere)
    scalars = (height, width, raster_jax._subpixel_bits(height, width), _CULL[cull], lanes)
    launch = (n_images, faces.shape[0], lanes)
    (keys,) = kernel(clip, x, y, z, in_range, faces, *scalars, empty, launch_dims=launch)
    return jnp.maximum(keys[..., 0], 0).reshape(n_images, height, width)


@wp.struct
class _Task:
    """What one thread draws: of one triangle in one image, the rows lane, lane + lanes, ...

    keys: (B, H W), the images under construction.
    cull: 0 none, 1 clockwise triangles, 2 the others.
    """

    keys: wp.array2d(dtype=wp.int64)
    image: int
    triangle: int
    lane: int
    lanes: int
    height: int
    width: int
    cull: int


@wp.kernel
def _draw(
    clip: wp.array2d(dtype=wp.vec4f),
    x: wp.array2d(dtype=wp.int32),
    y: wp.array2d(dtype=wp.int32),
    z: wp.array2d(dtype=wp.float32),
    in_range: wp.array2d(dtype=wp.bool),
    faces: wp.array(dtype=wp.vec3i),
    height: int,
    width: int,
    bits: int,
    cull: int,
    lanes: int,
    keys: wp.array3d(dtype=wp.int32),
):
    """One thread of a launch over (B, F, lanes).

    clip (B, P); x, y, z, in_range (B, P) as `raster_jax._snap` returns them, with `bits` fraction bits; faces (F);
    keys (B, H W, 2) 64-bit integers in two words, the low one first, because JAX has 64-bit types only when asked.
    """
    image, triangle, lane = wp.tid()
    task = _Task()
    task.keys = wp.array(ptr=keys.ptr, shape=(keys.shape[0], height * width), dtype=wp.int64)
    task.image = image
    task.triangle = triangle
    task.lane = lane
    task.lanes = lanes
    task.height = height
    task.width = width
    task.cull = cull
    face = faces[triangle]
    i, j, k = face[0], face[1], face[2]
    if in_range[image, i] and in_range[image, j] and in_range[image, k]:
        a = wp.vec2i(x[image, i], y[image, i])
        b = wp.vec2i(x[image, j], y[image, j])
        c = wp.vec2i(x[image, k], y[image, k])
        _draw_snapped(task, a, b, c, wp.vec3f(z[image, i], z[image, j], z[image, k]), bits)
    else:
        _draw_homogeneous(task, clip[image, i], clip[image, j], clip[image, k])


@wp.func
def _draw_snapped(task: _Task, a: wp.vec2i, b: wp.vec2i, c: wp.vec2i, z: wp.vec3f, bits: int):
    """A triangle with fixed-point corners: exact edges in int64, depth interpolated in float32."""
    area = _edge(a, b, c)
    clockwise = area >= wp.int64(0)  # on the screen, where rows run down
    if area == wp.int64(0) or (task.cull == 1 and clockwise) or (task.cull == 2 and not clockwise):
        return
    if not clockwise:
        b, c = c, b
        z = wp.vec3f(z[0], z[2], z[1])
    per_area = 1.0 / wp.abs(_to_float(area))
    slope1 = (z[1] - z[0]) * per_area
    slope2 = (z[2] - z[0]) * per_area

    last = (1 << bits) - 1  # rounds up to the first pixel centre inside the box
    left = wp.max((wp.min(a[0], wp.min(b[0], c[0])) + last) >> bits, 0)
    right = wp.min(wp.max(a[0], wp.max(b[0], c[0])) >> bits, task.width - 1)
    top = wp.max((wp.min(a[1], wp.min(b[1], c[1])) + last) >> bits, 0)
    bottom = wp.min(wp.max(a[1], wp.max(b[1], c[1])) >> bits, task.height - 1)
    open0, open1, open2 = _open(b, c), _open(c, a), _open(a, b)
    step0, step1, step2 = _step(b, c, bits), _step(c, a, bits), _step(a, b, bits)
    for row in range(top + task.lane, bottom + 1, task.lanes):
        start = wp.vec2i(left << bits, row << bits)
        edge0 = _edge(b, c, start)
        edge1 = _edge(c, a, start)
        edge2 = _edge(a, b, start)
        for column in range(left, right + 1):
            if edge0 >= open0 and edge1 >= open1 and edge2 >= open2:
                depth = z[0] + _to_float(edge1) * slope1 + _to_float(edge2) * slope2
                _offer(task, row, column, depth)
            edge0 += step0
            edge1 += step1
            edge2 += step2


@wp.func
def _edge(a: wp.vec2i, b: wp.vec2i, p: wp.vec2i):
    """Twice the area of the triangle (a, b, p), positive where p is to the right of a -> b on the screen."""
    return wp.int64(b[0] - a[0]) * wp.int64(p[1] - a[1]) - wp.int64(b[1] - a[1]) * wp.int64(p[0] - a[0])


@wp.func
def _step(a: wp.vec2i, b: wp.vec2i, bits: int):
    """Change of an edge function from one column to the next."""
    return -(wp.int64(b[1] - a[1]) << wp.int64(bits))


@wp.func
def _open(a: wp.vec2i, b: wp.vec2i):
    """The least value inside an edge: 0 on a top or left edge, which owns its pixels, else 1."""
    if b[1] < a[1] or (b[1] == a[1] and b[0] > a[0]):
        return wp.int64(0)
    return wp.int64(1)


@wp.func
def _to_float(edge: wp.int64):
    """Rounds as the portable backend does, which holds an edge function in two words."""
    return wp.float32(edge >> wp.int64(8)) * 256.0 + wp.float32(edge & wp.int64(255))


@wp.func
def _draw_homogeneous(task: _Task, a: wp.vec4f, b: wp.vec4f, c: wp.vec4f):
    """A triangle behind, across or far beside the view, by the edge functions of Olano and Greer (1997)."""
    x = wp.vec3f(a[0], b[0], c[0])
    y = wp.vec3f(a[1], b[1], c[1])
    z = wp.vec3f(a[2], b[2], c[2])
    w = wp.vec3f(a[3], b[3], c[3])
    if not (wp.isfinite(a) and wp.isfinite(b) and wp.isfinite(c)):
        return
    if wp.max(w - x) < 0.0 or wp.max(w + x) < 0.0 or wp.max(w - y) < 0.0 or wp.max(w + y) < 0.0:
        return  # wholly outside one side of the view
    x = (w + x) * (wp.float32(task.width) * 0.5) - w * 0.5  # pixels times w
    y = (w - y) * (wp.float32(task.height) * 0.5) - w * 0.5
    for row in range(task.lane, task.height, task.lanes):
        v = y - wp.float32(row) * w
        for column in range(task.width):
            u = x - wp.float32(column) * w
            edges = wp.vec3f(u[1] * v[2] - v[1] * u[2], u[2] * v[0] - v[2] * u[0], u[0] * v[1] - v[0] * u[1])
            volume = edges[0] * w[0] + edges[1] * w[1] + edges[2] * w[2]
            kept = volume != 0.0 and not (task.cull == 1 and volume > 0.0) and not (task.cull == 2 and volume < 0.0)
            if kept and wp.min(edges * wp.sign(volume)) >= 0.0:
                depth = (edges[0] * z[0] + edges[1] * z[1] + edges[2] * z[2]) / volume
                _offer(task, row, column, depth)


@wp.func
def _offer(task: _Task, row: int, column: int, depth: float):
    """Keeps the smaller key; its upper half is the depth's bits, turned so that they sort as integers."""
    if depth >= -1.0 and depth <= 1.0:
        order = wp.cast(depth, wp.int32)
        order ^= (order >> 31) & 0x7FFFFFFF
        key = (wp.int64(order) << wp.int64(32)) | wp.int64(task.triangle + 1)
        wp.atomic_min(task.keys, task.image, row * task.width + column, key)

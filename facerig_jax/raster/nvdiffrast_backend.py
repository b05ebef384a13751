"""The nvdiffrast rasterizer backend (Laine et al. 2020), CUDA only. Written to its documented API; not run by us yet.

nvdiffrast (0.3.3 or newer, https://github.com/NVlabs/nvdiffrast) and PyTorch with CUDA are installed by hand; the
former has a non-commercial licence and is neither a dependency nor part of this package. It is called from inside jit
by `jax.experimental.buffer_callback`, in place on XLA's buffers and on XLA's stream.

What differs from the contract of `rasterize.Rasterizer`: vertices are snapped to 1/16 pixel, and which triangle wins at
equal depth and on shared edges is nvdiffrast's choice (one owner, but not always ours).

What it costs: it waits for the device on every call; PyTorch allocates outside XLA's pool, so leave it room
(XLA_PYTHON_CLIENT_MEM_FRACTION); calls on one device take turns; JAX keeps no program with a Python callback in its
persistent compilation cache.
"""

import functools
import threading
import types

import jax
import jax.numpy as jnp
from jax.experimental.buffer_callback import buffer_callback

try:
    import nvdiffrast.torch as dr
    import torch
except ImportError as error:
    raise ImportError(
        "The rasterizer 'nvdiffrast' needs nvdiffrast and PyTorch, which are installed by hand: "
        "https://github.com/NVlabs/nvdiffrast (non-commercial licence)."
    ) from error

_MAX_FACES = 2**24  # nvdiffrast returns ids as float32 and takes no more triangles in one call
_UNSEEN = (0.0, 0.0, 2.0, 1.0)  # a point beyond the depth range
_LOCK = threading.Lock()


def triangle_ids(vertices_clip: jax.Array, faces: jax.Array, height: int, width: int, cull: str = "none") -> jax.Array:
    """Which triangle each pixel sees; see `rasterize.Rasterizer` for the contract, and the module's text.

    Args:
      vertices_clip: (B, P, 4) clip space.
      faces: (F, 3) int32, fewer than 2^24.
      height: image height, at most 8192.
      width: image width, at most 8192.
      cull: 'none', 'back' (drop clockwise triangles) or 'front'.

    Returns:
      (B, H, W) int32: triangle id + 1, 0 where nothing is seen.

    Raises:
      RuntimeError: PyTorch or JAX has no CUDA device.
      ValueError: too many triangles.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("The rasterizer 'nvdiffrast' needs a CUDA device, and PyTorch finds none.")
    if jax.default_backend() != "gpu":
        raise RuntimeError(f"The rasterizer 'nvdiffrast' needs JAX on a CUDA device, found {jax.default_backend()}.")
    if faces.shape[0] >= _MAX_FACES:
        raise ValueError(f"faces: expected fewer than 2^24 triangles for nvdiffrast, got {faces.shape[0]}.")
    corners = _separate_corners(vertices_clip.astype(jnp.float32), faces.astype(jnp.int32), cull)
    triangles = jnp.arange(3 * faces.shape[0], dtype=jnp.int32).reshape(-1, 3)
    ids = jax.ShapeDtypeStruct((vertices_clip.shape[0], height, width), jnp.int32)
    return buffer_callback(_rasterize_in_place, ids, vmap_method="sequential")(corners, triangles)


def _separate_corners(vertices_clip: jax.Array, faces: jax.Array, cull: str) -> jax.Array:
    """(B, 3F, 4) clip space with y down, of triangles that share no vertex; those to drop are out of sight.

    What is culled must not hide what is not, so it has to go before rasterization, and from each image by itself.
    nvdiffrast's row 0 is the bottom one: with y turned round it is our top one.
    """
    corners = vertices_clip[:, faces]  # (B, F, 3, 4)
    kept = jnp.isfinite(corners).all((-2, -1))
    if cull != "none":
        a, b, c = (corners[..., k, (0, 1, 3)] for k in range(3))
        # The determinant of a, b, c; by differences, which with w = 1 makes it as exact as the triangle's area.
        orientation = jnp.sum(a * jnp.cross(b - a, c - a), -1)
        kept &= orientation > 0 if cull == "back" else orientation < 0  # > 0: counter-clockwise
    corners = corners.at[..., 1].multiply(-1)
    unseen = jnp.broadcast_to(jnp.asarray(_UNSEEN, corners.dtype), corners.shape)
    return jnp.where(kept[..., None, None], corners, unseen).reshape(corners.shape[0], -1, 4)


def _rasterize_in_place(context, ids, corners, triangles) -> None:
    """The callback: ids (B, H, W) int32 out; corners (B, 3F, 4) float32 and triangles (F, 3) int32 in."""
    ids, corners, triangles = (_tensor(buffer) for buffer in (ids, corners, triangles))
    stream = torch.cuda.ExternalStream(context.stream(), device=ids.device)
    with _LOCK, torch.no_grad(), torch.cuda.stream(stream):
        seen, _ = dr.rasterize(_rasterizer(ids.device.index), corners, triangles, tuple(ids.shape[1:]), grad_db=False)
        ids.copy_(seen[..., 3])  # id + 1 as float32


def _tensor(buffer):
    """A tensor on XLA's memory; inputs are not declared read-only, which PyTorch refuses. Nobody writes to them."""
    interface = dict(buffer.__cuda_array_interface__)
    interface["data"] = (interface["data"][0], False)
    return torch.as_tensor(types.SimpleNamespace(__cuda_array_interface__=interface))


@functools.cache
def _rasterizer(device: int):
    """nvdiffrast's state on a CUDA device; the caller holds the lock."""
    return dr.RasterizeCudaContext(device=torch.device("cuda", device))

"""The space of rigs that one stage optimises in: UV features of all views (docs/method.md section 3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from facerig_jax.geometry.camera import to_image
from facerig_jax.geometry.sampling import bilinear, image_to_map_points
from facerig_jax.inorig.config import InorigConfig
from facerig_jax.inorig.params import Pyramids, stage_modules
from facerig_jax.networks.tree import apply
from facerig_jax.raster.uv import UVTable, uv_table, vertex_to_uv
from facerig_jax.types import HeadModel


@struct.dataclass
class RigSpace:
    """What one stage computed from the images.

    identity, expression: (S, S, n) UV features; in the first stage `expression` is one (16 n,) vector.
    albedo:               (S', S', n') UV features.
    """

    identity: jax.Array
    expression: jax.Array
    albedo: jax.Array


def make_tables(head: HeadModel, config: InorigConfig) -> dict[int, UVTable]:
    """The UV tables of all stages, by their size."""
    sizes = config.networks.uv_sizes[: config.stages] + config.networks.albedo_uv_sizes[: config.stages]
    return {size: uv_table(jnp.asarray(head.uv), head.faces, size) for size in sorted(set(sizes))}


def rig_space(
    params: dict,
    stage: int,
    pyramids: Pyramids,
    projected: jax.Array,
    seen: jax.Array,
    view_mask: jax.Array,
    head: HeadModel,
    tables: dict[int, UVTable],
    config: InorigConfig,
) -> RigSpace:
    """The views' features at the previous reconstruction, in UV space, joined over views.

    Args:
      params: the stage's parameters.
      stage: 0, 1 or 2.
      pyramids: feature maps.
      projected: (V, P, 3) the previous reconstruction in the projected frame, px; no gradient flows into it.
      seen: (V, P) its visible vertices.
      view_mask: (V,) views that count.
      head: morphable head.
      tables: see `make_tables`.
      config: static settings.

    Returns:
      RigSpace.
    """
    sizes, modules = config.networks, stage_modules(config, stage)
    projected = jax.lax.stop_gradient(projected)
    keep = (seen | (head.face_mask <= 0.5)[None]).astype(projected.dtype)

    def encode(name, maps, size):
        values = gather_features(maps, projected, keep, sizes.image_size)
        texture = jax.vmap(lambda value: vertex_to_uv(value, tables[size]))(values)
        return apply(modules[name], params[name], texture, view_mask, dtype=sizes.dtype)

    side, albedo_side = sizes.uv_sizes[stage], sizes.albedo_uv_sizes[stage]
    expression = encode("expression_uv", pyramids.rig[stage], side)
    if stage == 0:
        name = "expression_vector"
        expression = apply(modules[name], params[name], expression, dtype=sizes.dtype)
    return RigSpace(
        identity=encode("identity_uv", pyramids.rig[stage], side),
        expression=expression,
        albedo=encode("albedo_uv", pyramids.albedo[stage], albedo_side),
    )


def gather_features(maps: jax.Array, projected: jax.Array, keep: jax.Array, image_size: int) -> jax.Array:
    """Features at the projected vertices where `keep`, and the vertices' relative positions.

    Args:
      maps: (V, h, w, C) feature maps.
      projected: (V, P, 3) projected frame, px.
      keep: (V, P) 0 hides a vertex's features.
      image_size: side of the images that the vertices are projected to, px.

    Returns:
      (V, P, C + 3)
    """
    points = to_image(projected, image_size, image_size)[..., :2]
    points = image_to_map_points(points, (image_size, image_size), maps.shape[1:3])
    features = jax.vmap(bilinear)(maps, points) * keep[..., None]
    return jnp.concatenate([features, projected / image_size], -1)

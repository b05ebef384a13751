"""Where a person wears the colours of the skin: brows, lips, beard and blush shifted over the mesh by a smooth field.

On a morphable head every brow grows on the same vertices; on people it does not, and a network that was never shown so
reads shape from where the colours are.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from facerig_jax.raster.uv import UVTable, uv_table, uv_to_vertex, vertex_to_uv
from facerig_jax.synthetic.people import smooth_displacement
from facerig_jax.types import HeadModel

_TEXELS = 384  # per side of the texture through which colours are shifted: about half a millimetre each
_LEAST_SKIN = 0.05  # share of a sampled spot that must be skin; vertices beyond it (past a lid's edge) keep their own
_FARTHEST = 4.0  # times the rms; what lies farther is beyond a seam of the layout, and vertices keep their own


@struct.dataclass
class Placement:
    """Where on the skin each vertex's colours come from.

    uv:    (P, 2) of that place.
    skin:  (P,) 1 where there is skin.
    moved: (P,) bool, vertices that do not keep their own.
    """

    uv: jax.Array
    skin: jax.Array
    moved: jax.Array
    table: UVTable


def draw_placement(key, head: HeadModel, rms: float) -> Placement:
    """A random smooth shift over the skin, of about this rms (mm) on the face."""
    field = smooth_displacement(key, head)[:, :2] * jnp.sqrt(1.5)  # of three directions, two; rms 1 again
    placement = Placement(
        uv=head.uv + rms * _uv_per_mm(head) * field,
        skin=(head.part == 0).astype(jnp.float32),
        moved=head.part == 0,
        table=uv_table(head.uv, head.faces, _TEXELS),
    )
    distance = jnp.linalg.norm(place(placement, head.mean) - head.mean, axis=-1) * head.unit_mm
    return placement.replace(moved=placement.moved & (distance < _FARTHEST * rms))


def place(placement: Placement, values: jax.Array) -> jax.Array:
    """Per-vertex values (P, C), shifted: linear between vertices; what is not skin keeps its own, and gives none."""
    skin = placement.skin[:, None]
    texture = vertex_to_uv(jnp.concatenate([skin * values, skin], -1), placement.table)
    shifted = uv_to_vertex(texture, placement.uv)
    share = shifted[:, -1:]
    taken = placement.moved[:, None] & (share > _LEAST_SKIN)
    return jnp.where(taken, shifted[:, :-1] / jnp.maximum(share, _LEAST_SKIN), values)


def _uv_per_mm(head: HeadModel) -> jax.Array:
    """() mean scale of the UV layout on the face."""
    on_face = jnp.min(head.face_mask[head.faces], 1)
    flat, solid = head.uv[head.faces], head.mean[head.faces] * head.unit_mm
    flat, solid = flat[:, 1:] - flat[:, :1], solid[:, 1:] - solid[:, :1]
    flat_area = jnp.abs(flat[:, 0, 0] * flat[:, 1, 1] - flat[:, 0, 1] * flat[:, 1, 0])
    solid_area = jnp.linalg.norm(jnp.cross(solid[:, 0], solid[:, 1]), axis=-1)
    return jnp.sqrt(jnp.sum(on_face * flat_area) / jnp.sum(on_face * solid_area))

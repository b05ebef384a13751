"""A morphable model restricted to the points that an energy looks at."""

import jax
import jax.numpy as jnp
from flax import struct

from facerig_jax.head.model import landmark_positions
from facerig_jax.numerics import HIGHEST
from facerig_jax.types import HeadModel


@struct.dataclass
class PointModel:
    """Linear model of n points with C numbers each: mean (n, C), identity (I, n, C), expression (E, n, C)."""

    mean: jax.Array
    identity: jax.Array
    expression: jax.Array


def evaluate(model: PointModel, identity: jax.Array, expression: jax.Array) -> jax.Array:
    """(n, C) values at coefficients identity (I,) and expression (E,)."""
    moved = jnp.tensordot(identity, model.identity, 1, precision=HIGHEST)
    return model.mean + moved + jnp.tensordot(expression, model.expression, 1, precision=HIGHEST)


def dense_landmark_model(head: HeadModel) -> PointModel:
    """The dense landmarks as the detector would report them (calibrated where the head knows how), C = 3."""
    model = PointModel(*(landmark_positions(head.landmarks_dense, basis) for basis in _bases(head)))
    habits = head.dense_calibration
    if habits is None:
        return model
    identity = model.identity.at[: habits.identity.shape[0]].add(habits.identity)
    return PointModel(model.mean + habits.offset, identity, model.expression + habits.expression)


def landmark68_model(head: HeadModel) -> PointModel:
    """The 68 iBUG points, C = 3."""
    return PointModel(*(landmark_positions(head.landmarks68, basis) for basis in _bases(head)))


def position_model(head: HeadModel, index: jax.Array) -> PointModel:
    """Position of the vertices `index` (n,), C = 3."""
    return PointModel(*(basis[..., index, :] for basis in _bases(head)))


def surface_model(head: HeadModel, index: jax.Array) -> PointModel:
    """Position and two tangents of the vertices `index` (n,), C = 9."""
    ring, ring_weight = head.ring, head.ring_weight
    assert ring is not None, "the head was loaded, see head.load"
    assert ring_weight is not None, "both or neither"

    def gather(basis):
        tangents = jnp.einsum("...nmc,nmt->...ntc", basis[..., ring[index], :], ring_weight[index], precision=HIGHEST)
        flat = tangents.reshape(*tangents.shape[:-2], 6)
        return jnp.concatenate([basis[..., index, :], flat], -1)

    return PointModel(*(gather(basis) for basis in _bases(head)))


def _bases(head: HeadModel):
    return jnp.asarray(head.mean), jnp.asarray(head.identity_basis), jnp.asarray(head.expression_basis)

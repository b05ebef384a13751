"""The unknowns of a fit and their flat layout: shared ones first, then every view's own."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

N_POSE, N_LIGHT = 6, 27
# The unknowns that points say something about, and those that move once the person is known.
ALL = ("identity", "albedo", "pose", "inverse_distance", "expression", "light")
GEOMETRY = ("identity", "pose", "inverse_distance", "expression")
MOTION = ("pose", "expression")


@struct.dataclass
class Parameters:
    """identity (I,), albedo (A,); per view: pose (V, 6), inverse_distance (V,), expression (V, E), light (V, 9, 3)."""

    identity: jax.Array
    albedo: jax.Array
    pose: jax.Array
    inverse_distance: jax.Array
    expression: jax.Array
    light: jax.Array

    @property
    def n_views(self) -> int:
        """V."""
        return self.pose.shape[0]

    @property
    def n_shared(self) -> int:
        """I + A."""
        return self.identity.shape[0] + self.albedo.shape[0]

    @property
    def n_own(self) -> int:
        """Parameters of one view: pose, inverse distance, expression, light."""
        return N_POSE + 1 + self.expression.shape[1] + N_LIGHT


def join_own(pose, inverse_distance, expression, light) -> jax.Array:
    """Columns (..., 6), (..., 1), (..., E), (..., 27) -> (..., O): the one place that fixes their order."""
    return jnp.concatenate([pose, inverse_distance, expression, light], -1)


def flatten(x: Parameters) -> jax.Array:
    """(I + A + V O,) vector."""
    own = join_own(x.pose, x.inverse_distance[:, None], x.expression, x.light.reshape(x.n_views, N_LIGHT))
    return jnp.concatenate([x.identity, x.albedo, own.reshape(-1)])


def unflatten(vector: jax.Array, like: Parameters) -> Parameters:
    """The inverse of `flatten` for unknowns of the sizes of `like`."""
    n_identity, n_expression = like.identity.shape[0], like.expression.shape[1]
    own = vector[like.n_shared :].reshape(like.n_views, like.n_own)
    return Parameters(
        identity=vector[:n_identity],
        albedo=vector[n_identity : like.n_shared],
        pose=own[:, :N_POSE],
        inverse_distance=own[:, N_POSE],
        expression=own[:, N_POSE + 1 : N_POSE + 1 + n_expression],
        light=own[:, -N_LIGHT:].reshape(-1, 9, 3),
    )


def places(like: Parameters, names: tuple[str, ...]) -> np.ndarray:
    """(D',) places in the flat vector, ascending, of the fields `names` of unknowns of the sizes of `like`."""
    numbered = unflatten(np.arange(like.n_shared + like.n_views * like.n_own), like)
    return np.sort(np.concatenate([np.asarray(getattr(numbered, name)).reshape(-1) for name in names]))


def columns(like: Parameters, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Columns of these fields in the shared (S,) and per-view (O,) blocks of a Jacobian."""
    every = places(like, names)
    own = every[(every >= like.n_shared) & (every < like.n_shared + like.n_own)] - like.n_shared
    return every[every < like.n_shared], own


def view_axes() -> Parameters:
    """Axes for `jax.vmap` over views: identity and albedo belong to all of them."""
    return Parameters(identity=None, albedo=None, pose=0, inverse_distance=0, expression=0, light=0)

"""Landmarks as the detector would report them, without running it: from its habits and noise measured on renders."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from facerig_jax.geometry.camera import project, to_image
from facerig_jax.head.model import landmark_positions
from facerig_jax.numerics import HIGHEST
from facerig_jax.types import HeadModel

# The detector's response to expressions, relative to the head's calibration (which believes in a part of it): lowest
# and highest, drawn once per view.
RESPONSE = (0.6, 1.6)
# Noise of the depth over that in the image.
DEPTH_NOISE = 4.0
# A share of the views has all noise this many times larger, as where hair or a hand covers the face.
POOR_SHARE, POOR_NOISE = 0.05, 3.0


def imitate_landmarks(
    key, head: HeadModel, vertices, identity, expression, pose, inverse_distance, size: int, noise=1.0
) -> jax.Array:
    """Draws what the detector would find in one view.

    Args:
      key: random key.
      head: with dense landmarks; without their calibration the points are exact.
      vertices: (P, 3) head frame, with expression.
      identity: (I,) coefficients in the head's basis.
      expression: (E,) weights.
      pose, inverse_distance: (6,), () of the camera.
      size: side of the photo, px.
      noise: strength of noise, habits and poor views; 0 = exact points.

    Returns:
      (468, 3) photo px, z towards the camera.
    """
    habits, points = head.dense_calibration, landmark_positions(head.landmarks_dense, vertices)
    if habits is None:
        return to_image(project(points, pose, inverse_distance), size, size)
    own_key, common_key, response_key, poor_key = jax.random.split(key, 4)
    response = jax.random.uniform(response_key, minval=RESPONSE[0], maxval=RESPONSE[1])
    known = min(len(identity), len(habits.identity))
    shift = jnp.asarray(habits.offset) + _combine(identity[:known], habits.identity[:known])
    shift = shift + response * _combine(expression, habits.expression)
    posed = to_image(project(points + noise * shift, pose, inverse_distance), size, size)
    common = _combine(jax.random.normal(common_key, (len(habits.common),)), habits.common)  # right and up in mm
    roll = pose[2]
    turn = jnp.array([[jnp.cos(roll), -jnp.sin(roll)], [jnp.sin(roll), jnp.cos(roll)]])
    common = jnp.matmul(common, turn.T, precision=HIGHEST) * jnp.array([[1.0, -1.0]])  # v runs down
    common = jnp.concatenate([common, jnp.zeros_like(common[:, :1])], 1)
    axes = jnp.array([[1.0, 1.0, DEPTH_NOISE]])
    own = jnp.asarray(habits.deviation)[:, None] * axes * jax.random.normal(own_key, (len(points), 3))
    poor = jnp.where(jax.random.uniform(poor_key) < POOR_SHARE, POOR_NOISE, 1.0)
    return posed + noise * poor * pose[3] * (common + own)


def _combine(weights, basis) -> jax.Array:
    return jnp.tensordot(weights, jnp.asarray(basis, jnp.float32), 1, precision=HIGHEST)

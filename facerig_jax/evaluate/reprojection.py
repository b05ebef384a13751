"""How far the fitted face lies from the detected points, in the image."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from facerig_jax.config import FitConfig
from facerig_jax.detect import landmarks68_from_dense
from facerig_jax.detect.landmarks import LANDMARKS68
from facerig_jax.geometry.camera import project, to_image
from facerig_jax.geometry.crop import to_crop
from facerig_jax.geometry.visibility import visible
from facerig_jax.head.model import landmark_positions
from facerig_jax.numerics import HIGHEST, masked_mean
from facerig_jax.solve.points import dense_landmark_model, evaluate
from facerig_jax.types import HeadModel, Rig, Views

INNER = slice(17, 68)
OUTER_EYES = (36, 45)


@struct.dataclass
class Reprojection:
    """Where the fit puts the face in every view.

    vertices:     (V, P, 3) crop pixels, image frame, z towards the camera.
    error:        (V,) mean distance of fitted to detected points over the detected outer-eye distance in the image:
                  those of the 68 iBUG points 17-67 that are visible; fitted points as the detector would report them.
    plain_error:  (V,) likewise for the head's own 68 points, without the detector's measured habits.
    """

    vertices: jax.Array
    error: jax.Array
    plain_error: jax.Array


@functools.partial(jax.jit, static_argnames="crop_size")
def reprojection(head: HeadModel, rig: Rig, views: Views, crop_size: int = FitConfig().crop_size) -> Reprojection:
    """Projects the rig into its views.

    Args:
      head: the head the rig was made with.
      rig: of the person.
      views: V views.
      crop_size: side of the crop that the poses refer to, px.

    Returns:
      Reprojection; the errors of views without a face mean nothing.
    """
    moved = jnp.tensordot(views.expression, rig.expression_basis, 1, precision=HIGHEST)
    posed = _posed(rig.neutral[None] + moved, views, crop_size)
    seen = visible(posed, head.faces, crop_size).astype(posed.dtype)[..., None]
    detected = landmarks68_from_dense(to_crop(views.landmarks, views.crop))[:, INNER]
    eyes = landmarks68_from_dense(to_crop(views.landmarks, views.crop))[:, np.array(OUTER_EYES)]
    span = jnp.maximum(jnp.linalg.norm(eyes[:, 0] - eyes[:, 1], axis=-1), 1e-3)
    own = landmark_positions(head.landmarks68, posed)[:, INNER, :2]
    own_seen = landmark_positions(head.landmarks68, seen)[:, INNER, 0] > 0.5
    model, order = dense_landmark_model(head), np.array(LANDMARKS68)[INNER]
    dense = jax.vmap(evaluate, (None, None, 0))(model, rig.identity_code, views.expression)
    dense = _posed(dense, views, crop_size)[:, order, :2]
    trusted = landmark_positions(head.landmarks_dense, seen)[:, order, 0] > 0.5
    trusted = trusted & (head.landmarks_dense.weight[order] > 0)[None]

    def error(points, mask):
        return masked_mean(jnp.linalg.norm(points - detected, axis=-1), mask, axis=-1) / span

    return Reprojection(posed, error(dense, trusted), error(own, own_seen))


def _posed(points, views: Views, crop_size: int) -> jax.Array:
    """(V, n, 3) head frame -> crop pixels."""
    return to_image(project(points, views.pose, views.inverse_distance), crop_size, crop_size)

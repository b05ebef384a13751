"""How far the fitted face lies from the detected points, in the image."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from facerig_jax.detect import landmarks68_from_dense
from facerig_jax.detect.landmarks import LANDMARKS68
from facerig_jax.geometry.camera import project_to_image
from facerig_jax.geometry.crop import to_crop
from facerig_jax.geometry.light import sh_basis, shade
from facerig_jax.geometry.mesh import vertex_normals
from facerig_jax.geometry.rotation import euler_to_matrix, rotate
from facerig_jax.head.model import dense_landmarks, landmark_positions
from facerig_jax.numerics import masked_mean
from facerig_jax.programs import kept
from facerig_jax.raster.visibility import visible
from facerig_jax.rig.apply import apply_rig
from facerig_jax.rig.neural import blendshape_weights
from facerig_jax.types import HeadModel, Rig, Views

INNER = slice(17, 68)
OUTER_EYES = (36, 45)


@struct.dataclass
class Reprojection:
    """Where the fit puts the face in every view.

    vertices:     (V, P, 3) crop pixels, image frame, z towards the camera.
    error:        (V,) mean distance of fitted to detected points over the detected outer-eye distance in the image:
                  those of the 68 iBUG points 17-67 that are visible; fitted points as the detector would report them
                  (on a head without dense landmarks: its own points).
    """

    vertices: jax.Array
    error: jax.Array


def reprojection(head: HeadModel, rig: Rig, views: Views) -> Reprojection:
    """Projects the rig into its views.

    Args:
      head: the head the rig was made with.
      rig: of the person.
      views: V views.

    Returns:
      Reprojection; the errors of views without a face mean nothing.
    """
    return Reprojection(*_reprojection(head, rig, views))


@kept()
def _reprojection(head: HeadModel, rig: Rig, views: Views) -> tuple[jax.Array, jax.Array]:
    """The fields of Reprojection, in their order."""
    posed = place(rig, views)
    seen = visible(posed, head.faces, views.crop.size).astype(posed.dtype)[..., None]
    detected = landmarks68_from_dense(to_crop(views.landmarks, views.crop))[:, INNER]
    eyes = landmarks68_from_dense(to_crop(views.landmarks, views.crop))[:, np.array(OUTER_EYES)]
    span = jnp.maximum(jnp.linalg.norm(eyes[:, 0] - eyes[:, 1], axis=-1), 1e-3)

    def error(points, mask):
        return masked_mean(jnp.linalg.norm(points - detected, axis=-1), mask, axis=-1) / span

    if head.landmarks_dense is None:
        own_seen = landmark_positions(head.landmarks68, seen)[:, INNER, 0] > 0.5
        return posed, error(landmark_positions(head.landmarks68, posed)[:, INNER, :2], own_seen)
    order = np.array(LANDMARKS68)[INNER]
    dense = dense_points(head, rig, views)[:, order]
    trusted = landmark_positions(head.landmarks_dense, seen)[:, order, 0] > 0.5
    trusted = trusted & (head.landmarks_dense.weight[order] > 0)[None]
    return posed, error(dense, trusted)


@kept()
def face_brightness(head: HeadModel, rig: Rig, views: Views) -> jax.Array:
    """(V,) mean linear RGB of the fitted face in each view, from its light and the rig's albedo."""
    vertices, albedo = apply_rig(rig, views.expression)
    turn = jax.vmap(euler_to_matrix)(views.pose[:, :3])
    normals = jax.vmap(rotate)(turn, vertex_normals(vertices, head.faces))
    colour = jnp.mean(albedo * shade(sh_basis(normals), views.light), -1)
    facing = jnp.maximum(normals[..., 2], 0) * jnp.asarray(head.face_mask)[None]
    return masked_mean(colour, facing, axis=-1)


def place(rig: Rig, views: Views) -> jax.Array:
    """(V, P, 3) crop pixels, image frame: the rig in every view."""
    vertices, _ = apply_rig(rig, views.expression)
    return project_to_image(vertices, views.pose, views.inverse_distance, views.crop.size)


def dense_points(head: HeadModel, rig: Rig, views: Views) -> jax.Array:
    """(V, 468, 2) crop pixels where the detector would report the rig's dense landmarks; the head must know them.

    Raises ValueError when rig and head say that they are of different versions of the head.
    """
    if rig.head_version and head.version and rig.head_version != head.version:
        raise ValueError(
            f"the rig's identity_code belongs to version {rig.head_version} of its head, and this head is version "
            f"{head.version}; its neutral still holds: fit the photos again for landmarks."
        )
    vertices, _ = apply_rig(rig, views.expression)
    points = dense_landmarks(head, vertices, jnp.asarray(rig.identity_code), blendshape_weights(rig, views.expression))
    return project_to_image(points, views.pose, views.inverse_distance, views.crop.size)[..., :2]

"""Scaled orthographic camera with an optional inverse distance, and the image frames.

A view's pose is 6 numbers: pitch, yaw, roll (rad); scale (px per head unit); tx, ty (px, y up).
The projected frame has its origin at the image centre, x right, y up, z towards the camera, in pixels.
"""

import jax
import jax.numpy as jnp

from facerig_jax.geometry.rotation import euler_to_matrix, rotate

# Nearest a point may come to the camera, as a share of the distance: keeps 1 / (1 - z d) finite for wild codes.
MIN_DEPTH = 0.1


def project(vertices: jax.Array, pose: jax.Array, inverse_distance: jax.Array | float = 0.0) -> jax.Array:
    """Poses and projects vertices of the head frame (docs/method.md section 1).

    With inverse distance d the rotated point r is scaled by 1 / (1 - d r_z): a pinhole at distance 1/d from the
    head origin, exactly orthographic at d = 0. The same factor applies to z, a projective map, so straight lines stay
    straight and depth order is kept.

    Args:
      vertices: (..., P, 3) head frame, head units.
      pose: (..., 6) pitch, yaw, roll (rad), scale (px per head unit), tx, ty (px, y up).
      inverse_distance: (...) 1 / head units.

    Returns:
      (..., P, 3) projected frame, px: x right, y up, z towards the camera, origin at the image centre.
    """
    rotated = rotate(euler_to_matrix(pose[..., :3]), vertices)
    inverse_distance = jnp.asarray(inverse_distance, rotated.dtype)[..., None]
    depth = jnp.maximum(1.0 - inverse_distance * rotated[..., 2], MIN_DEPTH)
    scaled = rotated * (pose[..., None, 3] / depth)[..., None]
    shift = jnp.concatenate([pose[..., 4:6], jnp.zeros_like(pose[..., :1])], -1)
    return scaled + shift[..., None, :]


def to_image(projected: jax.Array, height: int, width: int) -> jax.Array:
    """Projected frame (..., 3) -> image frame (..., 3): u = x + W/2, v = H - (y + H/2) - 1, z unchanged."""
    x, y, z = (projected[..., i] for i in range(3))
    return jnp.stack([x + width / 2, height - (y + height / 2) - 1, z], -1)


def project_to_image(vertices: jax.Array, pose: jax.Array, inverse_distance: jax.Array | float, size: int) -> jax.Array:
    """`project` (..., P, 3) into the image frame of a square image of side `size`, px."""
    return to_image(project(vertices, pose, inverse_distance), size, size)


def from_image(points: jax.Array, height: int, width: int) -> jax.Array:
    """Image pixels (..., 2) -> projected frame (..., 2); the inverse of `to_image` for u and v."""
    return jnp.stack([points[..., 0] - width / 2, height / 2 - 1 - points[..., 1]], -1)


def normalized_to_pose(pose: jax.Array, unit_mm: float = 1e-3, image_size: int = 256) -> jax.Array:
    """The method's normalised pose -> real pose: s = 0.5 p + 1.25 px/mm and t = 10 p px in a crop of 256 pixels.

    docs/method.md section 1, in millimetres and for any head and crop.

    Args:
      pose: (..., 6) pitch, yaw, roll (rad), normalised scale and translation.
      unit_mm: millimetres per head unit.
      image_size: side of the crop, px.

    Returns:
      (..., 6) see `project`.
    """
    gain, shift = _normalisation(unit_mm, image_size, pose)
    return pose * gain + shift


def pose_to_normalized(pose: jax.Array, unit_mm: float = 1e-3, image_size: int = 256) -> jax.Array:
    """The inverse of `normalized_to_pose`."""
    gain, shift = _normalisation(unit_mm, image_size, pose)
    return (pose - shift) / gain


def _normalisation(unit_mm: float, image_size: int, like: jax.Array) -> tuple[jax.Array, jax.Array]:
    size, axes = image_size / 256, range(like.ndim - 1)
    gain = jnp.array([1.0, 1.0, 1.0, 0.5 * unit_mm * size, 10.0 * size, 10.0 * size], like.dtype)
    shift = jnp.array([0.0, 0.0, 0.0, 1.25 * unit_mm * size, 0.0, 0.0], like.dtype)
    return jnp.expand_dims(gain, axes), jnp.expand_dims(shift, axes)

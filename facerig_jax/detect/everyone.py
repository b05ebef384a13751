"""All faces of a photo with their landmarks and colours, the one that `detect` takes first."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from ..geometry.sampling import bilinear
from ..numerics import srgb_to_linear
from .crop import Window, resample
from .faces import (
    CONFIDENT_MARGIN,
    OVERLAP_THRESHOLD,
    box_area,
    find_all_faces,
    largest_face,
    overlap,
    search_pyramid,
)
from .landmarks import (
    PRESENCE_THRESHOLD,
    refine_landmarks,
    split_irises,
    window_from_keypoints,
    window_from_landmarks,
)

# Side of the small picture that a face's colours are taken from, px.
COLOUR_SIZE = 32


@struct.dataclass
class Everyone:
    """Up to K faces of one photo (leading batch axes allowed): first the one that `detect` takes, then by size.

    found:     (K,) bool; zeros follow where it is False.
    boxes:     (K, 4) u0, v0, u1, v1 photo pixels.
    landmarks: (K, 468, 3) photo pixels; z in the same scale, towards the camera.
    colours:   (K, 468, 3) linear RGB in [0, 1] at the landmarks, means over about 1/20 of the face.
    """

    found: jax.Array
    boxes: jax.Array
    landmarks: jax.Array
    colours: jax.Array


def detect_everyone(params: dict, image: jax.Array, count: int, thorough=True) -> Everyone:
    """All faces of a photo that the detector is about as sure of as of its best.

    Args:
      params: `load_detector()`.
      image: (H, W, 3) sRGB, uint8 or float in [0, 1], any size.
      count: K, most faces to look at.
      thorough: () bool, search on for small faces beside large ones.

    Returns:
      Everyone.

    Raises:
      ValueError: the image has another shape or type.
    """
    pyramid = search_pyramid(image)
    usual, every = find_all_faces(params["detector"], pyramid, thorough)
    chosen = largest_face(usual)
    certain = (every.scores > 0) & (every.scores >= every.scores.max() - CONFIDENT_MARGIN)
    other = certain & (overlap(usual.boxes[chosen], every.boxes) < OVERLAP_THRESHOLD)
    order = jnp.argsort(-jnp.where(other, box_area(every.boxes), -1.0))[: count - 1]
    faces = jax.tree.map(
        lambda first, rest: jnp.concatenate([first[chosen][None], rest[order]]),
        (usual.boxes, usual.keypoints, usual.scores > 0),
        (every.boxes, every.keypoints, other),
    )

    def look(face):
        box, keypoints, _ = face
        window = window_from_keypoints(box, keypoints)
        points, presence = refine_landmarks(params["landmarks"], pyramid, window)
        points, _ = split_irises(points)
        return Everyone(presence >= PRESENCE_THRESHOLD, box, points, landmark_colours(pyramid, points))

    def skip(_):
        nothing = jnp.zeros((468, 3), jnp.float32)
        return Everyone(jnp.zeros((), bool), jnp.zeros(4, jnp.float32), nothing, nothing)

    return jax.lax.map(lambda face: jax.lax.cond(face[2], look, skip, face), faces)


def landmark_colours(pyramid, points: jax.Array) -> jax.Array:
    """(468, 3) linear RGB at the landmarks (468, 3) photo pixels."""
    window = window_from_landmarks(points)
    picture = srgb_to_linear(resample(pyramid, window, COLOUR_SIZE, "edge"))
    return bilinear(picture, COLOUR_SIZE * to_window(window, points[:, :2]) - 0.5)


def to_window(window: Window, points: jax.Array) -> jax.Array:
    """Photo pixels (n, 2) -> coordinates in which the window is [0, 1]^2; the inverse of `Window.to_photo`."""
    cos, sin = jnp.cos(window.angle), jnp.sin(window.angle)
    du, dv = (points - window.centre[None]).T / window.side
    return jnp.stack([cos * du + sin * dv, cos * dv - sin * du], -1) + 0.5

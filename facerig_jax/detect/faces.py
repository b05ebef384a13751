"""BlazeFace on a photo: search windows, anchors, weighted non-maximum suppression."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ..checks import check_shape
from .crop import Pyramid, Window, build_pyramid, resample
from .nets import DETECTOR_SIZE, detector_net

MAX_FACES = 16
SCORE_THRESHOLD = 0.5
OVERLAP_THRESHOLD = 0.3
# Key points: right eye, left eye (the subject's), nose tip, mouth, right ear, left ear.
RIGHT_EYE, LEFT_EYE = 0, 1


@struct.dataclass
class Faces:
    """Faces in one image, best score first, zero padded to M = MAX_FACES.

    boxes:     (M, 4) u0, v0, u1, v1 image pixels.
    keypoints: (M, 6, 2) image pixels: the subject's right eye, left eye, nose tip, mouth, right ear, left ear.
    scores:    (M,) in [0.5, 1], 0 for padding.
    """

    boxes: jax.Array
    keypoints: jax.Array
    scores: jax.Array


def detect_faces(params: dict, image: jax.Array) -> Faces:
    """Finds up to 16 faces.

    The whole photo is searched first; only when that finds nothing, overlapping windows of half its size and the
    photo turned by 90, 180 and 270 degrees are searched too.

    Args:
      params: `load_detector()`.
      image: (H, W, 3) sRGB, uint8 or float in [0, 1], any size.

    Returns:
      Faces.

    Raises:
      ValueError: the image has another shape or type.
    """
    return find_faces(params["detector"], search_pyramid(image))


def search_pyramid(image: jax.Array) -> Pyramid:
    """Mip pyramid of a checked image, as float in [0, 1]."""
    check_shape("image", image, "H", "W", 3)
    image = jnp.asarray(image)
    if image.dtype == jnp.uint8:
        image = image.astype(jnp.float32) / 255
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(f"image: expected uint8 or float in [0, 1], got {image.dtype}.")
    return build_pyramid(image.astype(jnp.float32), DETECTOR_SIZE // 2)


def find_faces(params: dict, pyramid: Pyramid) -> Faces:
    """`detect_faces` with the detector's own weights, on an image that is already a pyramid."""
    first, second = search_windows(*pyramid.shapes[0])
    faces = _search(params, pyramid, first)
    return jax.lax.cond(faces.scores[0] > 0, lambda: faces, lambda: _search(params, pyramid, second))


def search_windows(height: int, width: int) -> tuple[Window, Window]:
    """Windows of the first and the second attempt: the letterboxed photo; its turns and a half-overlapping grid."""
    whole = max(height, width)
    middle = ((width - 1) / 2, (height - 1) / 2)
    side = whole / 2

    def centres(length):
        count = max(1, math.ceil((length - side) / (side / 2) - 1e-6) + 1)
        return np.linspace(side / 2, length - side / 2, count) - 0.5 if count > 1 else [(length - 1) / 2]

    second = [(*middle, whole, quarter * np.pi / 2) for quarter in (1, 2, 3)]
    second += [(u, v, side, 0.0) for v in centres(height) for u in centres(width)]
    return _windows([(*middle, whole, 0.0)]), _windows(second)


def _windows(rows) -> Window:
    rows = np.array(rows, np.float32)
    return Window(rows[:, :2], rows[:, 2], rows[:, 3])


def _search(params, pyramid, windows: Window) -> Faces:
    """Runs the detector on K windows and merges what they found."""
    inputs = jax.vmap(lambda window: resample(pyramid, window, DETECTOR_SIZE, "zero"))(windows)
    regressors, logits = detector_net(params, 2 * inputs - 1)
    anchors = detector_anchors()
    centre = windows.to_photo(regressors[..., 0:2] / DETECTOR_SIZE + anchors)
    extent = regressors[..., 2:4] / DETECTOR_SIZE * windows.side[:, None, None]
    points = regressors[..., 4:].reshape(*logits.shape, 6, 2) / DETECTOR_SIZE + anchors[:, None]
    points = windows.to_photo(points.reshape(len(inputs), -1, 2)).reshape(points.shape)
    boxes = jnp.concatenate([centre - extent / 2, centre + extent / 2, points.reshape(*logits.shape, 12)], -1)
    boxes, scores = suppress(boxes.reshape(-1, 16), jax.nn.sigmoid(logits).reshape(-1))
    return Faces(boxes[:, :4], boxes[:, 4:].reshape(-1, 6, 2), scores)


def detector_anchors() -> np.ndarray:
    """(896, 2) anchor centres in [0, 1]: 16 x 16 cells with 2 anchors each, then 8 x 8 with 6."""
    out = []
    for cells, repeats in ((16, 2), (8, 6)):
        grid = (np.arange(cells, dtype=np.float32) + 0.5) / cells
        out.append(np.repeat(np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2), repeats, 0))
    return np.concatenate(out)


def suppress(rows: jax.Array, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Weighted non-maximum suppression (BlazeFace, section 4.3): overlapping boxes are averaged by score.

    rows: (n, 4 + k), u0 v0 u1 v1 first; scores: (n,). Returns MAX_FACES rows and their scores, zero padded.
    """

    def take_best(left, _):
        best = jnp.argmax(left)
        group = (overlap(rows[best, :4], rows[:, :4]) > OVERLAP_THRESHOLD) & (left > 0)
        group = (group | (jnp.arange(len(left)) == best)) & (left[best] > 0)
        weight = jnp.where(group, left, 0.0)
        row = weight @ rows / jnp.maximum(weight.sum(), 1e-6)
        return jnp.where(group, 0.0, left), (row, left[best])

    _, out = jax.lax.scan(take_best, jnp.where(scores >= SCORE_THRESHOLD, scores, 0.0), length=MAX_FACES)
    return out


def overlap(box: jax.Array, boxes: jax.Array) -> jax.Array:
    """Intersection over union of (4,) with (n, 4)."""
    common = jnp.minimum(box[2:], boxes[:, 2:]) - jnp.maximum(box[:2], boxes[:, :2])
    common = jnp.prod(jnp.maximum(common, 0.0), -1)
    return common / jnp.maximum(box_area(box) + box_area(boxes) - common, 1e-6)


def box_area(boxes: jax.Array) -> jax.Array:
    """Area of (..., 4) boxes, px^2."""
    return jnp.prod(jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0.0), -1)

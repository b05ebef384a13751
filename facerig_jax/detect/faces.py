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
# Real faces of a size the detector was made for score 0.8 to 0.97; what it takes for faces elsewhere, 0.5 to 0.7.
CONFIDENT_SCORE = 0.8
CONFIDENT_MARGIN = 0.2
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

    The whole photo is searched first. Unless that finds a face beyond doubt, overlapping windows of half its size and
    the photo turned by 90, 180 and 270 degrees are searched too: faces down to 6 % of the longer side are found.

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
    """`detect_faces` with the detector's own weights, on an image that is already a pyramid.

    A while loop over the windows: it ends after the first when that settles the matter, also for a batch under vmap.
    """
    rows, scores = _search_windows(params, pyramid, thorough=False)
    return _suppressed(rows, scores)


def find_all_faces(params: dict, pyramid: Pyramid, thorough) -> tuple[Faces, Faces]:
    """What `find_faces` finds, and what is found where the search went on through all windows: small faces too.

    thorough: () bool, whether it does.
    """
    rows, scores = _search_windows(params, pyramid, thorough)
    first = (jnp.arange(len(scores)) == 0)[:, None] | (scores[0].max() < CONFIDENT_SCORE)
    return _suppressed(rows, jnp.where(first, scores, 0.0)), _suppressed(rows, scores)


def _search_windows(params: dict, pyramid: Pyramid, thorough) -> tuple[jax.Array, jax.Array]:
    """(K, 896, 16) corners and key points and (K, 896) scores of K windows, zero where there was no need to look."""
    windows = search_windows(*pyramid.shapes[0])
    count = len(windows.side)

    def unsettled(state):
        i, _, scores = state
        return (i == 0) | ((i < count) & (thorough | (scores[0].max() < CONFIDENT_SCORE)))

    def search_next(state):
        i, rows, scores = state
        row, score = _search(params, pyramid, jax.tree.map(lambda x: jnp.asarray(x)[i], windows))
        return i + 1, rows.at[i].set(row), scores.at[i].set(score)

    anchors = len(detector_anchors())
    start = (0, jnp.zeros((count, anchors, 16), jnp.float32), jnp.zeros((count, anchors), jnp.float32))
    _, rows, scores = jax.lax.while_loop(unsettled, search_next, start)
    return rows, scores


def _suppressed(rows, scores) -> Faces:
    rows, scores = suppress(rows.reshape(-1, 16), scores.reshape(-1))
    return Faces(rows[:, :4], rows[:, 4:].reshape(-1, 6, 2), scores)


def largest_face(faces: Faces) -> jax.Array:
    """Index of the largest face among those about as certain as the best one."""
    certain = (faces.scores > 0) & (faces.scores >= faces.scores.max() - CONFIDENT_MARGIN)
    return jnp.argmax(jnp.where(certain, box_area(faces.boxes), -1.0))


def search_windows(height: int, width: int) -> Window:
    """(K,) windows in the order of the search: the letterboxed photo, its three turns, a half-overlapping grid."""
    whole = max(height, width)
    side = whole / 2

    def centres(length):
        steps = max(0, math.ceil((length - side) / (side / 2) - 1e-6))
        return np.linspace(side / 2, length - side / 2, steps + 1) - 0.5 if steps else [(length - 1) / 2]

    turned = [((width - 1) / 2, (height - 1) / 2, whole, quarter * np.pi / 2) for quarter in range(4)]
    smaller = [(u, v, side, 0.0) for v in centres(height) for u in centres(width)]
    rows = np.array([*turned, *smaller], np.float32)
    return Window(rows[:, :2], rows[:, 2], rows[:, 3])


def _search(params, pyramid, window: Window) -> tuple[jax.Array, jax.Array]:
    """Runs the detector on one window: (896, 16) box corners and key points in photo pixels, (896,) scores."""
    regressors, logits = detector_net(params, 2 * resample(pyramid, window, DETECTOR_SIZE, "zero") - 1)
    anchors = detector_anchors()
    centre = window.to_photo(regressors[:, 0:2] / DETECTOR_SIZE + anchors)
    half = regressors[:, 2:4] / DETECTOR_SIZE * window.side / 2
    keypoints = regressors[:, 4:].reshape(-1, 6, 2) / DETECTOR_SIZE + anchors[:, None]
    keypoints = window.to_photo(keypoints.reshape(-1, 2)).reshape(-1, 12)
    return jnp.concatenate([centre - half, centre + half, keypoints], -1), jax.nn.sigmoid(logits)


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

    rows = jnp.asarray(rows)

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
    box = box[None]
    common = jnp.minimum(box[:, 2:], boxes[:, 2:]) - jnp.maximum(box[:, :2], boxes[:, :2])
    common = jnp.prod(jnp.maximum(common, 0.0), -1)
    return common / jnp.maximum(box_area(box) + box_area(boxes) - common, 1e-6)


def box_area(boxes: jax.Array) -> jax.Array:
    """Area of (..., 4) boxes, px^2."""
    return jnp.prod(jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0.0), -1)

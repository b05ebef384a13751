"""Photo -> 468 landmarks, the 68 iBUG points among them, and irises."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ..checks import check_shape
from ..types import Detection
from .attention import N_IRIS, N_MESH, attention_net
from .crop import Pyramid, Window, resample
from .faces import LEFT_EYE, RIGHT_EYE, find_faces, largest_face, search_pyramid
from .nets import LANDMARK_SIZE, landmark_net

CROP_MARGIN = 1.5
# Turning the photo by 20 to 90 degrees moves the landmarks by 3 % of the outer-eye distance after one pass, 1 % after
# two, 0.6 % after three and four.
PASSES = 3
# Below this the landmark net says that its crop holds no face.
PRESENCE_THRESHOLD = 0.5
# Outer eye corners: the subject's right, left.
OUTER_EYES = (33, 263)
# Corners of the subject's right and left eye, each towards the subject's right and left.
EYE_CORNERS = ((33, 133), (362, 263))

# The 468-point indices usually taken for the 68 iBUG points; "right" is the subject's right.
JAW = (162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389)
RIGHT_BROW = (71, 63, 105, 66, 107)
LEFT_BROW = (336, 296, 334, 293, 301)
NOSE = (168, 197, 5, 4, 75, 97, 2, 326, 305)
RIGHT_EYE_RING = (33, 160, 158, 133, 153, 144)
LEFT_EYE_RING = (362, 385, 387, 263, 373, 380)
LIPS = (61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87)
LANDMARKS68 = JAW + RIGHT_BROW + LEFT_BROW + NOSE + RIGHT_EYE_RING + LEFT_EYE_RING + LIPS

# Points 6-10 (chin) and 17-67 always keep their model point; the rest of the jaw line slides along the contour.
FIXED68 = np.r_[np.zeros(6), np.ones(5), np.zeros(6), np.ones(51)].astype(bool)
# int32: JAX 0.10.2 keeps what it made of a 64-bit index when float64 is switched on later in the process.
SLIDING68 = np.flatnonzero(~FIXED68).astype(np.int32)

# The NoW benchmark's seven points among the 68, in its order: the subject's right eye outer and inner corner, left eye
# inner and outer corner, nose bottom, right and left mouth corner.
POINTS7 = (36, 39, 42, 45, 33, 48, 54)

# The face oval: the whole outline, forehead included, clockwise in the image from the top. It is a silhouette that
# slides over the skin as the head turns.
FACE_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)


def detect(params: dict, image: jax.Array) -> Detection:
    """The largest face of a photo with its landmarks; jit, vmap (or `lax.map`) and grad work.

    The landmark net runs three times: on a crop placed by the detector's eyes, then on crops placed by the landmarks.
    Gradients flow from landmarks and `presence` to the pixels of the last crop; where it lies is taken as given.

    Args:
      params: `load_detector()`.
      image: (H, W, 3) sRGB, uint8 or float in [0, 1], any size.

    Returns:
      Detection; `found` is False, and the box, score and landmarks are zero, when neither net believes in a face.

    Raises:
      ValueError: the image has another shape or type.

    Example:
      detection = jax.jit(detect)(load_detector(), image)
    """
    pyramid = search_pyramid(image)
    with jax.named_scope("faces"):
        faces = find_faces(params["detector"], jax.lax.stop_gradient(pyramid))
        chosen = largest_face(faces)
        window = window_from_keypoints(faces.boxes[chosen], faces.keypoints[chosen])
    with jax.named_scope("landmarks"):
        points, presence = refine_landmarks(params["landmarks"], pyramid, window)
    mesh, irises = split_irises(points)
    found = (faces.scores[chosen] > 0) & (presence >= PRESENCE_THRESHOLD)
    others = jnp.argsort(jnp.arange(len(faces.scores)) == chosen)[:-1]
    return Detection(
        box=jnp.where(found, faces.boxes[chosen], 0.0),
        score=jnp.where(found, faces.scores[chosen], 0.0),
        landmarks=jnp.where(found, mesh, 0.0),
        presence=presence,
        found=found,
        other_boxes=faces.boxes[others],
        other_scores=faces.scores[others],
        irises=None if irises is None else jnp.where(found, irises, 0.0),
    )


def window_from_keypoints(box: jax.Array, keypoints: jax.Array) -> Window:
    """Crop for the first pass: 1.5 x the larger side of the box, turned so that the eyes are level."""
    side = CROP_MARGIN * jnp.maximum(jnp.max(box[2:] - box[:2]), 1.0)
    return Window((box[:2] + box[2:]) / 2, side, _direction(keypoints[RIGHT_EYE], keypoints[LEFT_EYE]))


def window_from_landmarks(points: jax.Array) -> Window:
    """Crop for the second pass: 1.5 x the larger side of the landmarks' bounding box, measured along the eye line.

    MediaPipe takes the box along the image axes instead, which grows as the head rolls; upright they are the same.
    """
    points = points[:, :2]
    angle = _direction(points[OUTER_EYES[0]], points[OUTER_EYES[1]])
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    along = cos * points[:, 0] + sin * points[:, 1]
    across = cos * points[:, 1] - sin * points[:, 0]
    x, y = (along.max() + along.min()) / 2, (across.max() + across.min()) / 2
    side = CROP_MARGIN * jnp.maximum(jnp.maximum(jnp.ptp(along), jnp.ptp(across)), 1.0)
    return Window(jnp.stack([cos * x - sin * y, sin * x + cos * y]), side, angle)


def refine_landmarks(params: dict, pyramid: Pyramid, window: Window) -> tuple[jax.Array, jax.Array]:
    """Runs the landmark net PASSES times, each on the crop that the one before suggests.

    Returns (468, 3), with irises (478, 3), photo pixels with z towards the camera, and presence () in [0, 1], both of
    the last pass.
    """
    net = attention_net if "lips" in params else landmark_net

    def one_pass(window, _):
        points, logit = net(params, resample(pyramid, window, LANDMARK_SIZE, "edge"))
        points = window.to_photo(points / LANDMARK_SIZE) * np.array([[1, 1, -1]], np.float32)
        return window_from_landmarks(jax.lax.stop_gradient(points)), (points, jax.nn.sigmoid(logit))

    _, (points, presence) = jax.lax.scan(one_pass, window, length=PASSES)
    return points[-1], presence[-1]


def split_irises(points: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """(..., 478, 3) -> landmarks (..., 468, 3) and irises (..., 2, 5, 3); None in their place if there are only 468."""
    if points.shape[-2] == N_MESH:
        return points, None
    return points[..., :N_MESH, :], points[..., N_MESH:, :].reshape(*points.shape[:-2], 2, N_IRIS, 3)


def iris_places(landmarks: jax.Array, irises: jax.Array) -> jax.Array:
    """Where the middle of each iris lies between its lids: what an upright gaze moves, free of pose and size.

    Args:
      landmarks: (..., 468, 3) photo pixels.
      irises: (..., 2, 5, 3) `Detection.irises`.

    Returns:
      (..., 2, 2): the subject's right and left eye; x from the middle between the eye's corners towards the subject's
      left, y up, both in distances of the corners.
    """
    check_shape("landmarks", landmarks, ..., 468, 3)
    check_shape("irises", irises, ..., 2, 5, 3)
    right, left = (landmarks[..., np.array(corner), :2] for corner in zip(*EYE_CORNERS, strict=True))
    across = left - right
    length2 = jnp.maximum((across**2).sum(-1), 1e-12)
    off = irises[..., 0, :2] - (right + left) / 2
    along = (off * across).sum(-1)
    up = off[..., 0] * across[..., 1] - off[..., 1] * across[..., 0]
    return jnp.stack([along, up], -1) / length2[..., None]


def landmarks68_from_dense(landmarks: jax.Array) -> jax.Array:
    """(..., 468, 3) dense landmarks -> (..., 68, 2) in iBUG order.

    Points 0-16 are the image contour, which slides over the skin; 17-67 are fixed places on it.
    """
    check_shape("landmarks", landmarks, ..., 468, 3)
    return landmarks[..., np.array(LANDMARKS68), :2]


def _direction(start, end):
    """Angle of the line between two points, rad; 0, with zero gradient, when they coincide."""
    du, dv = end[0] - start[0], end[1] - start[1]
    apart = du * du + dv * dv > 1e-12
    return jnp.where(apart, jnp.arctan2(jnp.where(apart, dv, 0.0), jnp.where(apart, du, 1.0)), 0.0)

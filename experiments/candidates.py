"""Reads photos or a video, and chooses the few pictures that a fit uses, by yaw and sharpness of the face."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli
from facerig_jax.data.photos import Inputs, Photo, find_inputs, pad_to_bucket, read_photos
from facerig_jax.data.video import choose_frames, read_video_frames, sharpness
from facerig_jax.detect import detect
from facerig_jax.geometry.alignment import similarity
from facerig_jax.geometry.rotation import matrix_to_euler
from facerig_jax.head import landmark_positions
from facerig_jax.report.pictures import resize
from facerig_jax.types import HeadModel

# Frames of a video that are looked at before some are chosen.
VIDEO_CANDIDATES = 64
# Photos per call of the one compiled program.
CHUNK = 8
# Faces are compared in sharpness at this size, px, so that a small face counts as less sharp.
FACE = 128


def read_inputs(spec: str) -> tuple[Inputs, tuple[Photo, ...], tuple[str, ...]]:
    """What was found, the photos (or candidate frames), and where each came from."""
    inputs = find_inputs(spec)
    if inputs.kind == "photos":
        return inputs, read_photos(inputs.files), tuple(str(file) for file in inputs.files)
    frames = read_video_frames(inputs.files[0], VIDEO_CANDIDATES)
    return inputs, frames, tuple(f"{inputs.files[0]} ({frame.name})" for frame in frames)


def choose_photos(detector: dict, head: HeadModel, photos, count: int) -> list[int]:
    """Indices, ascending, of up to `count` photos that show a face, spread over yaw and sharp.

    Raises:
      UserError: no photo shows a face.
    """
    images, _ = pad_to_bucket(photos)
    short = -len(images) % CHUNK
    images = np.concatenate([images, np.zeros((short, *images.shape[1:]), np.uint8)])
    seen = [survey(detector, head, images[k : k + CHUNK]) for k in range(0, len(images), CHUNK)]
    found, box, yaw = (np.concatenate([np.asarray(part[name]) for part in seen]) for name in ("found", "box", "yaw"))
    found, box, yaw = (values[: len(photos)] for values in (found, box, yaw))
    if not found.any():
        raise cli.UserError(f"No face found in any of the {len(photos)} pictures, so nothing was written.")
    sharp = [face_sharpness(photo.image, box) if ok else 0.0 for photo, box, ok in zip(photos, box, found, strict=True)]
    return choose_frames(yaw, sharp, found, count).tolist()


@jax.jit
def survey(detector: dict, head: HeadModel, images) -> dict[str, jax.Array]:
    """found (n,), box (n, 4) px and yaw (n,) rad of the largest face in each of the images (n, S, S, 3)."""
    points, weight = landmark_positions(head.landmarks_dense, head.mean), head.landmarks_dense.weight

    def one(image):
        face = detect(detector, image)
        upright = face.landmarks * jnp.array([[1.0, -1.0, 1.0]])
        yaw = matrix_to_euler(similarity(points, upright, weight).rotation)[1]
        return {"found": face.found, "box": face.box, "yaw": yaw}

    return jax.lax.map(one, images)


def face_sharpness(image, box) -> float:
    """Sharpness of a face, brought to one size."""
    u0, v0, u1, v1 = np.round(box).astype(int)
    face = image[max(v0, 0) : max(v1, 0), max(u0, 0) : max(u1, 0)]
    return sharpness(resize(face, (FACE, FACE))) if min(face.shape[:2]) >= 3 else 0.0

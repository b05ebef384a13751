"""Every face in a set of photos, before any is fitted."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from facerig_jax.data.photos import pad_to_bucket
from facerig_jax.detect.everyone import Everyone, detect_everyone
from facerig_jax.geometry.alignment import similarity
from facerig_jax.geometry.rotation import matrix_to_euler
from facerig_jax.head.model import landmark_positions
from facerig_jax.programs import kept
from facerig_jax.types import HeadModel

# Photos per call of the one compiled program; most faces that are looked at in each.
CHUNK, FACES = 8, 8


@dataclasses.dataclass(frozen=True)
class Seen:
    """The faces of N photos, up to K in each: first the one that `detect` takes, then by size. Numpy arrays.

    found:     (N, K) bool.
    boxes:     (N, K, 4) u0, v0, u1, v1 px of the photo.
    landmarks: (N, K, 468, 3) px of the photo, z towards the camera.
    colours:   (N, K, 468, 3) linear RGB at the landmarks.
    yaw:       (N, K) rad.
    """

    found: np.ndarray
    boxes: np.ndarray
    landmarks: np.ndarray
    colours: np.ndarray
    yaw: np.ndarray

    def rows(self, photos) -> Seen:
        """What was seen in some of the photos."""
        return Seen(*(getattr(self, field.name)[photos] for field in dataclasses.fields(self)))

    def replaced(self, photos, others: Seen) -> Seen:
        """With other rows for these photos."""
        fields = {field.name: np.array(getattr(self, field.name)) for field in dataclasses.fields(self)}
        for name, values in fields.items():
            values[photos] = getattr(others, name)
        return Seen(**fields)


def see_faces(detector: dict, head: HeadModel, photos, thorough: bool = False) -> Seen:
    """Looks at photos (Photos or (H, W, 3) uint8), `CHUNK` at a time; thorough: also for small faces beside large."""
    images, _ = pad_to_bucket(photos)
    real = np.arange(len(images) + -len(images) % CHUNK) < len(images)
    images = np.concatenate([images, np.zeros((len(real) - len(images), *images.shape[1:]), np.uint8)])
    parts = []
    for k in range(0, len(images), CHUNK):
        parts.append(_survey(detector, head, images[k : k + CHUNK], real[k : k + CHUNK], np.bool_(thorough)))
    seen, yaw = jax.tree.map(lambda *rows: np.concatenate(rows)[: len(photos)], *parts)
    return Seen(seen.found, seen.boxes, seen.landmarks, seen.colours, yaw)


@kept()
def _survey(detector: dict, head: HeadModel, images, real, thorough) -> tuple[Everyone, jax.Array]:
    """Everyone (n, K) and yaw (n, K) in images (n, S, S, 3); those that are not real (n,) bool are passed over."""
    assert head.landmarks_dense is not None, "the detector's points are the dense ones"
    points, weight = landmark_positions(head.landmarks_dense, head.mean), head.landmarks_dense.weight

    def yaw(landmarks):
        upright = landmarks * jnp.array([[1.0, -1.0, 1.0]], landmarks.dtype)
        return matrix_to_euler(similarity(points, upright, weight).rotation)[1]

    def look(image):
        everyone = detect_everyone(detector, image, FACES, thorough)
        return everyone, jax.vmap(yaw)(everyone.landmarks)

    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(look, images[0]))
    return jax.lax.map(lambda row: jax.lax.cond(row[1], look, lambda _: nothing, row[0]), (images, real))

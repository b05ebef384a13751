"""From photos to what a fit looks at: landmarks, crops and the status of every view before the fit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from facerig_jax.detect import detect
from facerig_jax.fit.status import Status
from facerig_jax.geometry.camera import to_image
from facerig_jax.geometry.crop import crop_around, crop_image, inside_photo, to_crop, to_photo
from facerig_jax.numerics import linear_to_srgb, srgb_to_linear
from facerig_jax.types import Crop, Detection, HeadModel, Photos

# Points that the detector reports.
N_LANDMARKS = 468
# A view counts when at least this share of its landmarks lies inside the photo.
MIN_INSIDE = 0.5


@struct.dataclass
class Coverage:
    """What is covered in all views, see fit.coverage.

    place:  (n, 3) points of the mean head, head units: those of the colour term.
    amount: (n,) in [0, 1], how surely each is covered: 0 where no region is.
    hidden: (n,) the same without hard shadows, in which points can still be seen.
    share:  (R,) share of each of coverage.REGIONS that is not skin in any view; of the halves, how hard the step of a
            shadow between them is.
    found:  (R,) 1 where that is enough to speak of.
    """

    place: jax.Array
    amount: jax.Array
    hidden: jax.Array
    share: jax.Array
    found: jax.Array


@struct.dataclass
class Crops:
    """What a fit looks at.

    linear:    (V, S, S, 3) crops, linear RGB in [0, 1].
    srgb:      (V, S, S, 3) the same in sRGB.
    inside:    (V, S, S) 1 where the crop lies inside its photo.
    landmarks: (V, L, 3) crop pixels, z towards the camera.
    weight:    (V, L) landmark weights, 0 for views that do not count.
    view_mask: (V,) 1 for views that count.
    crop:      (V,) from photo to crop pixels.
    cover:     what is covered in all of them, None = nothing.
    """

    linear: jax.Array
    srgb: jax.Array
    inside: jax.Array
    landmarks: jax.Array
    weight: jax.Array
    view_mask: jax.Array
    crop: Crop
    cover: Coverage | None = None


def find_landmarks(params: dict, images: jax.Array, landmarks=None) -> tuple[jax.Array, jax.Array]:
    """Whether each view has a face (V,), and its landmarks (V, 468, 3) photo pixels."""
    if landmarks is not None:
        landmarks = jnp.asarray(landmarks, images.dtype)
        return jnp.all(jnp.isfinite(landmarks), (1, 2)), jnp.nan_to_num(landmarks)
    found: Detection = jax.lax.map(lambda image: detect(params["detector"], image), images)
    return found.found, found.landmarks


def view_status(found, points, mask, size) -> jax.Array:
    """(V,) int32 Status before the fit."""
    inside = jnp.mean(inside_photo(points[..., :2], size, border=0.0), -1, dtype=points.dtype) >= MIN_INSIDE
    status = jnp.where(inside, Status.OK, Status.OUT_OF_FRAME)
    status = jnp.where(found, status, Status.NO_FACE)
    return jnp.where(mask > 0, status, Status.PADDING).astype(jnp.int32)


def preprocess(params: dict, photos: Photos, head: HeadModel, size: int, margin) -> tuple[Crops, jax.Array, jax.Array]:
    """Finds the faces and cuts them out.

    Args:
      params: 'detector'.
      photos: complete ones, see `api.as_photos`.
      head: morphable head.
      size: side of the crops, px, static.
      margin: side of the crops over the larger side of the landmarks' box.

    Returns:
      crops: Crops.
      points: (V, 468, 3) landmarks, photo pixels.
      status: (V,) int32 Status before the fit.
    """
    images = photos.images
    images = images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images.astype(jnp.float32)
    with jax.named_scope("detect"):
        found, points = find_landmarks(params, images, photos.landmarks)
    with jax.named_scope("crop"):
        status = view_status(found, points, photos.view_mask, photos.image_size)
        usable = status == Status.OK
        crops = cut_out(images, points, photos.landmark_weight, usable, photos.image_size, head, size, margin)
    return crops, points, status


def cut_out(images, points, weight, usable, photo_size, head: HeadModel, size: int, margin) -> Crops:
    """Crops around the landmarks; those of views that are not usable get stand-ins, to stay finite.

    Args:
      images: (V, H, W, 3) sRGB in [0, 1].
      points: (V, 468, 3) landmarks, photo pixels.
      weight: (V, 468) theirs.
      usable: (V,) bool.
      photo_size: (V, 2) height and width of each photo inside its padded image.
      head: morphable head.
      size: side of the crops, px.
      margin: see `preprocess`.
    """
    reference = head.mean[np.linspace(0, head.mean.shape[0] - 1, N_LANDMARKS).astype(int)]
    reference = reference / jnp.max(jnp.ptp(reference, axis=0))
    stand_in = to_image(reference * min(images.shape[1:3]) / 2, *images.shape[1:3])
    points = jnp.where(usable[:, None, None], points, stand_in)
    crop = crop_around(points[..., :2], size, margin)
    linear = jax.vmap(lambda image, crop: crop_image(srgb_to_linear(image), crop))(images, crop)
    grid = jnp.arange(size, dtype=jnp.float32)
    grid = jnp.stack(jnp.meshgrid(grid, grid), -1).reshape(1, -1, 2)
    inside = inside_photo(to_photo(grid, crop), photo_size).reshape(-1, size, size).astype(jnp.float32)
    mask = usable.astype(jnp.float32)
    return Crops(linear, linear_to_srgb(linear), inside, to_crop(points, crop), weight * mask[:, None], mask, crop)

"""Square upright crops: from a photo to the fixed-size image that the solver works on."""

import jax
import jax.numpy as jnp

from facerig_jax.types import Crop


def crop_around(points: jax.Array, size: int, margin) -> Crop:
    """A crop centred on the bounding box of points, `margin` times its larger side wide.

    Args:
      points: (..., L, 2) photo pixels.
      size: side of the crop in pixels.
      margin: side of the crop over the larger side of the box.

    Returns:
      Crop with leading axes (...).
    """
    low, high = points.min(-2), points.max(-2)
    side = jnp.maximum(jnp.max(high - low, -1), 1.0) * margin
    scale = size / side
    # The crop's centre lies between its pixels size/2 - 1 and size/2: pixel centres are at integers.
    return Crop(scale, (low + high) / 2 - ((size - 1) / 2 / scale)[..., None], size)


def zoomed(crop: Crop, size: int) -> Crop:
    """The same window resampled to another size."""
    zoom = size / crop.size
    # Pixel centres are at integers, so the window's corner lies half a pixel outside its first pixel.
    return Crop(crop.scale * zoom, crop.offset + (0.5 / zoom - 0.5) / crop.scale[..., None], size)


def zoom_points(points: jax.Array, zoom: float) -> jax.Array:
    """Pixels (..., 2 or 3) of a window -> of the same window `zoom` times as fine; z is scaled only."""
    moved = (points[..., :2] + 0.5) * zoom - 0.5
    return moved if points.shape[-1] == 2 else jnp.concatenate([moved, points[..., 2:] * zoom], -1)


def to_crop(points: jax.Array, crop: Crop) -> jax.Array:
    """Photo pixels (..., L, 2 or 3) -> crop pixels; z is scaled only."""
    return _shifted(points, -crop.offset) * crop.scale[..., None, None]


def to_photo(points: jax.Array, crop: Crop) -> jax.Array:
    """Crop pixels (..., L, 2 or 3) -> photo pixels; z is scaled only."""
    return _shifted(points / crop.scale[..., None, None], crop.offset)


def _shifted(points: jax.Array, shift: jax.Array) -> jax.Array:
    pad = jnp.zeros((*shift.shape[:-1], points.shape[-1] - 2), points.dtype)
    return points + jnp.concatenate([shift, pad], -1)[..., None, :]


def crop_image(image: jax.Array, crop: Crop) -> jax.Array:
    """Resamples one photo (H, W, 3) into its crop (S, S, 3), antialiased when it shrinks; 0 outside the photo."""
    translation = 0.5 - crop.scale * (crop.offset + 0.5)
    return jax.image.scale_and_translate(
        image,
        (crop.size, crop.size, image.shape[-1]),
        (0, 1),
        jnp.stack([crop.scale, crop.scale]),
        translation[::-1],
        method="linear",
        antialias=True,
        precision=jax.lax.Precision.DEFAULT,
    )


def inside_photo(points: jax.Array, photo_size: jax.Array, border: float = 1.0) -> jax.Array:
    """Whether photo positions (..., L, 2) lie at least `border` pixels inside a photo of size (..., 2) = (H, W)."""
    limit = photo_size[..., None, ::-1].astype(points.dtype)
    return jnp.all((points >= border) & (points <= limit - 1 - border), -1)

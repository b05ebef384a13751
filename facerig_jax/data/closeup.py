"""Pictures of small faces from the original pixels: where to look for them, where to cut, and what it gains."""

from __future__ import annotations

import dataclasses

import numpy as np

from facerig_jax.data.photos import Photo
from facerig_jax.report.pictures import fit_within

# Side of the square over the larger side of the landmarks' box: hair, neck, and what the detector wants to see.
MARGIN = 3.0
# A reduced photo is cut where the face becomes larger by more than this factor: else it stays as it was read.
WORTH = 1.25


def closeup_window(points, photo: Photo, max_size: int = 1024) -> tuple[int, int, int, int] | None:
    """The square of the upright original to cut for a face.

    Args:
      points: (L, 2 or 3) landmarks in pixels of `photo.image`.
      photo: as read or cut, reduced or not.
      max_size: what the cut will be reduced to where it is larger.

    Returns:
      u0, v0, u1, v1 px of the original, inside it (so not square at its narrow sides); None where the photo was not
      reduced, or its face is large enough.
    """
    if photo.scale >= 1:
        return None
    points = np.asarray(points)[:, :2]
    start = np.array((photo.window or (0, 0))[:2])
    low, high = start + (points.min(0) + 0.5) / photo.scale, start + (points.max(0) + 0.5) / photo.scale
    side = int(np.ceil(MARGIN * (high - low).max()))
    height, width = photo.original_size
    if min(1.0, max_size / side) < WORTH * photo.scale:
        return None
    size = np.minimum([side, side], [width, height])
    start = np.clip(np.round((low + high) / 2 - size / 2).astype(int), 0, np.array([width, height]) - size)
    return (*start.tolist(), *(start + size).tolist())


def halves(photo: Photo) -> list[tuple[int, int, int, int]]:
    """Nine windows of half the original's size, overlapping by half: where faces too small for the copy are found."""
    height, width = photo.original_size
    starts = [(u * width // 4, v * height // 4) for v in range(3) for u in range(3)]
    return [(u, v, u + -(-width // 2), v + -(-height // 2)) for u, v in starts]


def cut_photo(photo: Photo, original, window, max_size: int = 1024) -> Photo:
    """The photo with the pixels of a window of its original (H, W, 3) uint8, at most `max_size` on the larger side."""
    u0, v0, u1, v1 = window
    image = np.ascontiguousarray(fit_within(np.asarray(original)[v0:v1, u0:u1], max_size))
    notes = [note for note in photo.notes if not note.startswith("reduced from")]
    notes.append(f"face cut from {u1 - u0} x {v1 - v0} of {photo.original_size[1]} x {photo.original_size[0]} pixels")
    scale = max(image.shape[:2]) / max(u1 - u0, v1 - v0)
    return dataclasses.replace(photo, image=image, scale=scale, window=tuple(window), notes=tuple(notes))

"""Sentences on what a fit could not make use of."""

from __future__ import annotations

import numpy as np

from facerig_jax.config import Hyper
from facerig_jax.fit.coverage import describe_cover
from facerig_jax.fit.photometric import colour_trust
from facerig_jax.fit.status import USED
from facerig_jax.numerics import linear_to_srgb
from facerig_jax.types import Fit

# A photo whose colours count less than this is called very dark.
DARK = 0.5


def dark_notes(brightness, status, files) -> list[str]:
    """Which photos are so dark that their colours are mostly noise.

    Args:
      brightness: (V,) mean linear RGB of the face, see fit.reprojection.face_brightness.
      status: (V,) of the views; further views than `files` are padding.
      files: names of the photos.
    """
    trust, level = (np.asarray(values) for values in (colour_trust(brightness, Hyper()), linear_to_srgb(brightness)))
    used = [number for number in range(len(files)) if int(status[number]) in USED]
    dark = [number for number in used if trust[number] < DARK]
    said = "{} is very dark (mean level of the face: {:.0f} of 255): its colours are mostly noise and count little."
    notes = [said.format(files[number], 255 * level[number]) for number in dark]
    if dark and len(dark) == len(used):
        notes.append("The skin's colour is little more than a guess: no photo is bright enough to show it.")
    return notes


def cover_notes(fit: Fit) -> list[str]:
    """What covers the face in all photos, and what was done there."""
    said = [] if fit.cover is None else describe_cover(np.asarray(fit.cover.regions))
    return [f"{words}: shape and texture there are the model's guess." for words in said]

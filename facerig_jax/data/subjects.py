"""What training and evaluation look at: one person's photos with the truth, and where they come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import jax
from flax import struct

# Synthetic subjects of this seed and above are for evaluation only, those from VALIDATION_SEED on for choosing
# settings: training refuses both.
HELD_OUT_SEED = 1_000_000
VALIDATION_SEED = 900_000


@struct.dataclass
class Traits:
    """What results are broken down by.

    melanin: () as in the head's albedo model; sex: () 0 female, 1 male; age: () years.
    """

    melanin: jax.Array
    sex: jax.Array
    age: jax.Array


@struct.dataclass
class Subject:
    """Photos of one person and the truth; a field that a source does not know is None, for all its subjects.

    images:       (V, H, W, 3) sRGB, uint8 or float in [0, 1].
    image_size:   (V, 2) height and width of each photo inside its padded image.
    view_mask:    (V,) 0 marks padding.
    landmarks:    (V, 468, 3) photo px, as the detector finds them, or noisy like that.
    neutral:      (P, 3) mm, head frame.
    known:        (P,) 1 where the neutral is known: scans cover the face only.
    vertices:     (V, P, 3) mm, head frame, with expression.
    vertices_img: (V, P, 3) photo px, image frame.
    albedo:       (P, 3) linear RGB.
    light:        (V, 9, 3) spherical-harmonics part of the light.
    expression:   (V, E) blendshape weights; personal motion beyond them is in `vertices` only.
    pose, inverse_distance: (V, 6), (V,) of the camera, see geometry.camera.
    identity, albedo_code: (I,), (A,) coefficients in the head's bases; what goes beyond is in `neutral`, `albedo`.
    traits:       Traits.
    """

    images: jax.Array
    image_size: jax.Array | None = None
    view_mask: jax.Array | None = None
    landmarks: jax.Array | None = None
    neutral: jax.Array | None = None
    known: jax.Array | None = None
    vertices: jax.Array | None = None
    vertices_img: jax.Array | None = None
    albedo: jax.Array | None = None
    light: jax.Array | None = None
    expression: jax.Array | None = None
    pose: jax.Array | None = None
    inverse_distance: jax.Array | None = None
    identity: jax.Array | None = None
    albedo_code: jax.Array | None = None
    traits: Traits | None = None


class Source(Protocol):
    """Subjects by number, always the same one for the same number, with arrays of the same shapes."""

    @property
    def name(self) -> str:
        """For messages and records."""

    def __len__(self) -> int:
        """How many subjects there are; a very large number when they are drawn at random."""

    def __call__(self, index: int) -> Subject:
        """Subject `index` of 0 to len - 1."""


@dataclasses.dataclass(frozen=True)
class MadeSource:
    """The Source of `count` subjects that a function makes of their numbers."""

    name: str
    count: int
    make: Callable[[int], Subject]

    def __len__(self) -> int:
        return self.count

    def __call__(self, index: int) -> Subject:
        """See Source."""
        return self.make(index)

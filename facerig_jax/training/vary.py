"""Prepared subjects of the flow network, seen a little differently each time: on the host, when a batch is made."""

from __future__ import annotations

import numpy as np

from facerig_jax.fit.correspondences import MAX_COLOUR, MIN_DEVIATION
from facerig_jax.training.objective import FlowExample

# Channels of fit.correspondences.flow_maps.
COLOUR, INSIDE, SEEN, POSITION, NORMAL, RESIDUAL, MEAN, DEVIATION = (
    slice(0, 3),
    slice(3, 4),
    slice(4, 5),
    slice(5, 8),
    slice(8, 11),
    slice(11, 13),
    slice(13, 16),
    slice(16, 17),
)
# Standard deviations of the logarithms of: a light from some direction, each channel's gain, the tone curve's exponent;
# and the range of the saturation's factor.
LIGHT, GAIN, TONE, SATURATION = 0.25, 0.08, 0.2, (0.3, 1.3)
# How often the detector's residuals are hidden.
HIDE = 0.25


def vary(example: FlowExample, rng: np.random.Generator) -> FlowExample:
    """The subject (numpy), each photo maybe mirrored, under another light and camera, maybe without the detector."""
    maps, offset, known = example.maps.astype(np.float32), example.offset, example.known
    varied = [_vary_photo(*photo, rng) for photo in zip(maps, offset, known, strict=True)]
    maps, offset, known = (np.stack(values) for values in zip(*varied, strict=True))
    return FlowExample(maps.astype(example.maps.dtype), offset, known)


def _vary_photo(maps, offset, known, rng):
    """One photo: maps (S, S, N_FLOW), offset (S / 2, S / 2, 2), known (S / 2, S / 2)."""
    face = np.repeat(np.repeat(known, 2, 0), 2, 1)[..., None]
    weight = face * maps[..., SEEN] * maps[..., INSIDE]
    maps = _recolour(maps, weight, rng) if weight.any() else maps
    if rng.random() < HIDE:
        maps = np.concatenate([maps[..., : RESIDUAL.start], 0 * maps[..., RESIDUAL], maps[..., RESIDUAL.stop :]], -1)
    return mirror(maps, offset, known) if rng.random() < 0.5 else (maps, offset, known)


def mirror(maps, offset, known):
    """The same of the mirrored photo of the mirrored person; the UV layout is symmetric."""
    maps, offset = maps[:, ::-1].copy(), offset[:, ::-1].copy()
    for rightwards in (POSITION.start, NORMAL.start, RESIDUAL.start):
        maps[..., rightwards] *= -1
    offset[..., 0] *= -1
    return maps, offset, known[:, ::-1]


def _recolour(maps, weight, rng):
    colour = maps[..., COLOUR] * maps[..., DEVIATION] + maps[..., MEAN]
    factor = maps[..., NORMAL] @ (LIGHT * rng.normal(size=(3, 1))) + GAIN * rng.normal(size=3)
    colour = (np.clip(colour, 1e-3, 1) * np.exp(factor)) ** np.exp(TONE * rng.normal())
    grey = colour.mean(-1, keepdims=True)
    colour = np.clip(grey + rng.uniform(*SATURATION) * (colour - grey), 0, 1)
    total = weight.sum() + 1e-3
    mean = (colour * weight).sum((0, 1)) / total
    deviation = np.sqrt((weight * (colour - mean) ** 2).sum() / (3 * total)) + MIN_DEVIATION
    colour = np.clip((colour - mean) / deviation, -MAX_COLOUR, MAX_COLOUR)
    tone = np.broadcast_to(np.append(mean, deviation), (*colour.shape[:2], 4))
    return np.concatenate([colour, maps[..., INSIDE.start : MEAN.start], tone], -1).astype(np.float32)

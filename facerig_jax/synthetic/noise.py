"""Procedural noise of three coordinates, from integer hashes: the same place always looks the same.

Coordinates are tuples of three arrays of one shape, in cells; a seed is a uint32 scalar (may be traced).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

_CELL = (0x8DA6B343, 0xD8163841, 0xCB1AB31F)


def _hash(cell, seed) -> jax.Array:
    """Integer cells, three uint32 arrays -> uint32 of the same shape, well mixed."""
    mixed = seed ^ cell[0] * jnp.uint32(_CELL[0]) ^ cell[1] * jnp.uint32(_CELL[1]) ^ cell[2] * jnp.uint32(_CELL[2])
    mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(0x2C1B3C6D)
    mixed = (mixed ^ (mixed >> 12)) * jnp.uint32(0x297A2D39)
    return mixed ^ (mixed >> 15)


def _unit(bits) -> jax.Array:
    return (bits >> 8).astype(jnp.float32) * (1.0 / 2**24)


def _cells(points, shift: float = 0.0):
    """Lower corner as three uint32 arrays, and the place inside the cell."""
    low = [jnp.floor(p - shift) for p in points]
    return [a.astype(jnp.int32).astype(jnp.uint32) for a in low], [p - a for p, a in zip(points, low, strict=True)]


def _corners():
    return [(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)]


def value_noise(points, seed) -> jax.Array:
    """Smooth noise in [0, 1], mean 0.5, of one random value per cell corner."""
    low, inside = _cells(points)
    t = [f * f * (3 - 2 * f) for f in inside]
    total = 0.0
    for corner in _corners():
        weight = 1.0
        for axis, upper in enumerate(corner):
            weight = weight * (t[axis] if upper else 1 - t[axis])
        total = total + weight * _unit(_hash([a + jnp.uint32(c) for a, c in zip(low, corner, strict=True)], seed))
    return jnp.asarray(total)


def noise_stack(points, cells, seed) -> jax.Array:
    """(K, ...) value noise of points in any unit with K cell sizes (K, 3), each with a seed of its own.

    A loop, so that XLA computes each noise once: fused into what uses it, it is computed again for every use.
    """
    cells = jnp.asarray(cells, jnp.float32)
    seeds = seed + jnp.uint32(7919) * jnp.arange(len(cells), dtype=jnp.uint32)

    def one(_, item):
        cell, own = item
        return None, value_noise(tuple(p / c for p, c in zip(points, cell, strict=True)), own)

    return jax.lax.scan(one, None, (cells, seeds))[1]


def fractal_noise(points, seed, octaves: int, gain: float = 0.5) -> jax.Array:
    """Sum of octaves of value noise, each twice as fine and `gain` times as strong; about [-1, 1], mean 0."""
    cells = [[0.5**octave] * 3 for octave in range(octaves)]
    layers = noise_stack(points, cells, seed)
    total = sum(gain**octave * (layers[octave] - 0.5) for octave in range(octaves))
    return total * 2 / sum(gain ** (2 * octave) for octave in range(octaves)) ** 0.5


def spots(points, seed, chance) -> tuple[jax.Array, jax.Array]:
    """Round spots, at most one per cell and not in all: (strength in [0, 1], the spot's own random number).

    Args:
      points: in cells; spots have radii of 0.05 to 0.25.
      seed: see above.
      chance: share of the cells that have one.
    """
    low, inside = _cells(points, 0.5)
    strength, number = jnp.zeros_like(points[0]), jnp.zeros_like(points[0])
    for corner in _corners():
        bits = _hash([a + jnp.uint32(c) for a, c in zip(low, corner, strict=True)], seed)
        place = [((bits >> (8 * axis)) & 255).astype(jnp.float32) / 512 + 0.25 for axis in range(3)]
        squared = sum((f - c - p) ** 2 for f, c, p in zip(inside, corner, place, strict=True))
        own = _unit(bits * jnp.uint32(0x9E3779B1))
        radius = 0.05 + 0.2 * own * own
        spot = jnp.clip(1.5 * (1 - squared / radius**2), 0, 1)
        spot = jnp.where(_unit(bits * jnp.uint32(0x85EBCA6B)) < chance, spot, 0)
        number = jnp.where(spot > strength, own, number)
        strength = jnp.maximum(strength, spot)
    return strength, number


def smoothstep(low, high, x) -> jax.Array:
    """0 below `low`, 1 above `high`, smooth between."""
    t = jnp.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)

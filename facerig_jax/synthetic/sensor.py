"""What a camera and a file do to a picture: exposure, white balance, tone, blur, noise, 8 x 8 compression."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from facerig_jax.numerics import HIGHEST, linear_to_srgb

# ITU-T T.81 (JPEG) Annex K example tables.
_LUMA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
_CHROMA = np.full((8, 8), 99, np.float32)
_CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
# JFIF 1.02: RGB to Y Cb Cr.
_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)
_DCT = np.array([[np.cos((2 * x + 1) * k * np.pi / 16) for x in range(8)] for k in range(8)], np.float32) / 2
_DCT[0] /= np.sqrt(2)


def balance(key, image: jax.Array, weight: jax.Array, strength: float) -> jax.Array:
    """(3,) gains of exposure and white balance for a linear picture (3, H, W) whose face has weights (H, W)."""
    tone_key, red_key, green_key = jax.random.split(key, 3)
    level = jnp.sum(image * weight[None]) / jnp.maximum(3 * jnp.sum(weight), 1e-3)
    # Cameras bring dark and bright faces towards the middle, not all the way.
    target = 0.26 * jnp.exp(0.3 * jax.random.normal(tone_key)) * (jnp.maximum(level, 0.01) / 0.26) ** 0.35
    gain = jnp.clip(target / jnp.maximum(level, 0.01), 0.3, 5.0)
    warm = 0.12 * strength * jax.random.normal(red_key) * jnp.array([1.0, 0.0, -1.0])
    return gain * jnp.exp(warm + 0.04 * strength * jax.random.normal(green_key) * jnp.array([-0.5, 1.0, -0.5]))


def develop(key, image: jax.Array, noise: float, strength: float) -> jax.Array:
    """Linear RGB (3, S, S), already exposed -> sRGB (S, S, 3) in [0, 1], S a multiple of 8."""
    keys = iter(jax.random.split(key, 16))

    def uniform():
        return jax.random.uniform(next(keys))

    size = image.shape[-1]
    place = (jnp.arange(size) - size / 2) / (size / 2)
    radius = place[:, None] ** 2 + place[None, :] ** 2
    image = image * (1 - 0.35 * strength * uniform() ** 3 * radius)[None]
    image = _blur(image, strength * 1.3 * uniform() ** 2, strength * 0.9 * (uniform() > 0.85) * uniform())
    bright = jnp.maximum(image, 0)
    grain = _grain(next(keys), image.shape)
    coarse = _grain(next(keys), (3, size // 2, size // 2)).repeat(2, 1).repeat(2, 2)
    amount = noise * uniform() ** 1.5
    bright = jnp.maximum(bright + amount * (0.6 * jnp.sqrt(bright) + 0.1) * (0.8 * grain + 0.4 * coarse), 0)
    # Highlights roll off softly; a random share of that.
    soft = strength * uniform()
    bright = bright * (1 - soft) + soft * bright * (1 + bright / 2.2) / (1 + bright) * 1.15
    coded = linear_to_srgb(jnp.clip(bright, 0, 1))
    contrast, gamma = 1 + 0.4 * strength * (uniform() - 0.25), jnp.exp(0.3 * strength * (uniform() - 0.5))
    coded = jnp.clip(0.5 + contrast * (coded**gamma - 0.5), 0, 1)
    grey = coded.mean(0, keepdims=True)
    colour = jnp.where(uniform() < 0.03 * strength, 0.0, 1 + 0.5 * strength * (uniform() - 0.55))
    coded = jnp.clip(grey + colour * (coded - grey), 0, 1)
    return compress(coded, next(keys), strength) if strength else coded.transpose(1, 2, 0)


def compress(image: jax.Array, key, strength: float = 1.0) -> jax.Array:
    """sRGB (3, S, S) -> (S, S, 3) through an 8 x 8 cosine transform quantised as by JPEG of quality 30 to 100."""
    quality_key, choose_key = jax.random.split(key)
    quality = 30 + 65 * jax.random.uniform(quality_key) ** 0.7
    scale = jnp.where(quality < 50, 50 / quality, 2 - quality / 50) * strength
    blocks = jnp.einsum("ij,jhw->ihw", jnp.array(_YCC), image, precision=HIGHEST)
    size = image.shape[-1]
    blocks = (255 * blocks).reshape(3, size // 8, 8, size // 8, 8).swapaxes(2, 3)
    dct = jnp.array(_DCT)
    steps = jnp.maximum(scale * jnp.stack([jnp.array(_LUMA), jnp.array(_CHROMA), jnp.array(_CHROMA)]), 1.0)
    spectrum = jnp.einsum("ai,chwij,bj->chwab", dct, blocks, dct, precision=HIGHEST)
    steps = steps[:, None, None]
    spectrum = jnp.round(spectrum / steps) * steps
    blocks = jnp.einsum("ai,chwab,bj->chwij", dct, spectrum, dct, precision=HIGHEST) / 255
    inverse = jnp.array(np.linalg.inv(_YCC))
    decoded = jnp.einsum("ij,jhw->hwi", inverse, blocks.swapaxes(2, 3).reshape(3, size, size), precision=HIGHEST)
    decoded = jnp.clip(decoded, 0, 1)
    return jnp.where(jax.random.uniform(choose_key) < 0.75, decoded, image.transpose(1, 2, 0))


def _grain(key, shape) -> jax.Array:
    """About normal: the sum of the four bytes of a random number, a tenth of the time of exact normals."""
    bits = jax.random.bits(key, shape)
    total = sum(((bits >> (8 * i)) & 255).astype(jnp.float32) for i in range(4))
    return jnp.asarray((total - 510) / 147.8)


def _blur(image: jax.Array, focus, motion) -> jax.Array:
    """Gaussian of deviation `focus` px (up to about 2) and, along rows, of `motion` px besides; (3, S, S)."""
    reach = jnp.arange(-4, 5)

    def smooth(image, deviation, axis):
        weights = jnp.exp(-0.5 * (reach / jnp.maximum(deviation, 0.2)) ** 2)
        weights = weights / weights.sum()
        pad = [(0, 0)] * 3
        pad[axis] = (4, 4)
        wide = jnp.pad(image, pad, "edge")
        return sum(weights[i] * jax.lax.slice_in_dim(wide, i, i + image.shape[axis], axis=axis) for i in range(9))

    return smooth(smooth(image, focus, 1), jnp.sqrt(focus**2 + motion**2), 2)

"""What surrounds the face in three dimensions: a shell for hair, hats and masks, and a torso, drawn with the head."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from facerig_jax.geometry.rotation import euler_to_matrix, rotate
from facerig_jax.numerics import HIGHEST
from facerig_jax.synthetic.noise import fractal_noise, smoothstep
from facerig_jax.types import HeadModel

# Shape of the embedded head, mm in its frame: height of the hairline at depths behind the forehead, from the middle of
# the forehead over temple, sideburn and ear to the nape.
_LINE_Z, _LINE_Y = (
    (-170.0, -130.0, -105.0, -85.0, -64.0, -50.0, -30.0, -8.0, 8.0),
    (-55, -50, -30, 20, 5, 35, 62, 76, 82),
)
_EAR_BOX = (68.0, 45.0, -72.0)  # |x| beyond, y below, z behind: where ears are
_AXIS_Z, _NECK = -88.0, (0.0, -125.0, -98.0)
_RINGS, _SEGMENTS = 14, 40
HIDDEN = -7.0  # mm: where nothing is worn the shell lies under the skin


@struct.dataclass
class Wear:
    """What a person wears: scalars, lengths in mm, colours (3,) linear RGB.

    hair:      1 or 0; thickness, sides (share of it), line (shift of the hairline), recession, part (tilt), curl.
    long:      1 or 0; bottom (height where long hair ends), fringe (how far it falls over the forehead).
    hat:       1 or 0; hat_line, hat_tilt, hat_thickness, brim; hood, mask: 1 or 0.
    beard_length: mm.
    """

    hair: jax.Array
    thickness: jax.Array
    sides: jax.Array
    line: jax.Array
    recession: jax.Array
    part: jax.Array
    curl: jax.Array
    long: jax.Array
    bottom: jax.Array
    fringe: jax.Array
    hat: jax.Array
    hat_line: jax.Array
    hat_tilt: jax.Array
    hat_thickness: jax.Array
    brim: jax.Array
    hood: jax.Array
    mask: jax.Array
    beard_length: jax.Array
    cloth: jax.Array
    hat_colour: jax.Array
    pattern: jax.Array
    neckline: jax.Array
    seed: jax.Array


@struct.dataclass
class Shell:
    """The shell of a head at rest.

    faces:  (F', 3) int32 into its n vertices, which are the head's first n; (0, 0, 0) where nothing is worn.
    offset: (n, 3) mm to add to the posed vertices, besides `height` along their normals.
    height: (n,) mm.
    cloth:  (n,) 1 where it is a hat, hood or mask, 0 hair.
    shown:  (n,) mm above the edge of what is worn there: fades in from 0.
    """

    faces: jax.Array
    offset: jax.Array
    height: jax.Array
    cloth: jax.Array
    shown: jax.Array


def draw_wear(key, male, age, beard, hair: float, headwear: float) -> Wear:
    """Random hair and clothes for a person of this sex (0 or 1), age (years) and beard (0 to 1)."""
    keys = iter(jax.random.split(key, 40))

    def uniform(low=0.0, high=1.0):
        return jax.random.uniform(next(keys), minval=low, maxval=high)

    def chance(share):
        return (jax.random.uniform(next(keys)) < share).astype(jnp.float32)

    balding = male * smoothstep(25.0, 75.0, age) * uniform()
    long = chance(0.1 + 0.6 * (1 - male))
    kind = uniform()  # of headwear: cap or beanie, hood or scarf, mask
    worn = chance(headwear)
    palette = 0.8 * jax.random.uniform(next(keys), (2, 3)) ** 2
    grey = 1 - jax.random.uniform(next(keys), (2, 1)) ** 2
    palette = palette + grey * (palette.mean(1, keepdims=True) - palette)
    return Wear(
        hair=chance(hair) * (balding < 0.85),
        thickness=uniform(2.0, 14.0) + (1 - balding) * 22.0 * uniform() ** 2 + 8 * long,
        sides=uniform(0.25, 1.0),
        line=uniform(-10.0, 14.0) + 10 * balding,
        recession=45 * balding * uniform(),
        part=uniform(-0.25, 0.25),
        curl=uniform() ** 2,
        long=long,
        bottom=uniform(-190.0, -40.0),
        fringe=uniform(0.0, 28.0) * chance(0.15 + 0.25 * (1 - male)),
        hat=worn * (kind < 0.6),
        hat_line=uniform(52.0, 84.0),
        hat_tilt=uniform(-0.1, 0.35),
        hat_thickness=uniform(8.0, 26.0),
        brim=uniform(15.0, 65.0) * chance(0.5),
        hood=worn * (kind >= 0.6) * (kind < 0.8),
        mask=worn * (kind >= 0.8),
        beard_length=beard * uniform(1.5, 14.0),
        cloth=palette[0],
        hat_colour=palette[1],
        pattern=jax.random.uniform(next(keys), (4,)),
        neckline=uniform(),
        seed=jax.random.bits(next(keys), (4,)),
    )


def make_shell(head: HeadModel, wear: Wear, beard: jax.Array) -> Shell:
    """The shell of a person: the coarse mesh where the head has one, with a height above the skin at every vertex.

    Args:
      head: in mm, of about the embedded head's frame (forehead near z = 0, eyes near y = 27).
      wear: what they wear.
      beard: (P,) mask of the beard.
    """
    faces = head.faces if head.coarse_faces is None else head.coarse_faces
    count = head.mean.shape[0] if head.coarse_faces is None else head.n_coarse
    rest = head.mean[:count] * head.unit_mm
    x, y, z = (rest[:, i] for i in range(3))
    side = jnp.abs(x)
    wobble = fractal_noise((x / 22, y / 22, z / 22), wear.seed[0], 3)
    skin = head.part[:count] == 0

    # How far, in mm, a vertex lies above the hairline.
    line = jnp.interp(z, jnp.array(_LINE_Z), jnp.array(_LINE_Y, jnp.float32))
    front = smoothstep(-70.0, -20.0, z)
    line = line + front * (wear.line - wear.fringe + wear.part * x + 8 * wobble)
    line = line + wear.recession * smoothstep(-90.0, -10.0, z) * smoothstep(8.0, 45.0, side)
    ear = (side > _EAR_BOX[0]) & (y < _EAR_BOX[1]) & (z < -55) & (z > -115)
    above = jnp.where(ear, -20.0, y - line)
    curtain = jnp.minimum(-52.0 - z - 14 * wobble, y + 145.0) * ((y < 40) & ((side > 52) | (z < -95)))
    above = jnp.where(wear.long > 0, jnp.maximum(above, curtain), above)
    above = jnp.where(wear.hair > 0, above, -20.0)
    on_top = smoothstep(30.0, 90.0, y)
    thick = wear.thickness * (wear.sides + (1 - wear.sides) * on_top) * (1 + 0.35 * wobble)
    height = jnp.where(above > 0, thick * smoothstep(0.0, 4.0 + thick, above) + 0.4, HIDDEN)

    # Long hair hangs straight down: nearer to the axis of the neck than the head's width it is pushed outwards.
    radius = jnp.maximum(jnp.sqrt(x**2 + (z - _AXIS_Z) ** 2), 1.0)
    hanging = wear.long * wear.hair * (above > 0) * smoothstep(40.0, 0.0, y)
    push = hanging * jnp.maximum(80 + 0.7 * wear.thickness + 8 * wobble - radius, 0)
    drop = hanging * (wear.bottom + 147.0) * jnp.clip(-(y + 20) / 127, 0, 1)
    offset = jnp.stack([push * x / radius, drop, push * (z - _AXIS_Z) / radius], -1)
    height = jnp.where(hanging > 0.5, jnp.minimum(height, 6.0), height)

    stiff = wear.beard_length * smoothstep(0.55, 1.0, beard[:count]) * (1 + 0.4 * wobble)
    bearded = (stiff > 0.8) & (above < 0)
    height, above = jnp.where(bearded, stiff, height), jnp.where(bearded, 4 * stiff, above)

    hat, hat_offset = _hat(wear, x, y, z)
    hood = jnp.where((z < -38 + 6 * wobble) | (y > 72 + 5 * wobble) | (y < -88 + 4 * wobble), 14.0 + 4 * wobble, HIDDEN)
    covered = (y < 4 - 0.12 * side) & (y > -86) & (z > -52)
    mask = jnp.where(covered, 5.0 + 5 * smoothstep(30.0, 0.0, side), HIDDEN)
    cloth = jnp.zeros_like(height)
    for worn, own in ((wear.hat, hat), (wear.hood, hood), (wear.mask, mask)):
        wins = (worn > 0) & (own > HIDDEN) & (skin | (own == mask))
        height, above = jnp.where(wins, jnp.maximum(own, 0.5), height), jnp.where(wins, 99.0, above)
        cloth = jnp.where(wins, 1.0, cloth)
    offset = jnp.where(cloth[:, None] > 0, 0.0, offset) + (wear.hat * cloth)[:, None] * hat_offset
    inside = ~skin & (wear.mask * covered == 0)
    height = jnp.where(inside, HIDDEN, height)
    worn = jnp.any(height[faces] > HIDDEN, 1, keepdims=True)
    return Shell(jnp.where(worn, faces, 0), offset, height, cloth, jnp.where(inside, -20.0, above))


def _hat(wear: Wear, x, y, z):
    """Height (n,) of a cap or beanie, HIDDEN below its rim, and the offset (n, 3) of a cap's brim."""
    rim = wear.hat_line - wear.hat_tilt * (8 - z)
    above = y - rim
    height = jnp.where(above > 0, wear.hat_thickness * (0.5 + 0.5 * smoothstep(0.0, 30.0, above)), HIDDEN)
    front = smoothstep(-45.0, 0.0, z) * smoothstep(13.0, 5.0, above) * (above > 0) * wear.brim
    return height, jnp.stack([0.1 * front * jnp.sign(x), -0.25 * front, front], -1)


def pose_shell(shell: Shell, verts: jax.Array, normals: jax.Array) -> jax.Array:
    """(n, 3) mm: the shell on vertices (P, 3) with unit normals (P, 3)."""
    count = len(shell.height)
    return verts[:count] + shell.height[:, None] * normals[:count] + shell.offset


def torso_faces() -> np.ndarray:
    """(F, 3) int32 of the torso's grid, counter-clockwise seen from outside."""
    row, column = np.meshgrid(np.arange(_RINGS - 1), np.arange(_SEGMENTS), indexing="ij")
    after = (column + 1) % _SEGMENTS
    a, b = row * _SEGMENTS + column, row * _SEGMENTS + after
    c, d = a + _SEGMENTS, b + _SEGMENTS
    return np.stack([np.stack([a, c, b], -1), np.stack([b, c, d], -1)], 2).reshape(-1, 3).astype(np.int32)


def torso(key, angles: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Neck base, shoulders and chest, turned less than the head: (n, 3) mm in the head frame, and (n, 3) at rest."""
    size_key, turn_key = jax.random.split(key)
    broad, slope, deep = jax.random.uniform(size_key, (3,))
    down = jnp.linspace(0.0, 1.0, _RINGS)[:, None]
    around = jnp.linspace(0.0, 2 * jnp.pi, _SEGMENTS, endpoint=False)[None]
    shoulder = smoothstep(0.0, 0.42, down)
    # The first ring lies inside the neck, so that no gap opens when the head turns.
    collar = smoothstep(0.0, 0.07, down)
    half_width = 34 + 28 * collar + (110 + 50 * broad) * shoulder
    half_depth = 30 + 28 * collar + (45 + 30 * deep) * shoulder
    height = _NECK[1] + 12 - (50 + 50 * slope) * smoothstep(0.05, 0.5, down) - 420 * jnp.maximum(down - 0.35, 0)
    sway = jnp.sin(around) * jnp.abs(jnp.sin(around)) ** 0.2
    rest = jnp.stack(
        [half_width * sway, height + 14 * jnp.cos(around) * -1, _NECK[2] + half_depth * jnp.cos(around)], -1
    ).reshape(-1, 3)
    neck = jnp.array([_NECK])
    own = angles * jnp.array([0.2, 0.45, 0.3]) + 0.12 * jax.random.normal(turn_key, (3,))
    turn = jnp.matmul(euler_to_matrix(angles).T, euler_to_matrix(own), precision=HIGHEST)
    return neck + rotate(turn, rest - neck), rest


def strands(wear: Wear, noise) -> tuple[jax.Array, jax.Array]:
    """Brightness of hair, about 1, and the same noise in [0, 1], from skin.surface_noise."""
    straight = 0.5 * noise["strands"] + 0.5 * noise["hairs"]
    mixed = straight + wear.curl * (0.65 * noise["locks"] + 0.35 * noise["strands"] - straight)
    return 0.15 + 1.7 * mixed, mixed


def cloth_colour(base, rest, noise, pattern) -> list[jax.Array]:
    """Three arrays: plain, striped or checked cloth of colour `base` (3,) at points (three arrays, mm)."""
    width = 4 + 20 * pattern[1]
    stripes = smoothstep(0.4, 0.6, jnp.abs((rest[1] / width) % 2 - 1))
    checks = 0.5 * stripes + 0.5 * smoothstep(0.4, 0.6, jnp.abs((rest[0] / width) % 2 - 1))
    chosen = jnp.where(pattern[0] < 0.2, stripes, jnp.where(pattern[0] < 0.3, checks, 0.0))
    light = (0.8 + 0.4 * noise["weave"]) * (0.7 + 0.6 * noise["drape"])
    return [light * (base[i] + chosen * (pattern[2 + i % 2] - base[i]) * 0.7) for i in range(3)]

"""Skin, brows, beard and eyes of a person, evaluated at any point of the resting head (vertices and pixels alike)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from facerig_jax.head.model import landmark_positions
from facerig_jax.synthetic.noise import fractal_noise, noise_stack, smoothstep, spots
from facerig_jax.types import HeadModel

# log linear RGB per unit of pigment, as experiments.build.head_albedo.
MELANIN, BLOOD = (0.42, 0.75, 1.15), (0.05, 0.45, 0.38)
# Linear RGB of hair from black to white, and of irises.
_HAIR = ((0.008, 0.006, 0.006), (0.03, 0.017, 0.011), (0.075, 0.040, 0.022), (0.22, 0.095, 0.035), (0.36, 0.24, 0.12))
_GREY = (0.48, 0.47, 0.46)
_IRIS = ((0.035, 0.016, 0.008), (0.10, 0.048, 0.02), (0.10, 0.095, 0.045), (0.10, 0.17, 0.22), (0.19, 0.22, 0.24))
_BLOTCH, _MOLE = 22.0, 17.0  # cells of noise, mm
# Cells, mm at rest, of the noises that every pixel looks up: of skin, of brows and beard, of hair, of cloth.
CELLS = {
    "freckles": (2.6, 2.6, 2.6),
    "streaks": (7.0, 2.0, 7.0),
    "pores": (1.3, 1.3, 1.3),
    "folds": (16.0, 3.2, 10.0),
    "brow": (3.3, 1.1, 3.3),
    "tuft": (1.1, 3.3, 1.1),
    "patch": (14.0, 14.0, 14.0),
    "stubble": (0.9, 0.9, 0.9),
    "veins": (5.0, 0.8, 2.0),
    "strands": (1.25, 11.0, 3.3),
    "hairs": (0.5, 7.0, 1.1),
    "locks": (7.0, 7.0, 7.0),
    "weave": (1.5, 1.5, 1.5),
    "drape": (30.0, 45.0, 30.0),
}


@struct.dataclass
class Zones:
    """Where what grows on the resting head: (P,) masks in [0, 1], and the eyes.

    brows, beard, lips, cheeks, lids: of skin.
    eye_tips: (2, 3) mm middles of the irises, right and left.
    """

    brows: jax.Array
    beard: jax.Array
    lips: jax.Array
    cheeks: jax.Array
    lids: jax.Array
    eye_tips: jax.Array


@struct.dataclass
class Looks:
    """What a person's surface is like: scalars in [0, 1] unless said otherwise, colours (3,) linear RGB.

    seed: (8,) uint32 of the noises.
    """

    seed: jax.Array
    blotches: jax.Array
    freckles: jax.Array
    moles: jax.Array
    pores: jax.Array
    wrinkles: jax.Array
    brows: jax.Array
    stubble: jax.Array
    beard: jax.Array
    lipstick: jax.Array
    eye_shadow: jax.Array
    make_up: jax.Array
    hair: jax.Array
    iris: jax.Array
    pupil: jax.Array
    shine: jax.Array
    gloss: jax.Array


def zones(head: HeadModel) -> Zones:
    """Masks of the head in use; lengths follow its landmarks, so any head with the 68 points has them."""
    rest = head.mean * head.unit_mm
    points = landmark_positions(head.landmarks68, rest)
    none = jnp.zeros(len(rest))
    lips = head.regions.get("lips", none)
    skin = (head.part == 0) * jnp.ones(len(rest))
    centre = jnp.abs(rest[:, 0])
    corner, nose = jnp.abs(points[jnp.array([48, 54]), 0]).mean(), points[33, 1]
    mouth, chin_depth = points[jnp.array([48, 54]), 1].mean(), points[8, 2]
    side = jnp.clip((centre - corner) / 40, 0, 1)
    jaw = smoothstep(-7.0, 7.0, mouth + 28 * side - rest[:, 1])
    jaw = jaw * smoothstep(-75.0, -55.0, rest[:, 2] - chin_depth) * smoothstep(-25.0, -12.0, rest[:, 1] - points[8, 1])
    upper = smoothstep(0.0, 7.0, nose - rest[:, 1]) * smoothstep(-6.0, 4.0, corner + 3 - centre)
    upper = upper * smoothstep(-4.0, 4.0, rest[:, 1] - mouth + 6) * (rest[:, 2] > chin_depth - 15)
    beard = jnp.maximum(jaw, upper) * (1 - lips) * skin
    return Zones(
        brows=head.regions.get("brows", none),
        beard=beard,
        lips=lips,
        cheeks=jnp.maximum(head.regions.get("cheeks", none), 0.8 * head.regions.get("nose", none)),
        lids=head.regions.get("eyelids", none) * skin,
        eye_tips=_eye_tips(head, rest, points),
    )


def _eye_tips(head: HeadModel, rest: jax.Array, points: jax.Array) -> jax.Array:
    """(2, 3) mm: the middle of each iris, on the eyeball towards the middle of the lid opening."""
    tips = []
    for sign, opening in ((-1, points[36:42].mean(0)), (1, points[42:48].mean(0))):
        own = ((head.part == 1) & (rest[:, 0] * sign > 0))[:, None]
        low = jnp.min(jnp.where(own, rest, jnp.inf), 0)
        high = jnp.max(jnp.where(own, rest, -jnp.inf), 0)
        radius = (high[0] - low[0]) / 2
        centre = jnp.stack([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, high[2] - radius])
        forward = (opening - centre) * jnp.array([0.5, 1.0, 1.0])
        tip = centre + radius * forward / jnp.linalg.norm(forward)
        tips.append(jnp.where(jnp.any(own), tip, 1e4))
    return jnp.stack(tips)


def draw_looks(key, melanin, male, age, detail: float, beard: float) -> Looks:
    """Random looks of a person of this skin, sex (0 or 1) and age (years)."""
    keys = iter(jax.random.split(key, 40))

    def uniform():
        return jax.random.uniform(next(keys))

    def rare(chance):  # mostly 0, else uniform
        key = next(keys)
        return jnp.where(jax.random.uniform(key) < chance, jax.random.uniform(jax.random.fold_in(key, 1)), 0.0)

    old = smoothstep(35.0, 80.0, age)
    fair = jnp.clip(1 - melanin / 0.7, 0, 1)
    # Fair skin comes with all hair colours, dark skin with dark ones; age adds grey.
    place = uniform() * 4.0 * jnp.where(uniform() < 0.25 + 0.75 * fair, fair, 0.15)
    grey = jnp.clip(smoothstep(40.0, 75.0, age + 20 * (uniform() - 0.5)), 0, 1)
    hair = (1 - grey) * _ramp(_HAIR, place) + grey * jnp.array(_GREY)
    bearded = male * (uniform() < beard)
    full = bearded * rare(0.55)
    woman = 1 - male
    return Looks(
        seed=jax.random.bits(next(keys), (8,)),
        blotches=detail * (0.3 + 0.7 * uniform()) * (1 + 0.5 * old),
        freckles=detail * rare(0.15 + 0.35 * fair),
        moles=detail * (0.02 + 0.10 * uniform() ** 2),
        pores=detail * (0.3 + 0.7 * uniform()),
        wrinkles=detail * (0.1 + 0.9 * old) * (0.5 + uniform()),
        brows=detail * (0.2 + 0.8 * uniform()),
        stubble=bearded * (0.3 + 0.7 * uniform()),
        beard=full,
        lipstick=detail * woman * rare(0.5),
        eye_shadow=detail * woman * rare(0.4),
        make_up=jax.random.uniform(next(keys), (3,)),
        hair=hair,
        iris=_ramp(_IRIS, 4.0 * uniform() * jnp.where(melanin < 0.55, 1.0, 0.3)),
        pupil=1.3 + 1.7 * uniform(),
        shine=uniform() ** 1.5,
        gloss=8.0 * 8.0 ** uniform(),
    )


def _ramp(colours, place) -> jax.Array:
    """Colour at `place` in [0, n - 1] along a tuple of n colours."""
    table = jnp.array(colours)
    return jnp.stack([jnp.interp(place, jnp.arange(len(colours)), table[:, i]) for i in range(3)])


def coarse_pigment(looks: Looks, rest, model: str):
    """Melanin and blood to add, of blotches too large to need pixels: two arrays of the shape of each of `rest`."""
    if model == "waves":  # a sum of plane waves instead of lattice noise
        phase = [(looks.seed[i] >> 8).astype(jnp.float32) / 2**24 * 6.283 for i in range(8)]
        waves = [
            jnp.sin(
                (0.05 + 0.03 * i) * (jnp.cos(p) * rest[0] + jnp.sin(p) * rest[1] + jnp.cos(2 * p) * rest[2]) + 9 * p
            )
            for i, p in enumerate(phase)
        ]
        return 0.09 * looks.blotches * sum(waves[:4]), 0.16 * looks.blotches * sum(waves[4:])
    scaled = tuple(x / _BLOTCH for x in rest)
    finer = tuple(x / (0.6 * _BLOTCH) for x in rest)
    return (
        0.22 * looks.blotches * fractal_noise(scaled, looks.seed[0], 3, 0.6),
        0.35 * looks.blotches * fractal_noise(finer, looks.seed[1], 3, 0.6),
    )


def surface_noise(looks: Looks, rest) -> dict[str, jax.Array]:
    """Every noise of CELLS, and the moles, at points of the resting head (three arrays, mm)."""
    noise = dict(zip(CELLS, noise_stack(rest, list(CELLS.values()), looks.seed[2]), strict=True))

    def layer(_, item):
        seed, chance = item
        return None, spots(tuple(x / _MOLE for x in rest), seed, chance)[0]

    # A loop for the reason of noise_stack.
    layers = jax.lax.scan(layer, None, (looks.seed[3:5], looks.moles * jnp.array([1.0, 0.6])))[1]
    return {**noise, "moles": layers[0], "pimples": layers[1]}


def fine_pigment(looks: Looks, noise, cheeks, model: str):
    """Melanin and blood to add, of freckles, moles and pimples."""
    if model == "waves":  # stretched cells instead of round ones, no moles
        streaks = noise["streaks"]
        return 0.6 * looks.freckles * smoothstep(0.55, 0.9, streaks), 0.5 * looks.blotches * (streaks - 0.5)
    freckles = looks.freckles * smoothstep(0.58, 0.85, noise["freckles"]) * (0.25 + 0.75 * cheeks)
    return 0.9 * freckles + 1.6 * noise["moles"], 0.9 * noise["pimples"]


def fine_relief(looks: Looks, noise):
    """Shading of pores and wrinkles: a factor about 1, and the pores alone in [-1, 1] for highlights."""
    pores = 2 * noise["pores"] - 1
    lines = jnp.clip(1 - jnp.abs(noise["folds"] - 0.5) / 0.07, 0, 1)
    return 1 - 0.07 * looks.pores * pores - 0.13 * looks.wrinkles * lines, pores


def hairs(looks: Looks, noise, brows, beard):
    """Coverage in [0, 1] by the hairs of brows and beard, and how much the stubble's shadow darkens."""
    brow = smoothstep(0.25, 0.9, brows * (0.6 + 0.8 * noise["brow"])) * looks.brows
    full = smoothstep(0.35, 0.75, beard * (0.55 + 0.5 * noise["patch"] + 0.4 * noise["tuft"]))
    full = full * smoothstep(0.0, 0.4, looks.beard)
    stubble = looks.stubble * beard * (0.35 + 0.65 * smoothstep(0.35, 0.8, noise["stubble"]))
    return jnp.maximum(brow, full), 0.55 * stubble

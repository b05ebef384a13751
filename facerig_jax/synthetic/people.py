"""Random people: shape beyond the identity basis, expressions, and what results are broken down by."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from facerig_jax.data.subjects import Traits
from facerig_jax.numerics import HIGHEST
from facerig_jax.synthetic.noise import fractal_noise
from facerig_jax.synthetic.presets import SubjectConfig
from facerig_jax.types import HeadModel

# The embedded head's first identity modes along which faces turn male and old: unit directions, from the weights of the
# MakeHuman targets named so in head/calibration/identity_calibration.npz.
_MALE = (-0.88, -0.17, -0.03, 0.23, -0.06, -0.18, 0.03, -0.09)
_OLD = (0.25, 0.71, 0.41, 0.07, -0.16, 0.02, -0.08, -0.17)
_AGE_MEAN, _AGE_STD, _AGE_RANGE = 42.0, 16.0, (18.0, 85.0)
# As the head's albedo was built (experiments.build.head_albedo): its first coefficient is the skin's melanin.
_MELANIN_MEAN, _MELANIN_STD = 0.55, 0.35
# From the fairest to the darkest skin.
_MELANIN_RANGE = (-0.05, 1.5)


@struct.dataclass
class Motion:
    """A person's own way of moving, on top of the blendshapes; all zero changes nothing.

    gain, bend: (E,) share that a shape moves farther, and that it moves ahead half way.
    together:   (E, E) how much shape j strengthens shape k.
    field:      (P, 3) share of a vertex's motion that goes in a direction of its own.
    """

    gain: jax.Array
    bend: jax.Array
    together: jax.Array
    field: jax.Array


def traits(identity: jax.Array, albedo_code: jax.Array) -> Traits:
    """What codes of the embedded head say: sex and age from the shape (of another head they mean nothing)."""
    known = min(len(identity), len(_MALE))
    male, old = (identity[:known] @ jnp.array(direction[:known]) for direction in (_MALE, _OLD))
    age = jnp.clip(_AGE_MEAN + _AGE_STD * old, *_AGE_RANGE)
    return Traits(_MELANIN_MEAN + _MELANIN_STD * albedo_code[0], (male > 0).astype(jnp.float32), age)


def smooth_displacement(key, head: HeadModel, n_bumps: int = 60) -> jax.Array:
    """(P, 3) mm, rms about 1 on the face: Gaussian bumps of 8-35 mm at random places, asymmetric."""
    place_key, size_key, amount_key = jax.random.split(key, 3)
    chance = head.face_mask / head.face_mask.sum()
    place = head.mean[jax.random.choice(place_key, head.mean.shape[0], (n_bumps,), p=chance)]
    size = jax.random.uniform(size_key, (n_bumps,), minval=8.0, maxval=35.0)
    amount = jax.random.normal(amount_key, (n_bumps, 3))
    squared = jnp.sum((head.mean[:, None] - place[None]) ** 2, -1)
    field = jnp.matmul(jnp.exp(-0.5 * squared / size[None] ** 2), amount, precision=HIGHEST)
    rms = jnp.sqrt(jnp.sum(head.face_mask[:, None] * field**2) / head.face_mask.sum())
    return field / rms


def any_melanin(key, albedo_code: jax.Array) -> jax.Array:
    """The albedo code (A,) with its melanin drawn evenly over all human skin (of another head: unchanged meaning)."""
    melanin = jax.random.uniform(key, minval=_MELANIN_RANGE[0], maxval=_MELANIN_RANGE[1])
    return albedo_code.at[0].set((melanin - _MELANIN_MEAN) / _MELANIN_STD)


def fine_displacement(key, head: HeadModel) -> jax.Array:
    """(P, 3) mm, rms about 1 on open skin: bumps of 3 to 8 mm, none on eyes, lids and lips."""
    seeds = jax.random.bits(key, (3,))
    rest = tuple((head.mean * head.unit_mm / 9.0).T)
    field = jnp.stack([fractal_noise(rest, seed, 2, 0.6) for seed in seeds], -1)
    return 0.9 * field * _open_skin(head)[:, None]


def _open_skin(head: HeadModel) -> jax.Array:
    """(P,) 1 on skin, 0 on lids, lips and what is not skin."""
    none = jnp.zeros(len(head.mean))
    soft = [head.regions.get(name, none) for name in ("eyelids", "eyes", "lips")]
    return (head.part == 0) * (1 - jnp.clip(sum(soft), 0, 1))


def random_motion(key, head: HeadModel, strength: float) -> Motion:
    """A person's own motion."""
    gain_key, bend_key, pair_key, field_key = jax.random.split(key, 4)
    count = head.expression_basis.shape[0]
    pairs = jax.random.normal(pair_key, (count, count))
    return Motion(
        gain=0.2 * strength * jnp.clip(jax.random.normal(gain_key, (count,)), -2, 2),
        bend=0.3 * strength * jax.random.uniform(bend_key, (count,), minval=-1.0),
        together=0.12 * strength * jnp.clip(pairs, -2, 2),
        field=0.12 * strength * smooth_displacement(field_key, head) * _open_skin(head)[:, None],
    )


def move(motion: Motion, head: HeadModel, neutral: jax.Array, expression: jax.Array) -> jax.Array:
    """(P, 3): a neutral (P, 3) with the expression (E,) of a person who moves like that."""
    paired = jnp.matmul(expression, motion.together, precision=HIGHEST)
    weight = expression * (1 + motion.gain + motion.bend * (1 - expression) + jnp.clip(paired, -0.3, 0.3))
    moved = jnp.tensordot(weight, head.expression_basis, 1, precision=HIGHEST)
    length = jnp.sqrt(jnp.sum(moved**2, -1, keepdims=True) + 1e-12)
    return neutral + moved + length * motion.field


def random_camera(key, head: HeadModel, config: SubjectConfig):
    """Pose (6,) for an image of config.size and inverse distance ()."""
    angle_key, distance_key, size_key, shift_key = jax.random.split(key, 4)
    limit = jnp.deg2rad(jnp.array([config.pitch, config.yaw, config.roll]))
    angles = jax.random.uniform(angle_key, (3,), minval=-1.0, maxval=1.0) * limit
    near, far = config.distance
    distance = near * (far / near) ** jax.random.uniform(distance_key)
    width = jnp.ptp(head.mean[:, 0] * head.face_mask)
    low, high = config.face_share
    scale = jax.random.uniform(size_key, minval=low, maxval=high) * config.size / width
    shift = jax.random.uniform(shift_key, (2,), minval=-0.05, maxval=0.05) * config.size
    return jnp.concatenate([angles, scale[None], shift]), 1 / distance


# ARKit shapes that no face makes together: where both are drawn, the second is dropped.
CONFLICTS = (
    ("mouthSmile", "mouthFrown"), ("mouthSmile", "mouthPucker"), ("mouthSmile", "mouthFunnel"),
    ("mouthFunnel", "mouthRollLower"), ("mouthFunnel", "mouthRollUpper"), ("mouthPucker", "mouthStretch"),
    ("mouthPress", "mouthUpperUp"), ("mouthPress", "mouthLowerDown"), ("mouthPress", "mouthFunnel"),
    ("jawLeft", "jawRight"), ("mouthLeft", "mouthRight"), ("cheekPuff", "jawOpen"),
    ("eyeBlink", "eyeWide"), ("eyeSquint", "eyeWide"), ("eyeLookUp", "eyeLookDown"), ("eyeLookIn", "eyeLookOut"),
    ("browDown", "browInnerUp"), ("browDown", "browOuterUp"),
)  # fmt: skip
# Shapes that only make sense on an open jaw: they are limited by jawOpen's weight.
NEED_OPEN_JAW = ("mouthClose", "tongueOut")


def random_expression(key, head: HeadModel, chance: float) -> jax.Array:
    """(E,) sparse blendshape weights in [0, 1]; left and right usually move together, and no impossible pairs."""
    active_key, amount_key, side_key = jax.random.split(key, 3)
    names, n = head.expression_names, len(head.expression_names)
    stems = [name if name in ("jawLeft", "jawRight", "mouthLeft", "mouthRight") else _stem(name) for name in names]
    group = jnp.array([stems.index(stem) for stem in stems])
    active = (jax.random.uniform(active_key, (n,)) < chance)[group]
    amount = jax.random.beta(amount_key, 1.5, 2.0, (n,))[group]
    asymmetry = 1 - 0.5 * jax.random.uniform(side_key, (n,)) ** 2
    weight = jnp.where(active, amount * asymmetry, 0.0)
    for kept, dropped in CONFLICTS:
        if kept in stems and dropped in stems:
            second = jnp.array([stem == dropped for stem in stems])
            weight = jnp.where(second & (weight[stems.index(kept)] > 0), 0.0, weight)
    limited = jnp.array([name in NEED_OPEN_JAW for name in names])
    jaw = weight[names.index("jawOpen")] if "jawOpen" in names else 1.0
    return jnp.where(limited, jnp.minimum(weight, 0.9 * jaw), weight)


# A smile for a photo, the commonest expression there is: shapes and their largest weights; and what it excludes.
_SMILE = {"mouthSmile": 1.0, "cheekSquint": 0.6, "mouthUpperUp": 0.5, "mouthLowerDown": 0.35, "jawOpen": 0.25}
_NO_SMILE = ("mouthFrown", "mouthPucker", "mouthFunnel", "mouthPress", "mouthShrugUpper", "mouthShrugLower")


def smile_sometimes(key, head: HeadModel, expression: jax.Array, chance: float = 0.3) -> jax.Array:
    """(E,) the expression, or with this probability that of a smile, with or without teeth, on top of it."""
    smile_key, width_key, teeth_key = jax.random.split(key, 3)
    stems = [_stem(name) for name in head.expression_names]
    width, teeth = 0.25 + 0.75 * jax.random.uniform(width_key), jax.random.uniform(teeth_key)
    shown = jnp.array([_SMILE.get(stem, 0.0) for stem in stems])
    first = jnp.array([stem in ("mouthSmile", "cheekSquint") for stem in stems])
    smile = width * shown * jnp.where(first, 1.0, teeth)
    barred = jnp.array([stem in _NO_SMILE for stem in stems])
    smiling = jnp.where(barred, 0.0, jnp.maximum(expression, smile))
    return jnp.where(jax.random.uniform(smile_key) < chance, smiling, expression)


def lower_lids_sometimes(key, head: HeadModel, expression: jax.Array, chance: float) -> jax.Array:
    """(E,) the expression, or with this probability with lids half or wholly closed, nearly always both alike."""
    lower_key, closed_key, side_key = jax.random.split(key, 3)
    stems = [_stem(name) for name in head.expression_names]
    closed = jnp.clip(0.4 + 0.8 * jax.random.uniform(closed_key), 0, 1)
    side = 1 - 0.3 * jax.random.uniform(side_key, expression.shape) ** 4
    lids, wide = (jnp.array([stem == name for stem in stems]) for name in ("eyeBlink", "eyeWide"))
    lowered = jnp.where(lids, jnp.maximum(expression, closed * side), jnp.where(wide, 0.0, expression))
    return jnp.where(jax.random.uniform(lower_key) < chance, lowered, expression)


def _stem(name: str) -> str:
    return name.removesuffix("Left").removesuffix("Right")

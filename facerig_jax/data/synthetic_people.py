"""Random people: shape beyond the identity basis, expressions, and what results are broken down by."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from facerig_jax.data.subjects import Traits
from facerig_jax.numerics import HIGHEST
from facerig_jax.types import HeadModel

# The embedded head's first identity modes along which faces turn male and old: unit directions, from the weights of the
# MakeHuman targets named so in head/calibration/identity_calibration.npz.
_MALE = (-0.88, -0.17, -0.03, 0.23, -0.06, -0.18, 0.03, -0.09)
_OLD = (0.25, 0.71, 0.41, 0.07, -0.16, 0.02, -0.08, -0.17)
_AGE_MEAN, _AGE_STD, _AGE_RANGE = 42.0, 16.0, (18.0, 85.0)
# As the head's albedo was built (head.build_albedo): its first coefficient is the skin's melanin.
_MELANIN_MEAN, _MELANIN_STD = 0.55, 0.35


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


def _stem(name: str) -> str:
    return name.removesuffix("Left").removesuffix("Right")

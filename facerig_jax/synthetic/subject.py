"""Synthetic subjects with known truth: random people, expressions, lights, cameras, drawn by our own rasterizer.

A subject is a pure function of (head, seed, index, config): the same on every machine to float tolerance.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from facerig_jax.checks import check_choice
from facerig_jax.data.subjects import VALIDATION_SEED, MadeSource, Subject
from facerig_jax.head.model import albedo as head_albedo
from facerig_jax.head.model import landmark_positions
from facerig_jax.head.model import neutral as head_neutral
from facerig_jax.synthetic.imitated_landmarks import imitate_landmarks
from facerig_jax.synthetic.people import (
    any_melanin,
    fine_displacement,
    random_expression,
    random_motion,
    smooth_displacement,
    traits,
)
from facerig_jax.synthetic.person import make_person
from facerig_jax.synthetic.photo import make_photo
from facerig_jax.synthetic.placement import draw_placement, place
from facerig_jax.synthetic.plain import make_view, random_light
from facerig_jax.synthetic.presets import (
    HARD,
    HARD_REFINED,
    HARD_VARIED,
    OTHER_LIGHT,
    OTHER_SKIN,
    PLAIN,
    TRAIN,
    TRAIN_REFINED,
    TRAIN_VARIED,
    SubjectConfig,
)
from facerig_jax.types import HeadModel

__all__ = [
    "HARD",
    "HARD_REFINED",
    "HARD_VARIED",
    "OTHER_LIGHT",
    "OTHER_SKIN",
    "PLAIN",
    "TRAIN",
    "TRAIN_REFINED",
    "TRAIN_VARIED",
    "SubjectConfig",
    "make_subject",
    "make_view",
    "random_expression",
    "random_light",
    "smooth_displacement",
    "synthetic_source",
    "training_seed",
]

# Landmarks are drawn from a key of their own, so that pictures do not depend on them.
_LANDMARKS, _LOOKS = 1, 2
RENDERERS = ("plain", "photo")
ENDLESS = 2**31 - 1


def make_subject(head: HeadModel, seed, index, config: SubjectConfig = PLAIN) -> Subject:
    """One subject.

    Args:
      head: morphable head (its basis is the space of identities, to which `off_basis` adds).
      seed, index: integers (may be traced).
      config: static.

    Returns:
      Subject with every field but those that mark padding: images float32 in [0, 1], landmarks as the detector finds
      them, or exact ones where config.landmark_noise is 0 or the head has none.
    """
    key = jax.random.fold_in(jax.random.key(seed), index)
    identity_key, albedo_key, shape_key, view_key = jax.random.split(key, 4)
    identity = jax.random.normal(identity_key, (head.identity_basis.shape[0],))
    albedo_code = jax.random.normal(albedo_key, (head.albedo_basis.shape[0],))
    if config.spread > 1:
        identity = identity * jax.random.uniform(jax.random.fold_in(identity_key, 1), maxval=config.spread, minval=1.0)
    neutral = head_neutral(head, identity)
    if config.off_basis:
        neutral = neutral + config.off_basis * smooth_displacement(shape_key, head)
    if config.fine_shape:
        neutral = neutral + config.fine_shape * fine_displacement(jax.random.fold_in(shape_key, 1), head)
    check_choice("renderer", config.renderer, RENDERERS)
    if config.renderer == "photo":
        albedo_code = any_melanin(jax.random.fold_in(albedo_key, 1), albedo_code)
    colour, known = head_albedo(head, albedo_code), traits(identity, albedo_code)
    placement = None
    if config.placement:
        placement = draw_placement(jax.random.fold_in(shape_key, 3), head, config.placement)
        colour = place(placement, colour)
    if config.renderer == "photo":
        motion = random_motion(jax.random.fold_in(shape_key, 2), head, config.personal)
        person = make_person(jax.random.fold_in(key, _LOOKS), head, neutral, colour, known, motion, placement, config)
        colour = person.albedo

    def view(key):
        if config.renderer == "photo":
            return make_photo(head, person, key, config)
        return make_view(head, neutral, colour, key, config)

    # One view after the other: a rendered batch would hold V times the memory and is not faster on a CPU.
    images, verts, posed, expression, pose, inverse, light = jax.lax.map(
        view, jax.random.split(view_key, config.n_views)
    )
    return Subject(
        images=images,
        landmarks=_landmarks(
            jax.random.fold_in(key, _LANDMARKS), head, verts, posed, identity, expression, pose, inverse, config
        ),
        neutral=neutral,
        known=jnp.ones(len(neutral)),
        vertices=verts,
        vertices_img=posed,
        albedo=colour,
        light=light,
        expression=expression,
        pose=pose,
        inverse_distance=inverse,
        identity=identity,
        albedo_code=albedo_code,
        traits=known,
    )


def _landmarks(key, head, verts, posed, identity, expression, pose, inverse, config):
    """(V, 468, 3) photo px, or None without the head's table of dense landmarks."""
    if head.landmarks_dense is None:
        return None
    if not config.landmark_noise:
        return landmark_positions(head.landmarks_dense, posed)

    def one(key, *view):
        verts, expression, pose, inverse = view
        return imitate_landmarks(
            key, head, verts, identity, expression, pose, inverse, config.size, config.landmark_noise
        )

    return jax.vmap(one)(jax.random.split(key, len(pose)), verts, expression, pose, inverse)


_draw = functools.partial(jax.jit, static_argnames="config")(make_subject)


def synthetic_source(head: HeadModel, seed: int, config: SubjectConfig) -> MadeSource:
    """Synthetic subjects without end; see `training_seed` for the seeds that training may use."""
    return MadeSource(f"synthetic subjects, seed {seed}", ENDLESS, lambda index: _draw(head, seed, index, config))


def training_seed(seed: int) -> int:
    """The seed, if training may use it.

    Raises:
      ValueError: it is kept for choosing settings or for evaluation.
    """
    if not 0 <= seed < VALIDATION_SEED:
        raise ValueError(
            f"Seed {seed} is kept for validation and evaluation; training takes 0 to {VALIDATION_SEED - 1}."
        )
    return seed

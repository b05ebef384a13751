"""What one synthetic person looks like in every photo: shape, skin, hair, eyes, clothes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from facerig_jax.data.subjects import Traits
from facerig_jax.geometry.mesh import vertex_normals
from facerig_jax.synthetic import skin, wear
from facerig_jax.synthetic.cover import Glasses, draw_glasses
from facerig_jax.synthetic.light import sky_occlusion
from facerig_jax.synthetic.noise import smoothstep
from facerig_jax.synthetic.people import Motion
from facerig_jax.synthetic.placement import Placement, place
from facerig_jax.synthetic.presets import SubjectConfig
from facerig_jax.synthetic.wear import Shell
from facerig_jax.types import HeadModel


@struct.dataclass
class Person:
    """What the photos of one person share.

    neutral: (P, 3) mm; colour: (P, 3) albedo without what is finer than the mesh; albedo: (P, 3) with it.
    sky: (P,) share of the sky that the resting head does not cover.
    """

    neutral: jax.Array
    colour: jax.Array
    albedo: jax.Array
    sky: jax.Array
    motion: Motion
    traits: Traits
    looks: skin.Looks
    wear: wear.Wear
    glasses: Glasses
    zones: skin.Zones
    shell: Shell


def make_person(
    key, head: HeadModel, neutral, colour, traits: Traits, motion: Motion, placement: Placement | None, config
) -> Person:
    """Draws looks and clothes for a person of given shape (P, 3) mm, albedo (P, 3) and traits.

    `placement`, where there is one, says where the skin's zones are; the albedo is already placed.
    """
    looks_key, wear_key, glasses_key = jax.random.split(key, 3)
    zones = skin.zones(head)
    if placement is not None:
        names = ("brows", "beard", "lips", "cheeks", "lids")
        masks = place(placement, jnp.stack([getattr(zones, name) for name in names], -1))
        zones = dataclasses.replace(zones, **dict(zip(names, masks.T, strict=True)))
    looks = skin.draw_looks(looks_key, traits.melanin, traits.sex, traits.age, config.detail, config.beard)
    worn = wear.draw_wear(wear_key, traits.sex, traits.age, looks.beard, config.hair, config.headwear)
    rest = resting_place(head)
    is_skin = head.part == 0
    melanin, blood = skin.coarse_pigment(looks, rest, config.skin)
    blood = blood + 0.5 * looks.lipstick * zones.lips
    log_change = -jnp.stack([melanin * m + blood * b for m, b in zip(skin.MELANIN, skin.BLOOD, strict=True)], -1)
    colour = jnp.where(is_skin[:, None], jnp.clip(colour * jnp.exp(log_change), 0, 1), colour)
    paint = looks.make_up * jnp.array([0.5, 0.3, 0.4])
    shaded = (0.6 * looks.eye_shadow * zones.lids * (rest[1] > zones.eye_tips[0, 1]))[:, None]
    red = (0.55 * looks.lipstick * zones.lips)[:, None]
    colour = colour + shaded * (paint[None] - colour)
    colour = colour + red * (jnp.array([[0.32, 0.05, 0.06]]) * (0.4 + looks.make_up)[None] - colour)
    person = Person(
        neutral=neutral,
        colour=colour,
        albedo=colour,
        sky=sky_occlusion(neutral, vertex_normals(neutral, head.faces), coarse_faces(head)),
        motion=motion,
        traits=traits,
        looks=looks,
        wear=worn,
        glasses=draw_glasses(glasses_key, config.glasses),
        zones=zones,
        shell=wear.make_shell(head, worn, zones.beard * (looks.beard > 0)),
    )
    fine = jnp.stack(
        head_colour(
            person, list(colour.T), rest, skin.surface_noise(looks, rest), *zone_masks(zones), head.part, config
        ),
        -1,
    )
    return dataclasses.replace(person, albedo=jnp.clip(fine, 0, 1))


def resting_place(head: HeadModel):
    """Where vertices are on the resting head: three arrays (P,), mm."""
    return tuple((head.mean * head.unit_mm).T)


def coarse_faces(head: HeadModel):
    """The triangles of the head's coarse mesh, where it has one."""
    return head.faces if head.coarse_faces is None else head.coarse_faces


def zone_masks(zones: skin.Zones) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The four masks (P,) that are interpolated: brows, beard, lips, cheeks."""
    return zones.brows, zones.beard, zones.lips, zones.cheeks


def head_colour(person: Person, base, rest, noise, brows, beard, lips, cheeks, part, config: SubjectConfig):
    """Albedo, three arrays, of points of the head with base albedo `base`: skin with its detail, eyes, mouth."""
    looks = person.looks
    melanin, blood = skin.fine_pigment(looks, noise, cheeks, config.skin)
    covered, shadow = skin.hairs(looks, noise, brows, beard)
    own = []
    for i, (m, b) in enumerate(zip(skin.MELANIN, skin.BLOOD, strict=True)):
        colour = base[i] * jnp.exp(-melanin * m * (1 - lips) - blood * b - shadow * (0.9, 0.95, 0.85)[i])
        own.append(colour + 0.85 * covered * (looks.hair[i] - colour))
    eyes = _eye_colour(person, base, rest, noise) if config.detail else base
    return [jnp.where(part == 0, s, jnp.where(part == 1, e, b)) for s, e, b in zip(own, eyes, base, strict=True)]


def _eye_colour(person: Person, base, rest, noise):
    """Sclera with veins, iris with spokes and a dark rim, pupil."""
    looks = person.looks
    offsets = [[x - t for x, t in zip(rest, tip, strict=True)] for tip in person.zones.eye_tips]
    right = rest[0] < 0
    near = [jnp.where(right, a, b) for a, b in zip(*offsets, strict=True)]
    distance = jnp.sqrt(sum(x * x for x in near) + 1e-6)
    spokes = 0.5 + 0.25 * (jnp.sin(23 * near[0] / distance) + jnp.sin(17 * near[1] / distance + 2.0))
    iris = smoothstep(6.4, 5.8, distance)
    rim = 1 - 0.6 * smoothstep(4.6, 6.0, distance)
    pupil = smoothstep(looks.pupil + 0.4, looks.pupil - 0.2, distance)
    result = []
    for i in range(3):
        white = (0.42, 0.38, 0.36)[i] * (1 - (0.02, 0.12, 0.12)[i] * smoothstep(0.6, 0.9, noise["veins"]))
        white = white * (1 - 0.4 * smoothstep(7.0, 13.0, distance))
        ring = looks.iris[i] * (0.6 + 0.8 * spokes) * rim
        result.append((white + iris * (ring - white)) * (1 - pupil) + 0.006 * pupil)
    return result


def hair_colour(person: Person, base, noise, shown):
    """Albedo of the shell, three arrays, and its coverage: at its edge strands give way to the skin below."""
    bright, mixed = wear.strands(person.wear, noise)
    cover = smoothstep(-0.5, 7.0, shown + 6 * (mixed - 0.5))
    colour = person.looks.hair
    return [b + cover * (c * bright - b) for b, c in zip(base, colour, strict=True)], cover


def mean_skin(person: Person):
    """(3,) mean skin colour."""
    return jnp.exp(jnp.mean(jnp.log(jnp.maximum(person.colour, 1e-3)), 0))


def neckline(person: Person, rest):
    """1 where the torso shows skin."""
    depth = 8 + 55 * person.wear.neckline**2
    return smoothstep(2.0, -2.0, jnp.abs(rest[0]) * 0.9 - depth - rest[1] - 158.0 + 20) * (rest[2] > -110)

"""The photographic renderer: a person with skin detail, hair, clothes, shadows, a scene, and a camera's faults.

Everything is drawn by one rasterization of head, shell and torso at twice the photo's resolution; per-vertex quantities
are interpolated, and detail is procedural noise of the place on the resting head, so that it stays where it is from
photo to photo.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from facerig_jax.geometry.camera import project, to_image
from facerig_jax.geometry.light import sh_basis, shade
from facerig_jax.geometry.mesh import vertex_normals
from facerig_jax.geometry.rotation import euler_to_matrix, rotate
from facerig_jax.head.model import landmark_positions
from facerig_jax.numerics import HIGHEST, normalize
from facerig_jax.raster.rasterize import DEPTH_RANGE, image_to_clip, interpolate, rasterize
from facerig_jax.synthetic import skin, wear
from facerig_jax.synthetic.background import random_background
from facerig_jax.synthetic.cover import put_before, put_on
from facerig_jax.synthetic.light import draw_lamps, lit_by
from facerig_jax.synthetic.people import (
    lower_lids_sometimes,
    move,
    random_camera,
    random_expression,
    smile_sometimes,
)
from facerig_jax.synthetic.person import Person, hair_colour, head_colour, mean_skin, neckline, zone_masks
from facerig_jax.synthetic.plain import plain_background
from facerig_jax.synthetic.presets import SubjectConfig
from facerig_jax.synthetic.sensor import balance, develop
from facerig_jax.types import HeadModel

_SAMPLES = 2  # per pixel side


def make_photo(head: HeadModel, person: Person, key, config: SubjectConfig):
    """One photo: (image, vertices, vertices_img, expression, pose, inverse_distance, light), see Subject."""
    keys = jax.random.split(key, 10)
    size, fine = config.size, _SAMPLES * config.size
    expression = random_expression(keys[0], head, config.expressiveness)
    if config.expressiveness:
        expression = smile_sometimes(keys[9], head, expression)
    expression = lower_lids_sometimes(jax.random.fold_in(key, 10), head, expression, config.low_lids)
    verts = move(person.motion, head, person.neutral, expression)
    pose, inverse_distance = random_camera(keys[1], head, config)
    posed = to_image(project(verts, pose, inverse_distance), size, size)
    lamps = draw_lamps(keys[2], config.sharp_light, config.light)

    scene, normals, rest, faces = _assemble(head, person, verts, keys[3], pose, config)
    sharper = pose.at[3:].multiply(_SAMPLES)
    samples = to_image(project(scene, sharper, inverse_distance), fine, fine) + jnp.array([[0.5, -0.5, 0.0]])
    turn = euler_to_matrix(pose[:3])
    lamps_head = jnp.matmul(lamps.directions, turn, precision=HIGHEST)  # into the head's axes
    lit = jax.lax.map(lambda direction: lit_by(scene, faces, scene, direction), lamps_head).T
    lit = 1 - config.shadows * (1 - lit) * jax.random.uniform(keys[4], minval=0.6, maxval=1.0)
    table = _vertex_table(head, person, normals, rest, lit, turn, config)
    fragments = rasterize(image_to_clip(samples, fine, fine), faces, fine, fine, "back")
    pixels = interpolate(table, fragments, faces)
    linear, depth = _shade(head, person, pixels, fragments, faces, lamps, config)
    covered = (fragments.ids > 0).astype(jnp.float32)
    points = landmark_positions(head.landmarks68, verts)
    eyes = jnp.stack([points[36:42].mean(0), points[42:48].mean(0)])
    background = (random_background if config.scene else plain_background)(keys[5], size)
    linear = jnp.where(covered[None] > 0, linear, background.repeat(_SAMPLES, 1).repeat(_SAMPLES, 2))
    if config.glasses:
        linear = jax.lax.cond(
            person.glasses.worn > 0,
            lambda: put_on(person.glasses, linear, depth, eyes, sharper, inverse_distance, fine),
            lambda: linear,
        )
    image = linear.reshape(3, size, _SAMPLES, size, _SAMPLES).mean((2, 4))
    light = lamps.harmonics()
    if config.hand:
        seen = to_image(project(points, pose, inverse_distance), size, size)[:, :2]
        colour = mean_skin(person)
        present_key, hand_key = jax.random.split(keys[6])
        image = jax.lax.cond(
            jax.random.uniform(present_key) < config.hand,
            lambda: put_before(hand_key, image, seen, pose[3], colour, light, size),
            lambda: image,
        )
    face = _pool(covered * (fragments.ids <= len(head.faces)), size)
    gains = balance(keys[7], image, face, config.sensor)
    image = develop(keys[8], gains[:, None, None] * image, config.noise, config.sensor)
    return image, verts, posed, expression, pose, inverse_distance, light * gains[None]


def _pool(image, size: int):
    return image.reshape(size, _SAMPLES, size, _SAMPLES).mean((1, 3))


def _assemble(head: HeadModel, person: Person, verts, key, pose, config: SubjectConfig):
    """Head, shell and torso as one mesh: vertices and unit normals (n, 3) head frame, rest (n, 3), faces."""
    normals = vertex_normals(verts, head.faces)
    rest = head.mean * head.unit_mm
    shell = wear.pose_shell(person.shell, verts, normals)
    count = len(shell)
    parts, at_rest, faces = [verts, shell], [rest, rest[:count]], [head.faces, person.shell.faces + len(verts)]
    directions = [normals, vertex_normals(shell, person.shell.faces)]
    if config.scene:
        body, body_rest = wear.torso(key, pose[:3])
        body_faces = wear.torso_faces()
        parts.append(body)
        at_rest.append(body_rest)
        faces.append(jnp.asarray(body_faces) + len(verts) + count)
        directions.append(vertex_normals(body, jnp.asarray(body_faces)))
    return tuple(jnp.concatenate(group) for group in (parts, directions, at_rest, faces))


def _vertex_table(head: HeadModel, person: Person, normals, rest, lit, turn, config: SubjectConfig):
    """(n, C) what is interpolated: normal 3, rest 3, colour 3, sky, four masks, cloth, shown, one shadow per lamp."""
    count, bodies = len(person.shell.height), len(rest) - len(head.mean) - len(person.shell.height)

    def extend(of_head, of_shell, of_body):
        tail = jnp.zeros((bodies, *of_head.shape[1:])) + of_body
        return jnp.concatenate([of_head, of_shell, tail])

    none = jnp.zeros(count)
    colour = extend(person.colour, person.colour[:count], 0.0)
    # Under hats and long hair it is dark, and the mouth is lit when it opens.
    sky = jnp.where(head.part == 2, 0.75, person.sky)
    sky = extend(sky, jnp.maximum(sky[:count], 0.35 + 0.4 * (person.shell.height > 2)), 0.85)
    sky = 1 - config.shadows * 0.85 * (1 - sky)
    scalars = [sky, *(extend(mask, none, 0.0) for mask in zone_masks(person.zones))]
    scalars += [extend(jnp.zeros(len(head.mean)), person.shell.cloth, 1.0)]
    scalars += [extend(jnp.zeros(len(head.mean)), person.shell.shown, 99.0)]
    return jnp.concatenate([rotate(turn, normals), rest, colour, jnp.stack(scalars, -1), lit], -1)


def _shade(head: HeadModel, person: Person, pixels, fragments, faces, lamps, config: SubjectConfig):
    """Lit linear colours (3, S, S) and depth (S, S) px."""
    channel = [pixels[..., i] for i in range(pixels.shape[-1])]
    normal = normalize(jnp.stack(channel[:3]), axis=0)
    rest, base = tuple(channel[3:6]), channel[6:9]
    sky, brows, beard, lips, cheeks, cloth, shown = channel[9:16]
    lit = channel[16:]
    corner = faces[jnp.maximum(fragments.ids - 1, 0), 0]
    on_head, on_body = fragments.ids <= len(head.faces), fragments.ids > len(head.faces) + len(person.shell.faces)
    part = jnp.where(on_head, head.part[jnp.minimum(corner, len(head.part) - 1)], -1)
    # One sample per pixel is enough for the noise, which costs most.
    noise = skin.surface_noise(person.looks, tuple(x[::_SAMPLES, ::_SAMPLES] for x in rest))
    noise = {name: x.repeat(_SAMPLES, 0).repeat(_SAMPLES, 1) for name, x in noise.items()}
    skin_like = head_colour(person, base, rest, noise, brows, beard, lips, cheeks, part, config)
    relief, pores = skin.fine_relief(person.looks, noise)
    relief = jnp.where(part == 0, relief, 1.0)
    hair, cover = hair_colour(person, base, noise, shown)
    clothing, pattern = person.wear, person.wear.pattern
    worn = wear.cloth_colour(clothing.hat_colour, rest, noise, pattern[jnp.array([2, 3, 0, 1])])
    clothes = wear.cloth_colour(clothing.cloth, rest, noise, pattern)
    neck = neckline(person, rest)
    clothes = [c + neck * (s - c) for c, s in zip(clothes, mean_skin(person), strict=True)]
    albedo = [
        jnp.where(on_head, s, jnp.where(on_body, c, jnp.where(cloth > 0.5, w, h)))
        for s, c, w, h in zip(skin_like, clothes, worn, hair, strict=True)
    ]
    diffuse = jnp.maximum(_irradiance(normal, lamps, lit, sky, part), 0.0)
    oily = (0.35 + 0.65 * jnp.maximum(cheeks, lips)) * (1 + 0.5 * pores)
    wet = (part == 1) | (part == 2)
    strength = jnp.where(
        on_head, person.looks.shine * oily, jnp.where(cloth > 0.5, 0.03, 0.25 * cover * (0.2 + noise["strands"]))
    )
    gloss = jnp.where(part == 1, 180.0, person.looks.gloss * jnp.where(on_head, 1.0, 0.6))
    shine = _highlights(normal, lamps, lit, gloss) * jnp.where(wet, 1.2, strength)[None]
    lit_colour = jnp.stack(albedo) * diffuse * relief[None] + config.specular * sky[None] * shine
    return lit_colour, -DEPTH_RANGE * fragments.depth


def _irradiance(normal, lamps, lit, sky, part):
    """(3, S, S) light on surfaces with camera-frame normals (3, S, S); skin lets red light round the edge of shadow."""
    basis = sh_basis(normal.transpose(1, 2, 0)).reshape(-1, 9)
    soft = shade(basis, lamps.environment).T.reshape(3, *sky.shape) * sky[None]
    wrap = jnp.array([0.22, 0.10, 0.07])[:, None, None] * (part == 0)[None]
    for direction, colour, reaches in zip(lamps.directions, lamps.colours, lit, strict=True):
        cosine = jnp.einsum("i,ihw->hw", direction, normal, precision=HIGHEST)[None]
        wrapped = jnp.maximum((cosine + wrap) / (1 + wrap), 0)
        soft = soft + colour[:, None, None] * wrapped * reaches[None]
    return soft


def _highlights(normal, lamps, lit, gloss):
    """(3, S, S) Blinn-Phong highlights of the lamps and of the environment's brightest part, and a grazing sheen."""
    environment = lamps.environment
    towards = normalize(jnp.sum(environment[1:4], 1) + jnp.array([0.0, 1e-3, 1e-3]))
    sources = [(towards, 0.8 * (environment[0] + environment[1:4].max(0)), jnp.ones_like(normal[0]))]
    sources += list(zip(lamps.directions, lamps.colours, lit, strict=True))
    total = 0.0
    for direction, colour, reaches in sources:
        half = normalize(direction + jnp.array([0.0, 0.0, 1.0]))
        cosine = jnp.clip(jnp.einsum("i,ihw->hw", half, normal, precision=HIGHEST), 1e-3, 1)
        lobe = jnp.exp(gloss * jnp.log(cosine)) * (0.25 + gloss / 60)
        total = total + colour[:, None, None] * (lobe * reaches)[None]
    grazing = (1 - jnp.clip(normal[2], 0, 1)) ** 4
    return total + 0.4 * environment[0][:, None, None] * grazing[None]

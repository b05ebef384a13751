"""Synthetic subjects with known truth: random people, expressions, lights, cameras, drawn by our own rasterizer.

A subject is a pure function of (head, seed, index, config): the same on every machine to float tolerance.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from facerig_jax.geometry.camera import project, to_image
from facerig_jax.geometry.light import sh_basis, shade
from facerig_jax.geometry.mesh import vertex_normals
from facerig_jax.geometry.render import composite, render_mesh
from facerig_jax.geometry.rotation import euler_to_matrix, rotate
from facerig_jax.head.model import albedo as head_albedo
from facerig_jax.head.model import neutral as head_neutral
from facerig_jax.numerics import HIGHEST, linear_to_srgb, normalize
from facerig_jax.types import HeadModel


@dataclasses.dataclass(frozen=True)
class SubjectConfig:
    """What varies; lengths in mm, angles in degrees, image distances in px.

    n_views, size:     photos of one subject and their side.
    yaw, pitch, roll:  largest angles (uniform).
    distance:          nearest and farthest camera (log uniform).
    face_share:        smallest and largest head width over the image side.
    expressiveness:    probability that a blendshape is active; 0 = all views neutral.
    off_basis:         rms of smooth random displacement beyond the identity basis; 0 = inside the basis.
    specular:          largest strength of a highlight.
    sharp_light:       share of the light that comes from one direction, with its terminator and a soft cast shadow.
    noise:             pixel noise (sRGB).
    """

    n_views: int = 4
    size: int = 384
    yaw: float = 40.0
    pitch: float = 15.0
    roll: float = 12.0
    distance: tuple[float, float] = (600.0, 3000.0)
    face_share: tuple[float, float] = (0.4, 0.6)
    expressiveness: float = 0.12
    off_basis: float = 0.0
    specular: float = 0.0
    sharp_light: float = 0.0
    noise: float = 0.01


# The second table of the figures: everything the solver's model leaves out.
HARD = SubjectConfig(distance=(350.0, 3000.0), off_basis=1.0, specular=0.35, sharp_light=0.5, noise=0.02)


@struct.dataclass
class Subject:
    """Photos and truth.

    images: (V, S, S, 3) float32 sRGB in [0, 1].
    neutral: (P, 3) mm; vertices: (V, P, 3) mm with expression; vertices_img: (V, P, 3) px.
    identity: (I,), albedo_code: (A,), expression: (V, E), pose: (V, 6), inverse_distance: (V,) 1/mm.
    """

    images: jax.Array
    neutral: jax.Array
    vertices: jax.Array
    vertices_img: jax.Array
    identity: jax.Array
    albedo_code: jax.Array
    expression: jax.Array
    pose: jax.Array
    inverse_distance: jax.Array


def make_subject(head: HeadModel, seed, index, config: SubjectConfig = SubjectConfig()) -> Subject:
    """One subject.

    Args:
      head: morphable head (its basis is the space of identities, to which `off_basis` adds).
      seed, index: integers (may be traced).
      config: static.

    Returns:
      Subject.
    """
    key = jax.random.fold_in(jax.random.key(seed), index)
    identity_key, albedo_key, shape_key, view_key = jax.random.split(key, 4)
    identity = jax.random.normal(identity_key, (head.identity_basis.shape[0],))
    albedo_code = jax.random.normal(albedo_key, (head.albedo_basis.shape[0],))
    neutral = head_neutral(head, identity)
    if config.off_basis:
        neutral = neutral + config.off_basis * smooth_displacement(shape_key, head)
    colour = head_albedo(head, albedo_code)

    def view(key):
        return make_view(head, neutral, colour, key, config)

    # One view after the other: a rendered batch would hold V times the memory and is not faster on a CPU.
    images, verts, verts_img, expression, pose, inverse_distance = jax.lax.map(
        view, jax.random.split(view_key, config.n_views)
    )
    return Subject(images, neutral, verts, verts_img, identity, albedo_code, expression, pose, inverse_distance)


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


def random_light(key, brightness: float = 1.0):
    """A random environment: SH light (9, 3), and its strongest direction (3,) with colour (3,)."""
    keys = jax.random.split(key, 4)
    directions = normalize(jax.random.normal(keys[0], (3, 3)) + jnp.array([[0.0, 0.4, 0.8]]))
    strength = jax.random.uniform(keys[1], (3, 1), minval=0.1, maxval=0.8) * jnp.array([[1.0], [0.5], [0.25]])
    tint = 1 + 0.12 * jax.random.normal(keys[2], (4, 3))
    # Clamped cosine of a distant light in second-order SH (Ramamoorthi and Hanrahan 2001): 1/4, 1/2 and 5/16 per band.
    ambient = jax.random.uniform(keys[3], (), minval=0.25, maxval=0.6)
    light = jnp.zeros((9, 3)).at[0].set(ambient * tint[3])
    x, y, z = (directions[:, i] for i in range(3))
    quadratic = [15 / 16 * x * y, 15 / 16 * x * z, 15 / 16 * y * z, 15 / 64 * (x * x - y * y), 5 / 64 * (3 * z * z - 1)]
    coefficients = jnp.stack([jnp.full(3, 0.25), x / 2, y / 2, z / 2, *quadratic], -1)
    light = light + jnp.einsum("lk,lc->kc", coefficients, strength * tint[:3], precision=HIGHEST)
    return brightness * light, directions[0], brightness * strength[0] * tint[0]


def make_view(head: HeadModel, neutral: jax.Array, colour: jax.Array, key, config: SubjectConfig):
    """One photo: (image, vertices, vertices_img, expression, pose, inverse_distance), see Subject."""
    keys = jax.random.split(key, 8)
    size = config.size
    expression = random_expression(keys[0], head, config.expressiveness)
    verts = neutral + jnp.tensordot(expression, head.expression_basis, 1, precision=HIGHEST)
    pose, inverse_distance = _random_camera(keys[1], head, config)
    posed = to_image(project(verts, pose, inverse_distance), size, size)
    normals = rotate(euler_to_matrix(pose[:3]), vertex_normals(verts, head.faces))
    light, direction, strength = random_light(keys[2])
    shading = shade(sh_basis(normals), light)
    share = config.sharp_light * jax.random.uniform(keys[3])
    sharp = jnp.maximum(jnp.matmul(normals, direction, precision=HIGHEST), 0)[:, None] * strength[None]
    sharp = sharp * _soft_shadow(keys[4], verts)[:, None]
    half = normalize(direction + jnp.array([0.0, 0.0, 1.0]))
    shine = jnp.maximum(jnp.matmul(normals, half, precision=HIGHEST), 0)[:, None] ** 24 * strength[None]
    shine = config.specular * jax.random.uniform(keys[5]) * shine * (1 if config.specular else 0)
    lit = colour * jnp.maximum((1 - share) * shading + share * (sharp + 0.3 * light[:1]), 0.0) + shine
    image, coverage = render_mesh(posed, head.faces, lit, size, size, supersample=2, background=0.0)
    image = composite(image, coverage, _background(keys[6], size))
    exposure = 0.45 / jnp.maximum(jnp.sum(image * coverage[..., None]) / jnp.sum(3 * coverage), 0.02)
    image = linear_to_srgb(jnp.clip(image * jnp.clip(exposure, 0.5, 2.0), 0, 1))
    image = jnp.clip(image + config.noise * jax.random.normal(keys[7], image.shape), 0, 1)
    return image, verts, posed, expression, pose, inverse_distance


def _random_camera(key, head: HeadModel, config: SubjectConfig):
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


def _soft_shadow(key, verts: jax.Array) -> jax.Array:
    """(P,) in [0.2, 1]: a soft-edged half plane through the head, like the shadow of something outside the photo."""
    direction_key, offset_key, depth_key = jax.random.split(key, 3)
    direction = normalize(jax.random.normal(direction_key, (3,)))
    edge = jnp.matmul(verts, direction, precision=HIGHEST) + jax.random.uniform(offset_key, (), minval=-60, maxval=60)
    depth = 0.8 * jax.random.uniform(depth_key)
    return 1 - depth * jax.nn.sigmoid(edge / 6.0)


def _background(key, size: int) -> jax.Array:
    """(S, S, 3) smooth random colours, linear RGB."""
    coarse = jax.random.uniform(key, (6, 6, 3)) ** 2
    return jax.image.resize(coarse, (size, size, 3), "cubic").clip(0, 1)

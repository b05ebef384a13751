"""The plain renderer, lit per vertex: Lambert and a highlight. Figures of the classical solver were made with it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from facerig_jax.geometry.camera import project, to_image
from facerig_jax.geometry.light import sh_basis, shade
from facerig_jax.geometry.mesh import vertex_normals
from facerig_jax.geometry.rotation import euler_to_matrix, rotate
from facerig_jax.numerics import HIGHEST, linear_to_srgb, normalize
from facerig_jax.raster.render import composite, render_mesh
from facerig_jax.synthetic.light import lamp_harmonics
from facerig_jax.synthetic.people import lower_lids_sometimes, random_camera, random_expression
from facerig_jax.synthetic.presets import SubjectConfig
from facerig_jax.types import HeadModel


def random_light(key):
    """A random environment: SH light (9, 3), and its strongest direction (3,) with colour (3,)."""
    keys = jax.random.split(key, 4)
    directions = normalize(jax.random.normal(keys[0], (3, 3)) + jnp.array([[0.0, 0.4, 0.8]]))
    strength = jax.random.uniform(keys[1], (3, 1), minval=0.1, maxval=0.8) * jnp.array([[1.0], [0.5], [0.25]])
    tint = 1 + 0.12 * jax.random.normal(keys[2], (4, 3))
    ambient = jax.random.uniform(keys[3], (), minval=0.25, maxval=0.6)
    light = jnp.zeros((9, 3)).at[0].set(ambient * tint[3])
    light = light + jnp.einsum("lk,lc->kc", lamp_harmonics(directions), strength * tint[:3], precision=HIGHEST)
    return light, directions[0], strength[0] * tint[0]


def make_view(head: HeadModel, neutral: jax.Array, colour: jax.Array, key, config: SubjectConfig):
    """One photo: (image, vertices, vertices_img, expression, pose, inverse_distance, light), see Subject."""
    keys = jax.random.split(key, 8)
    size = config.size
    expression = random_expression(keys[0], head, config.expressiveness)
    expression = lower_lids_sometimes(jax.random.fold_in(key, 8), head, expression, config.low_lids)
    verts = neutral + jnp.tensordot(expression, head.expression_basis, 1, precision=HIGHEST)
    pose, inverse_distance = random_camera(keys[1], head, config)
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
    image = composite(image, coverage, plain_background(keys[6], size).transpose(1, 2, 0))
    soft = ((1 - share) * light).at[0].add(0.3 * share * light[0])
    exposure = 0.45 / jnp.maximum(jnp.sum(image * coverage[..., None]) / jnp.sum(3 * coverage), 0.02)
    exposure = jnp.clip(exposure, 0.5, 2.0)
    image = linear_to_srgb(jnp.clip(image * exposure, 0, 1))
    image = jnp.clip(image + config.noise * jax.random.normal(keys[7], image.shape), 0, 1)
    return image, verts, posed, expression, pose, inverse_distance, exposure * soft


def _soft_shadow(key, verts: jax.Array) -> jax.Array:
    """(P,) in [0.2, 1]: a soft-edged half plane through the head, like the shadow of something outside the photo."""
    direction_key, offset_key, depth_key = jax.random.split(key, 3)
    direction = normalize(jax.random.normal(direction_key, (3,)))
    edge = jnp.matmul(verts, direction, precision=HIGHEST) + jax.random.uniform(offset_key, (), minval=-60, maxval=60)
    depth = 0.8 * jax.random.uniform(depth_key)
    return 1 - depth * jax.nn.sigmoid(edge / 6.0)


def plain_background(key, size: int) -> jax.Array:
    """(3, S, S) smooth random colours, linear RGB."""
    coarse = jax.random.uniform(key, (6, 6, 3)) ** 2
    return jax.image.resize(coarse, (size, size, 3), "cubic").clip(0, 1).transpose(2, 0, 1)

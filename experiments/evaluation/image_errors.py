"""Errors in the image: landmarks by part, and colours."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from facerig_jax.fit.reprojection import OUTER_EYES
from facerig_jax.geometry.light import ambient_light, sh_basis, shade, solve_light
from facerig_jax.geometry.mesh import vertex_normals
from facerig_jax.geometry.sampling import bilinear
from facerig_jax.head.model import landmark_positions
from facerig_jax.numerics import linear_to_srgb, masked_mean, srgb_to_linear
from facerig_jax.raster.render import render_mesh
from facerig_jax.raster.visibility import visible
from facerig_jax.types import HeadModel

# The iBUG points of each part (from 0).
PARTS = {
    "contour": range(17),
    "brows": range(17, 27),
    "nose": range(27, 36),
    "eyes": range(36, 48),
    "mouth": range(48, 68),
}
# Ridge of the closed-form light, relative to its normal matrix.
LIGHT_RIDGE = 1e-3
MIN_ALBEDO = 1e-3


def landmark_nme(head: HeadModel, vertices_img: jax.Array, truth_img: jax.Array) -> dict[str, jax.Array]:
    """Mean distance of the 68 points in the image over the true outer-eye distance there.

    Args:
      head: whose embedding both sides use.
      vertices_img: (V, P, 3) px, predicted.
      truth_img: (V, P, 3) px.

    Returns:
      'all' and each of PARTS -> (V,).
    """
    points, truth = (landmark_positions(head.landmarks68, x)[..., :2] for x in (vertices_img, truth_img))
    span = jnp.linalg.norm(truth[:, OUTER_EYES[0]] - truth[:, OUTER_EYES[1]], axis=-1)
    error = jnp.linalg.norm(points - truth, axis=-1) / jnp.maximum(span, 1e-6)[:, None]
    parts = {"all": range(68), **PARTS}
    return {name: jnp.mean(error[:, np.asarray(index, np.int32)], 1) for name, index in parts.items()}


def photometric_error(head: HeadModel, vertices_img, albedo, images, inside) -> tuple[jax.Array, jax.Array]:
    """How far a rendered face is from the photos, under the light that suits it best.

    Every method gets the same closed-form spherical-harmonics light, so that what counts is shape, pose and albedo.

    Args:
      head: for its triangles and face region.
      vertices_img: (V, P, 3) px, image frame.
      albedo: (V, P, 3) linear RGB.
      images: (V, S, S, 3) sRGB in [0, 1].
      inside: (V, S, S) 1 where a pixel belongs to the photo.

    Returns:
      (V,) mean |I - render| over face pixels, in sRGB values of [0, 1], and (V,) PSNR in dB over the same pixels.
    """
    size, mask = images.shape[1], head.face_mask > 0.5

    def one(posed, tone, seen, image, inside):
        basis = sh_basis(vertex_normals(posed * jnp.array([[1.0, -1.0, 1.0]]), head.faces))
        colours = bilinear(srgb_to_linear(image), posed[:, :2])
        use = seen & mask & jnp.all(tone > MIN_ALBEDO, -1)
        light = solve_light(basis, tone, colours, use, ambient_light(), ridge=LIGHT_RIDGE)
        attributes = jnp.concatenate([tone * shade(basis, light), mask[:, None].astype(tone.dtype)], -1)
        drawn, _ = render_mesh(posed, head.faces, attributes, size, size, background=0.0)
        face = (drawn[..., 3] > 0.99) * inside
        difference = linear_to_srgb(jnp.clip(drawn[..., :3], 0, 1)) - image
        error = masked_mean(jnp.mean(jnp.abs(difference), -1), face)
        squared = masked_mean(jnp.mean(difference**2, -1), face)
        return error, -10 * jnp.log10(jnp.maximum(squared, 1e-12))

    seen = visible(vertices_img, head.faces, size)
    return jax.lax.map(lambda args: one(*args), (vertices_img, albedo, seen, images, inside))

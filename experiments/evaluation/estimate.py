"""What a method says about a subject, and its errors against the truth."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import struct

from experiments.evaluation.image_errors import landmark_nme, photometric_error
from facerig_jax.data.subjects import Subject
from facerig_jax.evaluate.vertex import deformation_error, vertex_distances, vertex_error
from facerig_jax.geometry.camera import project_to_image
from facerig_jax.geometry.crop import to_photo
from facerig_jax.numerics import masked_mean
from facerig_jax.rig.apply import apply_rig
from facerig_jax.types import Crop, Fit, HeadModel, Photos


@struct.dataclass
class Estimate:
    """What a method says.

    neutral:      (P, 3) mm, head frame.
    vertices:     (V, P, 3) mm, head frame, with expression.
    vertices_img: (V, P, 3) photo px, image frame; None for a method that does not look at the photos.
    albedo:       (V, P, 3) linear RGB, or None likewise.
    steps:        (S, P, 3) mm, the neutral after every step, for methods that take a few; else None.
    """

    neutral: jax.Array
    vertices: jax.Array
    vertices_img: jax.Array | None = None
    albedo: jax.Array | None = None
    steps: jax.Array | None = None


def estimate_from_fit(fit: Fit) -> Estimate:
    """A fit's meshes."""
    vertices, albedo = apply_rig(fit.rig, fit.views.expression)
    unit = fit.rig.unit_mm
    return Estimate(
        neutral=unit * fit.rig.neutral,
        vertices=unit * vertices,
        vertices_img=place(vertices, fit.views.pose, fit.views.inverse_distance, fit.views.crop),
        albedo=albedo,
    )


def place(vertices, pose, inverse_distance, crop: Crop) -> jax.Array:
    """(V, P, 3) photo px of vertices (V, P, 3) under poses that refer to crops."""
    return to_photo(project_to_image(vertices, pose, inverse_distance, crop.size), crop)


@functools.partial(jax.jit, static_argnames="detail")
def errors(head: HeadModel, subject: Subject, photos: Photos, estimate: Estimate, detail: bool = True) -> dict:
    """Everything that can be said with a truth in the head's topology.

    Args:
      head: the head that the estimate and the truth are made of.
      subject: the truth, of the views in `photos`.
      photos: what the method saw.
      estimate: what it said.
      detail: False: 'vertex' and 'vertex, no scale' alone.

    Returns:
      name -> (): 'vertex', 'vertex, no scale' (mm); with detail also 'distances' (P,) mm on the face region (NaN
      outside); (V,): 'posed', 'deformation' (mm), 'nme' and 'nme <part>', 'photometric', 'psnr'; 'steps' (S,) mm where
      the estimate has steps. What the subject or the estimate does not know is left out.
    """
    mask = head.face_mask * (1 if subject.known is None else subject.known)
    result = {
        "vertex": vertex_error(estimate.neutral, subject.neutral, mask),
        "vertex, no scale": vertex_error(estimate.neutral, subject.neutral, mask, with_scale=False),
    }
    if not detail:
        return result
    distances = vertex_distances(estimate.neutral, subject.neutral, mask)
    result["distances"] = jnp.where(mask > 0.5, distances, jnp.nan)
    if subject.vertices is not None:
        posed = jax.vmap(vertex_distances, (0, 0, None))(estimate.vertices, subject.vertices, mask)
        result["posed"] = masked_mean(posed, mask[None], axis=-1)
        result["deformation"] = deformation_error(
            estimate.vertices, estimate.neutral, subject.vertices, subject.neutral, mask
        )
    if estimate.vertices_img is not None:
        result |= _image_errors(head, subject, photos, estimate)
    if estimate.steps is not None:
        result["steps"] = jax.vmap(vertex_error, (0, None, None))(estimate.steps, subject.neutral, mask)
    return result


@jax.jit
def photo_errors(head: HeadModel, photos: Photos, estimate: Estimate) -> dict:
    """What can be said without any truth: 'photometric' and 'psnr', (V,) each."""
    images = photos.images.astype(jnp.float32) / (255 if photos.images.dtype == jnp.uint8 else 1)
    assert photos.image_size is not None, "complete photos"
    grid = jnp.arange(images.shape[1])
    rows = grid[None, :, None] < photos.image_size[:, 0, None, None]
    inside = (rows & (grid[None, None] < photos.image_size[:, 1, None, None])).astype(jnp.float32)
    error, psnr = photometric_error(head, estimate.vertices_img, estimate.albedo, images, inside)
    return {"photometric": error, "psnr": psnr}


def _image_errors(head: HeadModel, subject: Subject, photos: Photos, estimate: Estimate) -> dict:
    result = photo_errors(head, photos, estimate)
    if subject.vertices_img is None:
        return result
    nme = landmark_nme(head, estimate.vertices_img, subject.vertices_img)
    return result | {"nme" if name == "all" else f"nme {name}": value for name, value in nme.items()}

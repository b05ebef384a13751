"""Landmark energies: the 68 points with the visibility-dependent contour rule, and dense points with weights."""

import jax
import jax.numpy as jnp

from facerig_jax.detect.landmarks import FIXED68, SLIDING68
from facerig_jax.head.model import landmark_positions
from facerig_jax.numerics import masked_mean


def contour_points(points, visible, vertices_img, candidates, detected) -> jax.Array:
    """Replaces contour points that are hidden by the candidate vertex nearest to the detection, in the image.

    Args:
      points: (L, 2) px, the model's own points.
      visible: (L,) bool, whether the model's own point is visible (or always kept).
      vertices_img: (P, 2) px.
      candidates: (P,) bool, visible face-region vertices.
      detected: (L, 2) px.

    Returns:
      (L, 2) px; differentiable in the chosen points, the choice itself has no gradient.
    """
    gap = jnp.sum((detected[:, None] - jax.lax.stop_gradient(vertices_img)[None]) ** 2, -1)
    nearest = jnp.argmin(jnp.where(candidates[None], gap, jnp.inf), -1)
    slide = ~visible & jnp.any(candidates)
    return jnp.where(slide[:, None], vertices_img[nearest], points)


def landmark68_points(vertices_img, visible_full, visible_face, detected, embedding) -> jax.Array:
    """(68, 2) px model points of one view after the contour rule (docs/method.md section 6).

    Args:
      vertices_img: (P, 2 or 3) px.
      visible_full: (P,) bool, visibility on the full mesh.
      visible_face: (P,) bool, visible and in the face region.
      detected: (68, 2) px.
      embedding: the head's 68 points.
    """
    vertices_img = vertices_img[..., :2]
    hidden = contour_is_hidden(visible_full, embedding, vertices_img.dtype)[SLIDING68]
    points = landmark_positions(embedding, vertices_img)
    moved = contour_points(points[SLIDING68], ~hidden, vertices_img, visible_face, detected[SLIDING68])
    return points.at[SLIDING68].set(moved)


def contour_is_hidden(visible_full, embedding, dtype=jnp.float32) -> jax.Array:
    """(68,) bool: the sliding points of a view whose own place on the mesh is not visible; arguments as above."""
    seen = landmark_positions(embedding, visible_full[:, None].astype(dtype))[:, 0] > 0.5
    return ~seen & jnp.asarray(~FIXED68)


def landmark_energy(points: jax.Array, detected: jax.Array, weight: jax.Array | None = None, view_mask=None):
    """Mean squared pixel distance over views and points.

    Args:
      points: (V, L, 2) px, model points.
      detected: (V, L, 2) px.
      weight: (L,) or (V, L) weights; the mean is weighted. None = 1.
      view_mask: (V,) views that count. None = all.

    Returns:
      energy: () px^2.
      residual: (V, 2) per view weighted mean |du|, |dv| in px.
    """
    difference = points - detected
    weight = (
        jnp.ones(difference.shape[:2], points.dtype)
        if weight is None
        else jnp.broadcast_to(weight, difference.shape[:2])
    )
    if view_mask is not None:
        weight = weight * view_mask[:, None].astype(points.dtype)
    residual = masked_mean(jnp.abs(difference), weight[..., None], axis=1)
    return masked_mean(jnp.sum(difference**2, -1), weight), residual

"""Losses of one posed mesh against the truth (docs/method.md section 8); distances in px of the crop or in mm."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from facerig_jax.geometry.alignment import similarity
from facerig_jax.geometry.mesh import vertex_normals
from facerig_jax.head.model import landmark_positions
from facerig_jax.inorig.landmark_energy import contour_is_hidden, landmark68_points
from facerig_jax.numerics import masked_mean, normalize, safe_norm
from facerig_jax.types import LandmarkEmbedding

# Added to true edge lengths before dividing by them.
EDGE_FLOOR = 1e-5
# Losses in pixels are those of a crop of this side, whatever the crop's.
REFERENCE_SIZE = 256
# Points 27-47 (nose and eyes) count once, jaw, brows and mouth ten times.
OUTER68 = np.r_[0:27, 48:68].astype(np.int32)
OUTER_WEIGHT = 10.0


@struct.dataclass
class Edges:
    """A mesh's edges: ends (M, 2) int32, each edge once in both directions; the largest number at one vertex."""

    ends: jax.Array
    valence: int = struct.field(pytree_node=False)


def mesh_edges(faces) -> Edges:
    """The edges of triangles (F, 3), given as numbers."""
    faces = np.asarray(faces)
    pairs = np.concatenate([faces[:, [i, j]] for i, j in ((0, 1), (1, 2), (2, 0))])
    ends = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0).astype(np.int32)
    return Edges(jnp.asarray(ends), int(np.bincount(ends[:, 0]).max()))


def reference_area(size: int) -> float:
    """Squared pixels of the reference crop per squared pixel of a crop of this side."""
    return (REFERENCE_SIZE / size) ** 2


def depth_loss(vertices: jax.Array, truth: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean squared distance once the mean depths agree.

    Args:
      vertices: (P, 3), z towards the camera.
      truth: (P, 3).
      mask: (P,) the face region.

    Returns:
      () squared units.
    """
    gap = vertices - truth
    depth = masked_mean(gap[:, 2], mask)
    return masked_mean(jnp.sum((gap - depth * jnp.array([0.0, 0.0, 1.0], gap.dtype)[None]) ** 2, -1), mask)


def align(vertices: jax.Array, truth: jax.Array, mask: jax.Array) -> jax.Array:
    """The mesh (P, 3) after the similarity that takes it to the truth best; the transform itself has no gradient."""
    return similarity(*jax.lax.stop_gradient((vertices, truth, mask)))(vertices)


def dense_loss(aligned: jax.Array, truth: jax.Array, mask: jax.Array) -> jax.Array:
    """() mean squared distance of an aligned mesh (P, 3) to the truth (P, 3)."""
    return masked_mean(jnp.sum((aligned - truth) ** 2, -1), mask)


def normal_loss(aligned: jax.Array, normals: jax.Array, faces: jax.Array, mask: jax.Array) -> jax.Array:
    """() mean of 1 - cosine between an aligned mesh's normals and true normals (P, 3) of any length."""
    cosine = jnp.sum(vertex_normals(aligned, faces) * normalize(normals), -1)
    return masked_mean(1 - cosine, mask)


def edge_loss(vertices: jax.Array, truth: jax.Array, edges: Edges, mask: jax.Array) -> jax.Array:
    """Mean relative error of edge lengths; as published the mean counts `valence` edges at every vertex of the region.

    Args:
      vertices: (P, 3), not aligned.
      truth: (P, 3) same unit.
      edges: Edges.
      mask: (P,) the face region; edges that leave it count as exact.

    Returns:
      ().
    """
    ours, theirs = (safe_norm(v[edges.ends[:, 0]] - v[edges.ends[:, 1]]) for v in (vertices, truth))
    both = mask[edges.ends[:, 0]] * mask[edges.ends[:, 1]]
    error = jnp.abs(ours / (theirs + EDGE_FLOOR) - 1)
    return jnp.sum(error * both) / (jnp.maximum(jnp.sum(mask), 1) * edges.valence)


def landmark68_loss(
    vertices_img: jax.Array, seen: jax.Array, mask: jax.Array, detected: jax.Array, embedding: LandmarkEmbedding
) -> jax.Array:
    """Squared distances of the model's 68 points to the detected ones, hidden contour points also at their substitutes.

    Args:
      vertices_img: (P, 3) px, image frame.
      seen: (P,) bool, visible on the full mesh.
      mask: (P,) the face region.
      detected: (68, 2) px.
      embedding: the head's 68 points.

    Returns:
      () px^2.
    """
    points = landmark_positions(embedding, vertices_img[:, :2])
    gap = jnp.sum((points - detected) ** 2, -1)
    slid = landmark68_points(vertices_img, seen, seen & (mask > 0.5), detected, embedding)
    hidden = contour_is_hidden(seen, embedding, vertices_img.dtype)
    outer = jnp.zeros(gap.shape[0], bool).at[OUTER68].set(True)
    substitute = jnp.mean(hidden * jnp.sum((slid - detected) ** 2, -1))
    return masked_mean(gap, ~outer) + OUTER_WEIGHT * masked_mean(gap, outer) + substitute

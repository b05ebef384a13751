"""A head with fewer vertices, for solvers whose cost grows with them."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from facerig_jax.types import HeadModel, LandmarkEmbedding


def thin_index(head: HeadModel) -> jax.Array:
    """(P',) which of the head's vertices the thin head keeps, in its order: all where there is no coarse mesh."""
    if head.coarse_faces is None:
        return jnp.arange(head.mean.shape[0])
    corners = [jnp.asarray(x.triangle).reshape(-1) for x in _embeddings(head)]
    return jnp.concatenate([jnp.arange(head.n_coarse), *corners])


def _embeddings(head: HeadModel) -> list[LandmarkEmbedding]:
    return [x for x in (head.landmarks68, head.landmarks_dense) if x is not None]


def thin(head: HeadModel) -> HeadModel:
    """The head on its coarse mesh, and on the vertices that carry landmarks.

    Those follow the coarse mesh's, three to a landmark; no triangle uses them. Same surface, units and landmarks; what
    only export needs (quads, regions, parts, mirror, tangents) is left out.

    Args:
      head: any morphable head.

    Returns:
      HeadModel; `head` itself when it has no coarse mesh.
    """
    if head.coarse_faces is None:
        return head
    index = thin_index(head)
    is_coarse = jnp.arange(index.shape[0]) < head.n_coarse
    moved, first = [], head.n_coarse
    for embedding in _embeddings(head):
        count = embedding.triangle.size
        triangle = jnp.arange(first, first + count).reshape(-1, 3)
        moved.append(LandmarkEmbedding(triangle, embedding.barycentric, embedding.weight))
        first += count

    def take(array, axis):
        return jnp.take(jnp.asarray(array), index, axis=axis)

    return head.replace(
        mean=take(head.mean, 0),
        identity_basis=take(head.identity_basis, 1),
        expression_basis=take(head.expression_basis, 1),
        albedo_mean=take(head.albedo_mean, 0),
        albedo_basis=take(head.albedo_basis, 1),
        faces=head.coarse_faces,
        quads=jnp.zeros((0, 4), jnp.int32),
        uv=take(head.uv, 0),
        face_mask=jnp.where(is_coarse, take(head.face_mask, 0), 0),
        part=take(head.part, 0),
        regions={},
        landmarks68=moved[0],
        landmarks_dense=moved[1] if len(moved) > 1 else None,
        mirror=None,
        ring=None,
        ring_weight=None,
        coarse_faces=None,
        n_coarse=0,
    )

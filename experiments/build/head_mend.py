"""Mends the wheel's expression shapes: smiles creased beside the mouth, blinks that go through the eyeball.

Where the surface folds on the mean or on one of a few random people, a shape's displacement is filled in anew, as
smooth as its surroundings allow, and everywhere else stays as it is. Closed lids are lifted off the eyeball.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

from experiments.build.head_albedo import fit_sphere
from experiments.build.head_refine import LID_ANGLE, Refined, eyeball, swept
from experiments.build.head_shape import FLIP_X, Shape, other_side
from facerig_jax.head.subdivide import Subdivision, triangulate

PEOPLE, SEED = 16, 0  # that the shapes are tried on: the mean and random ones
FOLD = 25.0  # degrees by which an edge may bend more than in the neutral
GROWTH, ROUNDS = 3, 3  # rings of control vertices filled in around a fold, and how often the rest is looked at again
KEEP = 0.02  # how much of the shape is kept where it is filled in, against smoothness
CLEARANCE, LIFT = 2.0, 1.5  # mm that closed lids keep from the mean's eyeball, and the most they are lifted for it
# These bring surfaces together on purpose, the lids' or the lips'.
CLOSING = ("eye", "mouthClose", "mouthRoll", "mouthPress", "mouthPucker", "tongue")
GAIN = 0.7  # of the folded edges at most are left, or the shape stays as it was
KEPT = 0.1  # of the lips' or the eyelids' mask: from here on the shape is left as it is


class Edges(NamedTuple):
    """Edges of the face: faces (F, 3) of the subdivided mesh, two (N, 2) of them at each edge, its vertices (N, 2)."""

    faces: np.ndarray
    triangles: np.ndarray
    vertices: np.ndarray


def unfold(
    shape: Shape,
    refined: Refined,
    topology: Subdivision,
    operator: sparse.csr_matrix,
    face: np.ndarray,
    kept: np.ndarray,
) -> tuple[np.ndarray, dict[str, float]]:
    """Expression shapes (E, V, 3) with fewer folds, and name -> share of the vertices that changed.

    Args:
      shape: the control mesh with its expressions.
      refined: mean and identities that they are tried on.
      topology: its subdivision.
      operator: of `head_refine.subdivision_matrix`.
      face: (P,) bool, where folds are looked for.
      kept: (P,) soft mask of what is left as it is, the lips and the eyelids.
    """
    codes = np.random.default_rng(SEED).standard_normal((PEOPLE, len(refined.identity)))
    codes[0] = 0
    people = [operator @ (refined.mean + np.tensordot(code, refined.identity, 1)) for code in codes]
    edges = edges_of(triangulate(topology.quads).astype(np.int64), face & (kept <= KEPT))
    smoothness, rings = smoothness_and_rings(topology)
    names, mirror = shape.expression_names, shape.mirror
    free = np.maximum(kept[: len(mirror)], kept[mirror]) <= KEPT
    mended, shares = shape.expression.copy(), {}
    for index, name in enumerate(names):
        other = names.index(other_side(name))
        if name.startswith(CLOSING) or other < index:
            continue
        filled = np.zeros(len(mirror), bool)
        for _ in range(ROUNDS):
            moved = operator @ mended[index]
            folded = np.any([bent(edges, person + moved, person) for person in people], 0)
            found = (operator.T @ folded.astype(float)) > 0.2
            if not found.any():
                break
            for _ in range(GROWTH):
                found = rings @ found > 0
            filled |= (found | found[mirror] if other == index else found) & free
            mended[index] = fill_in(shape.expression[index], filled, smoothness)
        before, after = (
            sum(folds(edges, person + operator @ moved, person).sum() for person in people)
            for moved in (shape.expression[index], mended[index])
        )
        if after > GAIN * before:
            mended[index] = shape.expression[index]
        elif filled.any():
            across = mended[index][mirror] * FLIP_X
            mended[other] = (mended[index] + across) / 2 if other == index else across
            shares[name] = float(filled.mean())
    return mended, shares


def lift_lids(
    shape: Shape, mean: np.ndarray, topology: Subdivision, operator: sparse.csr_matrix, pockets: np.ndarray
) -> np.ndarray:
    """Expression shapes (E, V, 3) whose blinks keep CLEARANCE from the eyeball, so that thin lids can close too.

    A blink moves the same way on everybody, and the skin that it brings before the eyeball lies deeper on some: on one
    of ten the lids went through.

    Args:
      shape: the control mesh with its expressions.
      mean: (V, 3) mm, the refined mean.
      topology: its subdivision.
      operator: of `head_refine.subdivision_matrix`.
      pockets: (P,) bool, the skin behind the lids.
    """
    count = len(mean)
    surface, part = operator @ mean, np.rint(operator @ shape.part)
    rings = smoothness_and_rings(topology)[1]
    outside, lifted = (shape.part == 0) & ~pockets[:count], shape.expression.copy()
    for name, side in (("eyeBlinkLeft", 1), ("eyeBlinkRight", -1)):
        ball = eyeball(surface, part, side)
        center = fit_sphere(ball)[0]
        moved = (operator @ shape.expression[shape.expression_names.index(name)])[:count]
        arm = surface[:count] + moved - center
        distance = np.linalg.norm(arm, axis=1)
        direction, radius = arm / distance[:, None], np.linalg.norm(ball - center, axis=1)
        gap = distance - radius[(direction @ ((ball - center) / radius[:, None]).T).argmax(1)]
        ahead = outside & (direction[:, 2] > np.cos(np.deg2rad(LID_ANGLE)))
        lift = np.clip(CLEARANCE - gap, 0, LIFT) * swept(moved) * ahead
        spread = rings @ lift / np.asarray(rings.sum(1)).ravel()
        lifted[shape.expression_names.index(name)] += np.maximum(lift, spread * outside)[:, None] * direction
    return lifted


def edges_of(faces: np.ndarray, face: np.ndarray) -> Edges:
    """The edges between two triangles of (F, 3) whose vertices all lie in the region `face` (P,)."""
    inside = np.flatnonzero(face[faces].all(1))
    sides = np.sort(np.concatenate([faces[inside][:, [k, (k + 1) % 3]] for k in range(3)]), axis=1)
    owner = np.tile(inside, 3)
    order = np.lexsort(sides.T)
    sides, owner = sides[order], owner[order]
    twice = (sides[1:] == sides[:-1]).all(1)
    return Edges(faces, np.stack([owner[:-1][twice], owner[1:][twice]], 1), sides[:-1][twice])


def bent(edges: Edges, moved: np.ndarray, still: np.ndarray) -> np.ndarray:
    """Vertices (P,) bool at edges that bend more by FOLD in one shape (P, 3) than in the other."""
    vertices = np.zeros(len(still), bool)
    vertices[edges.vertices[folds(edges, moved, still)]] = True
    return vertices


def folds(edges: Edges, moved: np.ndarray, still: np.ndarray) -> np.ndarray:
    """Edges (N,) bool that bend more by FOLD in one shape (P, 3) than in the other."""
    return bend(edges, moved) - bend(edges, still) > FOLD


def bend(edges: Edges, positions: np.ndarray) -> np.ndarray:
    """Angle (N,) in degrees between the triangles at each edge, 0 where the surface is flat."""
    corner = positions[edges.faces]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12
    first, second = normal[edges.triangles.T]
    return np.rad2deg(np.arccos(np.clip((first * second).sum(1), -1, 1)))


def smoothness_and_rings(topology: Subdivision) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """The squared umbrella Laplacian (V, V) of the control mesh, and its neighbours and selves (V, V), 0 or 1."""
    begin, end = np.concatenate([topology.edges, topology.edges[:, ::-1]]).T
    count = topology.vertex_count
    graph = sparse.csr_matrix((np.ones(len(begin)), (begin, end)), (count, count))
    laplacian = sparse.identity(count) - sparse.diags(1 / np.maximum(np.asarray(graph.sum(1)).ravel(), 1)) @ graph
    return (laplacian.T @ laplacian).tocsr(), (graph + sparse.identity(count)).tocsr()


def fill_in(displacement: np.ndarray, filled: np.ndarray, smoothness: sparse.csr_matrix) -> np.ndarray:
    """A displacement (V, 3) with the vertices `filled` (V,) bool as smooth as the others and KEEP allow."""
    inner = smoothness[filled]
    right = KEEP * displacement[filled] - inner[:, ~filled] @ displacement[~filled]
    system = (inner[:, filled] + KEEP * sparse.identity(int(filled.sum()))).tocsc()
    result = displacement.copy()
    result[filled] = spsolve(system, right)
    return result

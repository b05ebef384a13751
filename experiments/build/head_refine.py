"""What the scan-based identity modes hold and the wheel's targets cannot reach, added to the head's mean and modes.

The table identity_refinement.npz gives it as Gaussian fields on the skin: f[c](p) = sum_m exp(-|p - centre_m|^2 /
(2 sigma^2)) c_m at the fine vertices p of the head before this (mm, head frame), one field for the mean and one for
each mode. Eyeballs follow their lids and the mouth's inside the lips, both without turning.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from experiments.build.head_albedo import fit_sphere
from experiments.build.head_regions import fade
from experiments.build.head_shape import FLIP_X, Shape, connected_pieces, without_rigid_motion
from facerig_jax.head.subdivide import Subdivision, subdivide, subdivided_mirror, triangulate

# The ears are not calibrated, so that the fields end there: 0 on them, 1 from this far away, mm.
EAR_FADE = 25.0
# Skin this near to an eyeball (mm), within this angle of straight ahead of it (degrees), is what the eyeball follows.
LID_GAP, LID_ANGLE = 3.0, 50.0
# How much of an eyeball's motion is the lids' mean motion, beside keeping its distance from them.
LID_MEAN = 0.1
# What a blink sweeps over the eyeball keeps this much of its motion to and from it: a blink moves the same way on
# everybody, so that lids that lie deeper than the mean's would go through.
# SWEEP: mm of a blink, from where on it counts, and wholly.
LID_SHARE, SWEEP = 0.6, (1.0, 4.0)
# The skin behind the lids begins to follow the eyeball this deep, mm, and wholly does this deep; there it is also drawn
# in towards the eyeball's middle, so that it does not come through the cheek of people with flat lower lids.
DEPTH, POCKET_SCALE = (2.0, 6.0), 0.8
# How far the check points of the table may lie off, mm: what the control mesh cannot hold of the fields.
TOLERANCE = 0.2


class Refined(NamedTuple):
    """mean (V, 3), identity (I, V, 3) of the control mesh, mm; turn (I, I): former coefficients = turn @ new ones."""

    mean: np.ndarray
    identity: np.ndarray
    turn: np.ndarray


def refine(
    shape: Shape,
    topology: Subdivision,
    operator: sparse.csr_matrix,
    table: dict,
    regions: dict,
    pockets: np.ndarray,
    landmarks68: tuple,
) -> Refined:
    """The refined head on the control mesh.

    Args:
      shape: the head before.
      topology: its subdivision.
      operator: of `subdivision_matrix`.
      table: identity_refinement.
      regions: name -> (P,), of which 'ears' and 'lips' are used.
      pockets: (P,) bool, the skin behind the lids.
      landmarks68: (68, 3) vertices of the subdivided mesh and (68, 3) barycentrics, for the table's check points.

    Raises:
      ValueError: the check points do not agree.
    """
    surface = subdivide(topology, shape.mean)
    part = np.rint(subdivide(topology, shape.part[:, None].astype(float))[:, 0])
    fields = skin_fields(table, surface) * (part == 0)[:, None]
    solve = splu((operator.T @ operator + 1e-3 * sparse.identity(operator.shape[1])).tocsc()).solve

    def on_control(fine: np.ndarray) -> np.ndarray:
        """Displacements (K, V, 3) of the control mesh whose subdivision is nearest to (K, P, 3)."""
        flat = fine.transpose(1, 0, 2).reshape(len(surface), -1)
        return solve(operator.T @ flat).reshape(-1, len(fine), 3).transpose(1, 0, 2)

    before = np.concatenate([shape.mean[None], np.tensordot(table["from_ict"].T, shape.identity, 1)])
    _check(before + on_control(fields), operator, landmarks68, table)
    mirror = subdivided_mirror(topology, shape.mirror)
    from_ears = cKDTree(surface[_ears(regions["ears"], topology, mirror)]).query(surface)[0]
    fields = fields * (1 - fade(from_ears, 0, EAR_FADE))[:, None]
    blinks = [shape.expression_names.index(f"eyeBlink{side}") for side in ("Left", "Right")]
    closed = surface + operator @ shape.expression[blinks].sum(0)
    deep = _behind(pockets, surface, part == 0)
    eyes = {side: _eye_motion(surface, closed, part, fields, side) for side in (-1, 1)}
    for side, motion in eyes.items():
        behind = deep * (surface[:, 0] * side > 0)
        fields = fields + behind[:, None] * (motion[:, None] - fields)
        center = fit_sphere(eyeball(surface, part, side))[0]
        fields[0] += (POCKET_SCALE - 1) * behind[:, None] * (surface - center)
    moved = on_control(fields)
    for side, motion in eyes.items():
        moved[:, (shape.part == 1) & (shape.mean[:, 0] * side > 0)] = motion[:, None]
    lips = regions["lips"] + regions["lips"][mirror]
    moved[:, shape.part == 2] = ((fields * lips[:, None]).sum(1) / lips.sum())[:, None]
    mean, modes = before[0] + moved[0], before[1:] + moved[1:]
    modes = _bind_lids(modes, mean, shape, operator, pockets)
    modes = without_rigid_motion(modes, mean, np.flatnonzero(shape.face))
    rotation = principal_axes(modes, vertex_areas(mean, shape.quads), shape.face)
    turn = table["from_ict"] @ rotation
    sign = np.sign(turn[np.abs(turn).argmax(0), np.arange(len(turn))])  # a mode's sign stays its likest former one's
    return Refined(mean, np.tensordot((rotation * sign).T, modes, 1), turn * sign)


def skin_fields(table: dict, points: np.ndarray) -> np.ndarray:
    """The fields (1 + I, P, 3) of the mean, made mirror-symmetric, and of the modes at points (P, 3)."""
    mean, modes = table["mean"].astype(float), table["modes"].astype(float)
    own, mirrored = (_kernel(table, points * flip) for flip in (1.0, FLIP_X))
    symmetric = (own @ mean + (mirrored @ mean) * FLIP_X) / 2
    of_modes = own @ modes.transpose(1, 0, 2).reshape(len(own[0]), -1)
    return np.concatenate([symmetric[None], of_modes.reshape(len(points), -1, 3).transpose(1, 0, 2)])


def _kernel(table: dict, points: np.ndarray) -> np.ndarray:
    squared = ((points[:, None] - table["centres"].astype(float)) ** 2).sum(-1)
    return np.exp(-squared / (2 * float(table["sigma"]) ** 2))


def subdivision_matrix(topology: Subdivision, chunk: int = 1024) -> sparse.csr_matrix:
    """The linear map (P, V) from control vertices to the subdivided ones."""
    blocks = []
    for start in range(0, topology.vertex_count, chunk):
        columns = np.eye(topology.vertex_count, min(chunk, topology.vertex_count - start), -start)
        blocks.append(sparse.csc_matrix(subdivide(topology, columns)))
    return sparse.hstack(blocks).tocsr()


def _check(shapes: np.ndarray, operator: sparse.csr_matrix, landmarks68: tuple, table: dict) -> None:
    """Refuses when the landmarks of the mean or of the first modes are not where the table says."""
    triangle, barycentric = landmarks68
    wanted = np.concatenate([table["check_landmarks68_mean"][None], table["check_landmarks68_modes"]])
    for index, points in enumerate(wanted):
        corners = (operator @ shapes[index])[triangle]
        worst = np.linalg.norm(np.einsum("lc,lcx->lx", barycentric, corners) - points, axis=1).max()
        if worst > TOLERANCE:
            raise ValueError(f"the refined head's landmarks are {worst:.2f} mm off the table's, of shape {index}.")


def _ears(mask: np.ndarray, topology: Subdivision, mirror: np.ndarray) -> np.ndarray:
    """Both ears (P,) bool, alike on both sides, without what else the painted mask touches."""
    ears = (mask > 0.5) & (mask[mirror] > 0.5)
    piece = connected_pieces(topology.quads[ears[topology.quads].all(1)], len(ears))
    size = np.bincount(piece[ears], minlength=piece.max() + 1)
    return ears & (size[piece] > size.max() / 2)


def eyeball(surface: np.ndarray, part: np.ndarray, side: int) -> np.ndarray:
    """Vertices (M, 3) of a surface (P, 3) that are the eyeball at x * side > 0."""
    return surface[(part == 1) & (surface[:, 0] * side > 0)]


def _eye_motion(surface, closed, part, fields, side: int) -> np.ndarray:
    """Motions (K, 3) of the eyeball at x * side > 0 with fields (K, P, 3), from surfaces (P, 3) with lids open, closed.

    Least squares of n . (motion - field) over the lids in both states, so that it neither comes out nor sinks in, and
    a little of motion - field itself.
    """
    center, radius = fit_sphere(eyeball(surface, part, side))
    weight, right = np.zeros((3, 3)), np.zeros((len(fields), 3))
    for positions in (surface, closed):
        arm = positions - center
        distance = np.linalg.norm(arm, axis=1)
        ahead = arm[:, 2] > np.cos(np.deg2rad(LID_ANGLE)) * distance
        lids = (part == 0) & (np.abs(distance - radius) < LID_GAP) & ahead
        normal = arm[lids] / distance[lids, None]
        each = (np.einsum("pi,pj->pij", normal, normal) + LID_MEAN * np.eye(3)) / lids.sum()
        weight += each.sum(0)
        right += np.einsum("pij,kpj->ki", each, fields[:, lids])
    return np.linalg.solve(weight, right.T).T


def _bind_lids(modes, mean, shape: Shape, operator, pockets) -> np.ndarray:
    """Modes (K, V, 3) in which the upper lids go in and out with the eyeballs more than by themselves."""
    surface, part, bound = operator @ mean, np.rint(operator @ shape.part), modes.copy()
    for name, side in (("eyeBlinkLeft", 1), ("eyeBlinkRight", -1)):
        moved = (operator @ shape.expression[shape.expression_names.index(name)])[: len(mean)]
        arm = surface[: len(mean)] + moved - fit_sphere(eyeball(surface, part, side))[0]
        normal = arm / np.linalg.norm(arm, axis=1, keepdims=True)
        ball = modes[:, (shape.part == 1) & (mean[:, 0] * side > 0)].mean(1)
        own = np.einsum("kvx,vx->kv", modes - ball[:, None], normal)
        share = (1 - LID_SHARE) * swept(moved) * (shape.part == 0) * ~pockets[: len(mean)]
        bound -= (share * own)[..., None] * normal
    return bound


def swept(moved: np.ndarray) -> np.ndarray:
    """How much (V,) a blink that moves vertices by (V, 3) mm sweeps them over the eyeball, from 0 to 1."""
    return 1 - fade(np.linalg.norm(moved, axis=1), SWEEP[0], SWEEP[1] - SWEEP[0])


def _behind(pocket: np.ndarray, surface: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """How deep (P,) the vertices of a pocket lie behind its opening, from 0 to 1 by DEPTH; 0 elsewhere."""
    depth = np.zeros(len(surface))
    distance = cKDTree(surface[skin & ~pocket]).query(surface[pocket])[0]
    depth[pocket] = 1 - fade(distance, DEPTH[0], DEPTH[1] - DEPTH[0])
    return depth


def vertex_areas(positions: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """A third of the area of every triangle at each vertex, (V,) mm^2."""
    triangles = triangulate(quads)
    first, second = (positions[triangles[:, k]] - positions[triangles[:, 0]] for k in (1, 2))
    area = np.linalg.norm(np.cross(first, second), axis=1) / 2
    return np.bincount(triangles.ravel(), np.repeat(area, 3) / 3, len(positions))


def principal_axes(modes: np.ndarray, area: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Rotation (I, I) whose columns mix modes (I, V, 3) into orthogonal ones, the strongest first."""
    weighted = (modes * np.sqrt(area)[:, None])[:, reference].reshape(len(modes), -1)
    return np.linalg.eigh(weighted @ weighted.T)[1][:, ::-1]

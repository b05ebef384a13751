"""Non-rigid registration: pose, identity and smooth deformation that bring the head onto a scan.

A vertex is x = base + codes * modes + smooth weights * smooth modes in the head frame, and R x + t in the scan's. All
weights are N(0, 1) beforehand, so that what the scan does not show - the far side, holes, sliding along the surface -
is what is most likely given the rest. Gauss-Newton on distances to the tangent planes of the closest points (Chen and
Medioni 1992), with robust weights and new correspondences at every step.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg
import scipy.spatial

from facerig_jax.evaluate.scan_protocols import procrustes
from facerig_jax.register.scan import Surface, vertex_normals


@dataclasses.dataclass(frozen=True)
class Stage:
    """One part of the schedule; mm.

    steps:  Gauss-Newton steps, each with new correspondences.
    smooth: whether the smooth modes take part.
    noise:  standard deviation of what the model cannot follow, per vertex.
    gate:   largest distance that counts, at the first and at the last step.
    """

    steps: int
    smooth: bool
    noise: float
    gate: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Model:
    """Everything that can move, in the head frame; mm.

    base: (P, 3); modes: (K, P, 3); smooth: (P, R) for each axis.
    limits: of the codes while the smooth modes rest, so that no odd mixture stands in for them.
    """

    base: np.ndarray
    modes: np.ndarray
    smooth: np.ndarray
    limits: tuple[float, float] = (-np.inf, np.inf)


@dataclasses.dataclass(frozen=True)
class State:
    """rotation (3, 3) and shift (3,) from head to scan frame, codes (K,), weights (R, 3) of the smooth modes."""

    rotation: np.ndarray
    shift: np.ndarray
    codes: np.ndarray
    weights: np.ndarray


@dataclasses.dataclass(frozen=True)
class Matches:
    """For some vertices (S): point (S, 3) and normal (S, 3) on the scan, head frame, and weight (S,) in [0, 1]."""

    point: np.ndarray
    normal: np.ndarray
    weight: np.ndarray


@dataclasses.dataclass(frozen=True)
class Landmarks:
    """corners, barycentric (L, 3) on the head, target (L, 3) mm in the scan frame, deviation (L,) mm; L may be 0."""

    corners: np.ndarray
    barycentric: np.ndarray
    target: np.ndarray
    deviation: np.ndarray


@dataclasses.dataclass(frozen=True)
class Problem:
    """What stays the same through a registration.

    faces:        (F, 3) of the head.
    samples:      (S,) vertices that look for a partner.
    largest_turn: degrees between the normals of partners.
    """

    model: Model
    surface: Surface
    landmarks: Landmarks
    faces: np.ndarray
    samples: np.ndarray
    largest_turn: float


def positions(model: Model, state: State, index=slice(None)) -> np.ndarray:
    """(P, 3) vertices, or those of `index`, in the head frame."""
    moved = np.tensordot(state.codes, model.modes[:, index], axes=1)
    return model.base[index] + moved + model.smooth[index] @ state.weights


def pose_from_points(base: np.ndarray, landmarks: Landmarks):
    """The rigid motion (rotation, shift) of a mesh's landmarks onto the scan's, and what it leaves, mm rms."""
    places = np.einsum("lc,lcx->lx", landmarks.barycentric, base[landmarks.corners])
    _, rotation, shift = procrustes(places, landmarks.target, with_scale=False)
    left = places @ rotation.T + shift - landmarks.target
    return rotation, shift, float(np.sqrt((left**2).sum(1).mean()))


def find_matches(problem: Problem, state: State, vertices, normals, gate: float) -> Matches:
    """Partners of vertices (S, 3) with normals (S, 3), head frame; none on a border, too far or turned away."""
    place, normal, on_border = problem.surface.closest(vertices @ state.rotation.T + state.shift)
    place, normal = (place - state.shift) @ state.rotation, normal @ state.rotation
    distance = np.linalg.norm(place - vertices, axis=1)
    facing = (normal * normals).sum(1) > np.cos(np.deg2rad(problem.largest_turn))
    robust = (1 - np.minimum(distance / gate, 1) ** 2) ** 2  # Tukey's biweight
    return Matches(place, normal, robust * facing * ~on_border)


def match_samples(problem: Problem, state: State, gate: float) -> Matches:
    """Partners of the samples, where they are now."""
    vertices = positions(problem.model, state)
    normals = vertex_normals(vertices, problem.faces)
    return find_matches(problem, state, vertices[problem.samples], normals[problem.samples], gate)


def step(model: Model, state: State, index, matches: Matches, landmarks: Landmarks, stage: Stage) -> State:
    """One Gauss-Newton step of all unknowns: a turn and a shift of the head, codes, smooth weights."""
    n_modes = len(model.modes)
    smooth = model.smooth if stage.smooth else model.smooth[:, :0]
    vertices = positions(model, state, index)
    scale = np.sqrt(matches.weight)[:, None] / stage.noise
    planes = np.concatenate(
        [
            np.cross(vertices, matches.normal),
            matches.normal,
            np.einsum("ksx,sx->sk", model.modes[:, index], matches.normal),
            (smooth[index][:, :, None] * matches.normal[:, None]).reshape(len(vertices), -1),
        ],
        axis=1,
    )
    gap = ((vertices - matches.point) * matches.normal).sum(1)
    points, miss = _landmark_rows(model, state, smooth, landmarks)
    rows = np.concatenate([scale * planes, points])
    residual = np.concatenate([scale[:, 0] * gap, miss])
    prior = np.concatenate([np.zeros(6), state.codes, state.weights[: smooth.shape[1]].reshape(-1)])
    normal = rows.T @ rows
    normal[np.diag_indices_from(normal)] += np.r_[np.full(6, 1e-6), np.ones(len(prior) - 6)]
    change = -scipy.linalg.cho_solve(scipy.linalg.cho_factor(normal), rows.T @ residual + prior)
    turn, shift, codes = change[:3], change[3:6], change[6 : 6 + n_modes]
    weights = state.weights.copy()
    weights[: smooth.shape[1]] += change[6 + n_modes :].reshape(-1, 3)
    rotation = state.rotation @ scipy.spatial.transform.Rotation.from_rotvec(turn).as_matrix()
    codes = state.codes + codes if stage.smooth else np.clip(state.codes + codes, *model.limits)
    return State(rotation, state.shift + state.rotation @ shift, codes, weights)


def _landmark_rows(model: Model, state: State, smooth, landmarks: Landmarks):
    """Rows (3 L, unknowns) and residuals (3 L,) of the landmarks, in deviations."""
    weights, corners = landmarks.barycentric, landmarks.corners
    modes = np.einsum("lc,klcx->lxk", weights, model.modes[:, corners])
    fields = np.einsum("lc,lcr->lr", weights, smooth[corners])
    places = np.einsum("lc,lcx->lx", weights, positions(model, state, corners.reshape(-1)).reshape(-1, 3, 3))
    miss = places - (landmarks.target - state.shift) @ state.rotation
    axes = np.eye(3)
    turn = np.cross(places[:, None], axes[None])  # (L, axis, 3)
    shift = np.broadcast_to(axes, (len(places), 3, 3))
    fields = np.einsum("lr,xy->lxry", fields, axes).reshape(len(places), 3, 3 * fields.shape[1])
    rows = np.concatenate([turn, shift, modes, fields], axis=2) / landmarks.deviation[:, None, None]
    return rows.reshape(-1, rows.shape[2]), (miss / landmarks.deviation[:, None]).reshape(-1)


def run_stage(problem: Problem, state: State, stage: Stage) -> State:
    """All steps of one stage; the gate closes geometrically."""
    for gate in np.geomspace(*stage.gate, stage.steps):
        matches = match_samples(problem, state, gate)
        state = step(problem.model, state, problem.samples, matches, problem.landmarks, stage)
    return state

"""A raw scan in, the head's topology out: the order of the registration."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import scipy.sparse.csgraph

from facerig_jax.register.detail import normal_detail
from facerig_jax.register.fit import (
    Model,
    Problem,
    Stage,
    State,
    find_matches,
    match_samples,
    pose_from_points,
    positions,
    run_stage,
)
from facerig_jax.register.modes import SmoothConfig, farthest_points, smooth_modes
from facerig_jax.register.points import scan_landmarks
from facerig_jax.register.scan import Scan, check_scan, prepare, vertex_normals
from facerig_jax.types import HeadModel

SKIN, EYEBALLS = 0, 1
STATISTICS = ("mean_mm", "p95_mm", "known_share", "code_rms", "smooth_rms")
# Landmarks that miss a rigidly placed mean face by more than this (mm rms) are in another order, or no face's: of 20
# people of the model all miss by less than 5, and with left and right exchanged by more than 12.
MAX_POINT_MISS = 9.0
# A blendshape weight is drawn from N(0, this^2) where expressions take part.
BLENDSHAPE_DEVIATION = 0.4
# An open mouth is too far from a closed one for closest points: each of these jawOpen weights is tried as a start.
JAW_STARTS = (0.0, 0.5, 1.0)


@dataclasses.dataclass(frozen=True)
class RegisterConfig:
    """Settings of a registration; lengths in mm.

    stages:       coarse to fine.
    smooth:       how people differ from what the head's modes can do.
    point_noise:  standard deviation of a landmark along each axis.
    largest_turn: degrees between the normals of matching places.
    samples:      vertices that look for a partner in the stages.
    detail_gate:  largest distance that the last displacement along the normals closes; farther is not known.
    detail_noise, detail_deviation, detail_length: of that displacement, see detail.normal_detail.
    """

    stages: tuple[Stage, ...] = (Stage(6, False, 2.0, (25.0, 8.0)), Stage(7, True, 0.3, (8.0, 3.0)))
    smooth: SmoothConfig = SmoothConfig()
    point_noise: float = 1.5
    largest_turn: float = 45.0
    samples: int = 2500
    detail_gate: float = 2.0
    detail_noise: float = 0.2
    detail_deviation: float = 0.3
    detail_length: float = 5.0


@dataclasses.dataclass(frozen=True)
class Registration:
    """A scan in the head's topology.

    vertices:   (P, 3) mm, head frame.
    known:      (P,) 1 where the vertex lies on the scan; elsewhere it follows from the rest.
    rotation, shift: (3, 3), (3,) mm: x in the head frame is rotation @ x + shift in the scan's.
    identity, expression: (I,), (E,) coefficients of the head's bases that take part.
    distance:   (P,) mm from vertex to scan, along the normal, 0 where not known.
    statistics: what is left, see `_statistics`.
    """

    vertices: np.ndarray
    known: np.ndarray
    rotation: np.ndarray
    shift: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    distance: np.ndarray
    statistics: dict[str, float]

    def in_scan_frame(self) -> np.ndarray:
        """(P, 3) mm."""
        return self.vertices @ self.rotation.T + self.shift


def register_scan(
    head: HeadModel, scan: Scan, config: RegisterConfig = RegisterConfig(), neutral: Registration | None = None
) -> Registration:
    """Brings a scan to the head's topology.

    Pose from landmarks; pose and identity, then also smooth deformation, on the distances to the scan; what remains
    as a displacement along the normals. The scale is not free: a scan has millimetres.

    Args:
      head: morphable head; a fully neutral face is expected when `neutral` is None.
      scan: surface or cloud of points with landmarks, mm, any frame.
      config: settings.
      neutral: registration of the same person's neutral scan: then this scan may have an expression, and needs no
        landmarks where it is in (nearly) the same frame.

    Returns:
      Registration.

    Raises:
      ValueError: the scan or its landmarks cannot be used, in one sentence.
      ImportError: libigl is missing.

    Example:
      found = register_scan(load_head(), Scan(vertices, faces, points7))
    """
    scan, head = check_scan(scan), jax.tree.map(np.asarray, head)
    landmarks = scan_landmarks(head, scan.points, config.point_noise)
    rotation, shift = _first_pose(head, landmarks, neutral)
    model, region = make_model(head, config.smooth, neutral), np.flatnonzero(_region(head))
    samples = region[farthest_points(model.base[region], config.samples)]
    problem = Problem(model, prepare(scan), landmarks, head.faces, samples, config.largest_turn)
    first, *rest = config.stages
    starts = [State(rotation, shift, codes, np.zeros((model.smooth.shape[1], 3))) for codes in _starts(head, neutral)]
    fitted = [run_stage(problem, start, first) for start in starts]
    state = max(fitted, key=lambda state: match_samples(problem, state, first.gate[1]).weight.sum())
    for stage in rest:
        state = run_stage(problem, state, stage)
    vertices, known, distance = _add_detail(head, problem, state, region, config)
    deviation, _ = _expression_prior(head)
    return Registration(
        vertices=vertices,
        known=known,
        rotation=state.rotation,
        shift=state.shift,
        identity=state.codes if neutral is None else neutral.identity,
        expression=np.zeros(len(head.expression_basis)) if neutral is None else deviation * state.codes,
        distance=distance,
        statistics=_statistics(distance, known, region, state),
    )


def _region(head: HeadModel) -> np.ndarray:
    """(P,) bool: the skin of the face, which is what a scan is compared with."""
    return np.asarray((head.face_mask > 0.5) & (head.part == SKIN))


def _expression_prior(head: HeadModel):
    """Standard deviation of an expression coefficient, and its smallest and largest value."""
    return (BLENDSHAPE_DEVIATION, (0.0, 1.0)) if head.expression_prior == "unit_interval" else (1.0, (-3.0, 3.0))


def make_model(head: HeadModel, smooth: SmoothConfig, neutral: Registration | None) -> Model:
    """Mean and identity modes, or a person's neutral and expressions; plus smooth modes that keep eyeballs round."""
    mean = head.unit_mm * np.asarray(head.mean, np.float64)
    fields = smooth_modes(mean, _region(head), smooth)
    for eyeball in _components(head.faces, head.part == EYEBALLS):
        fields[eyeball] = fields[eyeball].mean(0)
    if neutral is None:
        return Model(mean, head.unit_mm * np.asarray(head.identity_basis, np.float64), fields)
    deviation, limits = _expression_prior(head)
    modes = deviation * head.unit_mm * np.asarray(head.expression_basis, np.float64)
    limits = tuple(limit / deviation for limit in limits)
    return Model(np.asarray(neutral.vertices, np.float64), modes, fields, limits)


def _starts(head: HeadModel, neutral: Registration | None) -> list[np.ndarray]:
    """Codes to start from: 0, and for an expression also with the jaw half open and open, where it has a shape."""
    if neutral is None:
        return [np.zeros(len(head.identity_basis))]
    is_jaw = np.array([name == "jawOpen" for name in head.expression_names])
    if not is_jaw.any():
        return [np.zeros(len(head.expression_basis))]
    return [weight / _expression_prior(head)[0] * is_jaw for weight in JAW_STARTS]


def _components(faces: np.ndarray, chosen: np.ndarray) -> list[np.ndarray]:
    """Vertex indices of each connected piece of the mesh within the chosen vertices."""
    edges = faces[chosen[faces].all(1)][:, [0, 1, 1, 2]].reshape(-1, 2)
    graph = scipy.sparse.coo_matrix((np.ones(len(edges)), edges.T), (len(chosen), len(chosen)))
    label = scipy.sparse.csgraph.connected_components(graph, directed=False)[1]
    return [np.flatnonzero(label == number) for number in np.unique(label[np.unique(edges)])]


def _first_pose(head: HeadModel, landmarks, neutral: Registration | None):
    """Rotation (3, 3) and shift (3,) mm from the landmarks; without them those of the neutral scan."""
    if not len(landmarks.target):
        if neutral is None:
            raise ValueError("scan: landmarks are needed, 7, 68 or 468 of them.")
        return neutral.rotation, neutral.shift
    base = neutral.vertices if neutral else head.unit_mm * np.asarray(head.mean, np.float64)
    rotation, shift, miss = pose_from_points(base, landmarks)
    if miss > MAX_POINT_MISS:
        raise ValueError(
            f"scan: the landmarks miss a face's by {miss:.0f} mm; are they in the right order, the subject's right "
            "first, and is the scan not mirrored?"
        )
    return rotation, shift


def _add_detail(head: HeadModel, problem: Problem, state: State, region, config: RegisterConfig):
    """Final vertices (P, 3), known (P,) and the distances (P,) that are left there, mm."""
    vertices = positions(problem.model, state)
    normals = vertex_normals(vertices, head.faces)

    def measure(vertices):
        matches = find_matches(problem, state, vertices[region], normals[region], config.detail_gate)
        gap, weight = np.zeros(len(vertices)), np.zeros(len(vertices))
        gap[region] = ((matches.point - vertices[region]) * normals[region]).sum(1)
        weight[region] = matches.weight
        return gap, weight

    gap, weight = measure(vertices)
    skin = head.faces[(head.part[head.faces] == SKIN).all(1)]
    settings = (config.detail_noise, config.detail_deviation, config.detail_length)
    vertices = vertices + normal_detail(vertices, skin, gap, weight, *settings)[:, None] * normals
    gap, weight = measure(vertices)
    known = (weight > 0).astype(np.float32)
    return vertices, known, np.abs(gap) * known


def _statistics(distance, known, region, state: State) -> dict[str, float]:
    """Distances of the known vertices to the scan (mm), the share of the face that is known, the size of the codes."""
    seen = distance[known > 0]
    mean, p95 = (seen.mean(), np.percentile(seen, 95)) if len(seen) else (np.nan, np.nan)
    sizes = (np.sqrt(np.mean(codes**2)) for codes in (state.codes, state.weights))
    values = (mean, p95, known[region].mean(), *sizes)
    return {name: float(value) for name, value in zip(STATISTICS, values, strict=True)}

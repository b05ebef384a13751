"""Whether faces in photos are one person's: how alike they are, and who among them is somebody else.

This compares the faces of one call with each other, and keeps nothing of them. It cannot tell siblings, and is not made
to recognise anybody: it is there to notice that a photo got in among a person's photos by mistake.

Three things are compared, none of them by a net that was trained on faces: the shape, as far as the head's identity
modes explain the landmarks and expressions, noise and pose do not; and the brightness and the hue of the skin,
lips, brows and eyes at the landmarks, relative to the face's own median, the mean of both halves of the face, so that
light from one side hardly counts.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from facerig_jax.checks import check_shape
from facerig_jax.detect.landmarks import FACE_OVAL
from facerig_jax.types import HeadModel, LandmarkEmbedding

# Identity modes that are compared, and how far one person's estimates wander in each besides what is modelled.
MODES, WANDER = 60, 1.0
# Standard deviations, mm: of a landmark across and along the line of sight; of an expression's coefficient.
ACROSS, ALONG, EXPRESSION = 1.0, 6.0, 0.25
# The inside of the mouth says nothing of a person's colours, nor does the outline, which the background reaches.
MOUTH = (13, 14, 78, 308, 82, 312, 87, 317, 81, 311, 178, 402, 88, 318, 95, 324, 80, 310, 191, 415)
# Log odds of one person, by shape, brightness and hue, and where a picture has no hues: logistic regression on 90 faces
# of 30 people from the media of tests/helpers/media.py, pairs of different photo sessions and people weighed alike.
WITH_HUE = (0.405, 5.8, 6.6, -9.76)
WITHOUT_HUE = (0.442, 8.6, -8.08)
# A picture whose hues vary by less (log ratio to green, rms over the face) is taken for one without.
GREY = 0.02
# Faces join a group whose mean log odds with it are above the first. A face is a stranger to a group where they are
# below the second, and below the group's own usual ones by the third.
JOIN, STRANGE, APART = 0.0, -0.5, 2.0


@dataclasses.dataclass(frozen=True)
class People:
    """Who is who in N photos with M faces.

    face:      (N,) int, the face of each photo that belongs to the person; -1 where there is none.
    strangers: photos whose faces are all somebody else's.
    certain:   (N,) bool, whether a photo's face is one of the group that look alike.
    majority:  whether that group holds more than half of the photos with a face.
    rivals:    how many other groups are in as many photos.
    """

    face: np.ndarray
    strangers: tuple[int, ...]
    certain: np.ndarray
    majority: bool
    rivals: int = 0


def likeness(head: HeadModel, landmarks, colours) -> np.ndarray:
    """Log odds that two faces are one person's, as against two people's who are as often met.

    Args:
      head: the embedded head, with its calibrated dense landmarks.
      landmarks: (M, 468, 3) image pixels, z towards the camera.
      colours: (M, 468, 3) linear RGB at the landmarks.

    Returns:
      (M, M) symmetric; the diagonal means nothing.
    """
    count = check_shape("landmarks", landmarks, "M", 468, 3)["M"]
    check_shape("colours", colours, count, 468, 3)
    shape = shape_odds(head, np.asarray(landmarks, np.float64))
    brightness, hue, coloured = face_colours(head, np.asarray(colours, np.float64))
    plain = np.stack([shape, alike(brightness)], -1) @ WITHOUT_HUE[:-1] + WITHOUT_HUE[-1]
    full = np.stack([shape, alike(brightness), alike(hue)], -1) @ WITH_HUE[:-1] + WITH_HUE[-1]
    return np.where(coloured[:, None] & coloured[None], full, plain)


def shape_odds(head: HeadModel, landmarks: np.ndarray) -> np.ndarray:
    """(M, M) log odds by the shape alone: a linear Gaussian model of landmarks (M, L, 3) laid onto the mean face.

    x = J z + W y + noise with z the identity, W the expressions, the detector's common noise and what is left of the
    pose; an estimate of z has information `strength`, and two of them are of one z or of two (probabilistic linear
    discriminant analysis, Ioffe 2006).
    """
    points = dense_points(head)
    trusted = points["weight"] > 0
    mean, centred = points["mean"][trusted], points["mean"][trusted] - points["mean"][trusted].mean(0)
    x = (lay_onto(landmarks * [1, -1, 1], points["mean"], points["weight"])[:, trusted] - mean).reshape(
        len(landmarks), -1
    )
    basis = points["identity"][:, trusted].reshape(MODES, -1).T
    common = np.pad(points["common"][:, trusted], ((0, 0), (0, 0), (0, 1)))
    nuisance = np.concatenate([EXPRESSION * points["expression"][:, trusted], common, pose_changes(centred)])
    nuisance = nuisance.reshape(len(nuisance), -1).T
    precision = 1 / np.tile(np.square([ACROSS, ACROSS, ALONG]), len(mean))[:, None]
    inner = np.eye(nuisance.shape[1]) + nuisance.T @ (precision * nuisance)
    weighed = precision * basis
    weighed -= precision * nuisance @ np.linalg.solve(inner, nuisance.T @ weighed)
    strength, estimate = basis.T @ weighed, x @ weighed
    wander = np.linalg.inv(np.eye(MODES) + WANDER**2 * strength)
    strength, estimate = wander @ strength, estimate @ wander.T
    alone, both = np.linalg.inv(np.eye(MODES) + strength), np.linalg.inv(np.eye(MODES) + 2 * strength)
    own = np.einsum("mi,ij,mj->m", estimate, alone, estimate)
    joint = np.einsum("mi,ij,mj->m", estimate, both, estimate)
    pair = joint[:, None] + joint[None] + 2 * estimate @ both @ estimate.T
    return 0.5 * (pair - own[:, None] - own[None] + np.linalg.slogdet(both)[1] - 2 * np.linalg.slogdet(alone)[1])


def dense_points(head: HeadModel) -> dict[str, np.ndarray]:
    """The dense landmarks as the detector reports them: mean (L, 3), identity (MODES, L, 3), expression (E, L, 3)."""
    table, habits = head.landmarks_dense, head.dense_calibration
    assert table is not None, "the detector's points are the dense ones"
    assert habits is not None, "which are calibrated on the embedded head"
    mean, identity, expression = (
        _embedded(table, basis) for basis in (head.mean, head.identity_basis[:MODES], head.expression_basis)
    )
    known = min(MODES, len(habits.identity))
    identity[:known] += np.asarray(habits.identity)[:known]
    return {
        "mean": mean + np.asarray(habits.offset),
        "identity": identity,
        "expression": expression + np.asarray(habits.expression),
        "common": np.asarray(habits.common, np.float64),
        "weight": np.asarray(table.weight, np.float64),
    }


def _embedded(table: LandmarkEmbedding, basis) -> np.ndarray:
    """(..., P, 3) -> (..., L, 3) float64."""
    corners = np.asarray(basis, np.float64)[..., np.asarray(table.triangle), :]
    return np.einsum("...lkc,lk->...lc", corners, np.asarray(table.barycentric, np.float64))


def lay_onto(points: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(M, L, 3) points moved onto the target (L, 3) by each one's least-squares similarity."""
    weight = (weight / weight.sum())[:, None]
    goal = target - (weight * target).sum(0)
    centred = points - (weight * points).sum(1, keepdims=True)
    u, _, vt = np.linalg.svd(np.einsum("lc,mld->mcd", weight * goal, centred))
    vt[:, 2] *= np.sign(np.linalg.det(u) * np.linalg.det(vt))[:, None]
    turned = np.einsum("mcd,mld->mlc", u @ vt, centred)
    scale = (weight * goal * turned).sum((1, 2)) / (weight * turned**2).sum((1, 2))
    return scale[:, None, None] * turned + (target - goal)


def pose_changes(points: np.ndarray) -> np.ndarray:
    """(10, L, 3) mm: what laying a face onto another leaves of shift, turn, size, and the net's depth; generous."""
    turns = [0.5 * np.cross(axis, points) for axis in np.eye(3)]
    shifts = [np.broadcast_to(30 * axis, points.shape) for axis in np.eye(3)]
    return np.stack([*turns, *shifts, 0.3 * points, points * [0, 0, 0.2]])


def face_colours(head: HeadModel, colours: np.ndarray):
    """Brightness (M, n) and hue (M, n, 2) of the inner face, log, less their median; whether there are hues (M,)."""
    inner = np.setdiff1d(np.arange(colours.shape[1]), (*MOUTH, *FACE_OVAL))
    mean = dense_points(head)["mean"]
    mirror = np.linalg.norm(mean[:, None] * [-1, 1, 1] - mean[None], axis=-1).argmin(1)
    logs = np.log(colours + 0.01)
    logs = logs - np.median(logs, 1, keepdims=True)
    logs = ((logs + logs[:, mirror]) / 2)[:, inner]
    hue = logs[..., [0, 2]] - logs[..., 1:2]
    return logs.mean(-1), hue, np.sqrt((hue**2).mean((1, 2))) > GREY


def alike(values: np.ndarray) -> np.ndarray:
    """(M, M) correlation coefficients of rows (M, ...)."""
    rows = values.reshape(len(values), -1)
    rows = rows - rows.mean(1, keepdims=True)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return rows @ rows.T


def groups(odds: np.ndarray, photo) -> list[list[int]]:
    """Faces that are likely one person's, from any pair upwards; two faces of one photo never are."""
    found = [[number] for number in range(len(odds))]
    link, photo = np.array(odds, np.float64), np.asarray(photo)
    apart = photo[:, None] == photo[None]
    while True:
        link[apart] = -np.inf
        a, b = np.unravel_index(link.argmax(), link.shape)
        if link[a, b] <= JOIN:
            return [group for group in found if group]
        sizes = len(found[a]), len(found[b])
        with np.errstate(invalid="ignore"):
            link[a] = link[:, a] = (sizes[0] * link[a] + sizes[1] * link[b]) / sum(sizes)
        apart[a] = apart[:, a] = apart[a] | apart[b]
        found[a], found[b] = found[a] + found[b], []
        apart[b] = apart[:, b] = True


def who_is_who(odds: np.ndarray, photo, count: int) -> People:
    """The person whom most photos show, and where.

    Args:
      odds: (M, M) of `likeness`.
      photo: (M,) int, which photo each face is in, M >= 1; of each photo the first is taken where nothing can tell.
      count: N photos.

    Returns:
      People.
    """
    photo = np.asarray(photo, int)
    face = np.full(count, -1)
    face[photo[::-1]] = np.arange(len(photo))[::-1]
    shown = np.flatnonzero(face >= 0)
    together, first = groups(odds, photo), set(face.tolist())
    main = max(together, key=lambda group: (len(group), len(first & set(group)), odds[np.ix_(group, group)].sum()))
    certain = np.zeros(count, bool)
    if len(main) < 2:
        certain[shown[:1] if len(shown) == 1 else []] = True
        return People(face, (), certain, len(shown) < 2)
    inside = odds[np.ix_(main, main)]
    usual = np.median((inside.sum(1) - np.diag(inside)) / (len(main) - 1))
    face[photo[main]], certain[photo[main]] = main, True
    strangers = []
    for number in shown[~certain[shown]]:
        there = np.flatnonzero(photo == number)
        mean = odds[np.ix_(there, main)].mean(1)
        face[number] = there[mean.argmax()]
        if mean.max() < min(STRANGE, usual - APART):
            strangers.append(int(number))
    rivals = sum(len(group) == len(main) for group in together) - 1
    return People(face, tuple(strangers), certain, 2 * len(main) > len(shown), rivals)

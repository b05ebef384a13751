"""Scan-to-mesh protocols: NoW (non-metrical and metrical), FG2018 / Stirling, and point-to-plane after scaled ICP.

Points, in order: right eye outer, right eye inner, left eye inner, left eye outer, nose bottom, right and left mouth
corner (the subject's right first). Sources: the published evaluation code of NoW (soubhiksanyal/now_evaluation) and of
FG2018 (patrikhuber/fg2018-competition), and the protocol that publications on MICC / Florence share; all are restated
here from their descriptions.
"""

import numpy as np
from scipy.spatial.transform import Rotation

from facerig_jax.geometry.surface_distance import closest_on, closest_points, triangle_normals

# The tip of the nose among the 68 points of iBUG.
NOSE_TIP = 30
NOW_RADIUS, FG2018_RADIUS = 1.4, 1.2
# Radius of the scored ball around the nose tip in the point-to-plane protocol, mm.
PLANE_RADIUS = 95.0
# Refinement stops when the mean squared distance changes by less than this share.
TOLERANCE, MAX_STEPS = 1e-7, 60


def face_crop(scan: np.ndarray, points: np.ndarray, radius_factor: float = NOW_RADIUS) -> np.ndarray:
    """(n,) bool: the scan vertices inside the sphere that the protocols score; scan (n, 3), points (7, 3)."""
    bridge = (points[1] + points[2]) / 2
    centre = points[4] + 0.3 * (bridge - points[4])
    radius = radius_factor * (np.linalg.norm(points[0] - points[3]) + np.linalg.norm(bridge - points[4])) / 2
    return np.linalg.norm(scan - centre, axis=1) <= radius


def procrustes(source: np.ndarray, target: np.ndarray, with_scale: bool = True, reflection: bool = False):
    """Least-squares similarity source -> target, as (scale, rotation (3, 3), translation (3,)).

    With `reflection` an improper rotation is allowed where it fits better.
    """
    a, b = source - source.mean(0), target - target.mean(0)
    u, singular, vt = np.linalg.svd(b.T @ a)
    sign = np.ones(3)
    if not reflection:
        sign[2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    rotation = (u * sign) @ vt
    scale = (singular * sign).sum() / (a**2).sum() if with_scale else 1.0
    return scale, rotation, target.mean(0) - scale * rotation @ source.mean(0)


def refine(scan: np.ndarray, vertices: np.ndarray, faces: np.ndarray, with_scale: bool = True) -> np.ndarray:
    """Moves the predicted mesh by the similarity that minimises the scan's squared distances to its surface.

    Levenberg-Marquardt on the exact distance; returns the moved vertices (P, 3).
    """
    # Moving the scan by the inverse similarity is the same problem with a fixed surface; distances are then rescaled.
    centre, normals = scan.mean(0), triangle_normals(vertices, faces)
    nearest_to = closest_on(vertices, faces)

    def evaluate(scale, rotation, shift):
        moved = scale * (scan - centre) @ rotation.T + centre + shift
        nearest = nearest_to(moved)
        return moved, nearest, np.mean(nearest[0] ** 2) / scale**2

    pose, damping = (1.0, np.eye(3), np.zeros(3)), 1e-4
    moved, nearest, error = evaluate(*pose)
    for _ in range(MAX_STEPS):
        jacobian, residual = _linearise(moved - centre - pose[2], moved, nearest, normals, with_scale)
        normal = jacobian.T @ jacobian
        diagonal = np.maximum(np.diag(normal), 1e-9 * np.trace(normal) + 1e-30)
        step = -np.linalg.solve(normal + damping * np.diag(diagonal), jacobian.T @ residual)
        scale = pose[0] * np.exp(step[6]) if with_scale else pose[0]
        candidate = (scale, Rotation.from_rotvec(step[:3]).as_matrix() @ pose[1], pose[2] + step[3:6])
        moved_new, nearest_new, error_new = evaluate(*candidate)
        if error_new > error:  # a step too far: undone
            damping *= 10
            continue
        done = error - error_new <= TOLERANCE * error
        pose, moved, nearest, error, damping = candidate, moved_new, nearest_new, error_new, damping / 10
        if done:
            break
    scale, rotation, shift = pose
    return ((vertices - centre - shift) / scale) @ rotation + centre


def _linearise(arm, moved, nearest, normals, with_scale: bool):
    """Jacobian (n, 6 or 7) of the distances by turn, shift and log scale, and the distances (n,)."""
    distance, closest, triangle = nearest
    flat = distance < 1e-6  # on the surface the distance has a kink; its plane is what counts
    direction = np.where(flat[:, None], normals[triangle], (moved - closest) / np.maximum(distance, 1e-12)[:, None])
    columns = [np.cross(arm, direction), direction]
    if with_scale:
        # d(distance / scale): the surface must not win by shrinking the scan
        columns.append((np.sum(direction * arm, 1) - distance)[:, None])
    return np.concatenate(columns, 1), np.where(flat, 0, distance)


def now_distances(scan, scan_points, vertices, faces, points, metrical: bool = False) -> np.ndarray:
    """NoW: unsigned distances (n,) in mm of the cropped scan's vertices to the predicted surface after alignment.

    Args:
      scan: (n, 3) vertices of the truth, mm.
      scan_points: (7, 3) its points.
      vertices: (P, 3) predicted neutral mesh.
      faces: (F, 3).
      points: (7, 3) its points.
      metrical: keep the prediction's scale (it must then be in mm).
    """
    cropped = scan[face_crop(scan, scan_points)]
    scale, rotation, shift = procrustes(points, scan_points, with_scale=not metrical, reflection=True)
    aligned = refine(cropped, scale * vertices @ rotation.T + shift, faces, with_scale=not metrical)
    return closest_points(cropped, aligned, faces)[0]


def fg2018_rmse(scan, scan_points, vertices, faces, points) -> float:
    """FG2018 / Stirling: root mean squared scan-to-surface distance in mm, similarity from the 7 points only."""
    cropped = scan[face_crop(scan, scan_points, FG2018_RADIUS)]
    scale, rotation, shift = procrustes(points, scan_points)
    distance = closest_points(cropped, scale * vertices @ rotation.T + shift, faces)[0]
    return float(np.sqrt(np.mean(distance**2)))


def point_to_plane_rmse(scan, scan_points, nose_tip, vertices, faces, points) -> float:
    """Point-to-plane error after ICP with isotropic scale, of the scan within 95 mm of the tip of its nose.

    The ICP starts from the similarity of the seven points and goes on to the least squared distance to the surface.

    Args:
      scan: (n, 3) vertices of the truth, mm.
      scan_points: (7, 3) its points.
      nose_tip: (3,) its nose tip, see `nose_tip_of_scan`.
      vertices: (P, 3) predicted neutral mesh.
      faces: (F, 3).
      points: (7, 3) its points.

    Returns:
      Root mean square in mm of n . (p - q): p a scan vertex, q its closest point on the prediction, n the normal there.
    """
    cropped = scan[np.linalg.norm(scan - nose_tip, axis=1) <= PLANE_RADIUS]
    scale, rotation, shift = procrustes(points, scan_points)
    aligned = refine(cropped, scale * vertices @ rotation.T + shift, faces)
    _, closest, triangle = closest_points(cropped, aligned, faces)
    height = np.sum(triangle_normals(aligned, faces)[triangle] * (cropped - closest), 1)
    return float(np.sqrt(np.mean(height**2)))


def nose_tip_of_scan(scan, scan_points, mean_points, mean_tip) -> np.ndarray:
    """(3,) the scan vertex nearest to the mean head's nose tip, brought there by the seven points.

    The same for all methods: it does not look at any prediction.
    """
    scale, rotation, shift = procrustes(mean_points, scan_points)
    return scan[np.argmin(np.linalg.norm(scan - (scale * rotation @ mean_tip + shift), axis=1))]

"""Flattens a disk of triangles into a convex curve without flips: Tutte's embedding, then a descent in distortion.

A uniform-weight Tutte embedding into a strictly convex boundary is bijective (Tutte 1963, Floater 2003). The descent
is the reweighted local-global scheme of Rabinovich et al. 2017 (SLIM) with a line search that stops before the first
flip; with the boundary fixed, "no flips" then stays "bijective".
"""

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu


def boundary_loop(faces: np.ndarray) -> np.ndarray:
    """The vertices (B,) of the only boundary loop, in the direction that has the surface on its left."""
    sides = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    present = {(int(a), int(b)) for a, b in sides}
    following = {a: b for a, b in present if (b, a) not in present}
    loop = [min(following)]
    while (vertex := following[loop[-1]]) != loop[0]:
        loop.append(vertex)
    if len(loop) != len(following):
        raise ValueError("the surface to flatten is not a disk: it has more than one boundary loop.")
    return np.array(loop)


def loop_parameters(loop: np.ndarray, positions: np.ndarray, pins: tuple[int, int]) -> np.ndarray:
    """Parameters (B,) in [0, 1) along a loop by length: 0 at the first pinned vertex, 1/2 at the second."""
    start = int(np.flatnonzero(loop == pins[0])[0])
    rolled = np.roll(loop, -start)
    step = np.linalg.norm(positions[np.roll(rolled, -1)] - positions[rolled], axis=1)
    length = np.concatenate([[0.0], np.cumsum(step)])
    half = length[int(np.flatnonzero(rolled == pins[1])[0])]
    parameter = np.interp(length[:-1], [0, half, length[-1]], [0, 0.5, 1])
    return np.roll(parameter, start)


def tutte(faces: np.ndarray, vertex_count: int, loop: np.ndarray, loop_uv: np.ndarray) -> np.ndarray:
    """Every inner vertex in the mean of its neighbours: (vertex_count, 2)."""
    begin, end = np.concatenate([faces, faces[:, [1, 2, 0]]]).reshape(2, -1)
    both = np.concatenate([begin, end]), np.concatenate([end, begin])
    graph = sparse.csr_matrix((np.ones(len(both[0])), both), (vertex_count, vertex_count))
    graph.data[:] = 1.0
    laplacian = (sparse.diags(np.asarray(graph.sum(1)).ravel()) - graph).tocsc()
    inner = np.setdiff1d(np.arange(vertex_count), loop)
    uv = np.zeros((vertex_count, 2))
    uv[loop] = loop_uv
    uv[inner] = _factorised(laplacian[inner][:, inner])(-laplacian[inner][:, loop] @ loop_uv)
    return uv


def flatten(positions, faces, loop, loop_uv, area_scale, importance=1.0, mirror=None, steps=100, tolerance=1e-4):
    """Low-distortion bijective map of a disk of triangles into a convex curve.

    Args:
      positions: (V, 3).
      faces: (F, 3), counter-clockwise from outside.
      loop: (B,) boundary vertices, loop_uv: (B, 2) their places on a strictly convex curve, counter-clockwise.
      area_scale: (F,) wanted area of each triangle in the plane, over its area in space.
      importance: (F,) weight of each triangle's distortion, per wanted area.
      mirror: (V,) mirror image of each vertex; then the map is kept symmetric about u = 0.
      steps: most descent steps; they end earlier when the energy falls by less than `tolerance` (relative).

    Returns:
      (V, 2).
    """
    gradient_u, gradient_v, area = _rest_gradients(positions, faces, np.sqrt(area_scale))
    weight = area * importance
    uv = tutte(faces, len(positions), loop, loop_uv)
    inner = np.setdiff1d(np.arange(len(positions)), loop)
    energy = _energy(_jacobians(gradient_u, gradient_v, uv), weight)
    for _ in range(steps):
        jacobian = _jacobians(gradient_u, gradient_v, uv)
        target, metric = _local_step(jacobian)
        step = np.zeros_like(uv)
        step[inner] = _global_step(gradient_u, gradient_v, weight, target, metric, uv, inner) - uv[inner]
        if mirror is not None:
            step = (step + step[mirror] * [-1, 1]) / 2
        length = min(1.0, 0.9 * _largest_step(uv[faces], step[faces]))
        before = energy
        while (energy := _energy(_jacobians(gradient_u, gradient_v, uv + length * step), weight)) > before:
            length /= 2
            if length < 1e-9:
                return uv
        uv = uv + length * step
        if before - energy < tolerance * before:
            break
    return uv


def _rest_gradients(positions, faces, scale):
    """Sparse (F, V) derivatives along two axes of each scaled triangle's plane, and the scaled areas (F,)."""
    edge1, edge2 = (positions[faces[:, k]] - positions[faces[:, 0]] for k in (1, 2))
    x1 = np.linalg.norm(edge1, axis=1)
    x2 = np.einsum("fx,fx->f", edge1, edge2) / x1
    y2 = np.linalg.norm(np.cross(edge1, edge2), axis=1) / x1
    x1, x2, y2 = x1 * scale, x2 * scale, y2 * scale
    along_x = np.stack([-1 / x1, 1 / x1, np.zeros_like(x1)], 1)
    along_y = np.stack([(x2 - x1) / (x1 * y2), -x2 / (x1 * y2), 1 / y2], 1)
    rows = np.repeat(np.arange(len(faces)), 3)
    shape = (len(faces), len(positions))
    matrices = [sparse.csr_matrix((values.ravel(), (rows, faces.ravel())), shape) for values in (along_x, along_y)]
    return matrices[0], matrices[1], x1 * y2 / 2


def _jacobians(gradient_u, gradient_v, uv):
    """(F, 2, 2): columns are the derivatives of uv along the two axes of the rest triangle."""
    return np.stack([gradient_u @ uv, gradient_v @ uv], axis=2)


def _energy(jacobian, weight):
    """Symmetric Dirichlet energy |J|^2 + |J^-1|^2, area weighted; infinite when a triangle is flipped."""
    det = jacobian[:, 0, 0] * jacobian[:, 1, 1] - jacobian[:, 0, 1] * jacobian[:, 1, 0]
    if not (det > 0).all():
        return np.inf
    return float(weight @ ((jacobian**2).sum((1, 2)) * (1 + 1 / det**2)))


def _local_step(jacobian):
    """Closest rotations (F, 2, 2) and the squared metrics (F, 2, 2) that make the quadratic proxy's gradient exact."""
    left, sigma, right = np.linalg.svd(jacobian)
    sigma = np.maximum(sigma, 1e-9)
    near_one = np.abs(sigma - 1) < 1e-6
    squared = np.where(near_one, 4.0, (sigma - sigma**-3) / np.where(near_one, 1.0, sigma - 1))
    return left @ right, np.einsum("fik,fk,fjk->fij", left, squared, left)


def _global_step(gradient_u, gradient_v, weight, target, metric, uv, inner):
    """Inner vertices (len(inner), 2) that minimise sum weight <J - R, M (J - R)>, the boundary held."""
    blocks = [[None, None], [None, None]]
    right = np.zeros(uv.shape)
    for i in range(2):
        for j in range(2):
            scale = sparse.diags(weight * metric[:, i, j])
            blocks[i][j] = gradient_u.T @ scale @ gradient_u + gradient_v.T @ scale @ gradient_v
            right[:, i] += gradient_u.T @ (scale @ target[:, j, 0]) + gradient_v.T @ (scale @ target[:, j, 1])
    matrix = sparse.bmat(blocks).tocsc()
    count = len(uv)
    free = np.concatenate([inner, count + inner])
    held = np.setdiff1d(np.arange(2 * count), free)
    known = uv.T.ravel()[held]
    value = _factorised(matrix[free][:, free])(right.T.ravel()[free] - matrix[free][:, held] @ known)
    return value.reshape(2, -1).T


def _factorised(matrix):
    """Solver of a symmetric positive definite system."""
    options = {"SymmetricMode": True}
    return splu(matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options).solve


def _largest_step(corner, step):
    """The largest step length along `step` (F, 3, 2) before a triangle (F, 3, 2) loses its area."""
    edge1, edge2 = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    move1, move2 = step[:, 1] - step[:, 0], step[:, 2] - step[:, 0]

    def cross(a, b):
        return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]

    a, b, c = cross(move1, move2), cross(edge1, move2) + cross(move1, edge2), cross(edge1, edge2)
    discriminant = np.sqrt(np.maximum(b * b - 4 * a * c, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        q = -0.5 * (b + np.where(b >= 0, 1, -1) * discriminant)
        roots = np.stack([q / a, c / q])
    roots = np.where((b * b - 4 * a * c >= 0) & (roots > 0) & np.isfinite(roots), roots, np.inf)
    return float(roots.min())

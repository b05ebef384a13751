"""An exhaustive rasterizer in numpy int64 / float64: every triangle against every pixel."""

import numpy as np

SUBPIXELS = 256


def to_clip(points, height, width):
    """(P, 3) image pixels with depth in [-1, 1] -> (P, 4) float32 clip space; exact for points on the 1/256 px grid."""
    u, v, depth = np.asarray(points, np.float64).T
    return np.stack([(2 * u + 1) / width - 1, 1 - (2 * v + 1) / height, depth, np.ones_like(u)], -1).astype(np.float32)


def _edge(a, b, px, py):
    """Edge function of pixels, and whether they are inside, with the top-left rule for pixels on the edge."""
    dx, dy = (b - a).tolist()
    value = dx * (py - int(a[1])) - dy * (px - int(a[0]))
    return value, (value > 0) | ((value == 0) & (dy < 0 or (dy == 0 and dx > 0)))


def layers(points, faces, height, width, cull="none"):
    """(F, H, W) float64 depth of every triangle at every pixel it covers, inf elsewhere.

    points: (P, 3) u, v in image pixels on the 1/256 px grid, depth in [-1, 1] nearest smallest; NaN allowed.
    """
    py, px = np.meshgrid(np.arange(height) * SUBPIXELS, np.arange(width) * SUBPIXELS, indexing="ij")
    depth = np.full((len(faces), height, width), np.inf)
    for layer, face in zip(depth, faces, strict=True):
        corners = np.asarray(points, np.float64)[face]
        if not np.isfinite(corners).all():
            continue
        grid = np.round(corners[:, :2] * SUBPIXELS).astype(np.int64)
        (dx1, dy1), (dx2, dy2) = grid[1] - grid[0], grid[2] - grid[0]
        area = dx1 * dy2 - dy1 * dx2
        if area == 0 or (cull == "back" and area > 0) or (cull == "front" and area < 0):
            continue
        if area < 0:  # counter-clockwise on the screen
            grid, corners = grid[[0, 2, 1]], corners[[0, 2, 1]]
        edges = [_edge(grid[i], grid[j], px, py) for i, j in ((1, 2), (2, 0), (0, 1))]
        z = sum(value * corners[i, 2] for i, (value, _) in enumerate(edges)) / abs(area)
        inside = np.all([inside for _, inside in edges], 0) & (z >= -1) & (z <= 1)
        layer[inside] = z[inside]
    return depth


def nearest(depth):
    """(F, H, W) layers -> ids (H, W) int32, 0 = background, and which pixels have a clear winner (gap above 1e-5)."""
    ids = np.where(np.isfinite(depth.min(0)), depth.argmin(0) + 1, 0)
    first, second = np.sort(depth, 0)[:2]
    with np.errstate(invalid="ignore"):
        return ids.astype(np.int32), ~(second - first < 1e-5)

"""A small dome-shaped morphable "head" and inputs for it: the same numbers the reference goldens were computed with.

Units are the reference's (micrometres, y up, z towards the camera); arrays keep its layout. Every vertex is visible
from the front. The order of the random draws is part of the definition and must not change.
"""

import numpy as np

GRID = 33  # vertices per side: 1089 vertices, 2048 triangles
N_SHAPE, N_EXPRESSION, N_LANDMARKS = 80, 64, 68
Z_OFFSET = 7.5e4  # the method lowers the mean shape's z by this
IMAGE_SIZE = 256
INITIAL_SCALE = 1.25e-3  # px per micrometre
IMAGENET_MEAN, IMAGENET_STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def _grid():
    """x, y in [-1, 1], (GRID, GRID) each; the first row is the lowest."""
    return np.meshgrid(np.linspace(-1, 1, GRID), np.linspace(-1, 1, GRID))


def _modes(count, rng):
    """Smooth random displacement fields of decreasing size, the columns of a (3 P, count) matrix, micrometres."""
    x, y = _grid()
    columns = []
    for mode in range(count):
        field = np.zeros((GRID, GRID, 3))
        for _ in range(4):
            frequency_x, frequency_y = rng.uniform(0.5, 4, 2)
            phase_x, phase_y = rng.uniform(0, 2 * np.pi, 2)
            wave = np.cos(frequency_x * x + phase_x)[..., None] * np.cos(frequency_y * y + phase_y)[..., None]
            field += wave * rng.standard_normal(3)
        columns.append(field.reshape(-1) * 1.5e3 * 0.95**mode)
    return np.stack(columns, 1)


def _faces():
    """(F, 3) two triangles per grid cell, counter-clockwise seen from outside."""
    index = np.arange(GRID * GRID).reshape(GRID, GRID)
    low_left, low_right, up_left, up_right = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    halves = (low_left, low_right, up_left), (low_right, up_right, up_left)
    return np.concatenate([np.stack(half, -1).reshape(-1, 3) for half in halves])


def face_model():
    """The morphable model as a dict in the published model's layout.

    shapeMU (3P, 1), shapePC (3P, 80) unit columns with shapeEV (80, 1), expPC (3P, 64) with expEV (64, 1),
    texMU (3P, 1) in 0..255, tri (F, 3) int32 with the published winding (columns 0 and 2 swapped make it outward),
    uv (P, 2) v up, kpt_ind (68,), face_region_mask (P,) bool.
    """
    rng = np.random.default_rng(7)
    x, y = _grid()
    depth = 6.0e4 * (1.0 - 0.5 * x**2 - 0.4 * y**2) + Z_OFFSET
    mean = np.stack([7.5e4 * x, 8.5e4 * y, depth], -1)
    shape, expression = _modes(N_SHAPE, rng), _modes(N_EXPRESSION, rng)
    shape_size, expression_size = np.linalg.norm(shape, axis=0), np.linalg.norm(expression, axis=0)
    texture = np.stack([170 + 30 * np.cos(2 * x), 120 + 25 * np.cos(3 * y), 100 + 20 * np.sin(2 * x + y)], -1)
    inner = ((np.abs(x) <= 0.85) & (np.abs(y) <= 0.85)).reshape(-1)
    landmarks = np.sort(rng.choice(np.flatnonzero(inner), N_LANDMARKS, replace=False))
    return {
        "shapeMU": mean.reshape(-1, 1),
        "shapePC": shape / shape_size,
        "shapeEV": shape_size[:, None],
        "expPC": expression / expression_size,
        "expEV": expression_size[:, None],
        "texMU": np.round(texture).reshape(-1, 1),
        "tri": _faces()[:, ::-1].astype(np.int32),
        "uv": np.stack([(x + 1) / 2 * 0.96 + 0.02, (y + 1) / 2 * 0.96 + 0.02], -1).reshape(-1, 2),
        "kpt_ind": landmarks,
        "face_region_mask": inner,
    }


def _image(rng):
    """(3, H, W) a smooth random picture around 0.5."""
    y, x = np.meshgrid(np.arange(float(IMAGE_SIZE)), np.arange(float(IMAGE_SIZE)), indexing="ij")
    waves = np.zeros((3, IMAGE_SIZE, IMAGE_SIZE))
    for _ in range(12):
        frequency_x, frequency_y = rng.uniform(-0.12, 0.12, 2)
        colour = rng.standard_normal((3, 1, 1))
        waves += colour * np.cos(frequency_x * x + frequency_y * y + rng.uniform(0, 6.28))
    return 0.5 + 0.1 * waves


def inputs(model, views=2, seed=3):
    """images (1, V, 3, 256, 256) ImageNet-normalised, ori_images (the same in [0, 1]), kpts (1, V, 68, 2) px."""
    rng = np.random.default_rng(seed)
    photos = np.clip(np.stack([_image(rng) for _ in range(views)]), 0.02, 0.98)[None]
    points = model["shapeMU"].reshape(-1, 3)[model["kpt_ind"]]
    half = IMAGE_SIZE // 2
    u, v = points[:, 0] * INITIAL_SCALE + half, IMAGE_SIZE - (points[:, 1] * INITIAL_SCALE + half) - 1
    points = np.stack([u, v], -1)[None, None] + rng.normal(0, 3, (1, views, N_LANDMARKS, 2))
    return {
        "images": (photos - IMAGENET_MEAN[:, None, None]) / IMAGENET_STD[:, None, None],
        "ori_images": photos,
        "kpts": points + rng.normal(0, 4, (1, views, 1, 2)),
    }

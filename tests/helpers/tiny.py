"""A tiny head, tiny networks and tiny photos for the learned solver: every test of a shape shares one compilation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from helpers.dome import face_model, recipe

from facerig_jax.data.subjects import Subject
from facerig_jax.detect.landmarks import LANDMARKS68
from facerig_jax.fit.preprocess import N_LANDMARKS
from facerig_jax.geometry.camera import normalized_to_pose, project, to_image
from facerig_jax.head import load_published_form
from facerig_jax.head.model import landmark_positions
from facerig_jax.inorig.config import InorigConfig, NetworkConfig
from facerig_jax.inorig.energies import Observed
from facerig_jax.inorig.params import parameter_shapes
from facerig_jax.types import LandmarkEmbedding

SIZES = NetworkConfig(
    image_size=64,
    widths=(4, 4, 4, 4, 8, 8, 8, 8, 8),
    rgb_blocks=(1, 1, 1, 1),
    albedo_blocks=(1, 1, 1),
    pose_blocks=(1, 1, 1, 1),
    pose_hidden=8,
    features=4,
    uv_sizes=(8, 8, 16),
    albedo_uv_sizes=(8, 16, 16),
    uv_width=4,
    albedo_width=4,
    identity_code=6,
    expression_code=5,
    albedo_code=4,
    codes=4,
    modes=4,
    gate=2,
    albedo_gate=2,
    gate_hidden=8,
    step_hidden=8,
    albedo_step_hidden=4,
)
# Step sizes small enough that random networks' steps stay near the start.
CONFIG = InorigConfig(
    networks=SIZES,
    step_scale=((1, 1, 1, 1, 1),) * 3,
    step_bias=((-3, -5, -4, -3, -2),) * 3,
)
# For the small head and the front door (helpers.subjects), with the choices of the preset 'base'.
FOR_SMALL_HEAD = InorigConfig(
    networks=dataclasses.replace(SIZES, pose_blocks=(), codes=6, modes=6, named_codes=True, norm="group"),
    landmarks="dense",
    linear_colour=True,
    inverse_distance=1e-3,
    coarse=True,
    visibility="stage",
    steps=2,
    step_scale=((1, 1, 1, 1, 1),) * 3,
    step_bias=((-3, -5, -4, -3, -2),) * 3,
)
N_VIEWS = 2
GRID, SPACING = recipe.GRID, 2  # every second row and column of the dome


def _grid_faces(index: np.ndarray) -> np.ndarray:
    """Two triangles per cell of a grid of vertex numbers, counter-clockwise seen from outside."""
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    halves = np.stack([np.stack([a, b, c], -1), np.stack([b, d, c], -1)])
    return halves.reshape(-1, 3).astype(np.int32)


@functools.cache
def tiny_head(dtype=np.float32):
    """The dome on 17 x 17 vertices, those of its coarse mesh (9 x 9) first; four modes of each kind of colour."""
    model = face_model()
    rows = np.arange(0, GRID, SPACING)
    chosen = (rows[:, None] * GRID + rows).reshape(-1)
    side = len(rows)
    is_coarse = ((np.arange(side)[:, None] % 2 == 0) & (np.arange(side) % 2 == 0)).reshape(-1)
    order = np.concatenate([np.flatnonzero(is_coarse), np.flatnonzero(~is_coarse)])
    place = np.argsort(order).reshape(side, side)
    vertices = chosen[order]
    rng = np.random.default_rng(5)
    inner = np.flatnonzero(model["face_region_mask"][vertices])

    def take(matrix):
        return matrix.reshape(GRID * GRID, 3, -1)[vertices].reshape(3 * len(vertices), -1)

    head = load_published_form(
        {
            **model,
            **{key: take(model[key]) for key in ("shapeMU", "shapePC", "expPC", "texMU")},
            "texPC": rng.normal(size=(3 * len(vertices), 4)),
            "texEV": np.full((4, 1), 8.0),
            "tri": _grid_faces(place)[:, ::-1],
            "uv": model["uv"][vertices],
            "kpt_ind": rng.choice(inner, 68),
            "face_region_mask": model["face_region_mask"][vertices],
        },
        dtype,
    )
    triangles = head.faces[rng.choice(len(head.faces), 20, replace=False)]
    dense = LandmarkEmbedding(triangles, rng.dirichlet(np.ones(3), 20).astype(dtype), np.ones(20, dtype))
    coarse = _grid_faces(place[::2, ::2])
    head = head.replace(landmarks_dense=dense, coarse_faces=coarse, n_coarse=int(is_coarse.sum()))
    return jax.tree.map(jnp.asarray, head)


def noise(shapes, key: int = 0):
    """Parameters of these shapes, none of them zero: kernels by their fan in, scales and variances near 1."""
    rng = np.random.default_rng(key)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
        return (path[-1].key in ("scale", "var")) + 0.1 * rng.uniform(-1, 1, leaf.shape)

    return jax.tree_util.tree_map_with_path(lambda path, leaf: jnp.asarray(draw(path, leaf), leaf.dtype), shapes)


# Shares of what the last layers of displacements and pose would give as they are.
QUIET = {"identity/out": 0.05, "expression_out/out": 0.2, "pose/out": 0.1}


@functools.cache
def tiny_params(config: InorigConfig = CONFIG) -> dict:
    """Parameters of all networks: random, awake in the last layers too, with moderate displacements."""

    def soften(path, leaf):
        where = jax.tree_util.keystr(path, simple=True, separator="/")
        return leaf * next((share for name, share in QUIET.items() if f"{name}/" in where), 1.0)

    params = noise(parameter_shapes(config))
    return jax.tree_util.tree_map_with_path(soften, params)


def smooth_photos(rng, views: int, size: int = SIZES.image_size) -> np.ndarray:
    """(V, S, S, 3) smooth colours around 0.5."""
    v, u = np.mgrid[:size, :size].astype(float)[..., None]
    waves = 0.0
    for _ in range(8):
        a, b = rng.uniform(-0.3, 0.3, (2, views, 1, 1, 3))
        waves = waves + rng.normal(size=(views, 1, 1, 3)) * np.cos(a * u + b * v + rng.uniform(0, 6.3))
    return np.clip(0.5 + 0.08 * waves, 0.02, 0.98)


def observe(head, rng, views: int = N_VIEWS, landmarks: str = "68", dtype=np.float32) -> Observed:
    """Random photos, and landmarks a few pixels from the mean head's."""
    size = SIZES.image_size
    photo = smooth_photos(rng, views)
    embedding = head.landmarks68 if landmarks == "68" else head.landmarks_dense
    pose = normalized_to_pose(jnp.zeros(6), head.unit_mm, size)
    points = to_image(project(landmark_positions(embedding, head.mean), pose), size, size)[None, :, :2]
    points = np.asarray(points) + rng.normal(0, 1.5, (views, points.shape[1], 2))
    colour = np.concatenate([photo, np.ones_like(photo[..., :1])], -1)
    arrays = (photo, colour, points, np.ones(points.shape[:2]), np.ones(views))
    return Observed(*(jnp.asarray(x, dtype) for x in arrays))


class TinySubjects:
    """Random photos of random tiny heads with their truth: a Source (facerig_jax.data.subjects)."""

    name = "tiny subjects"

    def __init__(self, length: int = 2**31 - 1):
        self.length = length

    def __len__(self):
        return self.length

    def __call__(self, index: int) -> Subject:
        head, rng, size = tiny_head(), np.random.default_rng(index), SIZES.image_size
        weights = rng.normal(size=(1 + N_VIEWS, 4))
        neutral = np.asarray(head.mean) + np.tensordot(weights[0], np.asarray(head.identity_basis[:4]), 1)
        motion = np.tensordot(weights[1:], np.asarray(head.expression_basis[:4]), 1)
        pose = normalized_to_pose(jnp.asarray(0.1 * rng.normal(size=(N_VIEWS, 6))), head.unit_mm, size)
        posed = to_image(project(jnp.asarray(neutral[None] + motion), pose, jnp.zeros(N_VIEWS)), size, size)
        points = np.asarray(rng.uniform(8, size - 8, (N_VIEWS, N_LANDMARKS, 3)))
        points[:, list(LANDMARKS68)] = landmark_positions(head.landmarks68, posed)
        arrays = {
            "images": smooth_photos(rng, N_VIEWS),
            "landmarks": points,
            "neutral": neutral * head.unit_mm,
            "vertices": (neutral[None] + motion) * head.unit_mm,
            "vertices_img": posed,
            "expression": weights[1:],
        }
        return Subject(**{name: np.asarray(value, np.float32) for name, value in arrays.items()})


def changed(**changes) -> InorigConfig:
    """The tiny settings with changes; those of the networks' sizes by their own names."""
    sizes = {name: value for name, value in changes.items() if hasattr(SIZES, name)}
    rest = {name: value for name, value in changes.items() if name not in sizes}
    return dataclasses.replace(CONFIG, networks=dataclasses.replace(SIZES, **sizes), **rest)


def check_slopes(function, inputs: tuple, rng, step: float = 1e-8, tolerance: float = 1e-5):
    """Reverse-mode gradients against central differences, along a random direction of each input; in float64.

    Args:
      function: inputs -> pytree; a random combination of its values is differentiated.
      inputs: pytrees of float64.
      rng: generator.
      step: of the difference. Networks have kinks: the fewer it crosses, the better.
      tolerance: of the difference, relative to the largest slope among the leaves.
    """
    function = jax.jit(function)  # traced once
    out = jax.eval_shape(function, *inputs)
    mix = jax.tree.map(lambda x: rng.normal(size=x.shape), out)
    run = jax.jit(jax.value_and_grad(lambda inputs: _dot(function(*inputs), mix)))
    _, gradient = run(inputs)
    for number, (x, slope) in enumerate(zip(inputs, gradient, strict=True)):
        direction = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), x)
        ends = [jax.tree.map(lambda a, b, share=share: a + share * b, x, direction) for share in (-step, step)]
        low, high = (run((*inputs[:number], end, *inputs[number + 1 :]))[0] for end in ends)
        scale = max(np.linalg.norm(a) for a in jax.tree.leaves(slope))
        assert np.isfinite(scale), f"input {number}"
        assert scale > 0, f"input {number}"
        numeric, exact = (high - low) / (2 * step), _dot(slope, direction)
        assert abs(numeric - exact) <= tolerance * scale, f"input {number}: {numeric} by differences, {exact} by rule"


def _dot(a, b):
    return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))

"""What the published code computed for known weights and inputs, and the same from our solver, array by array.

A golden file is an .npz of such arrays (docs/method.md, "Golden arrays"); the weights, face model and inputs come
from a recipe (tests/data/recipe/recipe.py). The goldens were made with every vertex taken as visible, so that rule
alone is replaced here; everything else is what `fit_rig` runs. All of it needs float64.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from facerig_jax.head import load_published_form
from facerig_jax.inorig.config import PAPER, EnergyWeights, InorigConfig
from facerig_jax.inorig.energies import Observed
from facerig_jax.inorig.import_published import import_published
from facerig_jax.inorig.params import feature_maps, normalize_images, regress_pose
from facerig_jax.inorig.stages import solve_stages
from facerig_jax.raster.uv import UVTable, uv_table
from facerig_jax.types import HeadModel

TINY = 1e-12
# Feature maps are stored with at most this many rows and columns.
MAP_SIZE = 16
TABLE_SIZES = (32, 64, 128)
TABLE_PARTS = ("vertex", "weight")


def load_recipe(folder: str | Path):
    """The module DIR/recipe.py."""
    spec = importlib.util.spec_from_file_location("recipe", Path(folder) / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stages_behind(names: Iterable[str]) -> int:
    """How many stages must run for the arrays of these names: 0 where networks and UV tables alone will do."""
    found = [re.match(r"level([012])\.|vert_init", name) for name in names]
    return max((int(match[1] or 0) + 1 for match in found if match), default=0)


def compute(params: dict, head: HeadModel, observed: Observed, stages: int = 3) -> dict:
    """Everything a golden may hold, by its name there.

    Args:
      params, head, observed: see `make_problem`.
      stages: how many stages to run.

    Returns:
      name -> array, of a UV table 'uv_table_S' -> UVTable.
    """
    photos = normalize_images(observed.photo)
    run = jax.jit(lambda params: [f(params, photos, PAPER.networks) for f in (feature_maps, regress_pose)])
    maps, pose = run(params)
    named = {"pose_init": pose[None], **maps_by_name(maps)}
    named |= {f"uv_table_{size}": uv_table(jnp.asarray(head.uv), head.faces, size) for size in TABLE_SIZES}
    if not stages:
        return named
    trace = solve(params, head, observed, dataclasses.replace(PAPER, stages=stages))
    return {**named, "vert_init": trace["start"]["projected"][None], **steps_by_name(trace), **stages_by_name(trace)}


@functools.partial(jax.jit, static_argnames="config")
def solve(params: dict, head: HeadModel, observed: Observed, config: InorigConfig = PAPER) -> dict:
    """The trace of the published method that sees every vertex."""
    return solve_stages(params, head, observed, EnergyWeights(), config, see=see_all)[1]


def see_all(vertices_img: jax.Array, faces: jax.Array, size: int) -> jax.Array:
    """The goldens' visibility rule: every vertex of (V, P, 3) is seen."""
    return jnp.ones(vertices_img.shape[:2], bool)


def make_problem(recipe, views: int, seed: int) -> tuple[dict, HeadModel, Observed]:
    """params, head and Observed of the recipe, in float64."""
    shapes = recipe.state_dict_shapes()
    params = import_published({key: recipe.weight(key, shape) for key, shape in shapes}, PAPER)
    model = recipe.face_model()
    head = load_published_form(model, np.float64)
    texture = model["texMU"].reshape(-1, 3).astype(np.float32) / np.float32(255)
    inputs = recipe.inputs(model, views=views, seed=seed)
    photo = inputs["ori_images"][0].transpose(0, 2, 3, 1)
    observed = Observed(
        photo=jnp.asarray(photo),
        colour=jnp.asarray(np.concatenate([photo, np.ones_like(photo[..., :1])], -1)),
        landmarks=jnp.asarray(inputs["kpts"][0]),
        weight=jnp.ones(inputs["kpts"].shape[1:3]),
        view_mask=jnp.ones(views),
    )
    return params, head.replace(albedo_mean=texture.astype(np.float64)), observed


def maps_by_name(maps: dict) -> dict:
    """'rgb_net.0' and so on, thinned as the goldens are, channels first."""
    names = {"rgb": "rgb_net", "albedo": "albedo_net", "energy_fpn": "fpn", "rig_fpn": "basis_fpn"}
    named = {}
    for ours, group in maps.items():
        first = 2 if ours in ("energy_fpn", "rig_fpn") else 0
        for number, x in enumerate(group, start=first):
            stride = max(1, x.shape[1] // MAP_SIZE)
            named[f"{names.get(ours, ours)}.{number}"] = x[:, ::stride, ::stride].transpose(0, 3, 1, 2)
    return named


def steps_by_name(trace: dict) -> dict:
    """'level0.iter0.E_feat' and so on."""
    steps, ends = trace["steps"], trace["stages"]["projected"]
    lights = jnp.concatenate([trace["start"]["light"][None], trace["stages"]["light"]])
    named = {}
    for level, number in np.ndindex(steps["total"].shape):
        at = jax.tree.map(lambda x, level=level, number=number: x[level, number], steps)
        last = number == steps["total"].shape[1] - 1
        values = {
            "E_total": at["total"],
            "E_feat": at["feature"],
            "E_land": at["landmark"],
            "E_photo": at["photometric"],
            "res_feat": at["residual"]["feature"][None],
            "res_land": at["residual"]["landmark"][None],
            "res_photo": at["residual"]["photometric"][None],
            "raw_step": at["exponent"][None, :4],
            "vert": (ends[level] if last else steps["projected"][level, number + 1])[None],
            "sh": lights[level + last].reshape(1, -1, 27),
            **unknowns_by_name(at["x"], ""),
            **unknowns_by_name(at["gradient"], "grad_"),
        }
        named |= {f"level{level}.iter{number}.{name}": value for name, value in values.items()}
    return named


def unknowns_by_name(x, prefix: str) -> dict:
    """Code, pose and expression under the published names."""
    codes = {"sp": x.code.identity, "mp": x.code.expression, "ap": x.code.albedo}
    values = {name: value[None, :, None] for name, value in codes.items()}
    values |= {"pose": x.pose[None], "ep": x.expression[None, ..., None]}
    return {prefix + name: value for name, value in values.items()}


def stages_by_name(trace: dict) -> dict:
    """What only the last step of a level has."""
    ends, last = trace["stages"], trace["steps"]["total"].shape[1] - 1
    named = {}
    for level in range(len(ends["light"])):
        at = jax.tree.map(lambda x, level=level: x[level], ends)
        albedo = at["albedo"] if level == 2 else at["albedo"][:1]  # one for all views before the last level
        values = {
            "vert_obj": at["vertices"][None],
            "sp_vert": at["neutral"][None, None],
            "colors": at["rendered"][None].transpose(0, 1, 3, 2),
            "colors_gt": at["observed"][None].transpose(0, 1, 3, 2),
            "albedo": albedo.transpose(0, 2, 1),
        }
        named |= {f"level{level}.iter{last}.{name}": value for name, value in values.items()}
    return named


def compare(golden: Mapping[str, np.ndarray], ours: Mapping, uv: np.ndarray) -> dict[str, float]:
    """The error of every array of `golden`; infinite where we have none, its shape differs, or it is not finite."""
    errors = {}
    for name, wanted in golden.items():
        table, _, part = name.rpartition("_")
        if name.startswith("uv_table_") and part in TABLE_PARTS:
            errors[table] = table_error(golden, ours.get(table), table, uv)
        else:
            errors[name] = relative_error(ours.get(name), wanted)
    return errors


def relative_error(a, b: np.ndarray) -> float:
    """Largest |a - b| over max|b|, absolute where that is below TINY; infinite where they cannot be compared."""
    if a is None or np.shape(a) != b.shape or not b.size:
        return np.inf
    scale = np.max(np.abs(b))
    error = float(np.max(np.abs(np.asarray(a) - b)) / (scale if scale >= TINY else 1.0))
    return error if np.isfinite(error) else np.inf


def table_error(golden: Mapping, ours: UVTable | None, name: str, uv: np.ndarray) -> float:
    """A UV table's error: different coverage is infinite, else the distance of the interpolated uv.

    A golden without the weights is compared by its triangles alone, one without the vertices by its coverage.
    """
    vertices, weights = (golden.get(f"{name}_{part}") for part in TABLE_PARTS)
    if ours is None or any(x is not None and x.shape != ours.vertices.shape for x in (vertices, weights)):
        return np.inf
    covered = np.asarray(ours.covered)
    if weights is not None and not np.array_equal(np.any(weights != 0, -1), covered):
        return np.inf
    if vertices is None:
        return 0.0
    here = np.einsum("ijk,ijkc->ijc", np.asarray(ours.weights), uv[np.asarray(ours.vertices)])
    if weights is None:
        weights = weights_inside(here, uv[vertices]) * covered[..., None]
    return relative_error(here, np.einsum("ijk,ijkc->ijc", weights, uv[vertices]))


def weights_inside(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Barycentric weights (..., 3) of points (..., 2) in triangles (..., 3, 2), moved into the triangle."""
    matrix = np.concatenate([corners.swapaxes(-1, -2), np.ones_like(corners[..., None, :, 0])], -2)
    right = np.concatenate([points, np.ones_like(points[..., :1])], -1)
    weights = np.maximum(np.linalg.solve(matrix, right[..., None])[..., 0], 0)
    return weights / weights.sum(-1, keepdims=True)

"""Is the learned solver what the published code computes? Every array of a golden file, compared in float64.

    python -m experiments.parity --recipe=tests/data/recipe --golden=tests/data/golden_v2.npz --views=2 --seed=3

The weights, face model and inputs come from DIR/recipe.py, the `paper` preset runs on them, and each array's largest
relative error is printed: |a - b| / max|b|, or |a - b| where max|b| < 1e-12. The goldens were made with every vertex
taken as visible, so that rule alone is replaced here; everything else is what `fit_rig` runs.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import cli
from facerig_jax.config import PAPER, EnergyWeights
from facerig_jax.energies.table import Observed
from facerig_jax.geometry.uv_tables import uv_table
from facerig_jax.head import load_published_form
from facerig_jax.networks.model import feature_maps, normalize_images, regress_pose
from facerig_jax.networks.published import import_published
from facerig_jax.solve.learned import solve_learned

TINY = 1e-12
# Feature maps are stored with at most this many rows and columns.
MAP_SIZE = 16

_RECIPE = flags.DEFINE_string("recipe", None, "Folder of recipe.py and state_dict.txt.")
_GOLDEN = flags.DEFINE_string("golden", None, "The .npz to compare with; any subset of the arrays.")
_VIEWS = flags.DEFINE_integer("views", 2, "Views of the golden's inputs.")
_SEED = flags.DEFINE_integer("seed", 3, "Seed of the golden's inputs.")
_TOLERANCE = flags.DEFINE_float("tolerance", 1e-4, "Largest relative error that passes.")


def main() -> None:
    """Computes, compares, prints; raises where the worst error is over the tolerance."""
    for flag in (_RECIPE, _GOLDEN):
        if not flag.value or not Path(flag.value).exists():
            raise cli.UserError(f"--{flag.name}: {flag.value!r} does not exist.")
    with np.load(_GOLDEN.value, allow_pickle=False) as file:
        golden = {key: file[key] for key in file.files}
    recipe = load_recipe(_RECIPE.value)
    with jax.enable_x64(True):
        errors = compare(golden, compute(recipe, _VIEWS.value, _SEED.value), recipe.face_model()["uv"])
    for name, error in errors.items():
        print(f"{error:9.2e}  {name}")
    name = max(errors, key=lambda name: errors[name])
    print(f"parity: worst {errors[name]:.2e} at {name}")
    if not errors[name] <= _TOLERANCE.value:
        raise cli.UserError(f"{errors[name]:.2e} at {name} is over --tolerance={_TOLERANCE.value:g}.")


def load_recipe(folder: str | Path):
    """The module DIR/recipe.py."""
    spec = importlib.util.spec_from_file_location("recipe", Path(folder) / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compute(recipe, views: int, seed: int) -> dict:
    """Everything a golden may hold, by its name there; float64 must be enabled."""
    params, head, observed = make_problem(recipe, views, seed)
    photos = normalize_images(observed.photo)
    run = jax.jit(lambda params: [f(params, photos, PAPER.networks) for f in (feature_maps, regress_pose)])
    maps, pose = run(params)
    solve = jax.jit(lambda *inputs: solve_learned(*inputs, EnergyWeights(), PAPER, see=see_all)[1])
    trace = solve(params, head, observed)
    return {
        "pose_init": pose[None],
        "vert_init": trace["start"]["projected"][None],
        **maps_by_name(maps),
        **{f"uv_table_{size}": uv_table(jnp.asarray(head.uv), head.faces, size) for size in (32, 64, 128)},
        **steps_by_name(trace),
        **stages_by_name(trace),
    }


def see_all(vertices_img: jax.Array, faces: jax.Array, size: int) -> jax.Array:
    """The goldens' visibility rule: every vertex of (V, P, 3) is seen."""
    return jnp.ones(vertices_img.shape[:2], bool)


def make_problem(recipe, views: int, seed: int):
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
        albedo = at["albedo"] if level == len(ends["light"]) - 1 else at["albedo"][:1]
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
        if name.startswith("uv_table_"):
            table, _, _ = name.rpartition("_")
            errors[table] = table_error(golden, ours.get(table), table, uv)
        else:
            errors[name] = relative_error(ours.get(name), wanted)
    return errors


def relative_error(a, b: np.ndarray) -> float:
    """Largest |a - b| over max|b|, absolute where that is below TINY; infinite where they cannot be compared."""
    if a is None or np.shape(a) != b.shape:
        return np.inf
    scale = np.max(np.abs(b))
    error = float(np.max(np.abs(np.asarray(a) - b)) / (scale if scale >= TINY else 1.0))
    return error if np.isfinite(error) else np.inf


def table_error(golden: Mapping, ours, name: str, uv: np.ndarray) -> float:
    """A UV table's error: different coverage is infinite, else the distance of the interpolated uv."""
    keys = [f"{name}_vertex", f"{name}_weight"]
    if ours is None or any(key not in golden for key in keys):
        return np.inf
    vertices, weights = (golden[key] for key in keys)
    if vertices.shape != ours.vertices.shape or not np.array_equal(np.any(weights != 0, -1), ours.covered):
        return np.inf
    there = np.einsum("ijk,ijkc->ijc", weights, uv[vertices])
    here = np.einsum("ijk,ijkc->ijc", np.asarray(ours.weights), uv[np.asarray(ours.vertices)])
    return relative_error(here, there)


if __name__ == "__main__":
    sys.exit(cli.run(main))

"""The learned solver computes what the published code computed: networks, UV tables, every step (golden_v2.npz)."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.dome import DATA, face_model, recipe

from experiments.goldens import compare, compute, make_problem, relative_error, solve, stages_behind
from facerig_jax.inorig.config import PAPER

ROOT = Path(__file__).parents[1]
GOLDEN = DATA / "golden_v2.npz"
FIRST_STEP, ALL_STEPS = 1e-6, 1e-4
UV = face_model()["uv"]


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def problem():
    with jax.enable_x64(True):
        return make_problem(recipe, views=2, seed=3)


@pytest.fixture(scope="module")
def first_stage(problem):
    """All that the first of the three stages computes, and what comes before it."""
    with jax.enable_x64(True):
        return compute(*problem, stages=1)


def before_level(golden: dict, level: int) -> dict:
    """The arrays that need no stage from `level` on."""
    return {name: x for name, x in golden.items() if stages_behind([name]) <= level}


@pytest.mark.thorough
def test_networks_tables_and_the_first_stage_equal_the_published_code(golden, first_stage):
    errors = compare(before_level(golden, 1), first_stage, UV)
    assert {"pose_init", "vert_init", "rgb_net.0", "albedo_fpn.2", "uv_table_128", "level0.iter2.albedo"} <= set(errors)
    assert {name: error for name, error in errors.items() if not error < ALL_STEPS} == {}


@pytest.mark.thorough
def test_the_first_step_is_exact(golden, first_stage):
    names = [name for name in golden if stages_behind([name]) == 0 or name.startswith(("vert_init", "level0.iter0."))]
    errors = compare({name: golden[name] for name in names}, first_stage, UV)
    wanted = {f"level0.iter0.{name}" for name in ("raw_step", "E_feat", "E_land", "E_photo", "E_total")}
    wanted |= {f"level0.iter0.grad_{name}" for name in ("sp", "pose", "ep", "mp", "ap")}
    assert wanted <= set(errors)
    assert {name: error for name, error in errors.items() if not error < FIRST_STEP} == {}


@pytest.mark.slow
def test_all_nine_steps_equal_the_published_code(golden, problem):
    errors = compare(golden, compute(*problem), UV)
    assert {name.split(".iter")[0] for name in errors} >= {"level0", "level1", "level2"}
    assert {name: error for name, error in errors.items() if not error < ALL_STEPS} == {}


@pytest.mark.slow
@pytest.mark.parametrize(("views", "seed"), [(1, 3), (3, 11)])
def test_other_views_and_seeds_run_and_are_finite(views, seed):
    ours = compute(*make_problem(recipe, views, seed))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(ours))
    assert ours["pose_init"].shape == (1, views, 6)
    assert ours["level2.iter2.vert"].shape == (1, views, 1089, 3)
    assert (ours["level2.iter2.E_feat"] == 0) == (views == 1)


def test_shapes_follow_the_number_of_views(problem, golden):
    views = 3
    params, head, observed = problem
    observed = jax.tree.map(lambda x: jax.ShapeDtypeStruct((views, *x.shape[1:]), x.dtype), observed)
    trace = jax.eval_shape(lambda *inputs: solve(*inputs, PAPER), params, head, observed)
    assert trace["steps"]["x"].pose.shape == (3, 3, views, 6)
    assert trace["steps"]["residual"]["feature"].shape == (3, 3, views, golden["level0.iter0.res_feat"].shape[2])
    assert trace["stages"]["projected"].shape == (3, views, 1089, 3)


def test_relative_error_is_absolute_near_zero_and_infinite_where_nothing_compares():
    b = np.array([1.0, -4.0])
    assert relative_error(np.array([1.0, -3.0]), b) == 0.25
    assert relative_error(np.array([3e-13, 0.0]), np.zeros(2)) == 3e-13
    for a in (None, np.ones(3), np.ones((1, 2)), np.array([np.nan, -4.0]), np.array([np.inf, -4.0])):
        assert relative_error(a, b) == np.inf
    assert relative_error(b, np.array([np.nan, -4.0])) == np.inf


@pytest.mark.thorough
def test_a_missing_array_and_a_wrong_shape_fail_and_a_subset_does_not(golden, first_stage):
    part = {name: golden[name] for name in ("pose_init", "level0.iter1.sp")}
    assert list(compare(part, first_stage, UV)) == list(part)
    missing = {**part, "level0.iter7.sp": golden["level0.iter1.sp"], "uv_table_32_colour": np.zeros(3)}
    errors = compare(missing, first_stage, UV)
    assert [name for name in errors if errors[name] == np.inf] == ["level0.iter7.sp", "uv_table_32_colour"]
    assert compare({"pose_init": golden["pose_init"][0]}, first_stage, UV) == {"pose_init": np.inf}


@pytest.mark.thorough
def test_a_uv_table_is_compared_by_coverage_and_place(golden, first_stage):
    vertices, weights = golden["uv_table_32_vertex"], golden["uv_table_32_weight"]

    def error(**changes):
        return compare({f"uv_table_32_{part}": x for part, x in changes.items()}, first_stage, UV)["uv_table_32"]

    inside = np.argwhere(weights.any(-1))[0]
    turned = error(vertex=np.roll(vertices, 1, -1), weight=np.roll(weights, 1, -1))
    assert turned < 1e-12, "the same place, whatever the order of the corners"
    uncovered = weights.copy()
    uncovered[tuple(inside)] = 0
    assert error(vertex=vertices, weight=uncovered) == np.inf
    assert error(weight=uncovered) == np.inf
    assert error(weight=weights) == 0
    assert error(vertex=vertices) < 1e-12
    assert error(vertex=np.zeros_like(vertices) + np.array([0, 1, 33])) > 0.1, "another triangle"
    assert error(vertex=vertices[1:], weight=weights[1:]) == np.inf


def test_stages_run_as_far_as_the_golden_needs(golden):
    assert stages_behind(golden) == 3
    assert stages_behind(["pose_init", "fpn.2", "uv_table_32_vertex"]) == 0
    assert stages_behind(["vert_init"]) == 1
    assert stages_behind(["level1.iter0.sp", "level0.iter2.sp", "levels"]) == 2


def run_command(golden_path=GOLDEN, **flags):
    flags = {"recipe": DATA / "recipe", "golden": golden_path} | flags
    command = [sys.executable, "-m", "experiments.parity", *(f"--{name}={value}" for name, value in flags.items())]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.slow
def test_the_command_ends_with_the_worst_array_and_its_verdict(golden, tmp_path):
    good = {name: golden[name] for name in ("pose_init", "rgb_net.0", "fpn.4", "uv_table_32_weight")}
    np.savez(tmp_path / "good.npz", **good)
    done = run_command(tmp_path / "good.npz", views=2, seed=3)
    *errors, last = done.stdout.strip().splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[1] for line in errors] == ["pose_init", "rgb_net.0", "fpn.4", "uv_table_32"]
    worst, name = last.removeprefix("parity: worst ").split(" at ")
    assert float(worst) == max(float(line.split()[0]) for line in errors)
    assert name in good


def test_the_command_fails_where_an_array_is_wrong_or_not_a_number(golden, tmp_path):
    np.savez(tmp_path / "bad.npz", pose_init=golden["pose_init"] * np.nan, **{"fpn.4": golden["fpn.4"]})
    done = run_command(tmp_path / "bad.npz")
    assert done.returncode == 1
    assert done.stdout.strip().splitlines()[-1] == "parity: worst inf at pose_init"
    assert "--tolerance" in done.stderr


@pytest.mark.parametrize(("flag", "wanted"), [("golden", "an .npz file"), ("recipe", "recipe.py")])
def test_the_command_refuses_what_does_not_exist(flag, wanted, tmp_path):
    done = run_command(**{flag: tmp_path / "nowhere"})
    assert done.returncode == 1
    assert wanted in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1

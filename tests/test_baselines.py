"""The table of all methods: statistics, groups, resuming, baselines, and a whole run on a tiny head."""

import csv
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.subjects import CONFIG as CLASSICAL
from helpers.tiny import TinySubjects, changed, tiny_head, tiny_params

from experiments.evaluation import methods, report, runs, tuned
from experiments.evaluation.adam import AdamNumbers
from experiments.evaluation.estimate import Estimate
from experiments.evaluation.methods import KINDS, Method
from experiments.evaluation.results import (
    Results,
    column,
    comparisons,
    open_results,
    read_csv,
    summary,
    write_csv,
    write_settings,
)
from experiments.evaluation.statistics import (
    bootstrap_interval,
    breakdown,
    groupings,
    paired_difference,
    summarise,
    worst_group,
)
from experiments.evaluation.study import Plan, Sample, first_views, photos_of, run_study
from facerig_jax.data.subjects import Traits
from facerig_jax.detect.landmarks import landmarks68_from_dense
from facerig_jax.head.model import landmark_positions
from facerig_jax.inorig.config import EnergyWeights
from facerig_jax.weights import init_params

SOLVER = changed(pose_blocks=())  # first poses from the landmarks
SMALL = dataclasses.replace(CLASSICAL, landmarks="68", max_points=100)

# Statistics


def test_bootstrap_interval_of_a_normal_sample_is_the_textbook_one():
    values = np.random.default_rng(0).normal(2.0, 0.5, 400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(400)
    np.testing.assert_allclose([low, high], [values.mean() - half, values.mean() + half], atol=0.1 * half)


def test_bootstrap_interval_covers_the_mean_about_19_times_in_20():
    rng = np.random.default_rng(1)
    intervals = [bootstrap_interval(rng.exponential(1.0, 60), n_draws=300, seed=k) for k in range(200)]
    covered = np.mean([low <= 1 <= high for low, high in intervals])
    assert 0.89 <= covered <= 0.98


def test_a_paired_difference_sees_what_two_intervals_hide():
    """Subjects differ by far more than methods do."""
    rng = np.random.default_rng(2)
    hard = rng.uniform(1, 5, 40)
    a, b = hard + 0.1 + rng.normal(0, 0.02, 40), hard
    mean, low, high = paired_difference(a, b)
    np.testing.assert_allclose(mean, 0.1, atol=0.01)
    assert 0.08 < low < high < 0.12
    assert bootstrap_interval(a)[0] < bootstrap_interval(b)[1]


def test_summary_of_nothing_and_of_gaps():
    assert summarise([np.nan])["n"] == 0
    assert summarise([1.0, np.nan, 3.0])["mean"] == 2
    assert summarise([4.0]) == {"n": 1, "mean": 4, "median": 4, "std": 0, "low": 4, "high": 4}


# Groups


def test_breakdown_names_the_worst_group_of_made_up_data():
    rng = np.random.default_rng(3)
    count = 90
    traits = {
        "melanin": rng.uniform(size=count),
        "sex": rng.integers(0, 2, count),
        "age": rng.uniform(18, 80, count),
        "yaw": rng.uniform(0, 40, count),
    }
    values = 1 + 0.05 * rng.normal(size=count) + 0.5 * (traits["melanin"] > np.quantile(traits["melanin"], 2 / 3))
    values = values + 0.3 * (traits["age"] < 30)
    groups = groupings(traits)
    assert set(groups) == {"skin tone", "sex", "age", "yaw"}
    rows = breakdown(values, groups)
    worst = worst_group(rows)
    assert (worst["factor"], worst["group"]) == ("skin tone", "darkest third")
    assert worst["n"] == 30
    assert [row["group"] for row in rows[:3]] == ["lightest third", "middle third", "darkest third"]
    assert sum(row["n"] for row in rows if row["factor"] == "age") == count
    second = max((row for row in rows if row["factor"] == "age"), key=lambda row: row["mean"])
    assert second["group"] == "under 30 years"


def test_a_group_of_two_is_never_the_worst_and_unknown_traits_are_left_out():
    age = np.array([20, 20, 40, 40, 40, 60, 60, 60])
    groups = groupings({"age": age, "melanin": np.full(8, np.nan), "sex": np.zeros(0)})
    assert set(groups) == {"age"}
    worst = worst_group(breakdown(np.array([9, 9, 1, 1, 1, 2, 2, 2.0]), groups))
    assert worst["group"] == "50 years and over"


@pytest.mark.parametrize(
    ("yaw", "name"),
    [(-50, "45 degrees and over"), (44, "30 to 45 degrees"), (15, "15 to 30 degrees"), (-3, "under 15 degrees")],
)
def test_yaw_bands_do_not_care_for_the_side(yaw, name):
    assert groupings({"yaw": [yaw]})["yaw"] == [name]


# Files


def test_rows_survive_the_file(tmp_path):
    rows = [
        {"subject": "001", "method": "a, b", "views": 4, "vertex": 1.5, "nme": float("nan")},
        {"subject": "2", "now": 3.0},
    ]
    write_csv(tmp_path / "results.csv", rows)
    back = read_csv(tmp_path / "results.csv")
    assert back == [{"subject": "001", "method": "a, b", "views": 4, "vertex": 1.5}, {"subject": "2", "now": 3}]
    assert np.isnan(column(back, "nme")).all()


def test_a_folder_of_other_settings_is_refused(tmp_path):
    results, settings = open_results(tmp_path, {"views": 4, "steps": None})
    assert results.rows == []
    write_settings(tmp_path, settings | {"steps": 60})
    assert open_results(tmp_path, {"views": 4, "steps": None})[1] == {"views": 4, "steps": 60}
    with pytest.raises(ValueError, match="views: 4 there, 8 here"):
        open_results(tmp_path, {"views": 8, "steps": None})
    write_settings(tmp_path, {"views": 4, "weights": {"first": "1a"}})
    assert open_results(tmp_path, {"views": 4, "weights": {"second": "2b"}})[1]["weights"] == {
        "first": "1a",
        "second": "2b",
    }
    with pytest.raises(ValueError, match="other weights called first"):
        open_results(tmp_path, {"views": 4, "weights": {"first": "3c"}})
    write_csv(tmp_path / "other" / "results.csv", [])
    with pytest.raises(ValueError, match=r"without settings\.json"):
        open_results(tmp_path / "other", {"views": 4})


def test_pooled_figures_count_points_and_comparisons_pair_subjects(tmp_path):
    results = Results(tmp_path)
    for number, (a, b) in enumerate([(1.0, 1.2), (3.0, 3.2), (2.0, 2.2)]):
        for method, value in (("first", a), ("second", b)):
            results.rows.append({"subject": str(number), "method": method, "views": 4, "vertex": value})
        results.distances[str(number)] = {"first.vertex": np.full(number + 1, a)}
    row = next(r for r in summary(results, 4) if (r["method"], r["measure"]) == ("first", "vertex"))
    assert row["mean"] == 2
    np.testing.assert_allclose([row["pooled_mean"], row["pooled_median"]], [(1 + 6 + 6) / 6, 2])
    (pair,) = comparisons(results, 4)
    np.testing.assert_allclose([pair["a_minus_b"], pair["low"], pair["high"]], -0.2, atol=1e-9)
    assert pair["better"] == "first"
    best, other = report.verdict(results, 4)
    assert best.startswith("Best neutral mm: first, 2.000")
    assert other.split() == ["second:", "+0.200", "[0.200,", "0.200]"]


# Tuning


def test_the_search_finds_a_minimum_and_never_takes_what_is_not_finite():
    def objective(numbers):
        if numbers["a"] > 3:
            return float("nan")
        return np.log(numbers["a"] / 2.5) ** 2 + np.log(numbers["last"] / 0.5) ** 2

    lines = []
    best, error = tuned.search(objective, {"a": 1.0, "last": 0.9}, 60, say=lines.append)
    assert error < 0.1 < objective({"a": 1.0, "last": 0.9})
    assert best["a"] <= 3
    assert best["last"] <= 1
    assert len(lines) == 60


def test_every_baseline_has_numbers_of_the_right_names():
    assert set(tuned.TUNED["adam"]) <= {field.name for field in dataclasses.fields(AdamNumbers)}
    assert list(tuned.TUNED) == ["linear", "classical", "fixed", "adam", "adam_time"]  # the table's, from its third row
    assert all(value > 0 for numbers in tuned.TUNED.values() for value in numbers.values())


# Methods


@pytest.fixture(scope="module")
def samples():
    """Two tiny subjects with traits and true poses."""
    made = []
    for number in range(2):
        subject = TinySubjects()(number)
        subject = subject.replace(
            traits=Traits(melanin=np.float32(number), sex=np.float32(number), age=np.float32(20 + 20 * number)),
            pose=np.zeros((2, 6), np.float32),
        )
        made.append(Sample(f"tiny_{number}", photos_of(subject, None), subject))
    return made


@pytest.fixture(scope="module")
def settings():
    return methods.Settings(SOLVER, classical=SMALL, time_steps=18)


def gentle():
    """Numbers for the dome, whose unit is micrometres and whose modes are long."""
    return tuned.TUNED | {"fixed": {"identity": 1e-3, "pose": 1e-4, "expression": 1e-4, "albedo": 1e-3}}


@pytest.fixture(scope="module")
def rows(settings):
    table = methods.baselines(tiny_head(), gentle(), settings)
    return {method.name: method for method in table}


@pytest.mark.thorough
def test_adam_takes_any_number_of_steps_in_one_program_and_lowers_its_energy(samples, settings):
    head = tiny_head()
    config, photos = methods.linear(runs.without_training(settings.config)), samples[0].photos

    params = init_params(jax.random.key(0), config)

    def after(steps):
        return runs.run_adam(params, head, AdamNumbers(), steps, config, photos)

    nine = after(9)
    before = runs._adam._cache_size()
    many = after(90)
    assert runs._adam._cache_size() == before
    assert nine.steps.shape == (9, *head.mean.shape)
    np.testing.assert_array_equal(nine.steps[-1], nine.neutral)
    inner = slice(17, 68)  # the contour slides
    points = landmarks68_from_dense(photos.landmarks)[:, inner]

    def landmark_gap(estimate):
        placed = landmark_positions(head.landmarks68, estimate.vertices_img)[:, inner, :2]
        return float(jnp.mean(jnp.linalg.norm(placed - points, axis=-1)))

    still = runs.run_pose(head, config, photos)
    assert landmark_gap(many) < landmark_gap(nine) < landmark_gap(still)


@pytest.mark.thorough
def test_the_neutral_after_the_last_step_is_the_result(rows, samples):
    for name in ("fixed steps", "Adam, 9 steps", "Adam, equal time"):
        estimate = rows[name].run(samples[0].photos)
        assert estimate.steps.shape[0] == 9
        np.testing.assert_allclose(estimate.steps[-1], estimate.neutral, rtol=1e-5, atol=1e-3)


@pytest.mark.slow
def test_fixed_steps_are_those_of_the_learned_solver(samples, settings):
    """Step sizes as traced numbers against the solver's own static ones, through its front door."""
    head, photos, sizes = tiny_head(), samples[0].photos, gentle()["fixed"]
    config = methods.linear(runs.without_training(settings.config))
    params = init_params(jax.random.key(0), config)
    bias = tuple(
        float(np.log10(x)) for x in (sizes["identity"], sizes["pose"], sizes["expression"], 1, sizes["albedo"])
    )
    static = dataclasses.replace(config, step_bias=(bias,) * 3)
    ours = runs.run_fixed(params, head, sizes, EnergyWeights(), config, photos)
    theirs = runs.run_learned(params, head, static, photos)
    assert float(jnp.abs(ours.neutral - head.unit_mm * head.mean).max()) > 1e-6 * float(jnp.ptp(ours.neutral))
    for name in ("neutral", "vertices", "vertices_img", "albedo"):
        a, b = getattr(ours, name), getattr(theirs, name)
        np.testing.assert_allclose(a, b, atol=1e-4 * float(jnp.ptp(b)), err_msg=name)


@pytest.mark.slow
def test_steps_of_the_learned_solver_end_at_its_rig(samples):
    head = tiny_head()
    method = methods.trained(head, "", tiny_params(SOLVER), SOLVER)
    assert method.name == KINDS["learned"]
    path, estimate = method.steps(samples[0].photos), method.run(samples[0].photos)
    assert path.shape == (9, *head.mean.shape)
    scale = float(jnp.ptp(estimate.neutral))
    np.testing.assert_allclose(path[-1], estimate.neutral, atol=1e-3 * scale)
    assert float(jnp.abs(path[0] - path[-1]).max()) > 1e-3 * scale


def test_the_first_views_are_those_of_photos_and_truth(samples):
    part = first_views(samples[0], 1)
    assert part.photos.landmarks.shape[0] == part.truth.vertices.shape[0] == part.truth.pose.shape[0] == 1
    np.testing.assert_array_equal(part.truth.vertices[0], samples[0].truth.vertices[0])
    assert part.truth.neutral.shape == samples[0].truth.neutral.shape


def test_a_prediction_that_is_not_finite_counts_as_the_mean_face(tmp_path, samples, rows):
    head = tiny_head()
    broken = Method(
        "broken", lambda photos: Estimate(*(jnp.full(s, jnp.nan) for s in (head.mean.shape, (2, *head.mean.shape))))
    )
    results = Results(tmp_path)
    run_study(head, [rows["mean face"], broken], samples[:1], results, Plan(2, scan_protocols=False), 1)
    mean, failed = results.rows
    assert (mean["failed"], failed["failed"]) == (0, 1)
    assert failed["vertex"] == mean["vertex"]


@pytest.mark.thorough
def test_a_whole_run_writes_table_files_and_plots_and_goes_on_where_it_stopped(tmp_path, samples, rows, settings):
    head, calls = tiny_head(), []

    def counted(method):
        def run(photos):
            calls.append(method.name)
            return method.run(photos)

        return dataclasses.replace(method, run=run)

    rows = {name: rows[name] for name in ("mean face", "pose only", "classical", "Adam, 9 steps")}
    table = [counted(method) for method in rows.values()]
    plan = Plan(views=2, curve=(1, 2), curve_count=1, scan_protocols=False)
    results, _ = open_results(tmp_path, {"views": 2})
    write_settings(tmp_path, {"views": 2})
    run_study(head, table, samples[:1], results, plan, 1)
    done = len(calls)
    results, _ = open_results(tmp_path, {"views": 2})
    run_study(head, table, samples, results, plan, 2)
    assert len(calls) - done <= 2 * len(table)  # the second subject alone; warm-up calls included
    results, _ = open_results(tmp_path, {"views": 2})
    assert len(results.rows) == 3 * len(table)  # two subjects at V = 2, one at V = 1
    assert {name: len(results.chosen(name, 2)) for name in rows} == dict.fromkeys(rows, 2)

    text = "\n".join(report.table(results, 2))
    assert all(name in text for name in rows)
    write_csv(tmp_path / "summary.csv", summary(results, 2))
    assert any(row["group"] == "under 30 years" for row in report.by_group(results, 2)["classical"])
    assert sum(row["n"] for row in report.by_yaw(results, 2)["classical"]) == 4  # views
    report.draw_plots(results, plan)
    for name in ("methods_vertex", "methods_posed", "views", "steps", "groups/classical"):
        data = (tmp_path / f"{name}.png").read_bytes()
        assert data.startswith(b"\x89PNG"), name
        assert len(data) > 10_000, name
    with open(tmp_path / "results.csv", newline="") as file:
        line = next(row for row in csv.DictReader(file) if row["method"] == "classical" and row["views"] == "2")
    assert all(
        line[key]
        for key in ("vertex", "vertex_no_scale", "posed", "deformation", "nme", "nme_mouth", "psnr", "melanin")
    )
    with open(tmp_path / "summary.csv", newline="") as file:
        pooled = next(r for r in csv.DictReader(file) if (r["method"], r["measure"]) == ("classical", "vertex"))
    np.testing.assert_allclose(float(pooled["pooled_mean"]), float(pooled["mean"]), rtol=2e-2)


def test_methods_see_the_same_whether_their_arguments_are_new_or_old(rows, samples):
    """No second compilation for another subject of the same shapes."""
    for name in ("pose only", "Adam, 9 steps"):
        rows[name].run(samples[0].photos)
    sizes = runs._adam._cache_size(), runs._pose_only._cache_size()
    for name in ("pose only", "Adam, 9 steps"):
        jax.block_until_ready(rows[name].run(samples[1].photos))
    assert (runs._adam._cache_size(), runs._pose_only._cache_size()) == sizes

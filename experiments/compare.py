"""`experiments.evaluate --what=methods`, `ablation` and `tune`: tables of all methods and of the learned one's parts,
and the baselines' numbers."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli
from facerig_jax import load
from facerig_jax.checks import check_choice
from facerig_jax.config import BASE, LearnedConfig
from facerig_jax.data.folders import FileSource, SourceConfig, folder_source, read_scan
from facerig_jax.data.subjects import HELD_OUT_SEED, VALIDATION_SEED
from facerig_jax.detect.landmarks import LANDMARKS68, POINTS7
from facerig_jax.evaluate import methods, report, runs, tuned
from facerig_jax.evaluate.adam import AdamNumbers
from facerig_jax.evaluate.results import comparisons, open_results, summary, write_csv, write_settings
from facerig_jax.evaluate.scans import Scan
from facerig_jax.evaluate.study import Plan, Sample, first_views, photos_of, run_study, say
from facerig_jax.evaluate.vertex import vertex_error
from facerig_jax.networks.model import init_params
from facerig_jax.networks.weights import TRAINED, read_weights
from facerig_jax.synthetic import presets as synthetic_config
from facerig_jax.synthetic.subject import make_subject

PHOTO_SIDE = 1024  # of scanned people's photos, padded: one size, so that nothing is compiled twice
MAX_TIME_STEPS = 1000


def renderers() -> dict[str, synthetic_config.SubjectConfig]:
    """The generator's presets by name, in lower case."""
    presets = vars(synthetic_config).items()
    return {name.lower(): value for name, value in presets if isinstance(value, synthetic_config.SubjectConfig)}


def compare(options) -> None:
    """The table of all methods, or with --what=ablation of the learned solver without its parts.

    Args:
      options: the flags, see experiments.evaluate.
    """
    ablation = options.what == "ablation"
    if not options.out:
        raise cli.UserError(f"--what={'ablation' if ablation else 'methods'} needs --out=DIR for its tables and plots.")
    params, head = load()
    paths = options.weights or ([] if options.allow_untrained else [TRAINED])
    given = [read_method(path) for path in paths]
    if len({name for name, *_ in given}) < len(given):
        raise cli.UserError("--weights: the files need different names, their rows are called after them.")
    if options.subjects:
        people = scanned_people(options.subjects, head, params["detector"], options.views)
        total, draw = len(people), lambda: folder_samples(people)
    else:
        total, draw = options.count, lambda: synthetic_samples(head, params["detector"], options, max_views(options))
    config, weights = learned_solver(given)
    changes = ablation_rows(head, given) if ablation else []
    record = settings_record(options, given)
    results, record = open_results(options.out, record)
    if record["adam_time_steps"] is None and not ablation:
        record["adam_time_steps"] = steps_in_time(head, next(iter(draw())), config, weights, options.views)
    write_settings(options.out, record)
    settings = methods.Settings(config, time_steps=record["adam_time_steps"] or 0)
    baselines = [] if ablation else methods.baselines(head, tuned.TUNED, settings)
    rows = changes or baselines + trained_rows(head, given, options.allow_untrained)
    curve = tuple(int(v) for v in options.curve) if not options.subjects else ()
    plan = Plan(options.views, curve, options.curve_count, options.scan_protocols)
    run_study(head, rows, draw(), results, plan, total)
    finish(results, plan, record["adam_time_steps"])


def ablation_rows(head, given) -> list[methods.Method]:
    """The solver with some weights, and what is left of it without its parts."""
    if len(given) != 1 or not (given[0][2].flow or given[0][2].stages):
        raise cli.UserError("--what=ablation needs one file of --weights, with stages or a flow network.")
    _, params, config, _ = given[0]
    return methods.ablations(head, params, config)


def trained_rows(head, given, allow_untrained: bool) -> list[methods.Method]:
    """A row for each file of weights; says where the learned optimiser is left out."""
    rows = [methods.trained(head, name, params, config) for name, params, config, _ in given]
    if any(config.update == "learned" for _, _, config, _ in given):
        return rows
    if allow_untrained:
        return [*rows, methods.trained(head, ", untrained", init_params(jax.random.key(0), BASE), BASE)]
    print(f"{methods.KINDS['learned']}: left out, no --weights of it given.")
    return rows


def finish(results, plan: Plan, time_steps: int | None) -> None:
    """Summary files, table and plots."""
    write_csv(results.folder / "summary.csv", summary(results, plan.views))
    write_csv(results.folder / "differences.csv", comparisons(results, plan.views))
    for line in report.table(results, plan.views):
        print(line)
    if time_steps:
        print(f"Adam, equal time: {time_steps} steps.")
    for line in (*report.verdict(results, plan.views), *report.worst_groups(results, plan.views)):
        print(line)
    report.draw_plots(results, plan)
    tables = (report.by_group(results, plan.views), report.by_yaw(results, plan.views))
    groups = [{"method": method} | row for table in tables for method, rows in table.items() for row in rows]
    if groups:
        write_csv(results.folder / "groups.csv", groups)
    print(f"Files in {results.folder}: results.csv, views.csv, summary.csv, differences.csv, *.png.")


def settings_record(options, given) -> dict:
    """What the folder's results depend on."""
    return {
        "ablation": options.what == "ablation",
        "renderer": "folder" if options.subjects else options.renderer,
        "subject": None if options.subjects else dataclasses.asdict(renderers()[renderer_name(options)]),
        "subjects": str(Path(options.subjects).resolve()) if options.subjects else "",
        "seed": HELD_OUT_SEED,
        "views": options.views,
        "drawn": max_views(options),
        "landmarks": options.landmarks,
        "weights": {name: digest for name, _, _, digest in given},
        "tuned": tuned.TUNED,
        "adam_time_steps": None,
    }


def renderer_name(options) -> str:
    """The generator's settings asked for; refuses a name that it does not have."""
    return check_choice("--renderer", options.renderer, renderers())


def max_views(options) -> int:
    """Photos drawn per synthetic subject."""
    return max(options.views, *(int(v) for v in options.curve)) if options.curve else options.views


def read_method(path: str) -> tuple[str, dict, LearnedConfig, str]:
    """Weights of the learned solver: what to add to its name, parameters, settings, and the file's checksum."""
    try:
        params, config = read_weights(path)
    except FileNotFoundError as error:
        raise cli.UserError(str(error)) from error
    name = Path(path).stem
    return f" ({name})", params, config, hashlib.sha256(Path(path).read_bytes()).hexdigest()


def learned_solver(given) -> tuple[LearnedConfig, dict | None]:
    """Settings and parameters of the first learned optimiser with stages among some weights; else `BASE` and None."""
    given = ((config, params) for _, params, config, _ in given if config.update == "learned" and config.stages)
    return next(given, (BASE, None))


# Subjects


def synthetic_samples(head, detector, options, views: int, seed: int = HELD_OUT_SEED) -> Iterator[Sample]:
    """Synthetic subjects with so many views, drawn one at a time; held out unless `seed` says otherwise."""
    config = dataclasses.replace(renderers()[renderer_name(options)], n_views=views)
    draw = jax.jit(make_subject, static_argnames="config")
    for index in range(options.count):
        subject = draw(head, seed, index, config)
        photos = photos_of(subject, detector if options.landmarks == "detector" else None)
        missed = int((np.asarray(photos.view_mask) == 0).sum())
        if missed:
            print(f"\nsubject {index}: no face found in {missed} photos, which do not count.", file=sys.stderr)
        yield Sample(f"{seed}_{index:05d}", photos, subject)


def scanned_people(root: str, head, detector, views: int) -> FileSource:
    """The people of a folder, each with a raw scan and its points."""
    source = folder_source(root, head, SourceConfig(n_views=views, size=PHOTO_SIDE), detector=detector)
    missing = [entry.subject for entry in source.entries if entry.scan is None]
    if missing:
        raise cli.UserError(f"--subjects={root}: {missing[0]} has no neutral.ply with points7.txt.")
    return source


def folder_samples(source: FileSource) -> Iterator[Sample]:
    """Scanned people; where photos are missing, views that do not count."""
    for index, entry in enumerate(source.entries):
        person = source(index)
        mesh, points = read_scan(source, index)
        truth = None if person.neutral is None else person
        yield Sample(entry.subject, photos_of(person, None), truth, Scan(mesh.vertices, seven_points(points)))


def seven_points(points: np.ndarray) -> np.ndarray:
    """(7, 3) of (7, 3), (68, 3) or (468, 3) landmarks."""
    order = {7: range(7), 68: POINTS7, 468: [LANDMARKS68[k] for k in POINTS7]}
    return points[list(order[len(points)])]


# Equal time


def steps_in_time(head, sample: Sample, config: LearnedConfig, params: dict | None, views: int) -> int:
    """Adam's steps in the run time of the learned solver, both measured here and now, best of three."""
    photos = first_views(sample, views).photos
    simple = runs.without_training(config)
    empty = init_params(jax.random.key(0), methods.linear(simple))
    full = params if params is not None else init_params(jax.random.key(0), config)
    numbers = AdamNumbers(**tuned.TUNED["adam_time"])

    def adam(steps):
        return best_time(lambda: runs.run_adam(empty, head, numbers, steps, methods.linear(simple), photos))

    say("measuring run times for Adam at equal time")
    learned = best_time(lambda: runs.run_learned(full, head, config, photos))
    few, many = adam(methods.SOLVER_STEPS), adam(10 * methods.SOLVER_STEPS)
    step = max((many - few) / (9 * methods.SOLVER_STEPS), 1e-6)
    steps = int(np.clip(methods.SOLVER_STEPS + (learned - few) / step, methods.SOLVER_STEPS, MAX_TIME_STEPS))
    print(f"\nLearned solver {learned:.2f} s, Adam {few:.2f} s for 9 steps, {1e3 * step:.1f} ms a step more: {steps}.")
    return steps


def best_time(function: Callable, repeats: int = 3) -> float:
    """Seconds of the fastest of some calls, after one that compiles."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return min(times[1:])


# Tuning


def tune(options) -> None:
    """Searches one baseline's numbers on the validation split and prints them as an entry of `tuned.TUNED`."""
    name = check_choice("--method", options.method, tuned.TUNED)
    params, head = load()
    samples = list(synthetic_samples(head, params["detector"], options, options.views, VALIDATION_SEED))
    config, _ = learned_solver([read_method(path) for path in options.weights])
    settings = methods.Settings(config, time_steps=options.time_steps)
    row = 2 + list(tuned.TUNED).index(name)  # after the mean face and pose only

    def objective(numbers):
        method = methods.baselines(head, {**tuned.TUNED, name: numbers}, settings)[row]
        return np.mean([score(head, sample, method) for sample in samples])

    best, error = tuned.search(
        objective, tuned.TUNED[name], options.trials, say=lambda line: print(line, file=sys.stderr)
    )
    print(f'    "{name}": {{' + ", ".join(f'"{key}": {value:.4g}' for key, value in best.items()) + "},")
    print(f"mean of neutral and posed error: {error:.4f} mm")


def score(head, sample: Sample, method: methods.Method) -> float:
    """Mean of the neutral's and the posed meshes' true vertex error, mm."""
    estimate, truth = method.run(sample.photos), sample.truth
    posed = jax.vmap(vertex_error, (0, 0, None))(estimate.vertices, truth.vertices, head.face_mask)
    return 0.5 * float(vertex_error(estimate.neutral, truth.neutral, head.face_mask) + jnp.mean(posed))

"""Tables of all methods, of the learned one's parts and of scanned people, and the baselines' numbers.

`options` are the flags of experiments.evaluate.
"""

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

from experiments.evaluation import methods, report, runs, tuned
from experiments.evaluation.adam import AdamNumbers
from experiments.evaluation.results import comparisons, open_results, summary, write_csv, write_settings
from experiments.evaluation.samples import chosen_renderer, folder_samples, scanned_people, synthetic_samples
from experiments.evaluation.scans import ScanProtocols
from experiments.evaluation.study import Plan, Sample, first_views, run_study, say
from facerig_jax.api import load
from facerig_jax.checks import check_choice
from facerig_jax.config import FitConfig
from facerig_jax.data.subjects import HELD_OUT_SEED, VALIDATION_SEED
from facerig_jax.evaluate.vertex import vertex_error
from facerig_jax.inorig.config import BASE, InorigConfig
from facerig_jax.io.files import InputError
from facerig_jax.weights import TRAINED, init_params, read_weights

MAX_TIME_STEPS = 1000


def compare(options) -> None:
    """The table of all methods, or with --what=ablation of a solver without its parts.

    Args:
      options: the flags, see experiments.evaluate.
    """
    ablation = options.what == "ablation"
    if not options.out:
        raise InputError(f"--what={'ablation' if ablation else 'methods'} needs --out=DIR for its tables and plots.")
    params, head = load()
    given = given_methods(options)
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


def scanned(options) -> Iterator[dict]:
    """NoW's distances (mm) of scanned people: the mean face, the classical solver and the learned one, as they ship.

    Yields:
      per person, and pooled over all their scans' vertices: each method's median and mean.
    """
    if not options.subjects:
        raise InputError("--what=subjects needs --subjects=DIR, a folder with <subject>/view_*.jpg folders in it.")
    params, head = load()
    protocols = ScanProtocols(head)
    pooled: dict[str, list[np.ndarray]] = {}
    rows = methods.as_shipped(head) + trained_rows(head, given_methods(options), options.allow_untrained)
    for sample in folder_samples(scanned_people(options.subjects, head, params["detector"], options.views)):
        found = {row.name: protocols.now(sample.scan, row.run(sample.photos).neutral) for row in rows}
        pooled = {name: [*pooled.get(name, []), distance] for name, distance in found.items()}
        yield {"subject": sample.name} | medians_and_means(found)
    yield {"subject": "pooled"} | medians_and_means({name: np.concatenate(found) for name, found in pooled.items()})


def medians_and_means(found: dict[str, np.ndarray]) -> dict[str, float]:
    """Two numbers of every method's distances."""
    return {
        f"{name} {word}": float(number(distance))
        for name, distance in found.items()
        for word, number in (("median", np.median), ("mean", np.mean))
    }


def given_methods(options) -> list[tuple[str, dict, FitConfig | InorigConfig, str]]:
    """What `read_method` says of every file of --weights; without any, of the weights that ship."""
    paths = options.weights or ([] if options.allow_untrained else [TRAINED])
    given = [read_method(path) for path in paths]
    if len({name for name, *_ in given}) < len(given):
        raise InputError("--weights: the files need different names, their rows are called after them.")
    return given


def ablation_rows(head, given) -> list[methods.Method]:
    """The solver with some weights, and what is left of it without its parts."""
    if len(given) != 1:
        raise InputError("--what=ablation needs one file of --weights.")
    _, params, config, _ = given[0]
    return methods.ablations(head, params, config)


def trained_rows(head, given, allow_untrained: bool) -> list[methods.Method]:
    """A row for each file of weights; says where the learned optimiser is left out."""
    rows = [methods.trained(head, name, params, config) for name, params, config, _ in given]
    if any(is_learned(config) for _, _, config, _ in given):
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
        "subject": None if options.subjects else dataclasses.asdict(chosen_renderer(options)),
        "subjects": str(Path(options.subjects).resolve()) if options.subjects else "",
        "seed": HELD_OUT_SEED,
        "views": options.views,
        "drawn": max_views(options),
        "landmarks": options.landmarks,
        "weights": {name: digest for name, _, _, digest in given},
        "tuned": tuned.TUNED,
        "adam_time_steps": None,
    }


def max_views(options) -> int:
    """Photos drawn per synthetic subject."""
    return max(options.views, *(int(v) for v in options.curve)) if options.curve else options.views


def read_method(path: str) -> tuple[str, dict, FitConfig | InorigConfig, str]:
    """Weights of a solver: what to add to its name, parameters, settings, and the file's checksum."""
    try:
        params, config = read_weights(path)
    except FileNotFoundError as error:
        raise InputError(str(error)) from error
    name = Path(path).stem
    return f" ({name})", params, config, hashlib.sha256(Path(path).read_bytes()).hexdigest()


def learned_solver(given) -> tuple[InorigConfig, dict | None]:
    """Settings and parameters of the first learned optimiser among some weights; else `BASE` and None."""
    return next(((config, params) for _, params, config, _ in given if is_learned(config)), (BASE, None))


def is_learned(config: FitConfig | InorigConfig) -> bool:
    """Whether these are the published method's settings, with learned steps."""
    return isinstance(config, InorigConfig) and config.update == "learned"


# Equal time


def steps_in_time(head, sample: Sample, config: InorigConfig, params: dict | None, views: int) -> int:
    """Adam's steps in the run time of the published method, both measured here and now, best of three."""
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
    assert truth is not None, "samples to tune on are synthetic"
    posed = jax.vmap(vertex_error, (0, 0, None))(estimate.vertices, truth.vertices, head.face_mask)
    return 0.5 * float(vertex_error(estimate.neutral, truth.neutral, head.face_mask) + jnp.mean(posed))

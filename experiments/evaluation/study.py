"""Every method on every subject, into `results`."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.evaluation.estimate import Estimate, errors, photo_errors
from experiments.evaluation.methods import Method
from experiments.evaluation.results import Results
from experiments.evaluation.scans import Scan, ScanProtocols
from facerig_jax.data.subjects import Subject
from facerig_jax.detect import detect
from facerig_jax.types import HeadModel, Photos


@dataclasses.dataclass(frozen=True)
class Sample:
    """One subject.

    name:   for files and tables.
    photos: of V views.
    truth:  Subject in the head's topology, or None.
    scan:   truth of any topology, or None.
    """

    name: str
    photos: Photos
    truth: Subject | None = None
    scan: Scan | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is computed: `views` photos with everything; and for the first `curve_count` subjects the true vertex error
    with each number of photos in `curve`."""

    views: int
    curve: tuple[int, ...] = ()
    curve_count: int = 0
    scan_protocols: bool = True


@jax.jit
def find_faces(detector: dict, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Landmarks (V, 468, 3) px and whether there is a face (V,)."""

    def one(image):
        found = detect(detector, image)
        return found.landmarks, found.found

    return jax.lax.map(one, images)


def photos_of(subject: Subject, detector: dict | None) -> Photos:
    """What the methods see of a subject: with a detector its landmarks, else the subject's own."""
    images = jnp.asarray(subject.images)
    count, height, width = images.shape[:3]
    size = jnp.full((count, 2), jnp.array([height, width])) if subject.image_size is None else subject.image_size
    mask = jnp.ones(count) if subject.view_mask is None else jnp.asarray(subject.view_mask, jnp.float32)
    if detector is None:
        return Photos(images, jnp.asarray(size), mask, jnp.asarray(subject.landmarks))
    landmarks, found = find_faces(detector, images)
    return Photos(images, jnp.asarray(size), mask * found, landmarks)


def first_views(sample: Sample, count: int) -> Sample:
    """The same subject with its first views only."""
    photos = jax.tree.map(lambda x: x[:count], sample.photos)
    if sample.truth is None:
        return dataclasses.replace(sample, photos=photos)
    per_view = ("images", "image_size", "view_mask", "landmarks", "vertices", "vertices_img", "light")
    per_view += ("expression", "pose", "inverse_distance")
    truth = sample.truth.replace(
        **{name: x[:count] for name in per_view if (x := getattr(sample.truth, name)) is not None}
    )
    return dataclasses.replace(sample, photos=photos, truth=truth)


def run_study(
    head: HeadModel, methods: list[Method], samples: Iterable[Sample], results: Results, plan: Plan, total: int
) -> None:
    """Computes the rows that are missing and saves after every subject; says on stderr where it is."""
    protocols = ScanProtocols(head)
    warm: set = set()
    for number, sample in enumerate(samples):
        counts = [plan.views, *(v for v in plan.curve if v != plan.views and number < plan.curve_count)]
        wanted = [(v, m) for v in counts for m in methods if not results.has(sample.name, m.name, v)]
        for views, method in wanted:
            say(f"subject {number + 1} of {total}: {method.name}, V = {views}")
            part = first_views(sample, views)
            estimate, seconds = timed(method, part.photos, (method.name, views) not in warm)
            warm.add((method.name, views))
            record(head, protocols, method, part, estimate, seconds, results, plan)
        if wanted:
            results.save(sample.name)
    print(file=sys.stderr)


def say(line: str) -> None:
    """One line on stderr that the next one replaces."""
    print(f"\r{line:<72}", end="", file=sys.stderr, flush=True)


def timed(method: Method, photos: Photos, cold: bool) -> tuple[Estimate, float]:
    """What a method says and its seconds without compilation, NaN where they say nothing."""
    if cold and method.timed:
        jax.block_until_ready(method.run(photos))
    start = time.perf_counter()
    estimate = jax.block_until_ready(method.run(photos))
    return estimate, time.perf_counter() - start if method.timed else float("nan")


def record(head, protocols, method: Method, sample: Sample, estimate: Estimate, seconds, results: Results, plan: Plan):
    """Adds a method's rows for one subject. A prediction that is not finite counts as the mean face."""
    full = sample.photos.images.shape[0] == plan.views
    failed = not bool(jnp.all(jnp.isfinite(estimate.neutral)))
    if failed:
        mean = head.unit_mm * jnp.asarray(head.mean)
        estimate = Estimate(mean, jnp.broadcast_to(mean, estimate.vertices.shape))
    elif full and method.steps is not None:
        estimate = estimate.replace(steps=method.steps(sample.photos))
    views = sample.photos.images.shape[0]
    row = {"subject": sample.name, "method": method.name, "views": views, "failed": int(failed), "seconds": seconds}
    row |= traits_of(sample)
    kept: dict[str, np.ndarray] = {}
    if sample.truth is not None and sample.truth.neutral is not None:
        found = jax.device_get(errors(head, sample.truth, sample.photos, estimate, detail=full))
        kept |= keep_distances(found, method)
        row |= flatten(found, sample, method, results)
    elif full and estimate.vertices_img is not None:
        row |= flatten(jax.device_get(photo_errors(head, sample.photos, estimate)), sample, method, results)
    if full and plan.scan_protocols:
        scan = sample.scan
        if scan is None:
            assert sample.truth is not None, "a sample has a scan or a truth"
            scan = protocols.scan_of(sample.truth.neutral)
        measured, distances = protocols(scan, estimate.neutral)
        row |= measured
        kept |= {f"{method.name}.{name}": values for name, values in distances.items()}
    results.rows.append(row)
    if kept:
        results.distances.setdefault(sample.name, {}).update(kept)


def traits_of(sample: Sample) -> dict[str, float]:
    """What the row is grouped by: melanin, sex, age; mean |yaw| of the views in degrees."""
    truth = sample.truth
    result: dict[str, float] = {}
    if truth is not None and truth.traits is not None:
        result |= {name: float(getattr(truth.traits, name)) for name in ("melanin", "sex", "age")}
    if truth is not None and truth.pose is not None:
        result["yaw"] = float(np.degrees(np.abs(np.asarray(truth.pose)[:, 1])).mean())
    return result


def keep_distances(found: dict, method: Method) -> dict[str, np.ndarray]:
    """Takes the distances of all vertices out of the errors."""
    distances = found.pop("distances", None)
    return {} if distances is None else {f"{method.name}.vertex": distances[np.isfinite(distances)]}


def flatten(found: dict, sample: Sample, method: Method, results: Results) -> dict[str, float]:
    """Errors as columns: means over the views that count, steps one by one; adds the per-view rows to the results."""
    row, mask = {}, np.asarray(sample.photos.view_mask) > 0
    per_view = {name: value for name, value in found.items() if np.ndim(value) == 1 and name != "steps"}
    for name, value in found.items():
        if name in per_view:
            row[column_name(name)] = float(value[mask].mean()) if mask.any() else float("nan")
        elif name == "steps":
            row |= {f"step_{k + 1}": float(x) for k, x in enumerate(value)}
        else:
            row[column_name(name)] = float(value)
    poses = None if sample.truth is None or sample.truth.pose is None else np.asarray(sample.truth.pose)
    for view in np.flatnonzero(mask) if per_view else ():
        entry = {"subject": sample.name, "method": method.name, "view": int(view)}
        entry |= {} if poses is None else {"yaw": float(np.degrees(poses[view, 1]))}
        results.views.append(entry | {column_name(k): float(v[view]) for k, v in per_view.items()})
    return row


def column_name(name: str) -> str:
    """'vertex, no scale' -> 'vertex_no_scale'."""
    return name.replace(",", "").replace(" ", "_")

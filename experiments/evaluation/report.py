"""What an evaluation shows: the table on the screen, the plots, the worst groups."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from experiments.evaluation import plots, statistics
from experiments.evaluation.results import Results, column, comparisons
from experiments.evaluation.study import Plan

LABELS = {
    "vertex": "neutral mm",
    "vertex_no_scale": "no scale",
    "posed": "posed mm",
    "deformation": "deform. mm",
    "now_median": "NoW median",
    "now_mean": "NoW mean",
    "now_metrical_mean": "metr. mean",
    "fg2018": "FG2018",
    "plane": "to plane",
    "nme": "NME %",
    "photometric": "|dI|",
    "psnr": "PSNR dB",
    "seconds": "s",
}


def primary_error(results: Results) -> str:
    """The error that decides: the true vertex error, or NoW's where there are only scans."""
    return "vertex" if any("vertex" in row for row in results.rows) else "now_mean"


def verdict(results: Results, views: int) -> Iterator[str]:
    """Which method is best, and by how much on the same subjects (paired bootstrap) the others are worse."""
    name = primary_error(results)
    means = {m: float(np.nanmean(column(results.chosen(m, views), name))) for m in results.methods(views)}
    best = min(means, key=means.get)
    yield f"Best {LABELS[name]}: {best}, {means[best]:.3f}. Worse on the same subjects, with 95 % intervals:"
    for row in comparisons(results, views, (name,)):
        if best in (row["a"], row["b"]):
            other, sign = (row["b"], -1) if row["a"] == best else (row["a"], 1)
            low, high = sorted((sign * row["low"], sign * row["high"]))
            note = "" if row["better"] == best else " (undecided)"
            yield f"  {other}: {sign * row['a_minus_b']:+.3f} [{low:.3f}, {high:.3f}]{note}"


def table(results: Results, views: int) -> Iterator[str]:
    """The table on the screen: means over subjects, the primary error with its interval."""
    methods = results.methods(views)
    rows = {m: results.chosen(m, views) for m in methods}
    primary = primary_error(results)
    shown = [name for name in LABELS if any(name in row for m in methods for row in rows[m])]
    width = max(len(m) for m in methods) + 2
    yield f"{'':{width}}" + "".join(f"{LABELS[name]:>12}" for name in shown) + f"{'95 % of ' + LABELS[primary]:>24}"
    for method in methods:
        cells = []
        for name in shown:
            values = column(rows[method], name)
            values = values[np.isfinite(values)]
            value = np.nan if not len(values) else np.median(values) if name == "seconds" else values.mean()
            if name == "now_median" and len(pooled := results.pooled(method, "now")):
                value = np.median(pooled)
            cells.append(f"{100 * value if name == 'nme' else value:12.3f}" if np.isfinite(value) else f"{'-':>12}")
        spread = statistics.summarise(column(rows[method], primary))
        failed = int(column(rows[method], "failed").sum())
        note = f"  ({failed} failed)" if failed else ""
        yield f"{method:{width}}" + "".join(cells) + f"{spread['low']:14.3f} to {spread['high']:.3f}{note}"


def draw_plots(results: Results, plan: Plan) -> None:
    """Writes the plots that there are numbers for."""
    views, folder = plan.views, results.folder
    methods = results.methods(views)
    rows = {m: results.chosen(m, views) for m in methods}
    for name, label in (
        ("vertex", "true vertex error of the neutral, mm"),
        ("posed", "true vertex error with expression, mm"),
        ("now_mean", "NoW distance, mm"),
    ):
        entries = [{"name": m} | statistics.summarise(column(rows[m], name)) for m in methods]
        entries = [entry for entry in entries if entry["n"]]
        if entries:
            count = entries[0]["n"]
            plots.bars(folder / f"methods_{name}.png", entries, f"{count} subjects, {views} photos each", label)
    curve(results, plan)
    steps(results, rows, views)
    for method, entries in by_group(results, views).items():
        slug = "".join(c if c.isalnum() else "_" for c in method).strip("_")
        title = f"{method}: by group ({views} photos; dashed: all subjects)"
        overall = float(np.nanmean(column(rows[method], "vertex")))
        worst, label = statistics.worst_group(entries), "true vertex error of the neutral, mm"
        plots.groups(folder / "groups" / f"{slug}.png", entries, overall, worst, title, label)


def curve(results: Results, plan: Plan) -> None:
    """Error over the number of photos, on the subjects that have all of them."""
    counts = sorted({*plan.curve, plan.views})
    series = {}
    for method in results.methods(plan.views):
        if method == "pose only":  # its neutral is the mean face's
            continue
        by_count = {v: {r["subject"]: r["vertex"] for r in results.chosen(method, v) if "vertex" in r} for v in counts}
        common = set.intersection(*(set(found) for found in by_count.values()))
        if common and len(counts) > 1:
            series[method] = [
                {"x": v} | statistics.summarise([by_count[v][subject] for subject in sorted(common)]) for v in counts
            ]
    if series:
        number = next(iter(series.values()))[0]["n"]
        title = f"Error over the number of photos ({number} subject{'s' if number > 1 else ''})"
        path = results.folder / "views.png"
        plots.lines(
            path,
            series,
            results.methods(plan.views),
            title,
            "true vertex error of the neutral, mm",
            "photos",
            ticks=counts,
        )


def steps(results: Results, rows: dict[str, list[dict]], views: int) -> None:
    """Error after each step, from the mean face at 0, for the methods that take a few."""
    start = statistics.summarise(column(rows.get("mean face", []), "vertex"))
    series = {}
    for method, entries in rows.items():
        names = [name for k in range(1, 100) if any((name := f"step_{k}") in row for row in entries)]
        if names:
            first = [{"x": 0} | start] if start["n"] else []
            series[method] = first + [
                {"x": k + 1} | statistics.summarise(column(entries, name)) for k, name in enumerate(names)
            ]
    if series:
        plots.lines(
            results.folder / "steps.png",
            series,
            list(rows),
            f"Error after each step ({views} photos; Adam at equal time: each ninth of its steps)",
            "true vertex error of the neutral, mm",
            "step",
        )


def by_group(results: Results, views: int) -> dict[str, list[dict]]:
    """The neutral's error by the subjects' traits and mean |yaw|: method -> see `statistics.breakdown`."""
    tables = {}
    for method in results.methods(views):
        rows = results.chosen(method, views)
        groups = statistics.groupings({name: column(rows, name) for name in ("melanin", "sex", "age", "yaw")})
        if groups and any("vertex" in row for row in rows):
            tables[method] = statistics.breakdown(column(rows, "vertex"), groups)
    return tables


def by_yaw(results: Results, views: int) -> dict[str, list[dict]]:
    """The posed meshes' error by the yaw of each view: method -> see `statistics.breakdown`."""
    tables = {}
    for method in results.methods(views):
        rows = [row for row in results.views if row["method"] == method and "yaw" in row and "posed" in row]
        groups = statistics.groupings({"yaw": column(rows, "yaw")})
        groups = {"yaw of the view, posed error": groups["yaw"]} if groups else {}
        tables[method] = statistics.breakdown(column(rows, "posed"), groups)
    return tables


def worst_groups(results: Results, views: int) -> Iterator[str]:
    """One line per method: the group of subjects with the largest error."""
    for method, entries in by_group(results, views).items():
        overall = float(np.nanmean(column(results.chosen(method, views), "vertex")))
        if (worst := statistics.worst_group(entries)) is not None:
            yield (
                f"{method}: worst group is {worst['factor']} = {worst['group']} (n = {worst['n']}): "
                f"{worst['mean']:.3f} mm [{worst['low']:.3f}, {worst['high']:.3f}], "
                f"{worst['mean'] / overall - 1:+.0%} of the mean over all"
            )

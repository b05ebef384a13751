"""Charts of an evaluation and of a training run as PNG (the only file that imports matplotlib)."""

from __future__ import annotations

import functools
import io
import logging
from collections.abc import Callable

from experiments.training.tasks.task import Errors
from facerig_jax.io.files import AnyPath, as_path, atomic_write, optional_import

# Okabe and Ito's colours, told apart by the colour-blind too; beyond them, line styles.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A8A8A")
MARKERS = "osD^vP*X"
# Curves of a training run, and what their records are called before 'loss' and 'error'.
KINDS = {"training": "", "validation": "validation_"}


def figure(width: float, height: float):
    """A figure that belongs to no window, and its axes."""
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # not a word about its font cache
    made = optional_import("matplotlib.figure", "Plots").Figure((width, height), dpi=130, layout="constrained")
    axes = made.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="both", alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    return made, axes


def save(path, made) -> None:
    """Writes a figure as PNG; atomic."""
    buffer = io.BytesIO()
    made.savefig(buffer, format="png")
    with atomic_write(path) as file:
        file.write(buffer.getvalue())


def bars(path, rows: list[dict], title: str, label: str) -> None:
    """Horizontal bars with 95 % intervals; rows with 'name', 'mean', 'low', 'high', top to bottom."""
    made, axes = figure(7.5, 1.2 + 0.36 * len(rows))
    places = range(len(rows))[::-1]
    means = [row["mean"] for row in rows]
    spans = [[row["mean"] - row["low"] for row in rows], [row["high"] - row["mean"] for row in rows]]
    axes.barh(places, means, 0.66, color=COLOURS[0], alpha=0.85, xerr=spans, ecolor="#222222", capsize=3)
    for place, row in zip(places, rows, strict=True):
        axes.text(row["high"], place, f"  {row['mean']:.3g}", va="center", fontsize=9)
    axes.set_yticks(places, [row["name"] for row in rows])
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.set(title=title, xlabel=label)
    save(path, made)


def lines(path, series: dict[str, list[dict]], everybody: list[str], title: str, label: str, across: str, ticks=None):
    """Means with 95 % bands; name -> points with 'x', 'mean', 'low', 'high'.

    A name's place in `everybody` gives its colour, the same in all charts; `ticks` spaces the x values evenly.
    """
    made, axes = figure(7.5, 4.6)
    for name, points in series.items():
        number = everybody.index(name)
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        style = "-" if number < len(COLOURS) else "--"
        x = [ticks.index(p["x"]) if ticks else p["x"] for p in points]
        axes.plot(x, [p["mean"] for p in points], style, marker=marker, color=colour, label=name, markersize=5)
        axes.fill_between(x, [p["low"] for p in points], [p["high"] for p in points], color=colour, alpha=0.1, lw=0)
    if ticks:
        axes.set_xticks(range(len(ticks)), [str(t) for t in ticks])
    axes.set(title=title, xlabel=across, ylabel=label)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(path, made)


def groups(path, rows: list[dict], overall: float, worst: dict | None, title: str, label: str) -> None:
    """Groups of subjects as points with 95 % intervals, the worst one marked, and a line at the overall mean."""
    made, axes = figure(7.5, 1.2 + 0.32 * len(rows))
    places = range(len(rows))[::-1]
    for place, row in zip(places, rows, strict=True):
        bad = worst is not None and (row["factor"], row["group"]) == (worst["factor"], worst["group"])
        colour = COLOURS[1] if bad else COLOURS[0]
        axes.plot([row["low"], row["high"]], [place, place], color=colour, lw=2)
        axes.plot(row["mean"], place, "o", color=colour)
    names = [f"{row['factor']}: {row['group']} (n = {row['n']})" for row in rows]
    axes.set_yticks(places, names, fontsize=9)
    axes.axvline(overall, color="#222222", lw=0.8, ls="--")
    axes.set(title=title, xlabel=label)
    save(path, made)


def draw_curves(folder, records: list[dict], errors: Errors) -> list[AnyPath]:
    """Writes loss.png and error.png.

    Args:
      folder: of the run.
      records: of its metrics.jsonl.
      errors: what its task's errors are.

    Returns:
      The files.
    """
    files = [as_path(folder) / name for name in ("loss.png", "error.png")]
    draws: tuple[Callable, ...] = (_losses, functools.partial(_errors, of=errors))
    for file, draw in zip(files, draws, strict=True):
        made, axes = figure(7.5, 4.2)
        draw(axes, records)
        axes.set_xlabel("update")
        axes.legend(fontsize=8)
        save(file, made)
    return files


def _losses(axes, records) -> None:
    for number, (name, prefix) in enumerate(KINDS.items()):
        steps, values = _series(records, f"{prefix}loss")
        axes.plot(steps, values, color=COLOURS[number], label=name, lw=2 if prefix else 0.8)
    axes.set(ylabel="loss", yscale="log")


def _errors(axes, records, of: Errors) -> None:
    for name, prefix in KINDS.items():
        steps, rows = _series(records, f"{prefix}error")
        for stage in range(max(map(len, rows), default=0)):
            points = [(step, row[stage]) for step, row in zip(steps, rows, strict=True) if stage < len(row)]
            label = f"{name}, {of.name(stage)}"
            style = {"lw": 2, "marker": "o", "ms": 3} if prefix else {"lw": 0.7, "alpha": 0.5}
            axes.plot(*zip(*points, strict=True), color=COLOURS[stage], label=label, **style)
    axes.set(ylabel=of.long)


def _series(records, name: str):
    """Update numbers and values of the records that have it."""
    found = [(record["step"], record[name]) for record in records if record.get(name) is not None]
    return [step for step, _ in found], [value for _, value in found]

"""Pictures of a training run: its loss and its errors over updates."""

from __future__ import annotations

from pathlib import Path

from facerig_jax.evaluate.plots import COLOURS, figure, save

KINDS = {"training": "", "validation": "validation_"}


def draw_curves(folder, records: list[dict]) -> list[Path]:
    """Writes loss.png and error.png.

    Args:
      folder: of the run.
      records: of its metrics.jsonl.

    Returns:
      The files.
    """
    files = [Path(folder) / name for name in ("loss.png", "error.png")]
    for file, draw in zip(files, (_losses, _errors), strict=True):
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


def _errors(axes, records) -> None:
    of_flow = any("flow" in record for record in records)
    first = "before the network" if of_flow else "mean face"
    for name, prefix in KINDS.items():
        steps, rows = _series(records, f"{prefix}error")
        for stage in range(max(map(len, rows), default=0)):
            points = [(step, row[stage]) for step, row in zip(steps, rows, strict=True) if stage < len(row)]
            later = "after it" if of_flow else f"after stage {stage}"
            label = f"{name}, {later if stage else first}"
            style = {"lw": 2, "marker": "o", "ms": 3} if prefix else {"lw": 0.7, "alpha": 0.5}
            axes.plot(*zip(*points, strict=True), color=COLOURS[stage], label=label, **style)
    axes.set(ylabel="rms of the points' offsets (mm)" if of_flow else "mean vertex error of the neutral face (mm)")


def _series(records, name: str):
    """Update numbers and values of the records that have it."""
    found = [(record["step"], record[name]) for record in records if record.get(name) is not None]
    return [step for step, _ in found], [value for _, value in found]

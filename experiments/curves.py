"""A picture of a training run: its losses and errors over updates."""

from __future__ import annotations

import numpy as np


def draw_curves(path, records: list[dict]) -> None:
    """Writes a PNG with the loss and the neutral's error after each stage, on training and validation subjects.

    Args:
      path: file.
      records: of metrics.jsonl.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for kind, style in (("", dict(lw=0.8, alpha=0.7)), ("validation_", dict(lw=1.8, marker="o", ms=3))):
        chosen = [record for record in records if record.get(f"{kind}loss") is not None]
        if not chosen:
            continue
        steps, name = [record["step"] for record in chosen], "validation" if kind else "training"
        axes[0].plot(steps, [record[f"{kind}loss"] for record in chosen], label=name, **style)
        errors = [record[f"{kind}error"] for record in chosen]
        for stage in range(max(map(len, errors))):
            values = [error[stage] if stage < len(error) else np.nan for error in errors]
            label = f"{name}, {'mean face' if stage == 0 else f'stage {stage}'}"
            axes[1].plot(steps, values, color=f"C{stage}", ls="-" if kind else ":", label=label)
    axes[0].set(xlabel="update", ylabel="loss", yscale="log")
    axes[1].set(xlabel="update", ylabel="neutral face, mean vertex error (mm)")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)

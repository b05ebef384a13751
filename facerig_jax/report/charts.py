"""Small line charts for the report page, as SVG without any script."""

from __future__ import annotations

import math

import numpy as np

from facerig_jax.report.html import escape, section


def trace_section(trace) -> str:
    """A chart for each name -> values (steps, ...)."""
    charts = "".join(chart(name, values) for name, values in trace.items())
    return (
        section("Trace", f'<div class="charts">{charts}</div>', "Value after each step of the solver.")
        if charts
        else ""
    )


def chart(name: str, values, width: int = 260, height: int = 110, borders=()) -> str:
    """One small line chart as SVG: the mean over all axes but the first; logarithmic when positive over a decade.

    Between the points `borders - 1` and `borders` the line is broken and a thin one stands.
    """
    values = np.asarray(values, np.float64)
    rows = values.reshape(len(values), -1) if values.size else np.zeros((0, 1))
    counts = np.isfinite(rows).sum(axis=1)
    series = np.where(np.isfinite(rows), rows, 0).sum(axis=1) / np.where(counts, counts, 1)
    steps = np.flatnonzero(counts)
    if not len(steps):
        return f'<figure class="chart"><figcaption>{escape(name)}: no finite value</figcaption></figure>'
    shown = series[steps]
    log = shown.min() > 0 and shown.max() > 10 * shown.min()
    level = np.log10(shown) if log else shown
    span = max(level.max() - level.min(), 1e-12 * max(1.0, abs(level.max())))
    x = 8 + (width - 16) * steps / max(len(series) - 1, 1)
    y = height - 10 - (height - 20) * (level - level.min()) / span
    parts = np.split(np.arange(len(steps)), np.searchsorted(steps, borders))
    lines = "".join(f'<polyline points="{" ".join(f"{x[i]:.1f},{y[i]:.1f}" for i in part)}"/>' for part in parts)
    places = 8 + (width - 16) * (np.asarray(borders, float) - 0.5) / max(len(series) - 1, 1)
    dots = (
        "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2"/>' for a, b in zip(x, y, strict=True)) if len(borders) else ""
    )
    walls = "".join(f'<path d="M{place:.1f} 1V{height - 1}" class="wall"/>' for place in places)
    text = f"{name}: {number(shown[0])} → {number(shown[-1])}" + (" (log)" if log else "")
    return (
        f'<figure class="chart"><svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(text)}">'
        f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" class="frame"/>'
        f'{walls}{lines}{dots}<circle cx="{x[-1]:.1f}" cy="{y[-1]:.1f}" r="3"/></svg>'
        f"<figcaption>{escape(text)}</figcaption></figure>"
    )


def number(value: float) -> str:
    """Four significant digits; powers of ten only outside 1e-3..1e6."""
    return f"{value:.4g}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.2e}" if math.isfinite(value) else "-"

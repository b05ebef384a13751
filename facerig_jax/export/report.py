"""report.html: one self-contained page that a person can judge a fit by. No network, no external file, opens from disk.

The page shows what it is given: every picture is optional, and a view that failed shows its status in words.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import json
import math
from collections.abc import Mapping

import numpy as np

from facerig_jax.export.files import atomic_write, encode_image
from facerig_jax.export.pictures import COLOUR_TABLE, fit_within
from facerig_jax.export.report_page import PAGE, PLAYER, STYLE

MAX_BYTES = 8_000_000
# (larger side of a picture px, JPEG quality), tried in this order until the page is small enough.
PICTURE_SIZES = ((384, 88), (288, 82), (224, 75), (160, 65), (96, 55), (64, 40))
COLUMNS = {
    "input": "Input",
    "overlay": "Overlay",
    "geometry": "Geometry",
    "albedo": "Albedo",
    "lighting": "Lighting",
    "residual": "Residual",
}


@dataclasses.dataclass
class ReportView:
    """One view of the fit. Pictures are (H, W, 3) sRGB, uint8 or float in [0, 1], or None.

    name:   of the photo.
    status: in words, e.g. 'ok' or 'no face found'.
    ok:     whether the view took part in the fit.
    facts:  label -> value, e.g. {'Reprojection error': '1.4 %', 'Yaw': '-23 deg'}.
    input, overlay, geometry, albedo, lighting, residual: the pictures of the row, in this order.
    """

    name: str
    status: str
    ok: bool = True
    facts: Mapping[str, object] = dataclasses.field(default_factory=dict)
    input: np.ndarray | None = None
    overlay: np.ndarray | None = None
    geometry: np.ndarray | None = None
    albedo: np.ndarray | None = None
    lighting: np.ndarray | None = None
    residual: np.ndarray | None = None


@dataclasses.dataclass
class Report:
    """Everything the page shows.

    title:       heading.
    status:      of the subject, in words.
    ok:          whether there is a usable rig.
    summary:     label -> value: energies before and after, reprojection error, timings, versions, ...
    views:       one ReportView per photo, failed ones too.
    turntable:   frames (H, W, 3) of the rig turning, all of one size; the page plays them in a loop.
    expressions: name -> picture (H, W, 3) of some morph targets at full strength.
    trace:       name -> (steps, ...) numbers; further axes are averaged, not-finite values skipped.
    files:       file name -> what it is, listed with a link beside the page.
    notes:       sentences shown under the summary.
    residual_scale: what the brightest colour of the residual pictures means, e.g. '25 grey levels'.
    """

    title: str
    status: str
    ok: bool = True
    summary: Mapping[str, object] = dataclasses.field(default_factory=dict)
    views: list[ReportView] = dataclasses.field(default_factory=list)
    turntable: list[np.ndarray] = dataclasses.field(default_factory=list)
    expressions: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    trace: Mapping[str, object] = dataclasses.field(default_factory=dict)
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    residual_scale: str = ""


def write_report(path, report: Report) -> int:
    """Writes the page; atomic.

    Pictures are embedded as JPEG and reduced, all alike, until the page is under 8 MB.

    Returns:
      size of the page in bytes.

    Raises:
      WriteError: see `files.atomic_write`.

    Example:
      write_report("out/report.html", Report("Ann", "ok", views=[ReportView("ann1", "ok", input=photo)]))
    """
    for side, quality in PICTURE_SIZES:
        page = render_report(report, side, quality).encode()
        if len(page) < MAX_BYTES:
            break
    with atomic_write(path) as file:
        file.write(page)
    return len(page)


def render_report(report: Report, side: int = 384, quality: int = 88) -> str:
    """The page as a string, with pictures of at most `side` px and of that JPEG quality."""

    def picture(image, alt: str) -> str:
        height, width = fit_within(image, side).shape[:2]
        uri = _data_uri(image, side, quality)
        return f'<img src="{uri}" width="{width}" height="{height}" alt="{_escape(alt)}" loading="lazy">'

    sections = [
        _summary(report),
        _rig(_turntable(report.turntable, side, quality), _expressions(report.expressions, picture)),
        _views(report, picture),
        _traces(report.trace),
        _files(report.files),
    ]
    state = "ok" if report.ok else "bad"
    return PAGE.format(
        title=_escape(report.title),
        style=STYLE,
        badge=f'<span class="badge {state}">{_escape(report.status)}</span>',
        body="\n".join(section for section in sections if section),
    )


def _escape(text) -> str:
    return html.escape(str(text), quote=True)


def _data_uri(image, side: int, quality: int) -> str:
    data = encode_image(fit_within(image, side), "JPEG", quality)
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")


def _section(title: str, content: str, lead: str = "") -> str:
    note = f'<p class="lead">{lead}</p>' if lead else ""
    return f"<section><h2>{title}</h2>{note}{content}</section>"


def _summary(report: Report) -> str:
    rows = "".join(f"<div><dt>{_escape(k)}</dt><dd>{_escape(v)}</dd></div>" for k, v in report.summary.items())
    notes = "".join(f"<li>{_escape(note)}</li>" for note in report.notes)
    table = f'<dl class="facts">{rows}</dl>' if rows else ""
    return table + (f'<ul class="notes">{notes}</ul>' if notes else "")


def _views(report: Report, picture) -> str:
    return (
        "" if not report.views else _section("Views", "".join(_view(v, picture) for v in report.views), _legend(report))
    )


def _legend(report: Report) -> str:
    if all(view.residual is None for view in report.views):
        return ""
    stops = ",".join(f"rgb({r},{g},{b})" for r, g, b in COLOUR_TABLE[::17].tolist())
    bar = f'<span class="bar" style="background:linear-gradient(90deg,{stops})"></span>'
    return f"Residual: 0 {bar} {_escape(report.residual_scale or 'largest')}"


def _view(view: ReportView, picture) -> str:
    state = "ok" if view.ok else "bad"
    facts = "".join(f"<span>{_escape(k)}</span><b>{_escape(v)}</b> " for k, v in view.facts.items())
    shown = {label: getattr(view, key) for key, label in COLUMNS.items() if getattr(view, key) is not None}
    cells = "".join(
        f"<figure>{picture(image, f'{label} of {view.name}')}<figcaption>{label}</figcaption></figure>"
        for label, image in shown.items()
    )
    head = f'<h3>{_escape(view.name)} <span class="badge {state}">{_escape(view.status)}</span></h3>'
    row = f'<div class="row">{cells}</div>' if cells else '<p class="lead">No picture of this view.</p>'
    return f'<article>{head}<p class="small">{facts}</p>{row}</article>' if facts else f"<article>{head}{row}</article>"


def _rig(turntable: str, expressions: str) -> str:
    """The turning rig on the left, its expressions on the right."""
    return _section("Rig", f'<div class="pair">{turntable}{expressions}</div>') if turntable or expressions else ""


def _turntable(frames, side: int, quality: int) -> str:
    """The frames as a player: turning by itself, unless the reader prefers less motion, and by hand with a slider."""
    if not len(frames):
        return ""
    uris = [_data_uri(frame, side, quality) for frame in frames]
    height, width = fit_within(frames[0], side).shape[:2]
    still = f'<img id="turn" src="{uris[0]}" width="{width}" height="{height}" alt="The rig, seen from all sides">'
    controls = (
        '<div class="controls"><button id="play" type="button">Pause</button>'
        f'<input id="angle" type="range" min="0" max="{len(uris) - 1}" value="0" aria-label="Viewing angle"></div>'
    )
    script = f"<script>const frames={json.dumps(uris)};{PLAYER}</script>"
    return f'<div class="turntable">{still}{controls}</div>{script}'


def _expressions(expressions, picture) -> str:
    cells = "".join(
        f"<figure>{picture(image, f'Expression {name}')}<figcaption>{_escape(name)}</figcaption></figure>"
        for name, image in expressions.items()
    )
    return f'<div class="row strip">{cells}</div>' if cells else ""


def _files(files) -> str:
    items = "".join(f'<li><a href="{_escape(k)}">{_escape(k)}</a> {_escape(v)}</li>' for k, v in files.items())
    return _section("Files", f'<ul class="files">{items}</ul>') if items else ""


def _traces(trace) -> str:
    charts = "".join(_chart(name, values) for name, values in trace.items())
    return (
        _section("Trace", f'<div class="charts">{charts}</div>', "Value after each step of the solver.")
        if charts
        else ""
    )


def _chart(name: str, values, width: int = 260, height: int = 110) -> str:
    """One small line chart as SVG: the mean over all axes but the first; logarithmic when positive over a decade."""
    values = np.asarray(values, np.float64)
    rows = values.reshape(len(values), -1) if values.size else np.zeros((0, 1))
    counts = np.isfinite(rows).sum(axis=1)
    series = np.where(np.isfinite(rows), rows, 0).sum(axis=1) / np.where(counts, counts, 1)
    steps = np.flatnonzero(counts)
    if not len(steps):
        return f'<figure class="chart"><figcaption>{_escape(name)}: no finite value</figcaption></figure>'
    shown = series[steps]
    log = shown.min() > 0 and shown.max() > 10 * shown.min()
    level = np.log10(shown) if log else shown
    span = max(level.max() - level.min(), 1e-12 * max(1.0, abs(level.max())))
    x = 8 + (width - 16) * steps / max(len(series) - 1, 1)
    y = height - 10 - (height - 20) * (level - level.min()) / span
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    text = f"{name}: {_number(shown[0])} → {_number(shown[-1])}" + (" (log)" if log else "")
    return (
        f'<figure class="chart"><svg viewBox="0 0 {width} {height}" role="img" aria-label="{_escape(text)}">'
        f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" class="frame"/>'
        f'<polyline points="{line}"/><circle cx="{x[-1]:.1f}" cy="{y[-1]:.1f}" r="3"/></svg>'
        f"<figcaption>{_escape(text)}</figcaption></figure>"
    )


def _number(value: float) -> str:
    """Four significant digits; powers of ten only outside 1e-3..1e6."""
    return f"{value:.4g}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.2e}" if math.isfinite(value) else "-"

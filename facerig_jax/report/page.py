"""report.html: one self-contained page that a person can judge a fit by. No network, no external file, opens from disk.

The page shows what it is given: every picture is optional, and a view that failed shows its status in words.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping

import numpy as np

from facerig_jax.io.files import atomic_write, encode_image
from facerig_jax.report.charts import trace_section
from facerig_jax.report.html import PAGE, PLAYER, STYLE, escape, section
from facerig_jax.report.pictures import COLOUR_TABLE, fit_within
from facerig_jax.report.steps import Steps, steps_section

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
    steps:       what a learned fit did in its stages, or None.
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
    steps: Steps | None = None
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
        return f'<img src="{uri}" width="{width}" height="{height}" alt="{escape(alt)}" loading="lazy">'

    sections = [
        _summary(report),
        _rig(_turntable(report.turntable, side, quality), _expressions(report.expressions, picture)),
        _views(report, picture),
        steps_section(report.steps, picture) if report.steps else "",
        trace_section(report.trace),
        _files(report.files),
    ]
    state = "ok" if report.ok else "bad"
    return PAGE.format(
        title=escape(report.title),
        style=STYLE,
        badge=f'<span class="badge {state}">{escape(report.status)}</span>',
        body="\n".join(section for section in sections if section),
    )


def _data_uri(image, side: int, quality: int) -> str:
    data = encode_image(fit_within(image, side), "JPEG", quality)
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")


def _summary(report: Report) -> str:
    rows = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in report.summary.items())
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    table = f'<dl class="facts">{rows}</dl>' if rows else ""
    return table + (f'<ul class="notes">{notes}</ul>' if notes else "")


def _views(report: Report, picture) -> str:
    return (
        "" if not report.views else section("Views", "".join(_view(v, picture) for v in report.views), _legend(report))
    )


def _legend(report: Report) -> str:
    if all(view.residual is None for view in report.views):
        return ""
    stops = ",".join(f"rgb({r},{g},{b})" for r, g, b in COLOUR_TABLE[::17].tolist())
    bar = f'<span class="bar" style="background:linear-gradient(90deg,{stops})"></span>'
    return f"Residual: 0 {bar} {escape(report.residual_scale or 'largest')}"


def _view(view: ReportView, picture) -> str:
    state = "ok" if view.ok else "bad"
    facts = "".join(f"<span>{escape(k)}</span><b>{escape(v)}</b> " for k, v in view.facts.items())
    shown = {label: getattr(view, key) for key, label in COLUMNS.items() if getattr(view, key) is not None}
    cells = "".join(
        f"<figure>{picture(image, f'{label} of {view.name}')}<figcaption>{label}</figcaption></figure>"
        for label, image in shown.items()
    )
    head = f'<h3>{escape(view.name)} <span class="badge {state}">{escape(view.status)}</span></h3>'
    row = f'<div class="row">{cells}</div>' if cells else '<p class="lead">No picture of this view.</p>'
    return f'<article>{head}<p class="small">{facts}</p>{row}</article>' if facts else f"<article>{head}{row}</article>"


def _rig(turntable: str, expressions: str) -> str:
    """The turning rig on the left, its expressions on the right."""
    return section("Rig", f'<div class="pair">{turntable}{expressions}</div>') if turntable or expressions else ""


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
        f"<figure>{picture(image, f'Expression {name}')}<figcaption>{escape(name)}</figcaption></figure>"
        for name, image in expressions.items()
    )
    return f'<div class="row strip">{cells}</div>' if cells else ""


def _files(files) -> str:
    items = "".join(f'<li><a href="{escape(k)}">{escape(k)}</a> {escape(v)}</li>' for k, v in files.items())
    return section("Files", f'<ul class="files">{items}</ul>') if items else ""

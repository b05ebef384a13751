"""What a learned fit did, stage by stage and step by step: energies, step sizes and the mesh, for the report page."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from facerig_jax.geometry.camera import to_image
from facerig_jax.geometry.crop import crop_image, zoom_points, zoomed
from facerig_jax.head.coarse import thin
from facerig_jax.numerics import srgb_to_linear
from facerig_jax.raster.render import composite, linear_to_srgb8, render_geometry, render_mesh
from facerig_jax.report.charts import chart, number
from facerig_jax.report.html import escape, section
from facerig_jax.report.pictures import COLOUR_TABLE, heat_map
from facerig_jax.types import Crop, Fit, HeadModel

ENERGIES = ("total", "feature", "landmark", "photometric")
# What the entries of the trace's 'size' are the step sizes of.
SIZES = ("identity", "pose", "expression", "expression code", "albedo")
# Share of the face whose movement is within the range of the colours, and the least range.
SHOWN_SHARE, LEAST_MM = 0.98, 1e-3


@dataclasses.dataclass
class Steps:
    """A learned fit of S stages with T steps each, seen in one photo.

    photo:    name of that photo.
    energies: name -> (S, T), measured where each step starts.
    sizes:    name -> (S, T) step sizes.
    pictures: (S, T + 1, s, s, 3) uint8: the mesh over the photo before the stage and after each of its steps.
    moved:    (S, s, s, 3) uint8: how far the stage moved the surface within the head frame, pose left out.
    moved_mm: (S,) movement of the brightest colour.
    """

    photo: str
    energies: Mapping[str, np.ndarray]
    sizes: Mapping[str, np.ndarray]
    pictures: np.ndarray
    moved: np.ndarray
    moved_mm: np.ndarray


def step_energies(trace) -> dict[str, np.ndarray]:
    """Name -> (S, T) energies of the published method's trace; terms that took no part are left out."""
    found = {name: np.asarray(trace["steps"][name], np.float64) for name in ENERGIES}
    return {name: values for name, values in found.items() if name == "total" or values.any()}


def fit_steps(head: HeadModel, fit: Fit, photos, names, used, size: int = 288) -> Steps | None:
    """Draws a learned fit's trace in the photo that shows the face most from the front.

    Args:
      head: the head the rig was made with.
      fit: of V views.
      photos: (V, H, W, 3) uint8 sRGB, padded photos.
      names: of the views.
      used: which views took part.
      size: side of the pictures, px.

    Returns:
      Steps, or None when another solver made the fit.
    """
    if not isinstance(fit.trace, dict):
        return None
    view = min(np.flatnonzero(used), key=lambda n: abs(float(fit.views.pose[n, 1])))
    steps, stages = fit.trace["steps"], fit.trace["stages"]
    projected = jnp.concatenate([steps["projected"][:, :, view], stages["projected"][:, None, view]], 1)
    count = projected.shape[-2]
    head = head if len(head.mean) == count else thin(head)
    still = jnp.concatenate([jnp.asarray(head.mean)[None], stages["vertices"][:, view]])
    moved = jnp.linalg.norm(jnp.diff(still, axis=0), axis=-1) * fit.rig.unit_mm
    largest = np.quantile(np.asarray(moved)[:, np.asarray(head.face_mask) > 0.5], SHOWN_SHARE, axis=1)
    largest = np.maximum(largest, LEAST_MM)
    crop = jax.tree.map(lambda x: x[view], fit.views.crop)
    drawn = _draw(head.faces, projected, moved, jnp.asarray(photos[view]), crop, size)
    pictures, fields, coverage = (np.asarray(x) for x in drawn)
    heat = [heat_map(field, most, mask > 0.99) for field, most, mask in zip(fields, largest, coverage, strict=True)]
    sizes = np.asarray(steps["size"], np.float64)
    return Steps(
        photo=names[view],
        energies=step_energies(fit.trace),
        sizes={name: sizes[..., number] for number, name in enumerate(SIZES)},
        pictures=pictures,
        moved=np.stack(heat),
        moved_mm=largest,
    )


@functools.partial(jax.jit, static_argnames="size")
def _draw(faces, projected, moved, photo, crop: Crop, size: int):
    """Pictures (S, T + 1, s, s, 3) uint8, movement and coverage (S, s, s), from projected vertices (S, T + 1, P, 3)."""
    posed = zoom_points(to_image(projected, crop.size, crop.size), size / crop.size)
    photo = crop_image(srgb_to_linear(photo.astype(jnp.float32) / 255), zoomed(crop, size))

    def clay(vertices):
        image, coverage = render_geometry(vertices, faces, size, size, 2, 0.0)
        return linear_to_srgb8(composite(image, coverage, photo))

    def field(inputs):
        vertices, distance = inputs
        image, coverage = render_mesh(vertices, faces, distance[:, None], size, size, 2, 0.0)
        return image[..., 0], coverage

    flat = posed.reshape(-1, *posed.shape[2:])
    pictures = jax.lax.map(clay, flat).reshape(*posed.shape[:2], size, size, 3)
    return pictures, *jax.lax.map(field, (posed[:, -1], moved))


def steps_section(steps: Steps, picture) -> str:
    """The part of the page that shows them; `picture(image, alt)` gives the HTML of a picture."""
    count = len(steps.pictures)
    rows = "".join(_stage(steps, stage, picture) for stage in range(count))
    borders = steps.energies["total"].shape[1] * np.arange(1, count)
    charts = "".join(chart(name, values.reshape(-1), borders=borders) for name, values in steps.energies.items())
    stops = ",".join(f"rgb({r},{g},{b})" for r, g, b in COLOUR_TABLE[::17].tolist())
    lead = (
        f"The mesh over {escape(steps.photo)} before each stage and after each of its steps; last, how far the stage "
        "moved the surface within the head frame: "
        f'0 <span class="bar" style="background:linear-gradient(90deg,{stops})"></span> the length below it'
    )
    note = '<p class="lead">Energies where each step starts; every stage measures them on features of its own.</p>'
    return section("Steps", f'{rows}{note}<div class="charts">{charts}</div>{_table(steps)}', lead)


def _stage(steps: Steps, stage: int, picture) -> str:
    """One stage's row of pictures."""
    titles = ["Before", *(f"Step {k}" for k in range(1, steps.pictures.shape[1]))]
    titles.append(f"Moved, 0 to {steps.moved_mm[stage]:.2g} mm")
    images = [*steps.pictures[stage], steps.moved[stage]]
    cells = "".join(
        f"<figure>{picture(image, f'Stage {stage + 1}, {title.lower()}')}<figcaption>{title}</figcaption></figure>"
        for title, image in zip(titles, images, strict=True)
    )
    return f'<article><h3>Stage {stage + 1}</h3><div class="row steps">{cells}</div></article>'


def _table(steps: Steps) -> str:
    """Energies and step sizes, a column for each step."""
    count, length = steps.energies["total"].shape
    groups = "".join(f'<th class="first" colspan="{length}">Stage {stage + 1}</th>' for stage in range(count))
    columns = "".join(f"<th{_first(k)}>Step {k + 1}</th>" for _ in range(count) for k in range(length))
    rows = {f"Energy, {name}": values for name, values in steps.energies.items()}
    rows |= {f"Step size, {name}": values for name, values in steps.sizes.items()}
    body = "".join(
        f"<tr><th>{escape(name)}</th>"
        + "".join(f"<td{_first(k)}>{number(value)}</td>" for row in values for k, value in enumerate(row))
        + "</tr>"
        for name, values in rows.items()
    )
    return f'<div class="table"><table><tr><th></th>{groups}</tr><tr><th></th>{columns}</tr>{body}</table></div>'


def _first(column: int) -> str:
    return ' class="first"' if column == 0 else ""

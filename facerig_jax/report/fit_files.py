"""Every file of a finished fit, written into one folder."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facerig_jax.detect.landmarks import POINTS7
from facerig_jax.export import export_rig
from facerig_jax.export.rig_file import save_views
from facerig_jax.fit.status import USED, Status, describe
from facerig_jax.head.model import landmark_positions
from facerig_jax.io.files import atomic_write, write_image
from facerig_jax.io.folder import RECORD
from facerig_jax.io.mesh_files import submesh, write_ply, write_points7
from facerig_jax.io.serialize import to_json
from facerig_jax.report.energies import curves, records
from facerig_jax.report.page import Report, ReportView, write_report
from facerig_jax.report.pictures import fit_within, grid
from facerig_jax.report.steps import Steps
from facerig_jax.report.views import RESIDUAL_SCALE
from facerig_jax.types import Fit, HeadModel, Rig, Views

if TYPE_CHECKING:
    from facerig_jax.data.photos import Photo

FILES = {
    "rig.glb": "the rig with its named expressions, for Blender and other tools (metres)",
    "rig.npz": "the rig as arrays, for facerig_jax.load_rig",
    "neutral.obj": "the neutral skin with texture (millimetres)",
    "neutral.mtl": "material of neutral.obj",
    "neutral.png": "the texture, an albedo in sRGB",
    "neutral.ply": "the neutral skin with a colour per vertex (millimetres)",
    "points7.txt": "seven landmarks on the neutral skin, in the order of the NoW benchmark (millimetres)",
    "views.npz": "pose, expression, light, crop, landmarks and status of each photo",
    "gallery.png": "contact sheet",
    "fit.json": "versions, flags, timings, energies, status",
}

RIG_FILES = ("rig.glb", "rig.npz", "neutral.obj", "neutral.ply")


@dataclasses.dataclass
class Result:
    """A finished fit with everything its files show; arrays are numpy, one row per photo (no padding).

    fit:         Fit.
    photos:      V Photos.
    files:       V paths or names of where they came from.
    vertices:    (V, P, 3) posed vertices, pixels of the photos as fitted (`Photo.image`).
    error:       (V,) reprojection error over the outer-eye distance.
    texture:     (S, S, 3) uint8.
    pictures:    V dicts of pictures, None for views without a face and where no report is asked for.
    turntable:   (n, s, s, 3) uint8, None without a report.
    expressions: name -> (s, s, 3) uint8, empty without a report.
    steps:       what a learned fit did, or None.
    record:      what fit.json says besides files, views and energies.
    notes:       sentences for the report.
    glb:         detail of rig.glb, see `export_rig`.
    """

    fit: Fit
    photos: tuple[Photo, ...]
    files: tuple[str, ...]
    vertices: np.ndarray
    error: np.ndarray
    texture: np.ndarray
    pictures: list
    turntable: np.ndarray | None
    expressions: dict[str, np.ndarray]
    steps: Steps | None
    record: dict
    notes: list[str]
    glb: str = "full"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the views."""
        return tuple(photo.name for photo in self.photos)

    @property
    def used(self) -> list[bool]:
        """Which views took part in the fit."""
        return [int(status) in USED for status in self.fit.views.status]


def write_meshes(folder: Path, head: HeadModel, result: Result) -> None:
    """The rig in all formats, the seven points, and each view's posed mesh."""
    rig, texture = result.fit.rig, result.texture
    detail = {name: result.glb if name.endswith(".glb") else "full" for name in RIG_FILES}
    with ThreadPoolExecutor() as pool:  # compressing takes most of the time, and lets other threads run
        for written in [pool.submit(export_rig, rig, folder / name, head, texture, detail[name]) for name in RIG_FILES]:
            written.result()
    points = np.asarray(landmark_positions(head.landmarks68, rig.unit_mm * rig.neutral))
    write_points7(folder / "points7.txt", points[list(POINTS7)])
    save_views(folder / "views.npz", original_views(result.fit.views, result.photos), result.names)
    index, faces = submesh(head.faces, np.ones(len(head.part), bool))
    outward = faces[:, ::-1]  # v runs down, which mirrors the frame.
    for photo, vertices, used in zip(result.photos, result.vertices, result.used, strict=True):
        if used:
            write_ply(folder / "views" / f"{photo.name}.ply", original_pixels(vertices, photo)[index], outward)


def original_pixels(points, photo: Photo) -> np.ndarray:
    """Points (..., 2 or 3) in pixels of `photo.image` -> pixels of the upright original file; z in the same scale."""
    start, zoom = placing(photo)
    points, centre = np.asarray(points, np.float64), np.array([0.5, 0.5, 0])  # Pixel centres are at integers.
    n = points.shape[-1]
    return (points + centre[:n]) * zoom[:n] + start[:n] - centre[:n]


def placing(photo: Photo) -> tuple[np.ndarray, np.ndarray]:
    """Where `photo.image` starts in the upright original, (3,) px, and original pixels per pixel of it, (3,)."""
    height, width = photo.image.shape[:2]
    u0, v0, u1, v1 = photo.window or (0, 0, *photo.original_size[::-1])
    across, down = (u1 - u0) / width, (v1 - v0) / height
    return np.array([u0, v0, 0.0]), np.array([across, down, (across + down) / 2])


def original_views(views: Views, photos) -> Views:
    """Views with crops and landmarks in pixels of the upright originals; those of photos as they are do not change."""
    crops = [(np.asarray(views.crop.scale)[k], np.asarray(views.crop.offset)[k]) for k in range(len(photos))]
    landmarks, rows = np.array(views.landmarks), []
    for k, (photo, (scale, offset)) in enumerate(zip(photos, crops, strict=True)):
        if photo.image.shape[:2] != tuple(photo.original_size):
            landmarks[k] = original_pixels(landmarks[k], photo)
            scale, offset = scale / placing(photo)[1][2], original_pixels(offset, photo)
        rows.append((scale, offset))
    scale, offset = (np.array(column, np.float32) for column in zip(*rows, strict=True))
    return views.replace(landmarks=landmarks, crop=views.crop.replace(scale=scale, offset=offset))


def write_pictures(folder: Path, result: Result) -> None:
    """The overlays and the contact sheet."""
    for name, pictures in zip(result.names, result.pictures, strict=True):
        if pictures is not None:
            write_image(folder / "views" / f"{name}_overlay.png", pictures["overlay"])
    write_image(folder / "gallery.png", gallery(result))


def gallery(result: Result, cell: int = 224) -> np.ndarray:
    """Contact sheet: photos, overlays and geometry of each view; below, the rig turning and its expressions."""
    shown = [pictures for pictures in result.pictures if pictures is not None]
    names = [name for name, pictures in zip(result.names, result.pictures, strict=True) if pictures is not None]
    columns = max(4, len(shown))
    cells, labels = [], []

    def row(pictures, titles):
        pictures, titles = list(pictures), list(titles)
        short = -len(pictures) % columns
        cells.extend(pictures + [None] * short)
        labels.extend(titles + [""] * short)

    row((pictures["input"] for pictures in shown), names)
    row((pictures["overlay"] for pictures in shown), ["fitted face"] * len(shown))
    row((pictures["geometry"] for pictures in shown), ["geometry"] * len(shown))
    assert result.turntable is not None, "drawn wherever a report is asked for"
    n_frames = len(result.turntable)
    turns = [round(n_frames * k / columns) % n_frames for k in range(columns)]
    row((result.turntable[k] for k in turns), [f"rig, {360 * k // n_frames}°" for k in turns])
    moved = dict(list(result.expressions.items())[: max(1, len(result.expressions) // columns) * columns])
    row(moved.values(), moved)
    return grid(cells, columns, labels, cell)


def write_page(folder: Path, result: Result) -> None:
    """report.html."""
    status = int(result.fit.status)
    views = [_report_view(result, number) for number in range(len(result.photos))]
    report = Report(
        title="Face rig",
        status=describe(status),
        ok=status == Status.OK,
        summary=_summary(result),
        views=views,
        turntable=list(result.turntable),
        expressions=result.expressions,
        trace={} if result.steps else curves(result.fit.trace, result.names, result.used),
        steps=result.steps,
        files=describe_files(result.fit.rig, result.glb)
        | {f"views/{name}.ply": "posed mesh, pixels of that photo" for name in _used_names(result)},
        notes=result.notes,
        residual_scale=f"{round(255 * RESIDUAL_SCALE)} grey levels",
    )
    write_report(folder / "report.html", report)


def describe_files(rig: Rig, glb: str = "full") -> dict[str, str]:
    """File name -> what it is, with rig.glb in this detail."""
    files = dict(FILES)
    if rig.neural is not None:
        files["rig.glb"] = "a linear approximation of the rig: its named expressions one at a time, for Blender and "
        files["rig.glb"] += "other tools (metres)"
        files["rig.npz"] = "the exact rig with its networks, for facerig_jax.load_rig"
    if glb == "coarse":
        files["rig.glb"] += ", on the head's coarse mesh"
    return files


def _used_names(result: Result) -> list[str]:
    return [name for name, used in zip(result.names, result.used, strict=True) if used]


def _report_view(result: Result, number: int) -> ReportView:
    status, photo = int(result.fit.views.status[number]), result.photos[number]
    if not result.used[number]:
        return ReportView(photo.name, describe(status), False, input=fit_within(photo.image, 384))
    pitch, yaw, roll = np.rad2deg(result.fit.views.pose[number, :3])
    distance = 1e-3 * result.fit.rig.unit_mm / max(float(result.fit.views.inverse_distance[number]), 1e-9)
    facts = {
        "Reprojection error": f"{100 * result.error[number]:.1f} %",
        "Pitch, yaw, roll": f"{pitch:.0f}°, {yaw:.0f}°, {roll:.0f}°",
        "Camera distance": f"{distance:.1f} m" if distance < 20 else "far",
        "Photo": f"{photo.original_size[1]} x {photo.original_size[0]} px",
    }
    pictures = dict(result.pictures[number])
    pictures["input"] = pictures.pop("landmarks")
    return ReportView(photo.name, describe(status), status == Status.OK, facts, **pictures)


def _summary(result: Result) -> dict[str, str]:
    used = np.array(result.used)
    error = result.error[used]
    seconds = result.record["seconds"]
    rows = {
        "Photos used": f"{used.sum()} of {len(used)}",
        "Reprojection error": f"{100 * error.mean():.2f} % (largest {100 * error.max():.2f} %)",
    }
    for name, stage in records(result.fit.trace, result.names, result.used).items():
        if not result.steps or name.endswith("total"):
            rows[f"Energy, {name}"] = f"{stage['before']:.4g} → {stage['after']:.4g}"
    rows["Fit"] = f"{seconds['fit, compile']:.1f} s compile, {seconds['fit, run']:.1f} s run"
    return rows | {"Version": f"facerig_jax {result.record['versions']['facerig_jax']}"}


def write_record(folder: Path, result: Result) -> None:
    """fit.json, last of all: it lists the files that are there."""
    views = [
        {
            "name": photo.name,
            "file": file,
            "status": describe(status),
            "used": used,
            "reprojection_error": float(error) if used else None,
            "original_size": photo.original_size,
            "scale": photo.scale,
            "window": photo.window,
            "notes": photo.notes,
        }
        for photo, file, status, used, error in zip(
            result.photos, result.files, result.fit.views.status, result.used, result.error, strict=True
        )
    ]
    written = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    record = {
        "schema_version": 1,
        "status": describe(result.fit.status),
        "reprojection_error": float(np.mean(result.error[np.array(result.used)])),
        "views": views,
        "energies": records(result.fit.trace, result.names, result.used),
        **result.record,
        "notes": result.notes,
        "files": [*written, RECORD],
    }
    with atomic_write(folder / RECORD, "w") as file:
        json.dump(to_json(record), file, indent=1, ensure_ascii=False)

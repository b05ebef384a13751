"""One picture by which a person judges a registration: scan, result, and the distance between them."""

from __future__ import annotations

import numpy as np

from facerig_jax.numerics import srgb_to_linear
from facerig_jax.raster.render import linear_to_srgb8, render_geometry, render_mesh
from facerig_jax.register.register import SKIN, Registration
from facerig_jax.register.scan import Scan
from facerig_jax.report.pictures import grid, heat_map
from facerig_jax.types import HeadModel

YAWS = (0.0, 50.0)
# Distance of the brightest colour, mm.
BRIGHTEST_MM = 1.0
UNKNOWN = (150, 170, 190)


def registration_picture(head: HeadModel, scan: Scan, found: Registration, size: int = 360) -> np.ndarray:
    """(H, W, 3) uint8: a row from the front and one from the side of scan, result and distances.

    Dark is 0 mm, pale yellow 1 mm and more, grey blue where the scan does not say.
    """
    faces = np.asarray(head.faces)[(np.asarray(head.part)[head.faces] <= SKIN + 1).all(1)]
    face = found.vertices[np.asarray(head.face_mask) > 0.5]
    centre, scale = (face.min(0) + face.max(0)) / 2, 0.8 * size / np.ptp(face[:, 1])
    colours = _distance_colours(found)
    scanned = (scan.vertices - found.shift) @ found.rotation
    panels = []
    for yaw in YAWS:
        view = _camera(centre, scale, np.deg2rad(yaw), size)
        panels.append(_draw_scan(view(scanned), scan.faces, size))
        posed = view(found.vertices).astype(np.float32)
        panels.append(np.asarray(linear_to_srgb8(render_geometry(posed, faces, size, size, 2)[0])))
        panels.append(np.asarray(linear_to_srgb8(render_mesh(posed, faces, colours, size, size, 2)[0])))
    mean = found.statistics["mean_mm"]
    labels = ["scan", "registered", f"{mean:.2f} mm apart (pale: {BRIGHTEST_MM:g})"] + [""] * 3
    return grid(panels, 3, labels)


def _distance_colours(found: Registration) -> np.ndarray:
    """(P, 3) linear RGB."""
    colours = heat_map(found.distance[None], BRIGHTEST_MM, found.known[None], ground=UNKNOWN)[0]
    return np.asarray(srgb_to_linear(colours.astype(np.float32) / 255))


def _camera(centre, scale: float, yaw: float, size: int):
    """Head frame (n, 3) -> image frame of a `size` px picture that looks at `centre` from `yaw`."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    turn = np.array([[cos, 0, sin], [0, -1, 0], [-sin, 0, cos]])
    middle = np.array([(size - 1) / 2, (size - 1) / 2, 0])
    return lambda points: scale * (points - centre) @ turn.T + middle


def _draw_scan(posed: np.ndarray, faces: np.ndarray | None, size: int) -> np.ndarray:
    """(S, S, 3) uint8. Faces and vertices are padded to powers of two, so that scans share a compiled program."""
    if faces is None:
        return _splat(posed, size)
    vertices = np.zeros((_power(len(posed)), 3), np.float32)
    vertices[: len(posed)] = posed
    triangles = np.zeros((_power(len(faces)), 3), np.int32)
    triangles[: len(faces)] = faces
    return np.asarray(linear_to_srgb8(render_geometry(vertices, triangles, size, size, 2)[0]))


def _splat(posed: np.ndarray, size: int) -> np.ndarray:
    """(S, S, 3) uint8: points as dots, the nearer the darker; the nearest is drawn last."""
    image = np.full((size, size, 3), 255, np.uint8)
    posed = posed[np.argsort(posed[:, 2])]
    u, v = np.round(posed[:, 0]).astype(int), np.round(posed[:, 1]).astype(int)
    inside = (u >= 0) & (u < size) & (v >= 0) & (v < size)
    depth = posed[inside, 2]
    shade = 210 - 170 * (depth - depth.min(initial=0)) / max(np.ptp(depth) if len(depth) else 1.0, 1e-9)
    image[v[inside], u[inside]] = shade[:, None]
    return image


def _power(count: int) -> int:
    return 1 << max(int(count - 1).bit_length(), 10)

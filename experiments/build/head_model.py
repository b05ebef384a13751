"""Builds the embedded head's file from the wheel and the calibration tables (run by experiments/build/head.py)."""

from pathlib import Path

import numpy as np

from experiments.build import head_source as source
from experiments.build.head_albedo import build_albedo
from experiments.build.head_landmarks import re_embed
from experiments.build.head_mend import lift_lids, unfold
from experiments.build.head_refine import refine, subdivision_matrix
from experiments.build.head_regions import build_pockets, build_regions, smooth, tongue
from experiments.build.head_shape import build_shape
from experiments.build.head_uv import build_uv
from facerig_jax.head.load import SCHEMA_VERSION
from facerig_jax.head.subdivide import catmull_clark, subdivide, subdivided_mirror, triangulate

# Of the head's file. 1: the wheel's modes alone, files without the number; 2: refined modes, mended expressions.
VERSION = 2
LAYOUT = "uv_layout"
DENSE_POINTS = 468  # the table's further points are irises, which the skin cannot carry


def build_arrays(
    wheel_path: str | Path, new_layout: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, float | str]]:
    """The arrays of the head file, and figures for the log.

    With `new_layout` the UV are computed, which comes out up to 2 % of the square apart between linear algebra
    libraries; else they are the kept ones, where trained networks look.

    Arrays (V control vertices, P subdivided vertices, Q control quads; see `load.head_from_arrays`):
      mean (V, 3) f4 mm; identity (100, V, 3) f2; expression (52, V, 3) f2; expression_names (52,); quads (Q, 4) u2;
      part (V,) u1; mirror (V,) u2; uv (P, 2) u2, times 1/65535; face_mask (P,) u1; regions (R, P) u1, times 1/255;
      region_names (R,); landmarks68_* and landmarks_dense_*: triangle (L, 3) u2, barycentric (L, 3) f4, weight (L,) u1;
      albedo_mean (P, 3) f2 log linear RGB; albedo_fields (A1, V) f2; albedo_masks (A2, P) u1, times 1/255;
      albedo_colors (A1 + A2, 3) f4; schema_version; version.
    """
    table = source.read_calibration("identity_calibration")
    wheel = source.open_wheel(wheel_path, str(table["wheel_sha256"]))
    shape, calibrated = build_shape(wheel, table)
    topology = catmull_clark(shape.quads, len(shape.mean))
    surface = subdivide(topology, shape.mean)

    arrays = {
        "schema_version": np.int32(SCHEMA_VERSION),
        "version": np.int32(VERSION),
        "expression_names": np.array(shape.expression_names),
        "quads": shape.quads.astype(np.uint16),
        "part": shape.part.astype(np.uint8),
        "mirror": shape.mirror.astype(np.uint16),
    }
    figures: dict[str, float | str] = {"source": wheel.note}
    points = {}
    for name, table_name, count in (
        ("landmarks68", "landmarks68_on_mh", 68),
        ("landmarks_dense", "mediapipe468_on_mh", DENSE_POINTS),
    ):
        marks = source.read_calibration(table_name)
        index = np.full(shape.kept.max() + 1, -1)
        index[shape.kept] = np.arange(len(shape.kept))
        triangle, weight, moved = re_embed(
            index[marks["triangle"][:count]], marks["barycentric"][:count], calibrated, surface, topology
        )
        points[name] = np.einsum("lc,lcx->lx", weight, surface[triangle])
        arrays[f"{name}_triangle"] = triangle.astype(np.uint16)
        arrays[f"{name}_barycentric"] = weight
        arrays[f"{name}_weight"] = (
            marks["trusted"][:count].astype(np.uint8) if "trusted" in marks else np.ones(count, np.uint8)
        )
        figures[f"{name}_moved_mm_max"] = float(moved.max())

    face, regions = build_regions(shape, topology, surface, points["landmarks68"], points["landmarks_dense"], wheel)
    arrays["face_mask"] = face.astype(np.uint8)
    arrays["region_names"] = np.array(list(regions))
    arrays["regions"] = np.rint(255 * np.stack(list(regions.values()))).astype(np.uint8)
    fine_part = np.rint(smooth(shape.part, topology)).astype(int)
    if new_layout:
        triangles = triangulate(topology.quads).astype(np.int64)
        uv = build_uv(surface, triangles, topology.quads, fine_part, face, subdivided_mirror(topology, shape.mirror))
        arrays["uv"] = np.rint(uv * 65535).astype(np.uint16)
    else:
        arrays["uv"] = source.read_calibration(LAYOUT)["uv"]
    # everything that is laid out on the surface is laid out before it is refined, and moves with it
    embedding = arrays["landmarks68_triangle"].astype(int), arrays["landmarks68_barycentric"]
    operator = subdivision_matrix(topology)
    pockets = build_pockets(surface, topology.quads, fine_part == 0, face, points["landmarks68"])
    fields = source.read_calibration("identity_refinement")
    refined = refine(shape, topology, operator, fields, regions, pockets["eyes"] > 0, embedding)
    arrays["mean"], arrays["identity"] = refined.mean.astype(np.float32), refined.identity.astype(np.float16)
    mended, shares = unfold(shape, refined, topology, operator, face, np.maximum(regions["lips"], regions["eyelids"]))
    mended = lift_lids(shape._replace(expression=mended), refined.mean, topology, operator, pockets["eyes"] > 0)
    arrays["expression"] = mended.astype(np.float16)
    figures["shapes filled in where they folded"] = ", ".join(f"{name} {share:.3f}" for name, share in shares.items())

    control_skin = triangulate(shape.quads[shape.part[shape.quads[:, 0]] == 0]).astype(np.int64)
    albedo = build_albedo(
        *(shape.mean, control_skin, shape.face),
        *(surface, fine_part, face, tongue(topology.quads, surface, fine_part), regions),
        pockets,
        points["landmarks68"],
    )
    arrays["albedo_mean"] = albedo.mean.astype(np.float16)
    arrays["albedo_fields"] = albedo.fields.astype(np.float16)
    arrays["albedo_masks"] = np.rint(255 * albedo.masks).astype(np.uint8)
    arrays["albedo_colors"] = albedo.colors.astype(np.float32)
    return arrays, figures


def save_head(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes the head file; nothing half written is left behind when it fails."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    try:
        np.savez_compressed(partial, **arrays)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)

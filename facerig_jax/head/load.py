"""Loads a head by name or path. The embedded head's file holds its control mesh; it is subdivided here."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facerig_jax.checks import check_choice
from facerig_jax.head.subdivide import catmull_clark, subdivide, subdivided_mirror, triangulate
from facerig_jax.head.topology import tangent_stencil
from facerig_jax.io.arrays import load_arrays, read_arrays
from facerig_jax.types import HeadModel, LandmarkCalibration, LandmarkEmbedding

SCHEMA_VERSION = 1
REQUIRED = (
    *("mean", "identity", "expression", "expression_names", "quads", "uv", "part", "mirror", "face_mask"),
    *("albedo_mean", "albedo_fields", "albedo_masks", "albedo_colors", "region_names", "regions"),
    *(f"{name}_{key}" for name in ("landmarks68", "landmarks_dense") for key in ("triangle", "barycentric", "weight")),
)
ASSETS = Path(__file__).parent / "assets"
EMBEDDED = {"makehuman": "makehuman_head.npz"}
# How the shipped detector's points differ from the embedded head's: written by experiments.build.landmark_calibration.
CALIBRATION_FILE = "landmark_calibration.npz"


def load_head(name_or_path: str | Path = "makehuman") -> HeadModel:
    """A morphable head.

    The arrays are numpy's, so that loading is fast; they are traced when the head is passed to a jitted function.

    Args:
      name_or_path: 'makehuman', the head that comes with the package, or the path of a file written by
        `python -m experiments.build.head`. For other models see `load_published_form`.

    Returns:
      HeadModel in millimetres.

    Raises:
      ValueError: for an unknown name, a file that is no head, or one of another schema version.
      FileNotFoundError: when the path does not exist.

    Example:
      >>> head = load_head()
      >>> head.identity_basis.shape[0], len(head.expression_names)
      (100, 52)
    """
    if isinstance(name_or_path, str) and not name_or_path.endswith(".npz"):
        path = ASSETS / EMBEDDED[check_choice("head", name_or_path, EMBEDDED)]
        return _calibrated(head_from_arrays(load_arrays(path, (SCHEMA_VERSION,), REQUIRED), name=path.stem))
    path = Path(name_or_path)
    return head_from_arrays(load_arrays(path, (SCHEMA_VERSION,), REQUIRED), name=path.stem)


def _calibrated(head: HeadModel) -> HeadModel:
    """The embedded head with its landmark calibration; unchanged in a checkout that has not made one yet."""
    path = ASSETS / CALIBRATION_FILE
    if not path.is_file():
        return head
    assert head.landmarks_dense is not None, "the embedded head has dense landmarks"
    arrays = read_arrays(path)
    points = LandmarkEmbedding(arrays.pop("triangle"), arrays.pop("barycentric"), head.landmarks_dense.weight)
    habits = LandmarkCalibration(**{key: array.astype(np.float32) for key, array in arrays.items()})
    return head.replace(landmarks_dense=points, dense_calibration=habits)


def head_from_arrays(arrays: dict[str, np.ndarray], name: str) -> HeadModel:
    """The subdivided head from the arrays of its file (their list: see `experiments.build.head_model`)."""
    mean, identity, expression = (arrays[key].astype(np.float32) for key in ("mean", "identity", "expression"))
    topology = catmull_clark(arrays["quads"].astype(np.int64), len(mean))
    fields = arrays["albedo_fields"].astype(np.float32)
    shapes = np.concatenate([mean[None], identity, expression])
    rows = np.concatenate([shapes.transpose(1, 0, 2).reshape(len(mean), -1), fields.T], axis=1)
    fine = subdivide(topology, rows)
    shapes_fine = np.ascontiguousarray(fine[:, : 3 * len(shapes)].reshape(topology.size, -1, 3).transpose(1, 0, 2))
    part = np.rint(subdivide(topology, arrays["part"].astype(np.float32)[:, None])[:, 0]).astype(np.int32)
    # albedo modes: smooth fields live on the control mesh, sharp ones (lips, brows, ...) on the subdivided one
    scalar = np.concatenate([fine[:, 3 * len(shapes) :].T, arrays["albedo_masks"].astype(np.float32) / 255])
    regions = {
        key: mask.astype(np.float32) / 255 for key, mask in zip(arrays["region_names"], arrays["regions"], strict=True)
    }
    faces = triangulate(topology.quads)
    ring, ring_weight = tangent_stencil(faces, topology.size)
    return HeadModel(
        mean=shapes_fine[0],
        identity_basis=shapes_fine[1 : 1 + len(identity)],
        expression_basis=shapes_fine[1 + len(identity) :],
        albedo_mean=arrays["albedo_mean"].astype(np.float32),
        albedo_basis=scalar[:, :, None] * arrays["albedo_colors"].astype(np.float32)[:, None, :],
        faces=faces,
        ring=ring,
        ring_weight=ring_weight,
        coarse_faces=triangulate(arrays["quads"]),
        n_coarse=len(mean),
        quads=topology.quads.astype(np.int32),
        uv=arrays["uv"].astype(np.float32) / 65535,
        face_mask=arrays["face_mask"].astype(np.float32),
        part=part,
        regions={str(key): value for key, value in regions.items()},
        landmarks68=_embedding(arrays, "landmarks68"),
        landmarks_dense=_embedding(arrays, "landmarks_dense"),
        mirror=subdivided_mirror(topology, arrays["mirror"].astype(np.int64)).astype(np.int32),
        expression_names=tuple(str(key) for key in arrays["expression_names"]),
        name=name,
        version=int(arrays.get("version", 1)),
    )


def _embedding(arrays: dict[str, np.ndarray], name: str) -> LandmarkEmbedding:
    return LandmarkEmbedding(
        triangle=arrays[f"{name}_triangle"].astype(np.int32),
        barycentric=arrays[f"{name}_barycentric"],
        weight=arrays[f"{name}_weight"].astype(np.float32),
    )

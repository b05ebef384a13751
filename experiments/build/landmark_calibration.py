"""Measures on renders how the landmark net's points differ from the embedded head's, and writes the table.

    python -m experiments.build.landmark_calibration --subjects=1500 --landmark_net=mesh

About 15 minutes on 2 cores. Seeds are kept apart from those of the figures (`SEED`). Written to
facerig_jax/head/assets/landmark_calibration.npz, which `load_head` reads.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from experiments.build.calibrate import Renders, fit_calibration, move_points
from facerig_jax.detect import detect, load_detector
from facerig_jax.detect.nets import LANDMARK_NET, WEIGHTS
from facerig_jax.geometry.camera import project, to_image
from facerig_jax.geometry.rotation import euler_to_matrix
from facerig_jax.geometry.surface_distance import closest_points
from facerig_jax.head.load import ASSETS, CALIBRATION_FILE, EMBEDDED, load_head
from facerig_jax.head.model import landmark_positions
from facerig_jax.io.files import atomic_write
from facerig_jax.synthetic.subject import HARD, make_subject
from facerig_jax.types import HeadModel, LandmarkEmbedding

_SUBJECTS = flags.DEFINE_integer("subjects", 1500, "How many synthetic people, two renders each.", lower_bound=50)
_NET = flags.DEFINE_enum("landmark_net", LANDMARK_NET, sorted(WEIGHTS), "The net whose habits are measured.")
_OUT = flags.DEFINE_string("out", str(ASSETS / CALIBRATION_FILE), "The .npz file to write.")

SEED = 7_000_000
CONFIG = dataclasses.replace(HARD, n_views=2, yaw=50.0, pitch=20.0, expressiveness=0.15)
# A render whose median point is off by more (mm) shows a failed detection, not a habit of the net.
MAX_MEDIAN_MM = 12.0


@jax.jit
def render_and_detect(head, detector, index):
    """One subject's residuals (V, L, 2) mm with y up, found (V,), pose (V, 6) and codes."""
    subject = make_subject(head, SEED, index, CONFIG)
    found = jax.lax.map(lambda image: detect(detector, image), subject.images)
    truth = landmark_positions(head.landmarks_dense, subject.vertices)
    points = to_image(project(truth, subject.pose, subject.inverse_distance), CONFIG.size, CONFIG.size)
    residual = (found.landmarks - points)[..., :2] / subject.pose[:, 3, None, None] * jnp.array([[[1.0, -1.0]]])
    return residual, found.found, subject.pose, subject.identity, subject.expression


def uncalibrated_head() -> HeadModel:
    """The embedded head as it was built: the points before any calibration."""
    return load_head(ASSETS / EMBEDDED["makehuman"])


def collect(n_subjects: int, landmark_net: str) -> Renders:
    """Renders of subjects 0 .. n_subjects - 1, failed detections left out."""
    head, detector = jax.tree.map(jnp.asarray, (uncalibrated_head(), load_detector(landmark_net)))
    rows = []
    for index in range(n_subjects):
        residual, found, pose, identity, expression = jax.tree.map(np.asarray, render_and_detect(head, detector, index))
        trusted = np.linalg.norm(residual[:, head.landmarks_dense.weight > 0], axis=-1)
        for view in np.flatnonzero(found & (np.median(trusted, -1) < MAX_MEDIAN_MM)):
            rows.append((residual[view], pose[view], identity, expression[view]))
        if index % 100 == 99:
            logging.info("%d of %d people, %d renders", index + 1, n_subjects, len(rows))
    residual, pose, identity, expression = (np.stack(column) for column in zip(*rows, strict=True))
    rotation = np.asarray(euler_to_matrix(jnp.asarray(pose[:, :3])))
    return Renders(residual, rotation, pose[:, 2], identity, expression)


def main(_) -> None:
    """Collects, fits, reports and writes."""
    head = uncalibrated_head()
    renders = collect(_SUBJECTS.value, _NET.value)
    habits = fit_calibration(renders)
    trusted = head.landmarks_dense.weight > 0
    before = np.linalg.norm(renders.residual[:, trusted], axis=-1).mean()
    after = np.sqrt((habits.deviation[trusted] ** 2 + (habits.common[:, trusted] ** 2).mean(-1).sum(0)).mean())
    logging.info("points miss by %.2f mm; after calibration %.2f mm rms per axis", before, after)
    points, habits = move_points(head, habits, functools.partial(closest_on_skin, head))
    arrays = {field.name: getattr(habits, field.name).astype(np.float16) for field in dataclasses.fields(habits)}
    with atomic_write(_OUT.value) as file:
        np.savez_compressed(file, triangle=points.triangle, barycentric=points.barycentric, **arrays)
    logging.info("wrote %s; on average points moved by %.2f mm", _OUT.value, move_size(head, points)[trusted].mean())


def closest_on_skin(head: HeadModel, points: np.ndarray):
    """The closest points (n, 3) of the mean head's skin and their triangles' vertices (n, 3)."""
    skin = head.faces[(head.part[head.faces] == 0).all(1)]
    _, closest, triangle = closest_points(points, head.mean, skin)
    return closest, skin[triangle]


def move_size(head: HeadModel, points: LandmarkEmbedding) -> np.ndarray:
    """(L,) mm between the points' old and new places on the mean face."""
    places = (np.asarray(landmark_positions(embedding, head.mean)) for embedding in (head.landmarks_dense, points))
    return np.linalg.norm(np.subtract(*places), axis=-1)


if __name__ == "__main__":
    app.run(main)

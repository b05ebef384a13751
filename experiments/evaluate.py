"""Tables of how good the fit is.

    python -m experiments.evaluate --what=methods --out=DIR --count=100  # all methods, all protocols, CSV and plots
                                                  [--weights=FILE,...] [--renderer=train] [--views=4]
    python -m experiments.evaluate --what=ablation --out=DIR       # the learned solver without its parts, the same way
    python -m experiments.evaluate --subjects=DIR --out=DIR2       # the same on scanned people
    python -m experiments.evaluate --what=tune --method=adam       # a baseline's numbers, on the validation split
    python -m experiments.evaluate --what=synthetic --count=50     # true vertex error, V = 1, 2, 4, 8
    python -m experiments.evaluate --what=subjects --subjects=DIR  # NoW-style error; a folder of view_*, neutral.ply,
                                                                   # points7.txt per subject
    python -m experiments.evaluate --what=photos --images=DIR      # reprojection, also on held-out points
    python -m experiments.evaluate --what=real --images=DIR_or_video --out=DIR2
                                                                   # both solvers on real photos: reprojection,
                                                                   # photometry, and side_by_side.png
    python -m experiments.evaluate --what=camera                   # the inverse distance against the truth

    # a folder of people: DIR/<subject>/view_*.{jpg,png}, neutral.ply (mm), points7.txt (order of the NoW protocol)

Printed as plain tables, and as CSV with --csv=FILE; --what=methods and ablation write their files into --out, and go
on where an earlier run with the same settings stopped.
"""

import csv
import dataclasses
import functools
import sys
from pathlib import Path

import facerig_jax  # isort: skip  sets XLA flags before jax starts
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import cli, compare
from experiments.side_by_side import side_by_side
from facerig_jax import fit_rig, load
from facerig_jax.api import SOLVERS
from facerig_jax.data.photos import read_photos
from facerig_jax.data.subjects import HELD_OUT_SEED, Subject
from facerig_jax.detect import detect
from facerig_jax.detect.landmarks import LANDMARKS68, POINTS7
from facerig_jax.evaluate import tuned
from facerig_jax.evaluate.scan_protocols import now_distances
from facerig_jax.evaluate.statistics import bootstrap_interval
from facerig_jax.evaluate.vertex import vertex_error
from facerig_jax.fit.reprojection import dense_points
from facerig_jax.geometry.camera import project, to_image
from facerig_jax.geometry.crop import to_crop
from facerig_jax.head.model import landmark_positions
from facerig_jax.io.mesh_files import submesh
from facerig_jax.synthetic.subject import HARD, SubjectConfig, make_subject

TABLES = ("methods", "ablation", "tune", "synthetic", "subjects", "photos", "real", "camera")
_WHAT = flags.DEFINE_enum("what", None, TABLES, "Which table; default synthetic, with --subjects and --out methods.")
_COUNT = flags.DEFINE_integer("count", 50, "Synthetic subjects per row.", lower_bound=1)
_SUBJECTS = flags.DEFINE_string("subjects", None, "Folder of subject folders.")
_IMAGES = flags.DEFINE_string("images", "docs/photos", "Folder of photos of one person; with --what=real also a video.")
_VIEWS = flags.DEFINE_integer("views", 4, "Photos per subject with --what=subjects or methods.", lower_bound=1)
_CSV = flags.DEFINE_string("csv", None, "Also write the rows to this file.")
# Of --what=methods, ablation and tune; read in experiments.compare.
flags.DEFINE_string("out", None, "Folder for the files of --what=methods, ablation and real.")
flags.DEFINE_list("weights", [], "Files of trained weights, a row each.")
flags.DEFINE_boolean("allow_untrained", False, "Rows with random weights where none are given.")
flags.DEFINE_string("renderer", "hard", "Synthetic subjects: plain, hard, train, ... (presets of synthetic.subject).")
_SOLVER = flags.DEFINE_enum("solver", "classical", SOLVERS, "Whose fits synthetic, subjects and photos measure.")
flags.DEFINE_enum("landmarks", "detector", ["detector", "subject"], "Found on the photos, or the subject's own.")
flags.DEFINE_list("curve", ["1", "2", "4", "8"], "Numbers of photos for the error over their number; empty: none.")
flags.DEFINE_integer("curve_count", 20, "Subjects of that curve.", lower_bound=0)
flags.DEFINE_boolean("scan_protocols", True, "Also NoW, FG2018 and point-to-plane: seconds per subject and method.")
flags.DEFINE_enum("method", "adam", list(tuned.TUNED), "Which baseline --what=tune tunes.")
flags.DEFINE_integer("trials", 24, "Trials of --what=tune.", lower_bound=1)
flags.DEFINE_integer("time_steps", 60, "Adam's steps at equal time, for --what=tune --method=adam_time.")

# Synthetic subjects of the figures; calibration and training draw from other seeds.
SEED = HELD_OUT_SEED
HELD_OUT = 5  # every fifth trusted point


def main() -> None:
    """One table."""
    what = _WHAT.value or ("methods" if _SUBJECTS.value and flags.FLAGS.out else "synthetic")
    if what in ("methods", "ablation", "tune"):
        (compare.tune if what == "tune" else compare.compare)(flags.FLAGS)
        return
    tables = {"synthetic": synthetic, "subjects": subjects, "photos": photos, "camera": camera, "real": real}
    print_table(tables[what]())


def real():
    """Both solvers on the photos or the video of --images."""
    return side_by_side(_IMAGES.value, flags.FLAGS.out)


def print_table(table) -> None:
    """Prints a table row by row, and writes it where --csv says."""
    rows = []
    for row in table:
        if not rows:
            print("  ".join(f"{key:>14}" for key in row))
        rows.append(row)
        print("  ".join(f"{_text(value):>14}" for value in row.values()), flush=True)
    if _CSV.value:
        with open(_CSV.value, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


def progress(what: str):
    """Subject numbers, with a line on stderr that counts them."""
    for index in range(_COUNT.value):
        print(f"\r{what}: {index + 1} of {_COUNT.value}", end="", file=sys.stderr, flush=True)
        yield index
    print(file=sys.stderr)


def _text(value) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


@functools.partial(jax.jit, static_argnames="config")
def draw(head, detector, index, config: SubjectConfig) -> tuple[Subject, jax.Array]:
    """A subject and the landmarks (V, 468, 3) that the detector finds on it."""
    subject = make_subject(head, SEED, index, config)
    return subject, jax.lax.map(lambda image: detect(detector, image).landmarks, subject.images)


def synthetic():
    """True vertex error of the neutral face beside the mean face's; the second kind leaves the model's assumptions."""
    params, head = load()
    plain_head = head.replace(dense_calibration=None)  # for exact landmarks: nothing to allow for
    mask = jnp.asarray(head.face_mask)
    for kind, config in (
        ("on the basis", SubjectConfig(n_views=8)),
        ("off the basis", dataclasses.replace(HARD, n_views=8)),
    ):
        results: dict = {}
        for index in progress(kind):
            subject, detected = draw(head, params["detector"], index, config)
            exact = to_image(
                project(
                    landmark_positions(head.landmarks_dense, subject.vertices), subject.pose, subject.inverse_distance
                ),
                config.size,
                config.size,
            )
            fits = [(f"{v} views", v, head, detected) for v in (1, 2, 4, 8)] + [
                ("4, exact points", 4, plain_head, exact)
            ]
            mean_error = float(vertex_error(head.mean, subject.neutral, mask))
            results.setdefault("mean face", []).append((mean_error, 0.0))
            for name, n_views, used_head, points in fits:
                fit = fit_rig(
                    subject.images[:n_views], params, used_head, solver=_SOLVER.value, landmarks=points[:n_views]
                )
                rms = float(jnp.sqrt(jnp.mean(fit.rig.identity_code**2)))
                error = float(vertex_error(fit.rig.neutral, subject.neutral, mask))
                results.setdefault(name, []).append((error, rms))
        base = np.mean([error for error, _ in results["mean face"]])
        for name, values in results.items():
            errors, rms = np.array(values).T
            low, high = bootstrap_interval(errors)
            yield {
                "subjects": kind,
                "fit": name,
                "error mm": float(errors.mean()),
                "95 % low": low,
                "95 % high": high,
                "of mean face": float(errors.mean() / base),
                "identity rms": float(rms.mean()),
            }


def subjects():
    """NoW-style distances (mm) of a folder of subjects, pooled over scan vertices, beside the mean face's."""
    import trimesh

    if not _SUBJECTS.value or not Path(_SUBJECTS.value).is_dir():
        raise cli.UserError(
            f"--subjects={_SUBJECTS.value} is no folder; give one with <subject>/view_*.jpg folders in it."
        )
    params, head = load()
    index, skin = submesh(head.faces, np.asarray(head.part) == 0)
    pooled: dict = {"mean face": [], f"{_VIEWS.value} photos": []}
    for folder in sorted(path for path in Path(_SUBJECTS.value).iterdir() if (path / "neutral.ply").is_file()):
        files = sorted([*folder.glob("view_*.jpg"), *folder.glob("view_*.png")])[: _VIEWS.value]
        images = np.stack([photo.image for photo in read_photos(files)])
        fit = fit_rig(images, params, head, solver=_SOLVER.value)
        scan, points = trimesh.load(folder / "neutral.ply", process=False), np.loadtxt(folder / "points7.txt")
        row = {"subject": folder.name}
        for name, neutral in zip(pooled, (head.mean, fit.rig.neutral), strict=True):
            seven = np.asarray(landmark_positions(head.landmarks68, jnp.asarray(neutral)))[list(POINTS7)]
            distance = now_distances(np.asarray(scan.vertices), points, np.asarray(neutral)[index], skin, seven)
            pooled[name].append(distance)
            row |= (
                {f"{name} median": float(np.median(distance)), "mean": float(distance.mean())}
                if name == "mean face"
                else {"fit median": float(np.median(distance)), "fit mean": float(distance.mean())}
            )
        yield row | {"ratio": row["fit mean"] / row["mean"]}
    (face, fitted) = (np.concatenate(distances) for distances in pooled.values())
    yield {
        "subject": "pooled",
        "mean face median": float(np.median(face)),
        "mean": float(face.mean()),
        "fit median": float(np.median(fitted)),
        "fit mean": float(fitted.mean()),
        "ratio": float(fitted.mean() / face.mean()),
    }


def photos():
    """Reprojection over the outer-eye distance: all points fitted, then the held-out fifth of the trusted points."""
    params, head = load()
    files = sorted(path for path in Path(_IMAGES.value).iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[
        :8
    ]
    images = np.stack([photo.image for photo in read_photos(files)])
    trusted = np.flatnonzero(np.asarray(head.landmarks_dense.weight) > 0)
    held_out = trusted[::HELD_OUT]
    inner = np.intersect1d(LANDMARKS68[17:], trusted)
    kept = np.ones(len(head.landmarks_dense.weight), np.float32)
    kept[held_out] = 0
    fit = functools.partial(fit_rig, images, params, head, solver=_SOLVER.value)
    every, rest = fit(), fit(landmark_weight=kept)
    for view, file in enumerate(files):
        yield {
            "photo": file.stem,
            "17-67 %": 100 * landmark_error(head, every, view, inner),
            "held out %": 100 * landmark_error(head, rest, view, held_out),
            "17-67 h.o. %": 100 * landmark_error(head, rest, view, np.intersect1d(inner, held_out)),
        }


def landmark_error(head, fit, view: int, index) -> float:
    """Mean distance of fitted to detected points `index` over the outer-eye distance, in one view."""
    views = jax.tree.map(lambda a: a[view : view + 1], fit.views)
    points = dense_points(head, fit.rig, views)[0]
    found = to_crop(views.landmarks, views.crop)[0, :, :2]
    distance = jnp.linalg.norm(points - found, axis=-1)[jnp.asarray(index)]
    return float(distance.mean() / jnp.linalg.norm(found[33] - found[263]))


def camera():
    """Neutral-face error with the inverse distance free and held at 0 (orthographic), against the true distance."""
    params, head = load()
    mask = jnp.asarray(head.face_mask)
    orthographic = facerig_jax.Hyper(inverse_distance_mean=0.0, inverse_distance=1e-7)
    for distance in (300.0, 400.0, 600.0, 1000.0, 2000.0, 3000.0):
        config = SubjectConfig(distance=(distance, distance + 1e-3))
        errors, found = {"free": [], "orthographic": []}, []
        for index in progress(f"{distance / 1000} m"):
            subject, points = draw(head, params["detector"], index, config)
            for name, hyper in (("free", None), ("orthographic", orthographic)):
                fit = fit_rig(subject.images, params, head, solver="classical", landmarks=points, hyper=hyper)
                errors[name].append(float(vertex_error(fit.rig.neutral, subject.neutral, mask)))
                if name == "free":
                    found.append(float(fit.views.inverse_distance.mean()))
        yield {
            "distance m": distance / 1000,
            "free mm": float(np.mean(errors["free"])),
            "orthogr. mm": float(np.mean(errors["orthographic"])),
            "true 1/m": 1000 / distance,
            "found 1/m": float(1000 * np.mean(found)),
        }


if __name__ == "__main__":
    cli.run(main)

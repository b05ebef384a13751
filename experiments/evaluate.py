"""Tables of how good the fit is.

    python -m experiments.evaluate --out=DIR [--count=100]           # all methods, all protocols, CSV and plots
                                   [--weights=FILE,...] [--renderer=train] [--views=4]
    python -m experiments.evaluate --subjects=DIR --out=DIR2         # the same on scanned people
    python -m experiments.evaluate --what=ablation --out=DIR         # the same for the default fit without its parts
    python -m experiments.evaluate --what=tune --method=adam         # a baseline's numbers, on the validation split
    python -m experiments.evaluate --what=subjects --subjects=DIR    # scanned people, NoW alone: mean face, classical,
                                   [--views=4]                       # learned
    python -m experiments.evaluate --what=photos --images=DIR        # reprojection, also on held-out points
    python -m experiments.evaluate --what=real --images=DIR_or_video # both solvers on real photos: reprojection,
                                   [--out=DIR2]                      # photometry, and side_by_side.png

    # a folder of people: DIR/<subject>/view_*.{jpg,png}, neutral.ply (mm), points7.txt (order of the NoW protocol)

Printed as plain tables, and as CSV with --csv=FILE; --what=methods (the default) and ablation write their files into
--out, and go on where an earlier run with the same settings stopped.
"""

import csv
import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import cli
from experiments.candidates import choose, read_inputs
from experiments.evaluation import compare, tuned
from experiments.evaluation.side_by_side import SOLVERS, side_by_side
from facerig_jax.api import fit_rig, load
from facerig_jax.data.photos import pad_to_bucket
from facerig_jax.detect.landmarks import LANDMARKS68
from facerig_jax.fit.reprojection import dense_points
from facerig_jax.geometry.crop import to_crop

TABLES = ("methods", "ablation", "tune", "subjects", "photos", "real")
_WHAT = flags.DEFINE_enum("what", "methods", TABLES, "Which table.")
_IMAGES = flags.DEFINE_string("images", "docs/photos", "Folder of photos of one person; with --what=real also a video.")
_CSV = flags.DEFINE_string("csv", None, "Also write the rows to this file.")
_SOLVER = flags.DEFINE_enum("solver", "default", list(SOLVERS), "Whose fit --what=photos measures.")
# Of the other tables; read in experiments.evaluation.compare and samples.
flags.DEFINE_integer("count", 50, "Synthetic subjects.", lower_bound=1)
flags.DEFINE_string("subjects", None, "Folder of subject folders.")
flags.DEFINE_integer("views", 4, "Photos per subject.", lower_bound=1)
flags.DEFINE_string("out", None, "Folder for the files of --what=methods, ablation and real.")
flags.DEFINE_list("weights", [], "Files of trained weights, a row each.")
flags.DEFINE_boolean("allow_untrained", False, "Rows with random weights where none are given.")
flags.DEFINE_string("renderer", "hard", "Synthetic subjects: plain, hard, train, ... (presets of synthetic.subject).")
flags.DEFINE_enum("landmarks", "detector", ["detector", "subject"], "Found on the photos, or the subject's own.")
flags.DEFINE_list("curve", ["1", "2", "4", "8"], "Numbers of photos for the error over their number; empty: none.")
flags.DEFINE_integer("curve_count", 20, "Subjects of that curve.", lower_bound=0)
flags.DEFINE_boolean("scan_protocols", True, "Also NoW, FG2018 and point-to-plane: seconds per subject and method.")
flags.DEFINE_enum("method", "adam", list(tuned.TUNED), "Which baseline --what=tune tunes.")
flags.DEFINE_integer("trials", 24, "Trials of --what=tune.", lower_bound=1)
flags.DEFINE_integer("time_steps", 60, "Adam's steps at equal time, for --what=tune --method=adam_time.")

# Every fifth trusted point is held out, for --what=photos.
HELD_OUT = 5
MAX_PHOTOS = 8


def main() -> None:
    """One table."""
    options = flags.FLAGS
    whole = {"methods": compare.compare, "ablation": compare.compare, "tune": compare.tune}
    if _WHAT.value in whole:
        whole[_WHAT.value](options)
    else:
        tables = {"subjects": functools.partial(compare.scanned, options), "photos": photos, "real": real}
        print_table(tables[_WHAT.value]())


def real():
    """Both solvers on the photos or the video of --images."""
    params, head = load()
    return side_by_side(params, head, chosen_photos(params, head), flags.FLAGS.out)


def chosen_photos(params, head):
    """The photos or the video's frames of --images, the best ones where there are more than a fit takes."""
    inputs, found, files, _ = read_inputs(_IMAGES.value)
    return choose(params["detector"], head, inputs, found, files, MAX_PHOTOS, "alike").photos


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


def _text(value) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def photos():
    """Reprojection over the outer-eye distance: all points fitted, then the held-out fifth of the trusted points."""
    params, head = load()
    shown = chosen_photos(params, head)
    images, sizes = pad_to_bucket(shown)
    trusted = np.flatnonzero(np.asarray(head.landmarks_dense.weight) > 0)
    held_out = trusted[::HELD_OUT]
    inner = np.intersect1d(LANDMARKS68[17:], trusted)
    kept = np.ones(len(head.landmarks_dense.weight), np.float32)
    kept[held_out] = 0
    fit = functools.partial(fit_rig, images, params, head, config=SOLVERS[_SOLVER.value], image_size=sizes)
    every, rest = fit(), fit(landmark_weight=kept)
    for view, photo in enumerate(shown):
        yield {
            "photo": photo.name,
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


if __name__ == "__main__":
    cli.run(main)

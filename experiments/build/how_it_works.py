"""Draws docs/how_it_works.png: what the default fit makes of the bundled photos, stage by stage.

  python -m experiments.build.how_it_works

Pose and expression are those of the end; what the stages differ in is the person. About two minutes where nothing is
compiled yet.
"""

from pathlib import Path

import imageio.v3 as iio
import jax.numpy as jnp
import numpy as np
from absl import app, flags

import facerig_jax
from facerig_jax.data.photos import read_photo
from facerig_jax.report.pictures import grid
from facerig_jax.report.views import view_pictures

ROOT = Path(__file__).parents[2]
PHOTOS = flags.DEFINE_list("photos", ["frontal", "turned_right", "mouth_open", "smile"], "Names in docs/photos.")
OUT = flags.DEFINE_string("out", str(ROOT / "docs" / "how_it_works.png"), "The picture to write.")
CELL = 200


def main(argv: list[str]) -> None:
    """Fits and draws."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}.")
    photos = np.stack([read_photo(ROOT / "docs" / "photos" / f"{name}.jpg").image for name in PHOTOS.value])
    params, head = facerig_jax.load()
    fit = facerig_jax.fit_rig(photos, params, head)
    looks = len(fit.trace.correspondences.moved)
    stages = {
        "mean face": jnp.zeros_like(fit.rig.identity_code),
        "after the landmarks": fit.trace.identity[0],
        f"after {looks} looks": fit.trace.identity[looks],
        "after the colours": fit.trace.identity[-1],
    }
    shown = []
    for code in stages.values():
        neutral = jnp.asarray(head.mean) + jnp.tensordot(code, jnp.asarray(head.identity_basis), 1)
        rig = fit.rig.replace(neutral=neutral)
        shown.append(view_pictures(head, rig, fit.views, photos, np.ones(len(photos), bool), 2 * CELL))
    columns = ["photo", "468 landmarks", *stages, "drawn over the photo"]
    rows = [
        [shown[-1][view]["input"], shown[-1][view]["landmarks"], *(stage[view]["geometry"] for stage in shown)]
        + [shown[-1][view]["overlay"]]
        for view in range(len(photos))
    ]
    labels = [""] * (len(columns) * (len(rows) - 1)) + columns
    iio.imwrite(OUT.value, grid([picture for row in rows for picture in row], len(columns), labels, CELL))


if __name__ == "__main__":
    app.run(main)

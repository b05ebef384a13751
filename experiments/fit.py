"""Photos or a video of one person in, a face rig out:

    python -m experiments.fit --images=DIR_or_pattern_or_video --out=DIR

Use it on yourself or on people who agreed to it. Everything stays on this machine.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import platform
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from absl import flags

import facerig_jax
from experiments import cli
from experiments.candidates import choose, read_inputs
from experiments.faces import check_face
from facerig_jax.api import LEARNED, SOLVERS, fit_rig, load, settings
from facerig_jax.checks import check_choice
from facerig_jax.config import CLASSICAL, as_arrays
from facerig_jax.data.photos import Inputs, pad_to_bucket, pad_views
from facerig_jax.export.glb import DETAILS
from facerig_jax.fit.reprojection import face_brightness, reprojection
from facerig_jax.fit.status import USED, Status, describe
from facerig_jax.geometry.crop import to_photo
from facerig_jax.inorig.config import PRESETS
from facerig_jax.io.folder import check_folder, whole_folder
from facerig_jax.programs import Kept
from facerig_jax.report.energies import stalled
from facerig_jax.report.fit_files import Result, write_meshes, write_page, write_pictures, write_record
from facerig_jax.report.notes import cover_notes, dark_notes
from facerig_jax.report.steps import fit_steps
from facerig_jax.report.views import rig_pictures, view_pictures
from facerig_jax.texture import unwrap_texture
from facerig_jax.weights import read_weights

REFINE = "--refine is deprecated and does nothing: the steps it added gained nothing that could be measured."
UNTRAINED = "The networks have random weights (--allow_untrained): what follows is not a likeness."

_IMAGES = flags.DEFINE_string("images", None, "Folder, pattern ('DIR/*.jpg'), photo or video of one person.")
_OUT = flags.DEFINE_string("out", None, "Folder to write; the files of an earlier fit in it are replaced.")
_SOLVER = flags.DEFINE_string("solver", "learned", "learned, or classical: without networks.")
_PRESET = flags.DEFINE_string(
    "preset", "trained", f"trained, or untrained, of the published method: {', '.join(PRESETS)}."
)
_UNTRAINED = flags.DEFINE_bool("allow_untrained", False, "Run the published method on random weights: not a likeness.")
_WEIGHTS = flags.DEFINE_string("weights", None, "Weights written by experiments.train (.npz), for those that ship.")
_REFINE = flags.DEFINE_integer("refine", 0, "Deprecated, does nothing.", lower_bound=0)
_MAX_PHOTOS = flags.DEFINE_integer("max_photos", 8, "Photos or frames to fit, 1 to 8; of more, the best are chosen.")
_FACE = flags.DEFINE_string(
    "face", "alike", "Which face: alike (those of one person), largest, 1, 2, ... from the left."
)
_REPORT = flags.DEFINE_bool("report", True, "Draw pictures too: overlays, gallery.png and report.html.")
_GLB = flags.DEFINE_string("glb", "full", "rig.glb: full, or coarse (4,781 vertices, at most 3 MB).")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Write into a folder that holds other things than an earlier fit.")


def main() -> None:
    """Reads, chooses, fits, draws, writes."""
    phases = cli.Phases()
    check_flags()
    with phases("read"), ThreadPoolExecutor() as pool:
        pool.submit(importlib.import_module, "scipy.linalg")  # JAX asks for it when it loads a program
        loading = pool.submit(load_parameters)
        inputs, photos, files, passed_over = read_inputs(_IMAGES.value)
        params, head = loading.result()
    notes = tell([UNTRAINED] * _UNTRAINED.value + [REFINE] * bool(_REFINE.value))
    notes += tell(passed_over) + describe_inputs(inputs, photos)
    with phases("choose"):
        chosen = choose(params["detector"], head, inputs, photos, files, _MAX_PHOTOS.value, _FACE.value)
    notes += tell(chosen.notes) + describe_cuts(chosen.photos)
    photos, files = chosen.photos, chosen.files
    batch = make_batch(photos, chosen.landmarks)
    with ThreadPoolExecutor() as pool:
        fit, texture, placed = run_fit(params, head, batch, phases, pool)
        notes += check_views(fit, files)
        notes += describe_colours(head, fit, files)
        with phases("texture and pictures"):
            result = draw(head, fit, texture, placed, batch, photos, files)
    result.notes = notes + tell(stalled(result.fit.trace, result.names, result.used))
    with phases("write"), whole_folder(_OUT.value, _OVERWRITE.value) as folder:
        write_meshes(folder, head, result)
        result.record = make_record(inputs, phases)
        if _REPORT.value:
            write_pictures(folder, result)
            write_page(folder, result)
        write_record(folder, result)
    say_where(_OUT.value, result)


def check_flags() -> None:
    """Refuses flags in words, before anything is computed."""
    for flag in (_IMAGES, _OUT):
        if not flag.value:
            raise cli.UserError(f"--{flag.name} is missing: python -m experiments.fit --images=DIR --out=DIR")
    check_choice("--solver", _SOLVER.value, SOLVERS)
    check_choice("--glb", _GLB.value, DETAILS)
    check_choice("--preset", _PRESET.value, LEARNED)
    if _UNTRAINED.value and (_SOLVER.value != "learned" or _PRESET.value == "trained"):
        raise cli.UserError(f"--allow_untrained goes with --solver=learned and --preset={' or '.join(PRESETS)}.")
    if _WEIGHTS.value and (_SOLVER.value != "learned" or _UNTRAINED.value):
        raise cli.UserError("--weights goes with --solver=learned, without --allow_untrained.")
    if not 1 <= _MAX_PHOTOS.value <= 8:
        raise cli.UserError(f"--max_photos: 1 to 8 are allowed, got {_MAX_PHOTOS.value}.")
    check_face(_FACE.value)
    check_folder(_OUT.value, _OVERWRITE.value)


def load_parameters():
    """params and head on the device; refuses to go on where a preset has no weights."""
    params, head = load(_PRESET.value, allow_untrained=_UNTRAINED.value)
    return ({**params, "learned": given_weights()[0]} if _WEIGHTS.value else params), head


def describe_inputs(inputs: Inputs, photos) -> list[str]:
    """Says what was read, passed over and converted; returns it as notes."""
    what = f"{len(photos)} photos" if inputs.kind == "photos" else f"{len(photos)} frames of {inputs.files[0].name}"
    print(f"Read {what} from {inputs.files[0].parent}.")
    notes = [f"Passed over {', '.join(f.name for f in inputs.skipped)}: not photos."] if inputs.skipped else []
    notes += [f"{photo.name}: {', '.join(photo.notes)}." for photo in photos if photo.notes]
    return tell(notes)


def describe_cuts(photos) -> list[str]:
    """Says which photos were cut anew; returns it as notes."""
    return tell([f"{photo.name}: {photo.notes[-1]}." for photo in photos if photo.window])


def tell(notes: list[str]) -> list[str]:
    """Prints notes and returns them."""
    for note in notes:
        print(note)
    return notes


@dataclasses.dataclass
class Batch:
    """images (V, S, S, 3) uint8, sizes (V, 2), mask (V,): padded to a few sizes, so that few programs are compiled.

    landmarks: (V, 468, 3) px where the faces are not those that the detector takes by itself, else None.
    """

    images: np.ndarray
    sizes: np.ndarray
    mask: np.ndarray
    landmarks: np.ndarray | None = None


def make_batch(photos, landmarks=None) -> Batch:
    """Pads photos to one square and to 1, 2, 4 or 8 views."""
    images, sizes = pad_to_bucket(photos)
    images, mask = pad_views(images)
    return Batch(images, pad_views(sizes)[0], mask, None if landmarks is None else pad_views(landmarks)[0])


def fit_settings():
    """Static and traced settings that the flags ask for."""
    if _SOLVER.value == "classical":
        return settings(CLASSICAL, None)
    return settings(given_weights()[1] if _WEIGHTS.value else PRESETS.get(_PRESET.value), None)


@functools.cache
def given_weights():
    """Parameters and settings in the file of --weights."""
    return read_weights(_WEIGHTS.value)


def run_fit(params, head, batch: Batch, phases, pool: ThreadPoolExecutor):
    """The fit, compiled and run apart, with its texture and reprojection to come; weights and head are arguments."""
    config, hyper = fit_settings()
    named = {"view_mask": batch.mask, "image_size": batch.sizes, "hyper": as_arrays(hyper), "config": config}
    named |= {} if batch.landmarks is None else {"landmarks": batch.landmarks}
    count = len(batch.mask)
    slow = f"Compiling the fit for {count} photo{'s' * (count > 1)}, which is kept for the next time ..."
    with phases("fit, compile", slow):
        program = Kept(fit_rig, ("solver", "config")).compiled(batch.images, params, head, **named)
    with phases("fit, run"):
        fit = program(batch.images, params, head, **named)
        # While the fit is running, threads load what comes next.
        pool.submit(importlib.import_module, "pygltflib")
        placed = pool.submit(reprojection, head, fit.rig, fit.views)
        seen = (head, fit.rig, fit.views, batch.images, batch.sizes)
        texture = pool.submit(unwrap_texture, *seen, cover=fit.cover)
        return jax.block_until_ready(fit), texture, placed


def check_views(fit, files) -> list[str]:
    """Says which photos could not be used; refuses when none could."""
    problems = {
        file: describe(status)
        for file, status in zip(files, np.asarray(fit.views.status), strict=False)
        if status not in USED
    }
    if len(problems) == len(files):
        reasons = "; ".join(f"{file}: {reason}" for file, reason in problems.items())
        raise cli.UserError(f"No usable face, so nothing was written ({reasons}).")
    if int(fit.status) != Status.OK:
        raise cli.UserError(f"The fit failed ({describe(fit.status)}), so nothing was written.")
    words = {"no face found": "No face found in {file}; the fit goes on with the others."}
    return tell([words.get(why, "{file}: " + why + "; left out.").format(file=file) for file, why in problems.items()])


def describe_colours(head, fit, files) -> list[str]:
    """Says which photos are very dark, and what covers the face in all of them; returns it as notes."""
    status = np.asarray(fit.views.status)
    notes = dark_notes(np.asarray(face_brightness(head, fit.rig, fit.views)), status, files)
    return tell(notes + cover_notes(fit))


def draw(head, fit, texture: Future, placed: Future, batch: Batch, photos, files) -> Result:
    """Pictures and posed meshes of the real views (the padding ends here)."""
    used = [int(status) in USED for status in np.asarray(fit.views.status)]
    names, count = [photo.name for photo in photos], len(photos)
    pictures, frames, expressions, steps = [None] * count, None, {}, None
    if _REPORT.value:
        pictures = view_pictures(head, fit.rig, fit.views, batch.images, used)
        steps = fit_steps(head, fit, batch.images, names, used)
    placed = placed.result()
    vertices = to_photo(placed.vertices, fit.views.crop)
    texture = texture.result()
    if _REPORT.value:
        frames, expressions = rig_pictures(head, fit.rig, texture)
    fit = jax.tree.map(np.asarray, fit)
    fit = fit.replace(views=jax.tree.map(lambda x: x[:count], fit.views))
    vertices, error = np.asarray(vertices)[:count], np.asarray(placed.error)[:count]
    pictures = pictures[:count]
    drawn = (texture, pictures, frames, expressions, steps)
    return Result(fit, tuple(photos), tuple(files), vertices, error, *drawn, {}, [], _GLB.value)


def make_record(inputs: Inputs, phases) -> dict:
    """Versions, flags, timings and inputs, for fit.json."""
    versions = {"facerig_jax": facerig_jax.__version__}
    versions |= {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "numpy")}
    return {
        "versions": versions | {"python": platform.python_version()},
        "device": f"{jax.devices()[0].platform}: {jax.devices()[0].device_kind}",
        "flags": {
            flag.name: flag.value
            for flag in (
                *(_IMAGES, _OUT, _SOLVER, _PRESET, _WEIGHTS),
                *(_UNTRAINED, _REFINE, _MAX_PHOTOS, _FACE, _REPORT, _GLB, _OVERWRITE),
            )
        },
        "inputs": {
            "kind": inputs.kind,
            "files": [str(file) for file in inputs.files],
            "skipped": [str(file) for file in inputs.skipped],
        },
        "seconds": dict(phases.seconds),
    }


def say_where(out: str, result: Result) -> None:
    """Where to look."""
    error = 100 * result.error[np.array(result.used)].mean()
    print(f"{sum(result.used)} of {len(result.photos)} photos used, reprojection error {error:.2f} %.")
    look = f"Look at {Path(out) / 'report.html'}; o" if _REPORT.value else "O"
    print(f"{look}pen {Path(out) / 'rig.glb'} in Blender.")


if __name__ == "__main__":
    sys.exit(cli.run(main))

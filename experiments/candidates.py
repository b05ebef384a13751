"""Reads photos or a video, finds the person they show, and chooses the few pictures that a fit uses."""

from __future__ import annotations

import dataclasses

import numpy as np

from experiments import cli
from experiments.faces import ALIKE, LARGEST, NAMED, pick_faces
from facerig_jax.data.closeup import closeup_window, cut_photo, halves
from facerig_jax.data.photos import Inputs, Photo, find_inputs, read_original, read_usable
from facerig_jax.data.survey import Seen, see_faces
from facerig_jax.data.video import choose_frames, read_originals, read_video_frames, sharpness
from facerig_jax.io.files import InputError
from facerig_jax.report.pictures import resize
from facerig_jax.types import HeadModel

# Frames of a video that are looked at before some are chosen.
VIDEO_CANDIDATES = 64
# Faces are compared in sharpness at this size, px, so that a small face counts as less sharp.
FACE = 128


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What a fit gets: V photos, where each came from, notes for the user.

    landmarks: (V, 468, 3) px of each photo's image, NaN where there is no face; None where all faces are those that the
               detector takes by itself.
    """

    photos: list[Photo]
    files: list[str]
    landmarks: np.ndarray | None
    notes: list[str]


def read_inputs(spec: str, max_size: int = 1024) -> tuple[Inputs, tuple[Photo, ...], tuple[str, ...], list[str]]:
    """What was found, the photos (or candidate frames), where each came from, and what was passed over, in words.

    Raises:
      InputError: nothing can be used.
    """
    inputs = find_inputs(spec)
    if inputs.kind == "video":
        frames = read_video_frames(inputs.files[0], VIDEO_CANDIDATES, max_size)
        return inputs, frames, tuple(f"{inputs.files[0]} ({frame.name})" for frame in frames), []
    photos, refused = read_usable(inputs.files, max_size)
    if not photos:
        reasons = [reason.rstrip(".") for reason in refused.values()]
        more = f"; and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
        raise InputError("; ".join(reasons[:NAMED]) + more + ".")
    inputs = dataclasses.replace(inputs, files=tuple(file for file in inputs.files if file not in refused))
    return inputs, photos, tuple(map(str, inputs.files)), [f"Passed over: {reason}" for reason in refused.values()]


def choose(
    detector: dict, head: HeadModel, inputs: Inputs, photos, files, count: int, face: str = ALIKE, max_size: int = 1024
) -> Chosen:
    """Finds the person in the photos, leaves out who is somebody else, chooses up to `count`, cuts small faces anew.

    Args:
      detector: its weights.
      head: the embedded head.
      inputs: where photos come from, as `read_inputs` found it.
      photos, files: N of them.
      count: most to choose.
      face: 'alike': the face most like the others', 'largest': of each photo, '1', '2', ...: which from the left.
      max_size: most pixels a side of what is cut.

    Raises:
      UserError: no photo shows a (such a) face.
    """
    names = [photo.name for photo in photos]
    seen = see_faces(detector, head, photos, thorough=len(photos) == 1 or face not in (ALIKE, LARGEST))
    photos, seen = look_closer(detector, head, inputs, photos, files, seen, count, max_size)
    if not seen.found.any():
        named = "; ".join(f"{file}: no face found" for file in files[:NAMED])
        raise cli.UserError(f"No usable face in any of {len(photos)} pictures, so nothing was written ({named}).")
    picked = pick_faces(head, seen, names, face)
    if len(photos) > 1 and (doubtful := list(picked.doubtful)):  # the person may be somebody smaller in these
        again = see_faces(detector, head, [photos[k] for k in doubtful], thorough=True)
        seen = seen.replaced(doubtful, again)
        picked = pick_faces(head, seen, names, face)
    number, usable, notes = picked.number, picked.usable, list(picked.notes)
    wanted = (number >= 0) & usable
    if not wanted.any():
        raise cli.UserError(f"--face={face}: no photo shows as many faces, so nothing was written.")
    chosen = [k for k in range(len(photos)) if usable[k]]
    if len(chosen) > count:
        chosen = sharpest(photos, seen, np.where(wanted, number, -1), count)
        names = ", ".join(names[k] for k in chosen)
        notes.append(f"Chose {len(chosen)} of {len(photos)} by yaw and sharpness: {names}.")
    marks = [seen.landmarks[k, number[k]] if number[k] >= 0 else None for k in chosen]
    photos, files = ([group[k] for k in chosen] for group in (photos, files))
    photos, marks, plain = close_up(detector, head, inputs, photos, files, marks, number[chosen] <= 0, max_size)
    nowhere = np.full((468, 3), np.nan, np.float32)
    landmarks = None if plain.all() else np.stack([nowhere if mark is None else mark for mark in marks])
    return Chosen(photos, files, landmarks, notes)


def look_closer(detector: dict, head: HeadModel, inputs: Inputs, photos, files, seen: Seen, count: int, max_size: int):
    """Photos and `Seen` after a search in the originals of reduced photos without a face, while there are too few."""
    blank = [k for k in np.flatnonzero(~seen.found.any(1)) if photos[k].scale < 1]
    blank = blank[: max(0, count - int(seen.found.any(1).sum()))]
    photos = list(photos)
    for k, original in originals(inputs, files, photos, blank):
        parts = [cut_photo(photos[k], original, window, max_size) for window in halves(photos[k])]
        there = see_faces(detector, head, parts)
        size = np.where(there.found, np.prod(there.boxes[..., 2:] - there.boxes[..., :2], axis=-1), 0).max(1)
        if size.any():
            photos[k] = parts[size.argmax()]
            seen = seen.replaced([k], there.rows([size.argmax()]))
    return photos, seen


def sharpest(photos, seen: Seen, number: np.ndarray, count: int) -> list[int]:
    """Indices, ascending, of up to `count` photos whose face `number` (N,) (-1: none) spread over yaw and are sharp."""
    rows = np.arange(len(photos))
    box, yaw = seen.boxes[rows, number], seen.yaw[rows, number]
    sharp = [
        face_sharpness(photo.image, box) if k >= 0 else 0.0 for photo, box, k in zip(photos, box, number, strict=True)
    ]
    return choose_frames(yaw, sharp, number >= 0, count).tolist()


def close_up(detector: dict, head: HeadModel, inputs: Inputs, photos, files, marks, plain, max_size: int):
    """Photos whose face is small are cut from their originals: photos, landmarks (each (468, 3) or None), `plain`.

    `plain` (V,) says whether the face is the one that the detector takes by itself in that picture.
    """
    photos, marks, plain = list(photos), list(marks), np.array(plain)
    windows = {
        k: window
        for k, (photo, mark) in enumerate(zip(photos, marks, strict=True))
        if mark is not None and (window := closeup_window(mark, photo, max_size))
    }
    if not windows:
        return photos, marks, plain
    cuts = {}
    for k, original in originals(inputs, files, photos, windows):
        cuts[k] = cut_photo(photos[k], original, windows[k], max_size)
    seen = see_faces(detector, head, list(cuts.values()))
    for row, (k, photo) in enumerate(cuts.items()):
        shift = np.array([*photo.window[:2], 0]) - np.array([*(photos[k].window or (0, 0))[:2], 0])
        expected = ((marks[k] + [0.5, 0.5, 0]) / photos[k].scale - shift) * photo.scale - [0.5, 0.5, 0]
        apart = np.linalg.norm((seen.landmarks[row] - expected)[..., :2], axis=-1).mean(-1)
        apart = np.where(seen.found[row], apart / np.ptp(expected[:, 0]), np.inf)
        if apart.min() < 0.25:  # else it is another face, or none: the photo stays as it was
            photos[k], marks[k], plain[k] = photo, seen.landmarks[row, apart.argmin()], apart.argmin() == 0
    return photos, marks, plain


def originals(inputs: Inputs, files, photos, wanted):
    """Yields (k, (H, W, 3) uint8) for the wanted photos, at their own size, one at a time."""
    if inputs.kind == "photos":
        yield from ((k, read_original(files[k])) for k in wanted)
        return
    by_name = {photos[k].name: k for k in wanted}
    for frame in read_originals(inputs.files[0], by_name, VIDEO_CANDIDATES):
        yield by_name[frame.name], frame.image


def face_sharpness(image, box) -> float:
    """Sharpness of a face, brought to one size."""
    u0, v0, u1, v1 = np.round(box).astype(int)
    face = image[max(v0, 0) : max(v1, 0), max(u0, 0) : max(u1, 0)]
    return sharpness(resize(face, (FACE, FACE))) if min(face.shape[:2]) >= 3 else 0.0

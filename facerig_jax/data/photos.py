"""Photos and video frames from files, as the 8-bit sRGB arrays that the fit takes: found, read, reduced, padded."""

from __future__ import annotations

import dataclasses
import glob
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from facerig_jax.data.decode import ALLOWED, PHOTO_SUFFIXES, VIDEO_SUFFIXES, decode
from facerig_jax.io.files import InputError
from facerig_jax.report.pictures import fit_within

BUCKETS = (256, 512, 768, 1024)
VIEW_BUCKETS = (1, 2, 4, 8)
# Files that are decoded at a time.
READERS = 2


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What `find_inputs` found.

    kind:    'photos' (one or more files) or 'video' (exactly one).
    files:   in natural order.
    skipped: files of other types (HEIC, text, a video in a folder of photos, ...) that were passed over.
    """

    kind: str
    files: tuple[Path, ...]
    skipped: tuple[Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class Photo:
    """One photo or video frame.

    name:          unique within its set, fit for a file name.
    image:         (H, W, 3) uint8 sRGB, upright.
    original_size: (height, width) px of the upright original.
    scale:         pixels of `image` per pixel of the original, at most 1.
    notes:         what was converted, in words.
    window:        u0, v0, u1, v1 px of the upright original that `image` shows; None: all of it.
    """

    name: str
    image: np.ndarray
    original_size: tuple[int, int]
    scale: float
    notes: tuple[str, ...] = ()
    window: tuple[int, int, int, int] | None = None


def find_inputs(spec) -> Inputs:
    """Resolves a folder, a file or a pattern to photos or one video, in natural order (img2 before img10).

    A folder stands for the photos in it (not in its subfolders); hidden files are skipped. A pattern may use * ? [] **.
    Files of other types are passed over in folders and patterns, and refused when named directly.

    Raises:
      InputError: nothing there, nothing of an allowed type, or photos and videos mixed.

    Example:
      find_inputs("photos/*.jpg").files
    """
    path = Path(spec).expanduser()
    if path.is_file():
        return _of_types([path], f"{spec} is neither a photo nor a video that can be read; allowed: {ALLOWED}.")
    if path.is_dir():
        files = [f for f in path.iterdir() if f.is_file()]
        return _of_types(files, f"The folder {spec} holds no photos ({' '.join(PHOTO_SUFFIXES)}).", VIDEO_SUFFIXES)
    if not glob.has_magic(str(path)):
        raise InputError(f"{spec} does not exist; give a folder, a pattern such as 'DIR/*.jpg', a photo or a video.")
    files = [Path(f) for f in glob.glob(str(path), recursive=True) if Path(f).is_file()]
    if not files:
        raise InputError(f"No file matches {spec}.")
    return _of_types(files, f"None of the {len(files)} files that match {spec} can be read; allowed: {ALLOWED}.")


def _of_types(files: list[Path], nothing: str, pass_over=()) -> Inputs:
    """Sorts files into photos or one video; `nothing` is the complaint when there is neither."""
    files = sorted((f for f in files if not f.name.startswith(".")), key=_natural)
    photos = tuple(f for f in files if f.suffix.lower() in PHOTO_SUFFIXES)
    videos = tuple(f for f in files if f.suffix.lower() in VIDEO_SUFFIXES and f.suffix.lower() not in pass_over)
    if not photos and not videos:
        raise InputError(nothing)
    if videos and (photos or len(videos) > 1):
        raise InputError(f"Give either photos or one video, not {len(photos)} photos and {len(videos)} videos.")
    chosen = videos or photos
    return Inputs("video" if videos else "photos", chosen, tuple(f for f in files if f not in chosen))


def _natural(path: Path):
    """Sort key: numbers inside a name by value; the plain path decides between equals."""
    parts = [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", str(path).lower())]
    return parts, str(path)


def unique_names(paths) -> tuple[str, ...]:
    """File stems as names: unusual characters become '_', repeated names get '_2', '_3', ..."""
    names: list[str] = []
    for path in paths:
        stem = re.sub(r"[^\w.-]+", "_", Path(path).stem).strip("._") or "photo"
        name, count = stem, 1
        while name.lower() in {other.lower() for other in names}:
            count += 1
            name = f"{stem}_{count}"
        names.append(name)
    return tuple(names)


def read_usable(files, max_size: int = 1024) -> tuple[tuple[Photo, ...], dict[Path, str]]:
    """Reads the photos that can be read, with names that are unique among all files.

    Returns:
      photos: those that could be read, in order.
      refused: file -> why it could not be, one sentence.

    Raises:
      ImportError: see `read_photo`.
    """
    files = [Path(file) for file in files]

    def attempt(path, name):
        try:
            return dataclasses.replace(read_photo(path, max_size), name=name)
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(READERS) as pool:  # decoding lets other threads run
        read = list(pool.map(attempt, files, unique_names(files)))
    refused = {file: got for file, got in zip(files, read, strict=True) if isinstance(got, str)}
    return tuple(got for got in read if isinstance(got, Photo)), refused


def read_photo(path, max_size: int = 1024) -> Photo:
    """Reads one photo as upright 8-bit sRGB, at most `max_size` pixels on its larger side.

    Transparent pixels are put on white. A 16-bit value is divided by 257 and rounded. A photo is never enlarged.

    Raises:
      InputError: the file is missing, not an image, truncated, damaged, too large to decode safely, of floating-point
        pixels, or smaller than 32 pixels a side.
      ImportError: Pillow is missing.
    """
    pixels, notes = decode(Path(path), max_size)
    return reduced(Photo(unique_names([path])[0], pixels, pixels.shape[:2], 1.0, notes), max_size)


def read_original(path) -> np.ndarray:
    """A photo in its own size: (H, W, 3) uint8, upright; see `read_photo`."""
    return decode(Path(path), 10**9)[0]


def reduced(photo: Photo, max_size: int) -> Photo:
    """A photo at its original size, reduced to `max_size` pixels on its larger side where it is larger."""
    height, width = photo.original_size
    if max(height, width) <= max_size:
        return photo
    notes = (*photo.notes, f"reduced from {width} x {height} pixels")
    image = fit_within(photo.image, max_size)
    return dataclasses.replace(photo, image=image, scale=max_size / max(height, width), notes=notes)


def pad_to_bucket(images, buckets=BUCKETS) -> tuple[np.ndarray, np.ndarray]:
    """Pads photos at the bottom and right to one square size, so that few programs are ever compiled.

    Pixel coordinates do not change. The padding is black, as the face detector pads its own input; nothing of the
    picture is repeated in it.

    Args:
      images: V arrays (H, W, 3) uint8, or Photos.
      buckets: allowed sizes S, ascending; the smallest that holds all photos is used.

    Returns:
      padded: (V, S, S, 3) uint8.
      sizes: (V, 2) int32 height and width of each photo within it.

    Raises:
      ValueError: no image, not (H, W, 3) uint8, or larger than the largest bucket.
    """
    images = [np.asarray(image.image if isinstance(image, Photo) else image) for image in images]
    if not images:
        raise ValueError("images: at least one photo is needed.")
    for image in images:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"images: expected (H, W, 3) uint8, got {image.shape} {image.dtype}.")
    sizes = np.array([image.shape[:2] for image in images], np.int32)
    fitting = [size for size in buckets if size >= sizes.max()]
    if not fitting:
        raise ValueError(f"images: {sizes.max()} pixels a side do not fit the largest bucket, {max(buckets)}.")
    padded = np.zeros((len(images), min(fitting), min(fitting), 3), np.uint8)
    for row, image in zip(padded, images, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    return padded, sizes


def pad_views(images, buckets=VIEW_BUCKETS) -> tuple[np.ndarray, np.ndarray]:
    """Pads the number of views to the next bucket by repeating the first one.

    Args:
      images: (V, ...) any array with a leading axis of views.
      buckets: allowed numbers of views, ascending.

    Returns:
      padded: (B, ...) array, B the smallest bucket >= V.
      view_mask: (B,) float32, 1 for the real views and 0 for the padding.

    Raises:
      ValueError: no view, or more than the largest bucket.
    """
    images = np.asarray(images)
    fitting = [size for size in buckets if size >= len(images)]
    if not len(images) or not fitting:
        raise ValueError(f"images: 1 to {max(buckets)} views are allowed, got {len(images)}.")
    extra = min(fitting) - len(images)
    padded = np.concatenate([images, np.repeat(images[:1], extra, axis=0)])
    return padded, (np.arange(len(padded)) < len(images)).astype(np.float32)

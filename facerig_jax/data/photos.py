"""Photos and video frames from files, as the 8-bit sRGB arrays that the fit takes.

What is done to a photo, in this order: size check, ICC profile to sRGB, 16 bits to 8, transparency put on white, grey /
palette / CMYK to RGB, EXIF rotation, antialiased reduction to `max_size`. `Photo.notes` says which of these applied.
"""

from __future__ import annotations

import dataclasses
import glob
import io
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from facerig_jax.io.files import InputError, optional_import
from facerig_jax.report.pictures import fit_within

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
MIN_SIDE = 32
BUCKETS = (256, 512, 768, 1024)
VIEW_BUCKETS = (1, 2, 4, 8)
# Files that are decoded at a time.
READERS = 2
# EXIF orientation -> what undoes it (CIPA DC-008, tag 0x0112).
ORIENTATIONS = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}
ALLOWED = f"photos ({' '.join(PHOTO_SUFFIXES)}) or one video ({' '.join(VIDEO_SUFFIXES)})"


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


def read_photos(files, max_size: int = 1024) -> tuple[Photo, ...]:
    """`read_photo` for every file, with unique names; the first one that cannot be used is refused."""
    read, refused = read_usable(files, max_size)
    if refused:
        raise InputError(next(iter(refused.values())))
    return read


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
    pixels, notes = _decode(Path(path), max_size)
    return reduced(Photo(unique_names([path])[0], pixels, pixels.shape[:2], 1.0, notes), max_size)


def read_window(path, window, max_size: int = 1024) -> np.ndarray:
    """Part of a photo from its original pixels: (h, w, 3) uint8, upright, at most `max_size` on its larger side.

    Args:
      path: a file that `read_photo` reads.
      window: u0, v0, u1, v1 px of the upright original, as in `Photo.window`.
      max_size: what is larger is reduced.

    Raises:
      see `read_photo`.
    """
    pixels, _ = _decode(Path(path), max_size)
    return fit_within(cut(pixels, window), max_size)


def cut(pixels: np.ndarray, window) -> np.ndarray:
    """The part u0, v0, u1, v1 of a picture (H, W, ...)."""
    u0, v0, u1, v1 = window
    return pixels[v0:v1, u0:u1]


def reduced(photo: Photo, max_size: int) -> Photo:
    """A photo at its original size, reduced to `max_size` pixels on its larger side where it is larger."""
    height, width = photo.original_size
    if max(height, width) <= max_size:
        return photo
    notes = (*photo.notes, f"reduced from {width} x {height} pixels")
    image = fit_within(photo.image, max_size)
    return dataclasses.replace(photo, image=image, scale=max_size / max(height, width), notes=notes)


def _decode(path: Path, max_size: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """A file as (H, W, 3) uint8 sRGB, upright, in its own size, and notes; refused in words, see `read_photo`."""
    optional_import("PIL.Image", "Reading photos")
    iio = optional_import("imageio.v3", "Reading photos")
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    try:
        with warnings.catch_warnings():  # Pillow warns of what is handled here: large pictures, odd metadata.
            warnings.simplefilter("ignore")
            data = path.read_bytes()
            with iio.imopen(data, "r", plugin="pillow") as opened:
                return _to_rgb(opened, path, max_size)
    except InputError:
        raise
    except PermissionError:
        raise InputError(f"{path} may not be read (no permission).") from None
    except Exception as error:  # The decoders raise OSError, SyntaxError, ValueError, struct.error, ... for bad data.
        raise InputError(_complaint(path, error)) from error


def _complaint(path: Path, error: BaseException) -> str:
    """Why a picture could not be decoded: by the first of the errors, which imageio wraps in its own."""
    pil_image = optional_import("PIL.Image", "Reading photos")
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    if isinstance(error, pil_image.DecompressionBombError):
        return f"{path} has more than {2 * pil_image.MAX_IMAGE_PIXELS // 10**6} million pixels; reduce it first."
    if isinstance(error, pil_image.UnidentifiedImageError) or type(error).__name__ == "InitializationError":
        hint = "" if path.stat().st_size else " (empty file)"
        return f"{path} is not a picture of a known type{hint}; allowed: {ALLOWED}."
    return f"{path} is truncated or damaged and cannot be decoded ({error})."


def _to_rgb(opened, path: Path, max_size: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """An opened picture of any mode as upright RGB in sRGB, (H, W, 3) uint8, and notes."""
    info = opened.metadata(index=0, exclude_applied=False)
    mode, (width, height) = info["mode"], info["shape"]
    if min(width, height) * min(1.0, max_size / max(width, height)) < MIN_SIDE:
        raise InputError(f"{path} is too small: {width} x {height} pixels, and at least {MIN_SIDE} a side are needed.")
    notes = []
    if mode == "F":
        raise InputError(f"{path} holds floating-point pixels; save it as an 8-bit or 16-bit picture first.")
    if mode.startswith("I"):
        pixels = _eight_bits(opened.read(index=0), path)
        pixels, mode = np.repeat(pixels[..., None], 3, axis=2), "L"
        notes.append("16-bit grey converted to 8 bits")
    elif "A" in mode or "a" in mode or "transparency" in info:
        pixels, mode = _on_white(opened.read(index=0, mode="RGBA")), "RGB"
        notes.append("transparency put on white")
    else:
        pixels = opened.read(index=0, mode="RGB" if mode != "RGB" else None)
    profiled, profile_note = _icc_to_srgb(opened, pixels, mode, info.get("icc_profile"))
    notes += profile_note
    if profiled is not None:
        pixels = profiled
    elif mode != "RGB":
        notes.append(f"{mode} converted to RGB")
    orientation = opened.metadata(index=0, exclude_applied=False).get("Orientation", 1)
    if orientation in ORIENTATIONS:
        pixels = ORIENTATIONS[orientation](pixels)
        notes.append(f"turned upright (EXIF orientation {orientation})")
    return np.ascontiguousarray(pixels), tuple(notes)


def _eight_bits(values: np.ndarray, path: Path) -> np.ndarray:
    """Grey values of 16 bits as uint8."""
    values = values.astype(np.float64)
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"{path} holds 32-bit pixels; save it as an 8-bit or 16-bit picture first.")
    return np.round(values / 257).astype(np.uint8)


def _on_white(layer: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8 with opacity last -> (H, W, 3) uint8 on white ground."""
    opacity = layer[..., 3:].astype(np.float32) / 255
    return np.round(opacity * layer[..., :3] + 255 * (1 - opacity)).astype(np.uint8)


def _icc_to_srgb(opened, rgb: np.ndarray, mode: str, data: bytes | None):
    """The pixels through the embedded ICC profile, if there is a usable one that is not sRGB itself, or None; notes.

    Args:
      opened: the picture.
      rgb: (H, W, 3) its pixels, for mode RGB.
      mode: how the pixels are stored.
      data: its profile.
    """
    if not data or mode not in ("RGB", "CMYK", "L"):
        return None, []
    try:
        cms = optional_import("PIL.ImageCms", "Colour profiles")
        pil_image = optional_import("PIL.Image", "Colour profiles")
        profile = cms.ImageCmsProfile(io.BytesIO(data))
        name = cms.getProfileDescription(profile).strip()
        if mode == "RGB" and "sRGB" in name:
            return None, []
        stored = {"RGB": lambda: rgb, "L": lambda: rgb[..., 0], "CMYK": lambda: opened.read(index=0)}[mode]()
        image = pil_image.frombytes(mode, stored.shape[1::-1], np.ascontiguousarray(stored).tobytes())
        converted = cms.profileToProfile(image, profile, cms.createProfile("sRGB"), outputMode="RGB")
    except Exception as error:  # A damaged or unusual profile, or Pillow without LittleCMS: the pixels are still good.
        return None, [f"colour profile ignored ({error})"]
    return np.asarray(converted), [f"colours converted from {name or 'the embedded profile'} to sRGB"]


def pad_to_bucket(images, buckets=BUCKETS, fill: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pads photos at the bottom and right to one square size, so that few programs are ever compiled.

    Pixel coordinates do not change. The padding is one constant (black by default, as the face detector pads its own
    input); nothing of the picture is repeated in it.

    Args:
      images: V arrays (H, W, 3) uint8, or Photos.
      buckets: allowed sizes S, ascending; the smallest that holds all photos is used.
      fill: value of the padding, 0..255.

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
    padded = np.full((len(images), min(fitting), min(fitting), 3), fill, np.uint8)
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

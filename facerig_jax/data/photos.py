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
from pathlib import Path

import numpy as np

from facerig_jax.io.files import InputError, optional_import

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
MIN_SIDE = 32
BUCKETS = (256, 512, 768, 1024)
VIEW_BUCKETS = (1, 2, 4, 8)
# EXIF orientation -> the Pillow transpose that undoes it (CIPA DC-008, tag 0x0112).
ORIENTATIONS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
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
    """

    name: str
    image: np.ndarray
    original_size: tuple[int, int]
    scale: float
    notes: tuple[str, ...] = ()


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
    """`read_photo` for every file, with unique names."""
    named = zip(files, unique_names(files), strict=True)
    return tuple(dataclasses.replace(read_photo(path, max_size), name=name) for path, name in named)


def read_photo(path, max_size: int = 1024) -> Photo:
    """Reads one photo as upright 8-bit sRGB, at most `max_size` pixels on its larger side.

    Transparent pixels are put on white. A 16-bit value is divided by 257 and rounded. A photo is never enlarged.

    Raises:
      InputError: the file is missing, not an image, truncated, damaged, too large to decode safely, of floating-point
        pixels, or smaller than 32 pixels a side.
      ImportError: Pillow is missing.
    """
    path = Path(path)
    pil_image = optional_import("PIL.Image", "Reading photos")
    try:
        with warnings.catch_warnings():  # Pillow warns of what is handled here: large pictures, odd metadata.
            warnings.simplefilter("ignore")
            with pil_image.open(path) as opened:
                return _decode(opened, path, max_size)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except PermissionError:
        raise InputError(f"{path} may not be read (no permission).") from None
    except pil_image.UnidentifiedImageError:
        hint = " (empty file)" if path.stat().st_size == 0 else ""
        raise InputError(f"{path} is not a picture of a known type{hint}; allowed: {ALLOWED}.") from None
    except pil_image.DecompressionBombError:
        limit = 2 * pil_image.MAX_IMAGE_PIXELS // 10**6
        raise InputError(f"{path} has more than {limit} million pixels; reduce it first.") from None
    except Exception as error:  # The decoders raise OSError, SyntaxError, ValueError, struct.error, ... for bad data.
        raise InputError(f"{path} is truncated or damaged and cannot be decoded ({error}).") from error


def _decode(image, path: Path, max_size: int) -> Photo:
    """An opened Pillow image as a Photo."""
    pil_image = optional_import("PIL.Image", "Reading photos")
    width, height = image.size
    shrink = min(1.0, max_size / max(width, height))
    if min(width, height) * shrink < MIN_SIDE:
        raise InputError(f"{path} is too small: {width} x {height} pixels, and at least {MIN_SIDE} a side are needed.")
    image.draft(None, (2 * max_size, 2 * max_size))  # JPEG: decode at 1/2, 1/4 or 1/8 of the size where that suffices.
    image.load()
    orientation = image.getexif().get(0x0112, 1)
    image, notes = _to_rgb(image, path)
    if orientation in ORIENTATIONS:
        image = image.transpose(pil_image.Transpose[ORIENTATIONS[orientation]])
        notes.append(f"turned upright (EXIF orientation {orientation})")
        height, width = (width, height) if orientation >= 5 else (height, width)
    if shrink < 1:
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        image = image.resize(size, pil_image.Resampling.LANCZOS)
        notes.append(f"reduced from {width} x {height} pixels")
    return Photo(unique_names([path])[0], np.asarray(image), (height, width), shrink, tuple(notes))


def _to_rgb(image, path: Path):
    """Any Pillow mode to RGB in sRGB; returns the image and notes."""
    pil_image = optional_import("PIL.Image", "Reading photos")
    notes = []
    if image.mode == "F":
        raise InputError(f"{path} holds floating-point pixels; save it as an 8-bit or 16-bit picture first.")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f"{path} holds 32-bit pixels; save it as an 8-bit or 16-bit picture first.")
        image = pil_image.fromarray(np.round(values / 257).astype(np.uint8))
        notes.append("16-bit grey converted to 8 bits")
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        profile = image.info.get("icc_profile")
        layer = image.convert("RGBA")
        image = pil_image.new("RGBA", layer.size, "white")
        image.alpha_composite(layer)
        image = image.convert("RGB")
        image.info["icc_profile"] = profile
        notes.append("transparency put on white")
    image, profile_note = _icc_to_srgb(image)
    notes += profile_note
    if image.mode != "RGB":
        notes.append(f"{image.mode} converted to RGB")
        image = image.convert("RGB")
    return image, notes


def _icc_to_srgb(image):
    """Converts through the embedded ICC profile, if there is a usable one that is not sRGB itself."""
    data = image.info.get("icc_profile")
    modes = ("RGB", "CMYK", "L")
    if not data or image.mode not in modes:
        return image, []
    try:
        cms = optional_import("PIL.ImageCms", "Colour profiles")
        profile = cms.ImageCmsProfile(io.BytesIO(data))
        name = cms.getProfileDescription(profile).strip()
        if image.mode == "RGB" and "sRGB" in name:
            return image, []
        converted = cms.profileToProfile(image, profile, cms.createProfile("sRGB"), outputMode="RGB")
    except Exception as error:  # A damaged or unusual profile, or Pillow without LittleCMS: the pixels are still good.
        return image, [f"colour profile ignored ({error})"]
    return converted, [f"colours converted from {name or 'the embedded profile'} to sRGB"]


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

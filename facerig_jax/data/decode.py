"""A picture file as upright 8-bit sRGB pixels, through imageio's Pillow plugin.

What is done to it, in this order: size check, 16 bits to 8, transparency put on white, grey / palette / CMYK to RGB,
ICC profile to sRGB, EXIF rotation. The notes say which of these applied.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np

from facerig_jax.io.files import InputError, optional_import

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
MIN_SIDE = 32
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


def decode(path: Path, max_size: int) -> tuple[np.ndarray, tuple[str, ...]]:
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
    while deeper := error.__cause__ or error.__context__:
        error = deeper
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

"""Frames from a video, through the ffmpeg that imageio-ffmpeg brings, and the choice of the few that a fit uses."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from facerig_jax.data.decode import MIN_SIDE
from facerig_jax.data.photos import Photo, reduced
from facerig_jax.io.files import InputError, optional_import

QUIET = ("-v", "error", "-nostdin")
SQUARE = "scale=iw*sar:ih"  # Pixels that are not square are made so.
SEEK_ABOVE = 60  # Seek to each frame, rather than decode all, when it stands for more frames than this.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def _ffmpeg() -> str:
    return optional_import("imageio_ffmpeg", "Reading videos").get_ffmpeg_exe()


def count_frames(path) -> tuple[int, float]:
    """Number of frames in a video and its length in seconds (a few frames off at most), read from its packets.

    Raises:
      InputError: missing, or not a video.
    """
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist.")
    command = [_ffmpeg(), *QUIET, "-i", str(path), "-map", "0:v:0", "-c", "copy", "-progress", "-", "-f", "null", "-"]
    result = subprocess.run(command, capture_output=True, check=False)
    counts = dict(line.split("=", 1) for line in result.stdout.decode(errors="replace").splitlines() if "=" in line)
    if result.returncode or not counts.get("frame", "").strip().isdigit():
        raise InputError(f"{path} is not a video that ffmpeg can read.")
    if int(counts["frame"]) < 1:
        raise InputError(f"{path} holds no video frames.")
    micros = counts.get("out_time_us", "").strip()
    return int(counts["frame"]), int(micros) / 1e6 if micros.lstrip("-").isdigit() else 0.0


def sampled_indices(frames: int, count: int | None = None) -> np.ndarray:
    """(min(frames, count),) int, evenly spaced frame numbers; frame n is taken when floor(n count / frames) steps."""
    numbers = np.arange(frames)
    if count is None or count >= frames:
        return numbers
    return numbers[(numbers + 1) * count // frames > numbers * count // frames]


def iterate_frames(path, count: int | None = None, max_size: int = 1024) -> Iterator[Photo]:
    """Yields a video's frames in order, upright (ffmpeg applies the rotation that phones record), as 8-bit sRGB.

    Args:
      path: video file.
      count: evenly spaced frames to take; None takes all.
      max_size: the larger side is reduced to this many pixels; pixels that are not square are made so.

    Yields:
      Photo named 'frame_<number>', the number counting all frames of the video from 0. With more than 60 frames for
      each wanted one, frames are sought by time, and the number may then be a few off.

    Raises:
      InputError: missing, unreadable, damaged, or smaller than 32 pixels a side.
      ImportError: imageio-ffmpeg is missing.
    """
    for photo in _originals(path, count):
        yield dataclasses.replace(reduced(photo, max_size), notes=())


def read_originals(path, names, count: int | None = None) -> Iterator[Photo]:
    """The frames of these names (`Photo.name`) among those that `iterate_frames` gives, not reduced, in order."""
    names = set(names)
    for photo in _originals(path, count):
        if photo.name in names:
            names.discard(photo.name)
            yield photo
        if not names:
            return


def _originals(path, count: int | None) -> Iterator[Photo]:
    """Frames of a video at their own size; see `iterate_frames`."""
    frames, seconds = count_frames(path)
    numbers = sampled_indices(frames, count)
    if seconds > 0 and frames > SEEK_ABOVE * len(numbers):
        decoded = _sought(path, (numbers - 0.5) * seconds / frames)
    else:
        step = f"select='gt(floor((n+1)*{len(numbers)}/{frames}),floor(n*{len(numbers)}/{frames}))',"
        decoded = _decoded(path, step + SQUARE)
    done = 0
    for number, image in zip(numbers.tolist(), decoded, strict=False):
        if min(image.shape[:2]) < MIN_SIDE:
            height, width = image.shape[:2]
            raise InputError(f"{path} is too small: frames of {width} x {height} pixels, at least {MIN_SIDE} needed.")
        yield Photo(f"frame_{number:06d}", image, image.shape[:2], 1.0)
        done += 1
    if not done:
        raise InputError(f"{path} is truncated or damaged: none of its {frames} frames could be decoded.")


def _sought(path, times) -> Iterator[np.ndarray]:
    """Yields the first frame at or after each time (seconds), by seeking: faster where few are wanted of many."""
    for time in np.maximum(times, 0).tolist():
        yield from _decoded(path, SQUARE, ["-ss", f"{time:.4f}"], ["-frames:v", "1"])


def _decoded(path, filters: str, before=(), after=()) -> Iterator[np.ndarray]:
    """Yields (H, W, 3) uint8 frames from ffmpeg, through a pipe of PPM pictures, which carry their own size."""
    command = [_ffmpeg(), *QUIET, *before, "-i", str(path), "-map", "0:v:0", "-vf", filters, *after]
    command += ["-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-c:v", "ppm", "-f", "image2pipe", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None, "asked for above"
        try:
            while process.stdout.readline() == b"P6\n":
                width, height = map(int, process.stdout.readline().split())
                process.stdout.readline()  # The largest value, 255.
                data = process.stdout.read(3 * width * height)
                if len(data) == 3 * width * height:
                    yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
        finally:
            process.kill()


def read_video_frames(path, count: int = 64, max_size: int = 1024) -> tuple[Photo, ...]:
    """Up to `count` evenly spaced frames of a video; see `iterate_frames`."""
    return tuple(iterate_frames(path, count, max_size))


def sharpness(image) -> float:
    """Variance of the Laplacian of the luma, in grey levels squared: higher is sharper.

    Comparable between pictures of one size only. Measure of focus as in Pech-Pacheco et al., ICPR 2000.

    Args:
      image: (H, W, 3) uint8.
    """
    image = np.asarray(image)
    if min(image.shape[:2]) < 3:
        return 0.0
    luma = image.astype(np.float32) @ LUMA
    centre = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * centre
    return float(laplacian.var())


def choose_frames(yaw, sharpness, found, count: int = 8) -> np.ndarray:
    """Chooses up to `count` frames that spread over yaw and are sharp. Deterministic; the rule:

    1. Candidates are the frames with a face (and a finite yaw). Those less than half as sharp as the candidates' median
       are dropped, as long as at least `count` remain.
    2. The candidates' range of yaw is cut into `count` equal intervals, and each gives its sharpest frame.
    3. While there are too few (empty intervals), the frame farthest in yaw from all chosen ones is added; among equally
       far ones the sharper, then the earlier.

    Args:
      yaw: (M,) in any unit.
      sharpness: (M,) higher is sharper.
      found: (M,) bool, whether the frame shows a face.
      count: how many to choose.

    Returns:
      (min(count, candidates),) int indices, ascending; empty when no frame shows a face.
    """
    yaw, sharp = np.asarray(yaw, np.float64), np.nan_to_num(np.asarray(sharpness, np.float64))
    candidates = np.flatnonzero(np.asarray(found, bool) & np.isfinite(yaw))
    if len(candidates) <= count:
        return candidates
    crisp = candidates[sharp[candidates] >= 0.5 * np.median(sharp[candidates])]
    candidates = crisp if len(crisp) >= count else candidates
    low, high = yaw[candidates].min(), yaw[candidates].max()
    place = (yaw[candidates] - low) / (high - low) if high > low else np.zeros(len(candidates))
    interval = np.minimum((place * count).astype(int), count - 1)
    best_first = candidates[np.lexsort((candidates, -sharp[candidates]))]
    interval_of = dict(zip(candidates.tolist(), interval.tolist(), strict=True))
    chosen: dict[int, int] = {}
    for frame in best_first.tolist():
        chosen.setdefault(interval_of[frame], frame)
    picked = list(chosen.values())
    while len(picked) < count:
        rest = [frame for frame in best_first.tolist() if frame not in picked]
        picked.append(
            max(rest, key=lambda frame: np.abs(yaw[frame] - yaw[picked]).min())
        )  # first, so sharpest, of ties
    return np.sort(np.array(picked))

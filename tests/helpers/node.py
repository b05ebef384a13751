"""JavaScript programs that tests ask about files, from npm in the versions named here."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

PACKAGES = ("gltf-validator@2.0.0-dev.3.10", "three@0.187.0")
CACHE = Path(__file__).parents[2] / ".cache" / "node"


def installed(packages=PACKAGES) -> Path:
    """The folder with `node_modules`, made on first use; skips where it cannot be.

    FACERIG_REQUIRE_VALIDATOR=1 forbids skipping. Processes that install at the same time do not meet: each has a folder
    of its own, of which the first to be complete stays.
    """
    missing = pytest.fail if os.environ.get("FACERIG_REQUIRE_VALIDATOR") else pytest.skip
    if shutil.which("node") is None or shutil.which("npm") is None:
        missing("node and npm are needed to run the Khronos glTF validator and three.js.")
    folder = CACHE / "+".join(packages)
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=CACHE))
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", made, *packages]
    if subprocess.run(command, check=False, timeout=120).returncode != 0:
        shutil.rmtree(made)
        missing(f"npm could not install {' and '.join(packages)} (no network?).")
    try:
        made.rename(folder)
    except OSError:  # Another process was first.
        shutil.rmtree(made)
    return folder

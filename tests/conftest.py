"""Strict switches for every test, and the compilation cache that makes a second run fast."""

import os
import shutil
import subprocess
from pathlib import Path

# The tests run side by side: numpy's matrix products with a thread per core would hold each other up.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import numpy as np
import pytest

import facerig_jax  # noqa: F401  sets XLA flags before a backend starts

os.environ.setdefault("MPLBACKEND", "agg")

NODE_FOLDER = Path(__file__).parents[1] / ".cache" / "node"

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".cache" / "xla-tests"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@pytest.fixture(scope="session")
def head():
    """The embedded head, as arrays on the device."""
    import jax.numpy as jnp

    from facerig_jax import load_head

    return jax.tree.map(jnp.asarray, load_head())


@pytest.fixture(scope="module", autouse=True)
def release_programs():
    """Forget a module's compiled programs: each holds memory maps, of which Linux allows a process 65,530 by default.

    A process that runs out of them is aborted inside XLA, wherever it happens to be compiling.
    """
    yield
    jax.clear_caches()


@pytest.fixture
def rng():
    """A generator of its own for every test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def validator():
    """The folder with the Khronos validator, installed on first use; FACERIG_REQUIRE_VALIDATOR=1 forbids skipping."""
    missing = pytest.fail if os.environ.get("FACERIG_REQUIRE_VALIDATOR") else pytest.skip
    if shutil.which("node") is None or shutil.which("npm") is None:
        missing("node and npm are needed to run the Khronos glTF validator.")
    if not (NODE_FOLDER / "node_modules" / "gltf-validator").is_dir():
        package = "gltf-validator@2.0.0-dev.3.10"
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", NODE_FOLDER, package]
        NODE_FOLDER.mkdir(parents=True, exist_ok=True)
        if subprocess.run(command, check=False, timeout=120).returncode != 0:
            missing("npm could not install gltf-validator (no network?).")
    return NODE_FOLDER

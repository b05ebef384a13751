"""Strict switches for every test, and the compilation cache that makes a second run fast."""

import os
from pathlib import Path

# The tests run side by side: numpy's matrix products with a thread per core would hold each other up.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import numpy as np
import pytest

import facerig_jax  # noqa: F401  sets XLA flags before a backend starts

os.environ.setdefault("MPLBACKEND", "agg")

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".cache" / "xla-tests"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


# What two workers begin with, so that no long file is left over at the end.
LONGEST = (
    *("test_solvers.py", "test_api.py", "test_api_learned.py", "test_quality.py", "test_learned.py", "test_flow.py"),
    *("test_fit_cli.py", "test_parity.py", "test_texture.py", "test_training.py", "test_train_cli.py"),
    *("test_baselines.py", "test_synthetic.py", "test_detect.py"),
)


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in a hook of its own
def pytest_collection_modifyitems(items):
    """For --dist=loadgroup --no-loadscope-reorder: a file is a group unless its tests say otherwise, longest first."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node, ids):
    """Refuses to run where the groups are not heeded: each worker would compile nearly everything."""
    if node.config.option.dist == "loadgroup" and not all("@" in name for name in ids):
        pytest.exit("This pytest hides the groups of tests from pytest-xdist: install the one setup.cfg asks for.", 4)


@pytest.fixture(scope="session")
def head():
    """The embedded head, as arrays on the device."""
    import jax.numpy as jnp

    from facerig_jax import load_head

    return jax.tree.map(jnp.asarray, load_head())


@pytest.fixture(scope="session")
def node_folder():
    """A folder whose `node_modules` hold the Khronos glTF validator and three.js."""
    from helpers.node import installed

    return installed()


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

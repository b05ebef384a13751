"""The wheel: built from this tree, installed alone, it fits a face from a folder that is not the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "facerig_jax"
# Landmarks drawn from the mean face, 0.4 px a millimetre, so that neither a photo nor the detector is needed.
FIT = """
import jax.numpy as jnp
import facerig_jax as fr

points = fr.load_head().landmarks_dense
places = jnp.sum(fr.load_head().mean[points.triangle] * points.barycentric[..., None], axis=-2)
centred = 0.4 * (places - jnp.mean(places, axis=0))
landmarks = jnp.array([64.0, 64.0, 0.0]) + centred * jnp.array([1.0, -1.0, 1.0])
config = fr.FitConfig(flow=None, crop_size=64, photometric_steps=0)
fit = fr.fit_rig(jnp.full((1, 128, 128, 3), 0.5), landmarks=landmarks[None], config=config)
print(fr.__file__, float(jnp.abs(fit.rig.neutral - fr.load_head().mean).max()), fr.describe(fit.status), sep="|")
"""


def run(*command, cwd):
    """What a command prints; the test's own path is not passed on, so that only what is installed is imported."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: setuptools would put what lies in an old build/ into the wheel too."""
    folder = tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns(".*", "build", "out", "workdirs", "docs", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, folder / "tree", ignore=ignore)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ".", cwd=folder / "tree")
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The interpreter of a new environment with the wheel, which borrows everything else from this one."""
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(run(python, "-c", where, cwd=folder).strip())
    (own / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", wheel, cwd=folder)
    return python


@pytest.mark.thorough
def test_the_wheel_holds_the_package_with_its_assets_and_nothing_else(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert held == {str(path.relative_to(ROOT)) for path in files}
    assert {"facerig_jax/py.typed", *(f"facerig_jax/{part}/assets" for part in ("head", "detect", "networks"))} <= {
        *held,
        *(name.rpartition("/")[0] for name in held),
    }


@pytest.mark.thorough
def test_the_installed_wheel_fits_a_face_far_from_the_checkout(python, tmp_path):
    where, moved, status = run(python, "-c", FIT, cwd=tmp_path).strip().split("|")
    here, expected, _ = run(sys.executable, "-c", FIT, cwd=ROOT).strip().split("|")
    assert Path(where).is_relative_to(python.parents[1])
    assert Path(here).is_relative_to(ROOT)
    assert (moved, status) == (expected, "ok")

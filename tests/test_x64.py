"""JAX_ENABLE_X64 changes nothing: a fit stays in single precision, and its result is the same to rounding."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.subjects import POINTS_ONLY, small_head, small_params

import facerig_jax
from facerig_jax.head.model import landmark_positions

ROOT = Path(__file__).parents[1]

# Prints every operation of the package that makes float64 out of none, and every result that is one.
SOURCES = """
import sys
import jax, numpy as np
from jax._src import source_info_util
import facerig_jax

def double(variables):
    return any(getattr(v.aval, "dtype", None) == np.float64 and not v.aval.weak_type for v in variables)

def inner(equation):
    values = [v if isinstance(v, tuple) else (v,) for v in equation.params.values()]
    return [p for p in (getattr(part, "jaxpr", part) for value in values for part in value) if hasattr(p, "eqns")]

def sources(jaxpr):
    for equation in jaxpr.eqns:
        place = source_info_util.summarize(equation.source_info)
        made = double(equation.outvars) and not double(equation.invars) and not inner(equation)
        if made and "facerig_jax" in place:
            yield f"{place} {equation.primitive.name}"
        for part in inner(equation):
            yield from sources(part)

def show(traced):
    results = {f"result {out.dtype}" for out in traced.out_avals if out.dtype == np.float64}
    print("\\n".join(sorted(results | set(sources(traced.jaxpr)))), end="")

assert jax.config.jax_enable_x64
images = np.zeros((2, 128, 128, 3), np.uint8)
"""

TRACE = (
    SOURCES
    + """
from facerig_jax.inorig.config import PRESETS
config = PRESETS.get(sys.argv[1])
params, head = facerig_jax.load(sys.argv[1], allow_untrained=True)
show(jax.make_jaxpr(lambda *given: facerig_jax.fit_rig(*given, config=config))(images, params, head))
"""
)

# What the command line computes besides the fit.
DRAWING = (
    SOURCES
    + """
import jax.numpy as jnp
from facerig_jax.data import survey
from facerig_jax import texture
from facerig_jax.fit import reprojection
from facerig_jax.report import views as pictures
from facerig_jax.types import Crop, Rig, Views
params, head = facerig_jax.load()
f = lambda *shape: jnp.zeros(shape, jnp.float32)
rig = Rig(head.mean, head.expression_basis, f(*head.mean.shape), f(100), f(8), code_names=head.expression_names)
views = Views(f(2, 6), f(2), f(2, 52), f(2, 9, 3), Crop(f(2) + 1, f(2, 2), 64), f(2, 468, 3), jnp.zeros(2, jnp.int32))
sizes = np.full((2, 2), 128)
show(jax.make_jaxpr(lambda h, r, v: texture._unwrap(h, r, v, images, sizes, f(len(h.mean)), 64))(head, rig, views))
show(jax.make_jaxpr(lambda h, r: texture._albedo_texture(h, r, 64))(head, rig))
show(jax.make_jaxpr(lambda h, r, v: reprojection._reprojection(h, r, v))(head, rig, views))
show(jax.make_jaxpr(lambda h, r, v: pictures._draw(h, r, v, images, 64))(head, rig, views))
whole = lambda p, h: survey._survey(p, h, images, np.ones(2, bool), np.bool_(True))
show(jax.make_jaxpr(whole)(params["detector"], head))
"""
)

FIT = """
import sys
import jax, numpy as np
from test_x64 import leaves_of_a_fit

assert jax.config.jax_enable_x64
np.savez(sys.argv[1], *leaves_of_a_fit(np.float64))
"""


def leaves_of_a_fit(dtype) -> list[np.ndarray]:
    """Rig, views and status of a small classical fit to the mean head's own landmarks, given in a type; two views."""
    head = small_head()
    points = np.asarray(landmark_positions(head.landmarks_dense, head.mean), dtype)
    points = points * np.array([[0.4, -0.4, 0.4]], dtype) + np.array([[64, 64, 0]], dtype)
    options = {"landmarks": np.stack([points, points + 1]), "config": POINTS_ONLY}
    options |= {"landmark_weight": np.ones(468, dtype), "view_mask": np.ones(2, dtype)}
    images = np.random.default_rng(0).random((2, 128, 128, 3)).astype(dtype)
    fit = facerig_jax.fit_rig(images, small_params(), head, **options)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(fit)} <= {"float32", "int32", "bool"}
    return [np.asarray(leaf) for leaf in jax.tree.leaves((fit.rig, fit.views, fit.status))]


def with_x64(script: str, *arguments) -> str:
    """What a process with JAX_ENABLE_X64=1 prints."""
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    run = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=os.environ | {"JAX_ENABLE_X64": "1", "PYTHONPATH": paths},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout.strip()


@pytest.mark.parametrize("preset", ["trained", pytest.param("base", marks=pytest.mark.slow)])
def test_no_part_of_a_fit_becomes_double_with_x64_switched_on(preset):
    assert with_x64(TRACE, preset) == ""


def test_no_part_of_what_the_command_draws_becomes_double_with_x64_switched_on():
    assert with_x64(DRAWING) == ""


def test_a_fit_with_x64_switched_on_is_the_fit_without_to_rounding(tmp_path):
    with_x64(FIT, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as file:
        double = [file[name] for name in file.files]
    for single, leaf in zip(leaves_of_a_fit(np.float32), double, strict=True):
        assert np.isfinite(leaf).all()
        np.testing.assert_allclose(leaf, single, atol=1e-3 * max(1e-6, np.abs(single).max()))

"""Kept functions: traced once for all processes, the same as jax.jit makes them everywhere else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facerig_jax.inorig.decode import RigCode
from facerig_jax.programs import Kept, keep_traces
from facerig_jax.types import Crop, Rig

CROP = Crop(np.float32(2.0), np.arange(2, dtype=np.float32), 64)
ONES = np.ones((3, 3), np.float32)


@pytest.fixture
def folder(tmp_path):
    keep_traces(tmp_path)
    yield tmp_path
    keep_traces(None)


class Counted:
    """A function that knows how often it was traced; its new `Kept` selves stand for new processes."""

    def __init__(self):
        self.traced = 0

    def fresh(self) -> Kept:
        def place(points, crop: Crop, power: int = 1, names=("a", "b")):
            self.traced += 1
            moved = crop.scale * points**power + crop.offset[0]
            return {"rig": Rig(moved, points[None], points, None, None, code_names=names, unit_mm=1.5)}

        return Kept(place, ("power", "names"))


def test_a_second_process_does_not_trace(folder):
    counted = Counted()
    first = counted.fresh()(ONES, CROP)
    program = counted.fresh().compiled(ONES, CROP)
    second = program(2 * ONES, CROP)
    assert counted.traced == 1
    assert [path.suffix for path in folder.iterdir()] == [".stablehlo"]
    assert jax.tree.structure(first) == jax.tree.structure(second)
    assert second["rig"].code_names == ("a", "b")
    assert second["rig"].unit_mm == 1.5
    np.testing.assert_array_equal(first["rig"].neutral, 2 * ONES)
    np.testing.assert_array_equal(second["rig"].neutral, 4 * ONES)


@pytest.mark.usefixtures("folder")
def test_types_of_any_module_are_kept():
    def codes(x):
        return RigCode(x, 2 * x, 3 * x)

    for made in (Kept(codes)(ONES), Kept(codes)(ONES)):
        assert isinstance(made, RigCode)
        np.testing.assert_array_equal(made.albedo, 3 * ONES)


@pytest.mark.parametrize(
    ("points", "options"), [(np.ones((4, 3), np.float32), {}), (ONES, {"power": 2}), (ONES.astype(np.int32), {})]
)
def test_other_shapes_types_and_settings_are_other_programs(folder, points, options):
    counted = Counted()
    counted.fresh()(ONES, CROP)
    counted.fresh()(points, CROP, **options)
    assert counted.traced == 2
    assert len(list(folder.iterdir())) == 2


def test_a_damaged_file_is_written_anew(folder):
    counted = Counted()
    counted.fresh()(ONES, CROP)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    counted.fresh()(ONES, CROP)
    assert counted.traced == 2
    assert path.stat().st_size == len(whole)
    assert list(folder.iterdir()) == [path]


def test_a_folder_that_is_gone_costs_nothing_but_the_trace(tmp_path):
    keep_traces(tmp_path / "gone")
    try:
        counted = Counted()
        np.testing.assert_array_equal(counted.fresh()(ONES, CROP)["rig"].neutral, 2 * ONES)
        assert counted.traced == 1
    finally:
        keep_traces(None)


def test_nothing_is_kept_without_a_folder_or_inside_other_programs(folder):
    counted = Counted()
    function = counted.fresh()
    gradient = jax.grad(lambda points: jnp.sum(function(points, CROP, power=2)["rig"].neutral))(ONES)
    np.testing.assert_array_equal(gradient, 4 * ONES)
    assert not list(folder.iterdir())
    keep_traces(None)
    program = function.compiled(ONES, CROP, power=3)
    np.testing.assert_array_equal(program(2 * ONES, CROP, power=3)["rig"].neutral, 16 * ONES)
    assert not list(folder.iterdir())

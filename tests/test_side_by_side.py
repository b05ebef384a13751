"""Both solvers side by side on real photos: the table's rows, and a sheet with a cell for each."""

from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import facerig_jax
from experiments.evaluation import side_by_side as module
from experiments.evaluation.side_by_side import CELL, DRAWN, side_by_side
from facerig_jax.data.photos import read_usable
from facerig_jax.io.files import InputError

ASTRONAUT = Path(__file__).parents[1] / "docs" / "photos_astronaut" / "astronaut.jpg"
QUICK = facerig_jax.FitConfig(flow=None, landmark_steps=2, photometric_steps=0)


@pytest.fixture(autouse=True)
def both_are_quick(monkeypatch):
    """Both solvers stand for the landmark fit, which compiles in seconds."""

    def fit_rig(*args, config, **named):
        assert config in (facerig_jax.CLASSICAL, facerig_jax.FitConfig())
        return facerig_jax.fit_rig(*args, config=QUICK, **named)

    monkeypatch.setattr(module, "fit_rig", fit_rig)
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.thorough
def test_every_photo_with_a_face_has_a_row_and_a_column(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    with Image.open(ASTRONAUT) as photo:
        photo.save(folder / "a.png")
        Image.new("RGB", photo.size, (90, 120, 60)).save(folder / "b.png")
    photos = read_usable(sorted(folder.iterdir()))[0]
    row, mean = side_by_side(*facerig_jax.load(), photos, str(tmp_path / "out"))
    assert (row["photo"], mean["photo"]) == ("a", "mean")
    assert list(row) == ["photo", "classical 17-67 %", "default 17-67 %", "classical |dI|", "default |dI|"]
    numbers = np.array([value for name, value in row.items() if name != "photo"])
    assert np.isfinite(numbers).all()
    assert (numbers > 0).all()
    assert numbers[0] == numbers[1] < 5
    with Image.open(tmp_path / "out" / "side_by_side.png") as sheet:
        assert sheet.width < 2 * CELL
        assert sheet.height > (1 + 2 * len(DRAWN)) * CELL


@pytest.mark.thorough
def test_pictures_without_a_face_are_refused_in_words(tmp_path):
    Image.new("RGB", (300, 300), (90, 120, 60)).save(tmp_path / "b.png")
    with pytest.raises(InputError, match="No face found in any of the 1 pictures"):
        next(side_by_side(*facerig_jax.load(), read_usable([tmp_path / "b.png"])[0], None))

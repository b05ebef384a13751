"""A run is kept where its address says: in a store, through epath (etils.epath.testing stands in for one)."""

import dataclasses
import functools
import os
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from etils.epath.testing import mock_epath
from helpers.training import COLOURS, run, same

from experiments import train as command
from experiments.evaluation.plots import draw_curves
from experiments.training import loop
from experiments.training.checkpoints import Checkpoints
from experiments.training.config import DataConfig
from experiments.training.loop import Stopped, first_params, is_done
from experiments.training.tasks import task_of
from experiments.training.workdir import Records, open_workdir, read_metrics
from facerig_jax.io.files import STORES, InputError, as_path, atomic_write
from facerig_jax.weights import init_params, read_weights, write_weights

NAMES = ("open", "exists", "isdir", "listdir", "makedirs", "mkdir", "remove", "rmtree", "stat", "glob")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Folder that holds what is written to stores; the working folder, another one, has to stay empty."""
    there, here = tmp_path / "store", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)

    def stand_in(name, original, path, *more, **options):
        address = os.fspath(path)
        inside = address.startswith(STORES)
        local = there / address.split("://")[1] if inside else path
        if name == "open" and inside and more[0].startswith("w"):
            local.parent.mkdir(parents=True, exist_ok=True)  # stores know no folders
        return original(local, *more, **options)

    with mock_epath(**{name: functools.partial(stand_in, name) for name in NAMES}):
        yield there
    assert list(here.iterdir()) == []


def test_an_address_stays_one_and_a_mangled_or_unknown_one_is_refused(store):
    for address in ("gs://bucket/run", "s3://bucket/run", "az://bucket/run"):
        assert str(as_path(address) / "a.txt") == f"{address}/a.txt"
    assert as_path("a/b") == Path("a/b")
    for address in (Path("gs://bucket/run"), "http://host/run", "file:///a", "gcs://bucket"):
        with pytest.raises(InputError, match="neither a path of this machine nor an address that starts with gs://"):
            as_path(address)
        with pytest.raises(InputError, match="neither a path"), atomic_write(address) as file:
            file.write(b"x")


@pytest.mark.parametrize(("mode", "data"), [("wb", b"data"), ("w", "d\u00e9\n")])
def test_a_file_in_a_store_is_written_whole_or_not_at_all(store, mode, data):
    with atomic_write("gs://bucket/new/a", mode) as file:
        file.write(data)
        assert not (store / "bucket" / "new" / "a").exists()
    assert (store / "bucket" / "new" / "a").read_bytes() == (data if "b" in mode else data.encode())

    def interrupted():
        with atomic_write("gs://bucket/new/a", mode) as file:
            file.write(data)
            raise KeyboardInterrupt

    (store / "bucket" / "new" / "a").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (store / "bucket" / "new" / "a").read_bytes() == b"old"
    assert [path.name for path in (store / "bucket" / "new").iterdir()] == ["a"]


def test_settings_and_metrics_of_a_run_are_kept_and_found_again_in_a_store(store):
    for _ in range(2):
        open_workdir("gs://bucket/run", COLOURS)
    with pytest.raises(ValueError, match="gs://bucket/run holds a run with batch = 8, not 4"):
        open_workdir("gs://bucket/run", dataclasses.replace(COLOURS, batch=4))
    records = Records(as_path("gs://bucket/run"))
    for step in (1, 2):
        records.write(step, {"loss": 1.0 / step, "error": [2.0, 1.0]})
    assert [record["loss"] for record in read_metrics("gs://bucket/run")] == [1.0, 0.5]
    Records(as_path("gs://bucket/run"), 1).write(2, {"loss": 0.25})
    assert [record["loss"] for record in read_metrics("gs://bucket/run")] == [1.0, 0.25]
    draw_curves("gs://bucket/run", read_metrics("gs://bucket/run"), task_of(COLOURS).ERRORS)
    names = {path.name for path in (store / "bucket" / "run").iterdir()}
    assert names == {"config.json", "metrics.jsonl", "loss.png", "error.png"}


def test_weights_and_the_folder_of_checkpoints_have_addresses_too(store):
    params = init_params(jax.random.key(1), COLOURS.model)
    with atomic_write("gs://bucket/a.npz") as file:
        write_weights(file, params, COLOURS.model)
    same(read_weights("gs://bucket/a.npz")[0], params)
    same(first_params(dataclasses.replace(COLOURS, init="gs://bucket/a.npz")), params)
    with Checkpoints("s3://bucket/run/checkpoints") as checkpoints:  # of gs:// Orbax asks Google itself
        assert str(checkpoints.folder) == "s3://bucket/run/checkpoints"
        assert checkpoints.steps == []
    assert (store / "bucket" / "run" / "checkpoints").is_dir()


def test_a_sweeps_folder_is_below_its_address():
    path = Path(command.__file__).parent / "configs" / "base.py"
    assert str(command.settings(str(path), "gs://bucket/runs", [], 2)[1]) == "gs://bucket/runs/002"


def test_a_run_in_a_store_stops_and_goes_on_as_one_in_a_folder(store, tmp_path, monkeypatch):
    def beside(folder, keep):  # Orbax writes arrays through tensorstore, which epath's stand-in cannot reach
        assert str(folder) == "gs://bucket/run/checkpoints"
        return Checkpoints(tmp_path / "checkpoints", keep)

    def stop_at_two(step, record):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    config = dataclasses.replace(COLOURS, data=DataConfig(cache="gs://bucket/subjects"))
    monkeypatch.setattr(loop, "Checkpoints", beside)
    with pytest.raises(Stopped):
        run("gs://bucket/run", config, show=stop_at_two)
    assert not is_done("gs://bucket/run")
    state = run("gs://bucket/run", config)
    assert is_done("gs://bucket/run")
    assert [record["step"] for record in read_metrics("gs://bucket/run")] == [1, 2, 3, 4]
    same(read_weights("gs://bucket/run/weights.npz")[0], state.average)
    assert {path.name for path in (store / "bucket" / "run").iterdir()} == {
        "config.json", "metrics.jsonl", "weights.npz", "DONE"
    }  # fmt: skip
    kept = sorted((store / "bucket" / "subjects" / "train").glob("*.npz"))
    assert len(kept) == COLOURS.steps * COLOURS.batch
    monkeypatch.setattr(loop, "Checkpoints", Checkpoints)
    same(run(tmp_path / "folder"), state)
    assert np.load(kept[0]).files

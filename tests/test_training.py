"""Training: bit-exact resuming, whole checkpoints only, the same loss on any number of devices and processes.

Nothing of this depends on what is learned, so it is tested on the tiniest task there is; test_train_cli trains the
solver, test_flow the flow network.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.training import COLOURS, damage, run, same

from experiments import cli
from experiments.train import prepare
from experiments.training.checkpoints import Checkpoints
from experiments.training.config import DataConfig, OptimizerConfig
from experiments.training.examples import view_mask
from experiments.training.loop import Stopped, batch_numbers, is_done, make_batch, make_examples
from experiments.training.prepare import make_teacher
from experiments.training.sources import in_turn, make_sources
from experiments.training.train_step import init_state, make_mesh, make_update
from experiments.training.workdir import METRICS, open_workdir, read_metrics
from facerig_jax.config import FitConfig, FlowConfig
from facerig_jax.data.subjects import MadeSource
from facerig_jax.inorig.config import BASE
from facerig_jax.io.serialize import to_plain
from facerig_jax.synthetic.presets import SubjectConfig
from facerig_jax.weights import TRAINED, read_weights, trained, write_weights

# Of a damaged checkpoint Orbax reads the other arrays on while its event loop closes; tensorstore then reports, or not,
# a RuntimeError that nobody can catch.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. None[\s\S]*Event loop is closed:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run: its folder and its last state."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)


def test_a_run_keeps_its_contract(whole):
    folder, state = whole
    records = read_metrics(folder)
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    assert all({"loss", "time_s", "gradient_norm", "data_s", "update_s"} <= set(record) for record in records)
    assert json.loads((folder / "config.json").read_text())["task"] == "colours"
    assert is_done(folder)
    params, model = read_weights(folder / "weights.npz")
    assert model == COLOURS.model
    same(params, state.average)
    assert int(state.step) == 4
    assert jax.tree.structure(state.params) == jax.tree.structure(params)
    first = init_state(COLOURS, make_mesh()).params
    assert not all(jax.tree.leaves(jax.tree.map(np.array_equal, state.params, first)))


def test_tensorboard_reads_the_run(whole):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(whole[0] / "tensorboard")).Reload()
    losses = [record["loss"] for record in read_metrics(whole[0])]
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4]
    np.testing.assert_allclose([event.value for event in events.Scalars("loss")], losses, rtol=1e-6)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_and_going_on_equals_an_uninterrupted_run(whole, tmp_path, number):
    def stop_at_two(step, record):
        if step == 2:
            os.kill(os.getpid(), number)

    with pytest.raises(Stopped, match="after update 2 of 4") as stopped:
        run(tmp_path, show=stop_at_two)
    assert stopped.value.code == 128 + number
    assert not is_done(tmp_path)
    same(run(tmp_path), whole[1])
    names = [[record[name] for record in read_metrics(folder)] for folder in (tmp_path, whole[0]) for name in ("loss",)]
    assert names[0] == names[1]
    times = [record["time_s"] for record in read_metrics(tmp_path)]
    assert times == sorted(times)


def test_a_loop_outside_the_main_thread_trains_to_the_same_end(whole, tmp_path):
    with ThreadPoolExecutor(1) as worker:
        same(worker.submit(run, tmp_path).result(), whole[1])


CHILD = """
import os, signal, sys
sys.path[:0] = sys.argv[1:3]
import conftest, test_training
from experiments.training.checkpoints import Checkpoints

save = Checkpoints.save

def save_and_die(self, state, wait=False):
    save(self, state, wait=False)
    if int(state.step) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoints.save = save_and_die
test_training.run(sys.argv[3])
"""
HERE = Path(__file__).parent


def start(code, *arguments, **environment):
    """A Python process with the tests and the package on its path, in their compilation cache."""
    command = [sys.executable, "-c", code, str(HERE), str(HERE.parent), *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )


@pytest.mark.thorough
def test_a_run_killed_while_it_saves_goes_on_to_the_same_end(whole, tmp_path):
    child = start(CHILD, tmp_path)
    _, errors = child.communicate(timeout=300)
    assert child.returncode == -signal.SIGKILL, errors
    said = []
    same(run(tmp_path, say=said.append), whole[1])
    assert "from update 0" in said[0] or "from update 2" in said[0]


def cut(checkpoint):
    for file in checkpoint.rglob("d/*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def forget(checkpoint):
    (checkpoint / "_CHECKPOINT_METADATA").write_text("{")


@pytest.mark.parametrize("spoil", [damage, cut, forget])
def test_a_damaged_checkpoint_is_named_and_passed_over_even_for_one_bit(whole, tmp_path, spoil):
    state = whole[1]
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(dataclasses.replace(state, step=jnp.int32(step)), wait=True)
    spoil(tmp_path / "2")
    said = []
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps == [1, 2]
        found = checkpoints.restore(state, said.append)
    same(found, dataclasses.replace(state, step=jnp.int32(1)))
    assert len(said) == 1
    assert f"{tmp_path / '2'} " in said[0]
    assert "passed over" in said[0]


def test_a_checkpoint_of_another_version_is_refused_in_words(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as before, Checkpoints(tmp_path) as checkpoints:
        before.setattr("experiments.training.checkpoints.FORMAT", 1)
        checkpoints.save(whole[1], wait=True)
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match="another version of facerig_jax"):
        checkpoints.restore(whole[1])


def test_only_the_latest_checkpoints_stay_and_inference_weights_are_a_part_of_their_own(whole, tmp_path):
    state = whole[1]
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(dataclasses.replace(state, step=jnp.int32(step)), wait=True)
        assert checkpoints.steps == [2, 3]
    assert (tmp_path / "3" / "inference").is_dir()


DEVICES = """
import sys
sys.path[:0] = sys.argv[1:3]
import conftest, test_training
print("loss", *test_training.losses())
"""
PROCESS = """
import sys
sys.path[:0] = sys.argv[1:3]
import jax
jax.distributed.initialize(f"localhost:{sys.argv[4]}", 2, int(sys.argv[3]))
import conftest, test_training
assert jax.process_count() == 2
print("loss", *test_training.losses())
"""


def losses(config=COLOURS, updates=2, source=None):
    """The losses of the first updates."""
    mesh = make_mesh()
    state, teacher = init_state(config, mesh), make_teacher(tiny.tiny_head(), config.model)
    examples, _ = make_examples(config, teacher, source or tiny.TinySubjects(), None)
    update, weights = make_update(config, config.stages_at(0), mesh), jax.tree.map(jnp.float32, config.losses)
    found = []
    for step in range(updates):
        state, measures = update(state, teacher, make_batch(examples, config, step, mesh), weights)
        found.append(float(measures["loss"]))
    return found


def printed_losses(child):
    out, errors = child.communicate(timeout=400)
    lines = [line for line in out.splitlines() if line.startswith("loss")]
    assert lines, errors[-2000:]
    return [float(x) for x in lines[0].split()[1:]]


@pytest.mark.thorough
def test_the_loss_of_a_batch_is_the_same_on_one_and_eight_devices_and_two_processes(whole):
    expected = [record["loss"] for record in read_metrics(whole[0])[:2]]
    port = 20000 + os.getpid() % 20000
    flags = os.environ.get("XLA_FLAGS", "")
    eight = start(DEVICES, XLA_FLAGS=f"{flags} --xla_force_host_platform_device_count=8")
    two = [start(PROCESS, number, port) for number in range(2)]
    for child in (eight, *two):
        np.testing.assert_allclose(printed_losses(child), expected, rtol=2e-5)


def test_prepared_subjects_come_back_from_their_folder_as_they_were_made(tmp_path):
    config = dataclasses.replace(COLOURS, data=DataConfig(cache=str(tmp_path)))
    teacher = make_teacher(tiny.tiny_head(), config.model)
    made = make_examples(config, teacher, tiny.TinySubjects(), None)[0](3)
    kept = make_examples(config, teacher, tiny.TinySubjects(), None)[0](3)
    same(made, kept)
    assert [path.name for path in tmp_path.rglob("*.npz")] == ["00000003.npz"]
    other = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, landmarks="68" if config.model.landmarks == "dense" else "dense"),
    )
    with pytest.raises(ValueError, match="holds subjects with another model"):
        make_examples(other, teacher, tiny.TinySubjects(), None)


def test_a_cache_is_filled_in_parts_side_by_side(tmp_path):
    config = dataclasses.replace(COLOURS, data=DataConfig(cache=str(tmp_path), count=5))
    few = MadeSource("five", 5, tiny.TinySubjects())
    prepare(config, tiny.tiny_head(), few, None, "1/2")
    assert sorted(path.stem for path in tmp_path.rglob("*.npz")) == ["00000001", "00000003"]
    prepare(config, tiny.tiny_head(), few, None, "0/2")
    assert len(list(tmp_path.rglob("*.npz"))) == 5
    for part in ("2/2", "all"):
        with pytest.raises(cli.UserError, match="expected I/N"):
            prepare(config, tiny.tiny_head(), few, None, part)
    with pytest.raises(cli.UserError, match=r"needs data\.cache"):
        prepare(COLOURS, tiny.tiny_head(), few, None, "0/1")


def test_kinds_of_subjects_take_turns():
    both = in_turn([MadeSource(name, 9, lambda index, name=name: (name, index)) for name in "ab"])
    assert [both(index) for index in range(3)] == [("a", 0), ("b", 1), ("a", 2)]
    one, two = SubjectConfig(n_views=1), SubjectConfig(n_views=2)
    config = dataclasses.replace(COLOURS, data=DataConfig(subject=one, others=(one,), count=3), validation=2)
    assert [len(source) for source in make_sources(config, tiny.tiny_head())] == [3, 2]
    unequal = dataclasses.replace(config, data=DataConfig(subject=one, others=(two,)))
    with pytest.raises(ValueError, match="need as many photos"):
        make_sources(unequal, tiny.tiny_head())


def test_fewer_photos_count_where_asked_always_the_same():
    data = DataConfig(min_views=1)
    masks = np.array([view_mask(4, data, index) for index in range(200)])
    assert set(masks.sum(1)) == {1, 2, 3, 4}
    assert (masks[:, 0] == 1).all()
    np.testing.assert_array_equal(masks[7], view_mask(4, data, 7))


def test_an_update_that_is_not_finite_changes_no_weights():
    mesh = make_mesh()
    state = init_state(COLOURS, mesh)
    before = jax.tree.map(np.array, state.params)
    teacher = make_teacher(tiny.tiny_head(), COLOURS.model)
    batch = make_batch(make_examples(COLOURS, teacher, tiny.TinySubjects(), None)[0], COLOURS, 0, mesh)
    weights = jax.tree.map(jnp.float32, dataclasses.replace(COLOURS.losses, flow=np.nan))
    state, measures = make_update(COLOURS, 0, mesh)(state, teacher, batch, weights)
    assert int(measures["skipped"]) == 1
    same(state.params, before)


def test_other_settings_or_a_strangers_folder_are_refused(whole, tmp_path):
    changed = dataclasses.replace(COLOURS, optimizer=OptimizerConfig(learning_rate=2e-3, warmup=2))
    with pytest.raises(ValueError, match=r"optimizer.learning_rate = 0.01, not 0.002"):
        open_workdir(whole[0], changed)
    open_workdir(whole[0], dataclasses.replace(COLOURS, log_every=2))
    open_workdir(whole[0], COLOURS)
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        open_workdir(tmp_path, COLOURS)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.thorough
def test_the_pose_regressor_learns():
    model, slow = tiny.changed(stages=1, steps=1), OptimizerConfig(learning_rate=1e-3, warmup=2)
    config = dataclasses.replace(COLOURS, task="pose", model=model, optimizer=slow)
    before, *_, after = losses(config, updates=6, source=tiny.TinySubjects(8))
    assert after < before


def test_a_batch_that_devices_cannot_share_is_refused(tmp_path):
    with pytest.raises(ValueError, match="batch: 8 subjects"):
        run(tmp_path, dataclasses.replace(COLOURS, microbatch=3))


def test_a_cut_off_last_line_of_the_metrics_is_left_out(tmp_path):
    (tmp_path / METRICS).write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.0}]


def test_every_subject_of_a_finite_source_is_seen_once_an_epoch():
    seen = np.concatenate([batch_numbers(10, 4, DataConfig(seed=7), step) for step in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert (seen[:10] != seen[10:]).any()


@pytest.mark.parametrize("reuse", [1, 3])
def test_every_subject_of_an_endless_source_is_seen_as_often_as_asked(reuse):
    seen = np.concatenate([batch_numbers(2**31 - 1, 8, DataConfig(reuse=reuse), step) for step in range(16 * reuse)])
    numbers, counts = np.unique(seen, return_counts=True)
    np.testing.assert_array_equal(numbers, np.arange(128))
    assert set(counts) == {reuse}
    assert set(seen[: 64 * reuse]) == set(range(64))
    np.testing.assert_array_equal(batch_numbers(2**31 - 1, 8, DataConfig(first=100, reuse=reuse), 0), seen[:8] + 100)


def test_weights_survive_a_file_and_others_are_refused(tmp_path):
    params = tiny.tiny_params(tiny.CONFIG)
    write_weights(tmp_path / "a.npz", params, tiny.CONFIG, {"note": 1})
    same(read_weights(tmp_path / "a.npz")[0], params)
    write_weights(tmp_path / "half.npz", params, tiny.CONFIG, dtype="float16")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), read_weights(tmp_path / "half.npz")[0], params
    )
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-50])
    for name, message in (("b.npz", "not a readable"), ("none.npz", "no such file")):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read_weights(tmp_path / name)
    with np.load(tmp_path / "a.npz") as file:
        arrays = {key: file[key] for key in file.files if "rgb" not in key}
    np.savez(tmp_path / "c.npz", **arrays)
    with pytest.raises(ValueError, match="rgb/.* is missing"):
        read_weights(tmp_path / "c.npz")


def file_of_version_1(path, **changes):
    """The shipped weights as version 0.1 wrote them: both solvers' settings in one."""
    start = {"crop_size": 192, "crop_margin": 1.35, "landmarks": "dense", "landmark_steps": 3, "expression_steps": 2}
    start |= {"blur": [3.0, 0.4], "photometric_steps": 4, "refine_steps": 0, "max_points": 1500}
    flow = {"uv_size": 96, "widths": [32, 64, 96, 128], "place": 16, "passes": 3, "points": 500, "noise": 6.0}
    flow |= {"tracking_common": 0.06, "tracking_noise": 6.0}
    settings = to_plain(BASE) | {"start": start, "flow": flow, "stages": 0, "refine": 0, "unroll": False} | changes
    with np.load(TRAINED) as file:
        arrays = {name: value for name, value in file.items() if name != "solver"}
    arrays |= {"schema_version": np.int32(1), "config": np.array(json.dumps(settings))}
    np.savez(path, **arrays)
    return path


def test_weights_of_version_1_are_read_with_their_settings(tmp_path):
    params, config = read_weights(file_of_version_1(tmp_path / "old.npz"))
    flow = dataclasses.replace(FlowConfig(), passes=3)
    assert config == FitConfig(flow=flow, crop_size=192, expression_steps=2, max_points=1500)
    jax.tree.map(np.testing.assert_array_equal, params, trained()[0])


@pytest.mark.parametrize("changes", [{"refine": 3}, {"unroll": True}, {"stages": 3}])
def test_weights_of_version_1_that_ask_for_what_is_gone_are_refused_in_words(changes, tmp_path):
    with pytest.raises(ValueError, match="old.npz: weights of stages on top of a fit, which only version 0.1 reads"):
        read_weights(file_of_version_1(tmp_path / "old.npz", **changes))


def test_held_out_seeds_are_refused():
    for seed in (900_000, 1_000_000, 2_000_000):
        with pytest.raises(ValueError, match=f"Seed {seed} is kept"):
            make_sources(dataclasses.replace(COLOURS, data=DataConfig(seed=seed)), tiny.tiny_head())

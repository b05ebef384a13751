"""Several processes as one run: told to stop, killed or given a damaged checkpoint, they end and go on together.

Real processes on this machine's CPU, with a coordinator of their own, run `train` on the tiniest task.
"""

import contextlib
import dataclasses
import functools
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.training import COLOURS, damage, run
from jax.experimental.multihost_utils import sync_global_devices

from experiments.training import processes
from experiments.training.loop import Stopped
from experiments.training.workdir import DONE, read_metrics
from facerig_jax.io.files import InputError

HERE = Path(__file__).parent
STEPS, EVERY, PAUSE = 24, 8, 0.25
TOGETHER = dataclasses.replace(COLOURS, name="two processes", batch=4, steps=STEPS, save_every=EVERY)

CHILD = """
import sys
sys.path[:0] = sys.argv[1:3]
import facerig_jax, jax
jax.distributed.initialize(sys.argv[4], 2, int(sys.argv[3]), heartbeat_timeout_seconds=60)
import conftest, test_processes
sys.exit(getattr(test_processes, sys.argv[5])(*sys.argv[6:]))
"""


@contextlib.contextmanager
def two_processes(task: str, *arguments):
    """Two processes of one run that call a function of this module."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    command = [sys.executable, "-c", CHILD, str(HERE), str(HERE.parent)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with contextlib.ExitStack() as stack:
        children = []
        for number in range(2):
            arguments_of = [*command, str(number), address, task, *map(str, arguments)]
            children.append(stack.enter_context(subprocess.Popen(arguments_of, **options)))
            stack.callback(children[-1].kill)
        yield children


def end(children, seconds: float) -> list[tuple[int | None, str]]:
    """Exit code (None: it did not end in time) and what it printed, of each process."""
    last, found = time.monotonic() + seconds, []
    for child in children:
        try:
            printed, _ = child.communicate(timeout=max(last - time.monotonic(), 0.1))
            found.append((child.returncode, printed))
        except subprocess.TimeoutExpired:
            found.append((None, "still running"))
    return found


def until(child, line: str) -> None:
    """Reads what a process prints up to a line."""
    read = []
    for text in child.stdout:
        read.append(text)
        if text.strip() == line:
            return
    pytest.fail("".join(read))


def train_slowly(folder) -> int:
    """One process's share of a run that takes its time, so that it can be disturbed; its exit code."""

    def show(step, record):
        print(f"update {step}", flush=True)
        time.sleep(PAUSE)

    try:
        with ThreadPoolExecutor(1) as worker:  # as Ray's workers do, where Python hears no signals
            work = functools.partial(run, Path(folder), TOGETHER, show=show)
            work() if jax.process_index() == 0 else worker.submit(work).result()
    except Stopped as stopped:
        print(stopped, flush=True)
        return stopped.code
    return 0


def train_all(folder) -> int:
    """An undisturbed run, the disturbed ones to their end, and one whose newest checkpoint is damaged."""
    folder = Path(folder)
    runs = {"whole": None, "stopped": None, "killed": None, "damaged": None}
    for name in runs:
        if name == "damaged" and jax.process_index() == 0:
            shutil.copytree(folder / "whole", folder / name)
            (folder / name / DONE).unlink()
            damage(folder / name / "checkpoints" / str(STEPS))
        sync_global_devices(name)
        said = []
        state = run(folder / name, TOGETHER, say=said.append)
        leaves = [np.asarray(leaf.addressable_data(0)) for leaf in jax.tree.leaves(state)]
        np.savez(folder / f"{name}-{jax.process_index()}.npz", *leaves, said=np.array("\n".join(said)))
    return 0


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory):
    """Folder of a run whose second process was told to stop and of one whose second was killed, and how they ended."""
    folder, ended = tmp_path_factory.mktemp("two"), {}
    for name, number in (("stopped", signal.SIGTERM), ("killed", signal.SIGKILL)):
        with two_processes("train_slowly", folder / name) as children:
            until(children[0], f"update {EVERY + 2}" if name == "killed" else "update 2")
            children[1].send_signal(number)
            ended[name] = end(children, 150)
    return folder, ended


@pytest.fixture(scope="module")
def resumed(disturbed):
    """The folder again, after everything in it was run to its end."""
    folder, _ = disturbed
    with two_processes("train_all", folder) as children:
        for code, printed in end(children, 400):
            assert code == 0, printed[-3000:]
    return folder


def same_end(folder, name) -> list[str]:
    """Checks that a run ended in both processes as the undisturbed one did; what its first process said."""
    with contextlib.ExitStack() as files:
        whole, *both = (
            files.enter_context(np.load(folder / f"{file}.npz")) for file in ("whole-0", f"{name}-0", f"{name}-1")
        )
        for one in both:
            for leaf in set(whole.files) - {"said"}:
                np.testing.assert_array_equal(one[leaf], whole[leaf])
        return str(both[0]["said"]).splitlines()


@pytest.mark.thorough
def test_when_one_process_is_told_to_stop_both_save_and_stop_together(disturbed):
    folder, ended = disturbed
    (first, printed), (second, others) = ended["stopped"]
    assert (first, second) == (143, 143), printed + others
    line = [text for text in printed.splitlines() if text.startswith("Stopped after update")]
    assert len(line) == 1
    assert line[0] in others
    step = int(line[0].split()[3])
    assert (folder / "stopped" / "checkpoints" / str(step) / "state").is_dir()
    assert read_metrics(folder / "stopped")[-1]["step"] == step < STEPS


@pytest.mark.thorough
def test_a_run_whose_processes_were_stopped_goes_on_to_the_same_end(resumed):
    said = same_end(resumed, "stopped")
    assert "from update 0 " not in said[0]


@pytest.mark.thorough
def test_a_killed_process_ends_the_other_and_the_run_goes_on_to_the_same_end(disturbed, resumed):
    (first, printed), (second, _) = disturbed[1]["killed"]
    assert second == -signal.SIGKILL
    assert first not in (0, None), printed
    said = same_end(resumed, "killed")
    assert f"from update {EVERY} " in said[0]


@pytest.mark.thorough
def test_both_processes_pass_over_a_damaged_newest_checkpoint(resumed):
    said = same_end(resumed, "damaged")
    assert f"checkpoints/{STEPS} " in said[0]
    assert "passed over" in said[0]
    assert f"from update {STEPS - EVERY} " in said[1]


@pytest.fixture
def asked(monkeypatch):
    """What jax.distributed.initialize is called with."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **_: calls.append(args))
    for name in (processes.ADDRESS, processes.COUNT, processes.NUMBER):
        monkeypatch.delenv(name, raising=False)
    return calls


def test_processes_join_by_the_environment_or_ask_the_cluster(asked, monkeypatch):
    processes.join()
    for name, value in ((processes.ADDRESS, "host:1234"), (processes.COUNT, "4"), (processes.NUMBER, "0")):
        monkeypatch.setenv(name, value)
    processes.join()
    assert asked == [(None, None, None), ("host:1234", 4, 0)]
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    processes.join()
    assert len(asked) == 2


def test_a_process_that_cannot_find_the_others_says_what_to_set(asked, monkeypatch):
    monkeypatch.setenv(processes.COUNT, "four")
    with pytest.raises(InputError, match="JAX_NUM_PROCESSES=four: a whole number is needed"):
        processes.join()
    monkeypatch.delenv(processes.COUNT)

    def unknown(*_, **__):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", unknown)
    with pytest.raises(InputError, match="no cluster tells, so set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES"):
        processes.join()

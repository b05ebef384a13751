"""Several processes as one run: how they find each other, who decides, and when all of them stop."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from facerig_jax.io.files import InputError

# Where the others are, when no cluster says so: host:port of process 0, how many there are, which one this is.
ADDRESS, COUNT, NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
# Seconds that the first process waits for the last one: the hosts of a cluster start minutes apart.
START_SECONDS = 900


def join() -> None:
    """Joins this process to the others of its run, unless something else has done so already (Ray, for one).

    The three variables above say where they are; what is not set, JAX asks the cluster (SLURM, Open MPI, TPU,
    Kubernetes).

    Raises:
      InputError: a variable is not a number, or nothing says where the others are.
    """
    if jax.distributed.is_initialized():
        return
    numbers = {name: os.environ.get(name) or None for name in (COUNT, NUMBER)}
    for name, text in numbers.items():
        if text is not None and not text.isdecimal():
            raise InputError(f"{name}={text}: a whole number is needed.")
    count, number = (None if text is None else int(text) for text in numbers.values())
    try:
        jax.distributed.initialize(os.environ.get(ADDRESS) or None, count, number, initialization_timeout=START_SECONDS)
    except ValueError as error:
        reason = str(error).rstrip(".")
        raise InputError(
            f"--processes: where the other processes are is not known ({reason}): no cluster tells, so set {ADDRESS}, "
            f"{COUNT} and {NUMBER}."
        ) from error


def agree(value: int) -> int:
    """The first process's value, in every process; all of them wait here for it."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def in_every(holds: bool) -> bool:
    """Whether something holds in every process; all of them wait here for the last."""
    return bool(np.all(multihost_utils.process_allgather(np.bool_(holds))))


def first_alone(action: Callable[[], None]) -> None:
    """Does something in the first process alone, for which the others wait; where it fails, all of them fail.

    Raises:
      RuntimeError: in the others, when it failed in the first, which raises its own error.
    """
    failure = None
    if jax.process_index() == 0:
        try:
            action()
        except Exception as error:  # raised again below, once the others know
            failure = error
    if agree(failure is not None):
        raise failure or RuntimeError("The first process failed; what it says tells why.")


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[int], int]]:
    """A context in which SIGTERM and the first Ctrl-C only ask the run to stop.

    Yields:
      done -> number: to be asked after every update, in every process; the signal's number once the run is to stop
      after this one, else 0. Where JAX knows of other processes SIGTERM is left to it, who tells all of them and
      chooses an update that none of them has passed; a Ctrl-C is handed on to it as a SIGTERM.
    """
    came: list[int] = []
    together = jax.distributed.is_initialized()

    def mark(number, _):
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.append(number)
        if together:
            os.kill(os.getpid(), signal.SIGTERM)

    def asked(done: int) -> int:
        if together:
            return (came or [signal.SIGTERM])[0] if multihost_utils.reached_preemption_sync_point(done) else 0
        return came[0] if came else 0

    before = {}
    try:
        for number in (signal.SIGINT,) if together else (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError):  # outside the main thread (Ray) Python hears no signals
                before[number] = signal.signal(number, mark)
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)

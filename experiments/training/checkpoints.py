"""Checkpoints through Orbax (its only door): written aside and asynchronously, checked when they are read.

A checkpoint holds 'state' (a TrainState) and 'inference' (the averaged weights alone), with a digest of the state's
numbers: Orbax does not notice when one of the bytes on the disk has changed. One that is partial, damaged or of other
settings is passed over with a sentence that says so, never loaded.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding
from orbax.checkpoint import v1 as ocp

from experiments.training.processes import agree, in_every
from experiments.training.train_step import TrainState, place
from facerig_jax.io.files import as_path

# Counts up when what a checkpoint holds changes; 1 had all weights in one vector.
FORMAT = 2
NONE = -1


class Checkpoints:
    """The checkpoints of one run.

    Args:
      folder: made when missing.
      keep: how many of the latest stay.

    Use it as a context: leaving it waits for what is being written.
    """

    def __init__(self, folder, keep: int = 2):
        policies = ocp.training
        folder = as_path(folder)
        self.folder = folder.absolute() if isinstance(folder, Path) else folder
        self._checkpointer = policies.Checkpointer(
            self.folder,
            save_decision_policy=policies.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policies.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )
        self._saved: int | None = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._checkpointer.close()

    @property
    def steps(self) -> list[int]:
        """Numbers of updates at which there are complete checkpoints, ascending."""
        return sorted(checkpoint.step for checkpoint in self._checkpointer.checkpoints)

    def save(self, state: TrainState, wait: bool = False) -> None:
        """Writes a copy of the state in the background; `wait` until it is on the disk."""
        step = int(state.step)
        if step != self._saved:
            # On the host, for the digest and because the next update takes the original's memory.
            state = jax.tree.map(lambda leaf: np.array(leaf.addressable_data(0)), state)
            notes = {"format": FORMAT, "digests": {"state": digest(state)}}
            parts = {"state": state, "inference": state.average}
            self._checkpointer.save_checkpointables_async(
                step, parts, overwrite=True, force=True, custom_metadata=notes
            )
            self._saved = step
        if wait:
            self._checkpointer.wait()

    def restore(self, like: TrainState, say=print) -> TrainState | None:
        """The latest checkpoint that is whole, on the devices of `like` and in its shapes; None when there is none.

        The first process decides which one that is. Those that are not are named through `say` and passed over.

        Raises:
          ValueError: a checkpoint of a version whose checkpoints this one does not read, or one that another process
            than the first cannot read.
        """
        steps = self.steps
        while (step := agree(steps.pop() if steps else NONE)) != NONE:
            state, problem = self._read(step, like)
            where = f"Checkpoint {self.folder / str(step)}"
            if not agree(problem is None):
                say(f"{where} {problem} and is passed over.")
                continue
            if not in_every(problem is None):
                problem = problem or "cannot be read by another process"
                raise ValueError(f"{where} {problem}: all processes of a run need the same folder.")
            self._saved = step
            return place(state, like.step.sharding)
        return None

    def _read(self, step: int, like: TrainState) -> tuple[TrainState | None, str | None]:
        """A checkpoint as this process alone reads it; or what is wrong with it."""
        here = SingleDeviceSharding(jax.local_devices()[0])
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), like)
        alone, state = ocp.Context(), None
        alone.multiprocessing.primary_host = jax.process_index()
        alone.multiprocessing.active_processes = {jax.process_index()}
        try:
            notes = self._checkpointer.checkpointables_metadata(step).custom_metadata
            if not notes:  # Orbax reads a damaged file of them as an empty one
                return None, "cannot be read (its metadata is damaged)"
            if notes.get("format") == FORMAT:
                with alone:
                    state = ocp.load_checkpointables(self.folder / str(step), {"state": abstract})["state"]
        except Exception as error:  # Orbax and tensorstore raise many kinds for damaged files.
            return None, f"cannot be read ({_first_line(error)})"
        if state is None:
            raise ValueError(
                f"Checkpoint {self.folder / str(step)} was written by another version of facerig_jax, which this one "
                "cannot read: finish the run with that version, or begin it anew in another folder."
            )
        whole = digest(state) == notes["digests"]["state"]
        return (state, None) if whole else (None, "is damaged (its digest differs)")


def digest(tree) -> str:
    """A hash of all arrays, their shapes and their places in a tree."""
    total = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        value = np.asarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {value.dtype} {value.shape}".encode())
        total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__

"""Checkpoints through Orbax (its only door): written aside and asynchronously, checked when they are read.

A checkpoint holds 'state' (a TrainState) and 'inference' (the averaged weights alone), with a digest. One that is
partial, damaged or of other settings is passed over with a sentence that says so, never loaded.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from facerig_jax.training.train_step import TrainState


class Checkpoints:
    """The checkpoints of one run.

    Args:
      folder: made when missing.
      keep: how many of the latest stay.

    Use it as a context: leaving it waits for what is being written.
    """

    def __init__(self, folder, keep: int = 2):
        policies = ocp.training
        self.folder = Path(folder).absolute()
        self._checkpointer = policies.Checkpointer(
            self.folder,
            save_decision_policy=policies.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policies.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )
        self._saved = None

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
            state = jax.tree.map(jnp.copy, state)  # the next update takes the original's memory
            digests = {"state": digest(state)}
            parts = {"state": state, "inference": state.average}
            self._checkpointer.save_checkpointables_async(
                step, parts, overwrite=True, force=True, custom_metadata={"digests": digests}
            )
            self._saved = step
        if wait:
            self._checkpointer.wait()

    def restore(self, like: TrainState, say=print) -> TrainState | None:
        """The latest checkpoint that is whole, on the devices and in the shapes of `like`; None when there is none.

        Those that are not are named through `say` and passed over.
        """
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        for step in reversed(self.steps):
            try:
                state = self._checkpointer.load_checkpointables(step, {"state": abstract})["state"]
                wanted = self._checkpointer.checkpointables_metadata(step).custom_metadata["digests"]["state"]
            except Exception as error:  # Orbax and tensorstore raise many kinds for damaged files.
                say(f"Checkpoint {self.folder / str(step)} cannot be read and is passed over ({_first_line(error)}).")
                continue
            if digest(state) != wanted:
                say(f"Checkpoint {self.folder / str(step)} is damaged (its digest differs) and is passed over.")
                continue
            self._saved = step
            return state
        return None


def digest(tree) -> str:
    """A hash of all arrays, their shapes and their places in a tree."""
    total = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        value = np.asarray(leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf)
        total.update(f"{jax.tree_util.keystr(path)} {value.dtype} {value.shape}".encode())
        total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__

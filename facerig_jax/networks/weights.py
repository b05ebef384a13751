"""Files of the learned solver's weights: plain arrays by their place in the parameters, and the settings they are for.

A .npz (no pickle) with schema_version () int32, config () str (JSON of LearnedConfig), notes () str (JSON: how they
came about) and one array per parameter, e.g. 'stages/0/identity/out/kernel', float32 or float16.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import jax
import numpy as np

from facerig_jax.config import LearnedConfig
from facerig_jax.io.arrays import read_arrays
from facerig_jax.io.serialize import from_plain, to_plain
from facerig_jax.networks.model import check_params, parameter_shapes

SCHEMA_VERSION = 1
# The trained weights that ship; their settings are in them.
TRAINED = Path(__file__).parent / "assets" / "trained.npz"
NOT_PARAMETERS = ("schema_version", "config", "notes")
# Settings that files of version 0.1 hold and that no longer exist, with the only value that is still read.
RETIRED = {"refine": 0, "unroll": False, "start": {"refine_steps": 0}}


@functools.cache
def trained() -> tuple[dict, LearnedConfig]:
    """The trained weights that ship, and their settings."""
    return read_weights(TRAINED)


def write_weights(file, params: dict, config: LearnedConfig, notes: dict | None = None, dtype="float32") -> None:
    """Writes weights.

    Args:
      file: path, or a file opened for binary writing.
      params: nested dict of arrays.
      config: the settings they belong to; those of training alone (checkpoint) are put back to their default.
      notes: plain values, e.g. what they were trained on.
      dtype: 'float32' or 'float16'.
    """
    config = dataclasses.replace(config, checkpoint=False)
    check_params(params, config)
    arrays = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf, dtype)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    np.savez(
        file,
        schema_version=np.int32(SCHEMA_VERSION),
        config=np.array(json.dumps(to_plain(config))),
        notes=np.array(json.dumps(notes or {})),
        **arrays,
    )


def read_weights(path) -> tuple[dict, LearnedConfig]:
    """Reads weights.

    Args:
      path: file of `write_weights`.

    Returns:
      params: nested dict of float32 arrays, on the host.
      config: the settings they belong to.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not such a file, damaged, or its arrays do not belong to its settings.
    """
    arrays = read_arrays(path)
    if not set(NOT_PARAMETERS) <= set(arrays) or int(arrays["schema_version"]) != SCHEMA_VERSION:
        raise ValueError(f"{path}: no weights of schema_version {SCHEMA_VERSION}, written by facerig_jax.")
    config = from_plain(LearnedConfig, without_retired(json.loads(str(arrays["config"])), RETIRED))
    leaves, structure = jax.tree_util.tree_flatten_with_path(parameter_shapes(config))
    names = [jax.tree_util.keystr(place, simple=True, separator="/") for place, _ in leaves]
    odd = sorted(set(names) ^ (set(arrays) - set(NOT_PARAMETERS)))
    if odd:
        raise ValueError(f"{path}: {odd[0]} is missing or does not belong to the settings in the file.")
    params = jax.tree_util.tree_unflatten(structure, [arrays[name].astype(np.float32) for name in names])
    check_params(params, config)
    return params, config


def without_retired(settings: dict, retired: dict) -> dict:
    """Settings of a file, without those that no longer exist.

    Raises:
      ValueError: one of them asks for something.
    """
    kept = dict(settings)
    for name, idle in retired.items():
        if isinstance(idle, dict):
            kept |= {name: without_retired(kept[name], idle)} if kept.get(name) else {}
        elif kept.pop(name, idle) != idle:
            raise ValueError(f"The file's settings ask for {name!r}, which no longer exists; only {idle!r} is read.")
    return kept

"""Weights: made, checked, and kept in files of plain arrays by their place, with the settings that they are for.

A .npz (no pickle) with schema_version () int32, solver () str ('fit' or 'inorig'), config () str (JSON of that
solver's settings), notes () str (JSON: how they came about) and one array per parameter, e.g. 'flow/out/kernel',
float32 or float16.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import jax
import numpy as np

from facerig_jax.config import FitConfig, FlowConfig
from facerig_jax.inorig import params as inorig
from facerig_jax.inorig.config import InorigConfig
from facerig_jax.io.arrays import read_arrays
from facerig_jax.io.serialize import from_plain, to_plain
from facerig_jax.networks.flow import flow_shapes, widened
from facerig_jax.networks.tree import check_tree, paths, untrained

SCHEMA_VERSION = 2
# The trained weights that ship; their settings are in them.
TRAINED = Path(__file__).parent / "networks" / "assets" / "trained.npz"
SOLVERS = {"fit": FitConfig, "inorig": InorigConfig}
NOT_PARAMETERS = ("schema_version", "solver", "config", "notes")


def parameter_shapes(config: FitConfig | InorigConfig) -> dict:
    """The parameters that a solver's settings ask for, as jax.ShapeDtypeStruct; {} where it needs none.

    Raises:
      ValueError: a size in `config` is not allowed.
    """
    if isinstance(config, InorigConfig):
        return inorig.parameter_shapes(config)
    return {} if config.flow is None else {"flow": flow_shapes(config.flow)}


def init_params(key: jax.Array, config: FitConfig | InorigConfig) -> dict:
    """Untrained parameters: kernels of deviation 1 / sqrt(fan in), last layers zero as published.

    Args:
      key: random key, not traced.
      config: static settings.

    Returns:
      Nested dict of arrays.

    Raises:
      ValueError: a size in `config` is not allowed.
    """
    if isinstance(config, InorigConfig):
        zero = functools.partial(inorig.starts_at_zero, config=config)
    else:
        zero = lambda path: path.endswith("/out/kernel")  # noqa: E731
    return untrained(key, parameter_shapes(config), zero)


def check_params(params: dict, config: FitConfig | InorigConfig) -> None:
    """Refuses parameters that do not belong to the settings.

    Raises:
      ValueError: naming the first one that is missing, left over or of the wrong shape.
    """
    check_tree(params, parameter_shapes(config))


@functools.cache
def trained() -> tuple[dict, FitConfig]:
    """The trained weights that ship, and their settings."""
    params, config = read_weights(TRAINED)
    assert isinstance(config, FitConfig), "what ships is the default solver's"
    return params, config


def write_weights(
    file, params: dict, config: FitConfig | InorigConfig, notes: dict | None = None, dtype="float32"
) -> None:
    """Writes weights.

    Args:
      file: path, or a file opened for binary writing.
      params: nested dict of arrays.
      config: the settings they belong to; those of training alone (checkpoint) are put back to their default.
      notes: plain values, e.g. what they were trained on.
      dtype: 'float32' or 'float16'.
    """
    if isinstance(config, InorigConfig):
        config = dataclasses.replace(config, checkpoint=False)
    check_params(params, config)
    solver = next(name for name, kind in SOLVERS.items() if isinstance(config, kind))
    np.savez(
        file,
        schema_version=np.int32(SCHEMA_VERSION),
        solver=np.array(solver),
        config=np.array(json.dumps(to_plain(config))),
        notes=np.array(json.dumps(notes or {})),
        **{path: np.asarray(leaf, dtype) for path, leaf in paths(params).items()},
    )


def read_weights(path) -> tuple[dict, FitConfig | InorigConfig]:
    """Reads weights.

    Args:
      path: file of `write_weights`, of this version or of version 0.1.

    Returns:
      params: nested dict of float32 arrays, on the host.
      config: the settings they belong to.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not such a file, damaged, or its arrays do not belong to its settings.
    """
    arrays = read_arrays(path)
    version = int(arrays["schema_version"]) if "schema_version" in arrays else None
    if version not in (1, SCHEMA_VERSION) or not {"config", "notes"} <= set(arrays):
        raise ValueError(f"{path}: no weights of schema_version 1 or {SCHEMA_VERSION}, written by facerig_jax.")
    values = json.loads(str(arrays["config"]))
    old = version == 1
    config = _config_of_version_1(path, values) if old else from_plain(SOLVERS[str(arrays["solver"])], values)
    for name in ("flow/out/kernel", "flow/out/bias"):
        if name in arrays and arrays[name].shape[-1] == 3:  # a network that says one error for both directions
            arrays[name] = widened(arrays[name])
    shapes = parameter_shapes(config)
    places = list(paths(shapes))
    odd = sorted(set(places) ^ (set(arrays) - set(NOT_PARAMETERS)))
    if odd:
        raise ValueError(f"{path}: {odd[0]} is missing or does not belong to the settings in the file.")
    params = jax.tree.unflatten(jax.tree.structure(shapes), [arrays[name].astype(np.float32) for name in places])
    check_tree(params, shapes)
    return params, config


def _config_of_version_1(path, values: dict) -> FitConfig | InorigConfig:
    """The settings in a file of version 0.1, which held both solvers' in one; what is traced now is dropped."""
    start, flow = values.pop("start", None), values.pop("flow", None)
    retired = {name: values.pop(name, idle) for name, idle in (("refine", 0), ("unroll", False))}
    if any(retired.values()) or (values.get("stages") and (start or flow)):
        raise ValueError(f"{path}: weights of stages on top of a fit, which only version 0.1 reads.")
    if start is None:
        return from_plain(InorigConfig, values)
    kept = {field.name for field in dataclasses.fields(FitConfig)} & set(start)
    sizes = {field.name for field in dataclasses.fields(FlowConfig)}
    network = None if flow is None else from_plain(FlowConfig, {k: v for k, v in flow.items() if k in sizes})
    return dataclasses.replace(from_plain(FitConfig, {name: start[name] for name in kept}), flow=network)

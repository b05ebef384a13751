"""Parameters of networks as nested dicts of arrays: applied, made, counted and checked."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


@functools.partial(jax.jit, static_argnums=0, static_argnames="dtype")
def apply(module: nn.Module, params: dict, *inputs, dtype: str = "float32"):
    """A network's output, in the precision of its inputs; 'bfloat16' computes inside in bfloat16.

    Compiled for its own sake: a network that is used several times is traced once.
    """
    if dtype == "float32":
        return module.apply({"params": params}, *inputs)
    half = jax.tree.map(lambda x: x.astype(dtype), (params, inputs))
    out = module.apply({"params": half[0]}, *half[1])
    return jax.tree.map(lambda x: x.astype(jax.tree.leaves(inputs)[0].dtype), out)


def paths(tree) -> dict[str, jax.Array]:
    """Leaves by their place, 'a/b/0/kernel'."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def untrained(key: jax.Array, shapes: dict, starts_at_zero: Callable[[str], bool]) -> dict:
    """First parameters: kernels of deviation 1 / sqrt(fan in), those named zero; scales 1, biases 0.

    One draw, cut up on the host: a compiled initialiser of 900 arrays takes 10 to 30 s to build.

    Args:
      key: random key, not traced.
      shapes: tree of jax.ShapeDtypeStruct.
      starts_at_zero: path of a kernel -> whether it is zero at first.
    """
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)]
    noise = np.asarray(jax.random.normal(key, (sum(sizes),), jnp.float32))
    noise = np.split(noise, np.cumsum(sizes)[:-1])
    values = [
        _first_value(path, leaf.shape, draw, starts_at_zero)
        for (path, leaf), draw in zip(paths(shapes).items(), noise, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(shapes), values)


def _first_value(path: str, shape: tuple[int, ...], noise: np.ndarray, starts_at_zero) -> jax.Array:
    kind = path.rsplit("/", 1)[-1]
    if kind in ("scale", "var"):
        return jnp.asarray(np.ones(shape, np.float32))
    if kind != "kernel" or starts_at_zero(path):
        return jnp.asarray(np.zeros(shape, np.float32))
    return jnp.asarray(noise.reshape(shape) / np.float32(math.prod(shape[:-1]) ** 0.5))


def check_tree(params: dict, shapes: dict) -> None:
    """Refuses parameters of other shapes.

    Raises:
      ValueError: naming the first one that is missing, left over or of the wrong shape.
    """
    ours, theirs = ({path: leaf.shape for path, leaf in paths(tree).items()} for tree in (shapes, params))
    for path in sorted(set(ours) | set(theirs)):
        if ours.get(path) != theirs.get(path):
            raise ValueError(f"params: {path} has shape {theirs.get(path)}, these settings need {ours.get(path)}.")


def count_parameters(params) -> int:
    """How many numbers a tree of parameters holds."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))

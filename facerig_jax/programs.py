"""Functions whose traces are kept on disk, so that a new process need not trace them again.

JAX keeps what XLA compiled, but traces anew in every process, which for a fit takes longer than to run it. What is
kept here is the traced program (`jax.export`, portable StableHLO); compiled, it comes from JAX's own cache.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import jax
import jaxlib
import numpy as np

from facerig_jax.pytrees import register_types

# Where traces are kept; None = nowhere, a `Kept` function is then as jax.jit makes it.
_folder: Path | None = None
_registering = threading.Lock()


def keep_traces(folder: Path | None) -> None:
    """Keeps the traces of `Kept` functions in a folder from now on; None stops that."""
    global _folder
    _folder = folder


class Kept:
    """A function compiled by jax.jit, whose traces are kept.

    On the CPU alone: other backends' rasterizers are no part of a portable program. Traced by another function it is
    its plain self.
    """

    def __init__(self, function: Callable, static: tuple[str, ...] = ()):
        functools.update_wrapper(self, function)
        self._function, self._static = function, static
        self._jitted = jax.jit(function, static_argnames=static)
        self._programs: dict = {}

    def __call__(self, *args, **kwargs):
        """The function's result."""
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((args, kwargs)))
        if traced or _folder is None or jax.default_backend() != "cpu":
            return self._jitted(*args, **kwargs)
        return self.compiled(*args, **kwargs)(*args, **kwargs)

    def compiled(self, *args, **kwargs) -> Callable:
        """The program for arguments like these, compiled; it takes such arguments."""
        if _folder is None or jax.default_backend() != "cpu":
            program = self._jitted.lower(*args, **kwargs).compile()
            dynamic = {name for name in kwargs if name not in self._static}
            return lambda *args, **kwargs: program(*args, **{name: kwargs[name] for name in dynamic})
        arguments, static = self._bind(args, kwargs)
        leaves, structure = jax.tree.flatten(arguments)
        shapes = tuple(jax.ShapeDtypeStruct(np.shape(leaf), jax.dtypes.result_type(leaf)) for leaf in leaves)
        wanted = (structure, shapes, tuple(static.items()))
        if wanted not in self._programs:
            self._programs[wanted] = self._load(shapes, structure, static)
        program = self._programs[wanted]
        return lambda *args, **kwargs: program(jax.tree.leaves(self._bind(args, kwargs)[0]))

    def _bind(self, args, kwargs) -> tuple[dict, dict]:
        """Arguments by name: arrays, and static ones."""
        bound = inspect.signature(self._function).bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = {name: value for name, value in bound.arguments.items() if name not in self._static}
        return arguments, {name: bound.arguments[name] for name in self._static}

    def _load(self, shapes, structure, static) -> Callable:
        """The compiled program, from disk or traced and written there; it takes the leaves of the arguments."""
        name = f"{self._function.__module__}.{self._function.__qualname__}"
        what = "\n".join(map(str, (name, structure, shapes, static, _surroundings())))
        assert _folder is not None, "what is not kept is not loaded"
        path = _folder / f"{self._function.__name__}-{hashlib.sha256(what.encode()).hexdigest()[:32]}.stablehlo"
        exported = _read(path)
        if exported is None:

            def flat(leaves):
                return self._function(**jax.tree.unflatten(structure, leaves), **static)

            exported = jax.export.export(jax.jit(flat))(list(shapes))
            _write(path, exported)
        return jax.jit(exported.call).lower(list(shapes)).compile()


def kept(*static: str) -> Callable[[Callable], Kept]:
    """Decorator: a `Kept` function with these static arguments."""
    return lambda function: Kept(function, static)


@functools.cache
def _surroundings() -> tuple:
    """What a trace depends on besides its function's arguments: this package's text, JAX, its settings."""
    text = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        text.update(path.read_bytes())
    flags = os.environ.get("XLA_FLAGS", "")
    return text.hexdigest(), jax.__version__, jaxlib.__version__, flags, jax.config.jax_enable_x64  # type: ignore[attr-defined]  # made at run time


def _read(path: Path):
    """The program in a file, None where there is none that can be read."""
    _register()
    try:
        return jax.export.deserialize(bytearray(path.read_bytes()))
    except Exception:  # whatever is wrong with the file: it is written anew
        return None


def _write(path: Path, exported) -> None:
    """Writes a program; nothing half-written is left, and where nothing can be written that is no error."""
    try:
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(exported.serialize())
        part.replace(path)
    except OSError:
        pass


def _register() -> None:
    """Tells jax.export how to write down the package's own types, of all modules in use, which stand for results.

    Threads load programs, and import modules, side by side: one registers at a time, from copies of what is there.
    """
    package = __package__ + "."
    with _registering:
        register_types(*[module for name, module in list(sys.modules.items()) if name.startswith(package)])

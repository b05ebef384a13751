"""Settings of XLA that the package needs; importable before any JAX backend starts."""

from __future__ import annotations

import os
from typing import NamedTuple

import jaxlib


class Flag(NamedTuple):
    """A flag of XLA_FLAGS, its value, and the versions of jaxlib that it is given to.

    XLA ends the process when it meets a flag that it does not know: only versions that were tried are named, and any
    other gets no flag.
    """

    name: str
    value: str
    versions: tuple[str, ...]


# Each of these was started with each flag below that is given to it.
TRIED = (
    *("0.8.0", "0.8.1", "0.8.2", "0.8.3", "0.9.0", "0.9.0.1", "0.9.1", "0.9.2"),
    *("0.10.0", "0.10.1", "0.10.2", "0.11.0", "0.11.1", "0.12.0", "0.12.0.1"),
)
# jaxlib 0.10.2 on CPU loses a wake-up in programs with several while loops: the second or third call of a compiled fit
# never returned (all threads idle), in every one of 10 trials. Without the concurrency-optimized scheduler 80 calls
# returned (docs/decisions.md, 2026-11-22). Whether other versions lose it is not known.
SCHEDULER = Flag("xla_cpu_enable_concurrency_optimized_scheduler", "false", TRIED)
# These make every float32 scatter-add on CUDA a compare-and-swap loop, up to 2000 times slower, because the native one
# flushes subnormals (jax issue 38806). Where all may be flushed they take the native one.
SUBNORMALS = Flag("xla_gpu_ftz", "true", ("0.10.2", "0.11.0"))
# jaxlib 0.10.2 on CPU hands small reductions, of which the gradient of a fit has many, to a library: without it a
# training update takes 0.75 of the time, a fit 0.94, but compiling 1.1 (docs/decisions.md, 2026-11-23).
REDUCTIONS = Flag("xla_cpu_experimental_ynn_fusion_type", "", ("0.10.0", "0.10.1", "0.10.2"))

ALWAYS = (SCHEDULER, SUBNORMALS)


def flags_for(jaxlib_version: str, existing: str, flags: tuple[Flag, ...] = ALWAYS) -> str:
    """XLA_FLAGS with what a version of jaxlib needs.

    Args:
      jaxlib_version: as `jaxlib.__version__`.
      existing: XLA_FLAGS as it is: flags, which stay as they are, or the name of a file of flags, which stays alone.
      flags: to add where they are given to the version.

    Returns:
      XLA_FLAGS as it should be.
    """
    if existing.strip() and not existing.strip().startswith("-"):
        return existing
    version = jaxlib_version.partition("+")[0]
    given = {word.lstrip("-").partition("=")[0] for word in existing.split()}
    wanted = [flag for flag in flags if version in flag.versions and flag.name not in given]
    return " ".join([existing, *(f"--{flag.name}={flag.value}" for flag in wanted)]).strip() if wanted else existing


def set_flags(flags: tuple[Flag, ...] = ALWAYS) -> None:
    """Adds to XLA_FLAGS what the installed jaxlib needs.

    XLA reads its flags when the first backend starts: import facerig_jax before the first JAX computation.
    """
    existing = os.environ.get("XLA_FLAGS", "")
    wanted = flags_for(jaxlib.__version__, existing, flags)
    if wanted != existing:
        os.environ["XLA_FLAGS"] = wanted


def prefer_fast_gradients() -> None:
    """Lets XLA itself reduce on the CPU."""
    set_flags((REDUCTIONS,))

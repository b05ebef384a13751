"""Settings of XLA that the package needs; importable before any JAX backend starts."""

import os

import jaxlib

# jaxlib 0.10.2 on CPU loses a wake-up in programs with several while loops: the second or third call of a compiled fit
# never returned (all threads idle), in every one of 10 trials. Without the concurrency-optimized scheduler 80 calls
# returned (docs/decisions.md, 2026-11-22).
_SCHEDULER = "xla_cpu_enable_concurrency_optimized_scheduler"
# jaxlib 0.10.2 on CPU hands small reductions, of which the gradient of a fit has many, to a library: without it a
# training update takes 0.75 of the time, a fit 0.94, but compiling 1.1 (docs/decisions.md, 2026-11-23).
_REDUCTIONS = "xla_cpu_experimental_ynn_fusion_type"


def avoid_cpu_deadlock() -> None:
    """Turns the concurrency-optimized CPU scheduler off, unless XLA_FLAGS already names it.

    XLA reads its flags when the first backend starts: import facerig_jax before the first JAX computation.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _SCHEDULER not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{_SCHEDULER}=false".strip()


def prefer_fast_gradients() -> None:
    """Lets XLA itself reduce on the CPU, with the versions of jaxlib that are known to have that flag."""
    flags = os.environ.get("XLA_FLAGS", "")
    if _REDUCTIONS not in flags and jaxlib.__version__.startswith("0.10."):
        os.environ["XLA_FLAGS"] = f"{flags} --{_REDUCTIONS}=".strip()

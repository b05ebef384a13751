"""What every command shares: a quiet log, the compilation cache, one-sentence errors and timed phases."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# Seconds after which a phase that may be slow says so.
SLOW = 3.0


class UserError(Exception):
    """Something the user can put right; shown as one sentence, exit code 1."""


def run(main: Callable[[], None], keep_programs: bool = True) -> None:
    """Parses the flags, prepares the process and runs `main`; ends it with exit code 1 and one sentence on an error.

    Without `keep_programs` nothing compiled is kept on disk or taken from there.
    """
    from absl import app
    from absl import logging as absl_logging

    def guarded(argv):
        absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax tells of every rename.
        if len(argv) > 1:
            return fail(f"Unexpected argument {argv[1]!r}; flags are written --name=value, see --help.")
        return guard(main, keep_programs)

    quiet()
    app.run(guarded)


def guard(main: Callable[[], None], keep_programs: bool = True) -> int:
    """Runs `main` and returns the exit code: 0, or 1 after one sentence on stderr ($FACERIG_DEBUG=1: a traceback)."""
    from facerig_jax.io.files import InputError, WriteError

    if keep_programs:
        use_compilation_cache()
    try:
        main()
        return 0
    except (InputError, WriteError, UserError, ImportError, ValueError) as error:
        if os.environ.get("FACERIG_DEBUG"):
            raise
        return fail(str(error))
    except (RuntimeError, AssertionError):
        if os.environ.get("FACERIG_DEBUG") or (sentence := missing_platform()) is None:
            raise
        return fail(sentence)
    except KeyboardInterrupt:
        return fail("Interrupted.", 130)


def missing_platform() -> str | None:
    """What is wrong when JAX was told to use a kind of device that is not here; None when JAX runs or was not told."""
    import jax

    wanted = jax.config.jax_platforms
    try:
        jax.devices()
    except (RuntimeError, AssertionError):
        allowed = "set it to cpu, or leave it unset to take what is there"
        return f"JAX_PLATFORMS={wanted}: JAX finds no such device here; {allowed}." if wanted else None
    return None


def fail(sentence: str, code: int = 1) -> int:
    """Prints one line on stderr; returns the exit code."""
    print(" ".join(f"Error: {sentence}".split()), file=sys.stderr)
    return code


def quiet() -> None:
    """Keeps the libraries' notes (no TPU here, ...) out of the output; warnings and errors stay."""
    logging.getLogger("jax").setLevel(logging.WARNING)
    os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def cache_folder() -> Path | None:
    """Where compiled programs are kept between runs: $FACERIG_CACHE, or ~/.cache/facerig_jax, with '/xla'.

    None for a user without a home.
    """
    folder = os.environ.get("FACERIG_CACHE")
    home = os.path.expanduser("~")
    if not folder and not os.path.isabs(home):
        return None
    return Path(folder or Path(home) / ".cache" / "facerig_jax") / "xla"


def use_compilation_cache() -> None:
    """Keeps every compiled program and its trace on disk, however small; a cache set up by JAX's own means stays.

    Without a writable folder there is no cache; a cache of JAX's that is no folder here ('gs://...') gets no traces.
    """
    import jax

    from facerig_jax.programs import keep_traces

    theirs = jax.config.jax_compilation_cache_dir
    if "://" in (theirs or ""):
        return
    folder = theirs or cache_folder()
    if folder is None:
        return
    folder = Path(folder)
    traces = folder / "traces"
    with contextlib.suppress(OSError):
        traces.mkdir(parents=True, exist_ok=True)
    if not os.access(traces, os.W_OK):
        return
    keep_traces(traces)
    if theirs:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


class Phases:
    """Times named phases and says on stdout when each ends; `seconds` keeps them in order."""

    def __init__(self, say: Callable[[str], None] = lambda line: print(line, flush=True)):
        self.seconds: dict[str, float] = {}
        self.say = say

    @contextlib.contextmanager
    def __call__(self, name: str, slow: str = "") -> Iterator[None]:
        """A context: `with phases("read"): ...`; says `slow` where it takes longer than SLOW seconds, while it does."""
        start = time.perf_counter()
        timer = threading.Timer(SLOW, self.say, [slow])
        timer.daemon = True
        if slow:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()
        taken = time.perf_counter() - start
        self.seconds[name] = self.seconds.get(name, 0.0) + taken
        self.say(f"{taken:6.1f} s  {name}")

"""What all commands share: one sentence where they cannot go on, and a cache only where there is a place for it."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from experiments import cli

ROOT = Path(__file__).parents[1]
COMMANDS = sorted(path.stem for path in (ROOT / "experiments").glob("*.py") if "__main__" in path.read_text())


def run_command(*command, **environment):
    """Runs a command of ours; None takes a variable out of the environment."""
    kept = {name: value for name, value in (os.environ | environment).items() if value is not None}
    command = [sys.executable, "-m", *map(str, command)]
    return subprocess.run(command, env=kept, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("platform", ["cuda", "gpu", "tpu"])
def test_a_device_that_is_not_there_is_one_sentence(platform, tmp_path):
    if jax.default_backend() != "cpu":
        pytest.skip("There is such a device here.")
    done = run_command(
        "experiments.fit", "--images=docs/photos/frontal.jpg", f"--out={tmp_path / 'out'}", JAX_PLATFORMS=platform
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"Error: JAX_PLATFORMS={platform}: JAX finds no such device here; "
        "set it to cpu, or leave it unset to take what is there."
    ]


def test_an_error_that_has_nothing_to_do_with_devices_keeps_its_traceback():
    def fails():
        raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):
        cli.guard(fails, keep_programs=False)


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    monkeypatch.delenv("FACERIG_CACHE", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        assert cli.cache_folder() is None
        assert cli.guard(lambda: None) == 0
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_ends_through_the_guard(name):
    assert "cli.run(main" in (ROOT / "experiments" / f"{name}.py").read_text()

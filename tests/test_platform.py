"""XLA's flags are added for the versions that know and need them, and for no other."""

import os
import subprocess
import sys
from pathlib import Path

import jaxlib
import pytest

from facerig_jax.platform import ALWAYS, REDUCTIONS, SCHEDULER, SUBNORMALS, TRIED, flags_for

SCHEDULER_OFF = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
FLUSH = "--xla_gpu_ftz=true"


@pytest.mark.parametrize(
    ("version", "existing", "wanted"),
    [
        ("0.8.0", "", SCHEDULER_OFF),
        ("0.9.0.1", "", SCHEDULER_OFF),
        ("0.10.1", "", SCHEDULER_OFF),
        ("0.10.2", "", f"{SCHEDULER_OFF} {FLUSH}"),
        ("0.10.2+local.build", "", f"{SCHEDULER_OFF} {FLUSH}"),
        ("0.11.0", "", f"{SCHEDULER_OFF} {FLUSH}"),
        ("0.11.1", "", SCHEDULER_OFF),
        # versions that nobody tried: XLA would end the process at a flag that it has dropped
        ("0.7.2", "", ""),
        ("0.10.3", "", ""),
        ("0.10.2.dev20260601", "", ""),
        ("0.13.0", "", ""),
        ("1.0", "--xla_dump_to=x", "--xla_dump_to=x"),
        # what the user has set stays, and counts by its whole name
        ("0.10.2", "--xla_dump_to=x", f"--xla_dump_to=x {SCHEDULER_OFF} {FLUSH}"),
        ("0.10.2", "--xla_gpu_ftz=false", f"--xla_gpu_ftz=false {SCHEDULER_OFF}"),
        ("0.10.2", f" {SCHEDULER_OFF[:-5]}true  {FLUSH}", f" {SCHEDULER_OFF[:-5]}true  {FLUSH}"),
        ("0.10.2", "--xla_gpu_ftz_more=1", f"--xla_gpu_ftz_more=1 {SCHEDULER_OFF} {FLUSH}"),
        # the name of a file of flags
        ("0.10.2", "my_flags.txt", "my_flags.txt"),
    ],
)
def test_a_version_gets_the_flags_it_knows_and_needs(version, existing, wanted):
    assert flags_for(version, existing) == wanted


@pytest.mark.parametrize(
    ("version", "wanted"), [("0.10.2", "--xla_cpu_experimental_ynn_fusion_type="), ("0.8.0", ""), ("0.11.0", "")]
)
def test_fast_gradients_are_asked_of_the_versions_that_have_slow_ones(version, wanted):
    assert flags_for(version, "", (REDUCTIONS,)) == wanted


def test_flags_that_are_there_are_not_added_again():
    once = flags_for("0.10.2", "")
    assert flags_for("0.10.2", once) == once


def test_no_flag_is_given_to_a_version_that_was_not_tried():
    for flag in (SCHEDULER, SUBNORMALS, REDUCTIONS):
        assert set(flag.versions) <= set(TRIED)


COMPUTE = """
import os
import jax.numpy as jnp
import facerig_jax
from facerig_jax.platform import prefer_fast_gradients
prefer_fast_gradients()
print(os.environ.get("XLA_FLAGS", ""))
print(float(jnp.arange(5.0).sum()))
"""


@pytest.mark.parametrize("existing", ["", "--xla_cpu_enable_fast_min_max=false"])
def test_a_process_with_the_installed_versions_flags_computes(existing):
    run = subprocess.run(
        [sys.executable, "-c", COMPUTE],
        env=os.environ | {"XLA_FLAGS": existing},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.splitlines() == [flags_for(jaxlib.__version__, existing, (*ALWAYS, REDUCTIONS)), "10.0"]

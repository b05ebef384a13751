"""As warm_cpu, from the whole classical fit, on two kinds of subjects.

    python -m experiments.train --config=experiments/configs/mixed_cpu.py --workdir=out/mixed --set data.cache=out/kept2

Has not been run. Why: warm_cpu's weights, started from the whole classical fit instead of the cheap one that they were
trained with, give 0.90 of the classical error on TRAIN, but 1.01 on HARD (12 validation subjects each).
"""

import dataclasses
import runpy
from pathlib import Path

from facerig_jax.config import FitConfig
from facerig_jax.data.synthetic import HARD
from facerig_jax.training.config import TrainConfig


def config() -> TrainConfig:
    """The settings."""
    base = runpy.run_path(str(Path(__file__).with_name("warm_cpu.py")))["config"]()
    data = dataclasses.replace(base.data, others=(dataclasses.replace(HARD, n_views=4, size=320),))
    return dataclasses.replace(
        base, name="mixed_cpu", model=dataclasses.replace(base.model, start=FitConfig()), data=data
    )

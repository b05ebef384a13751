"""The network that tells the classical start where the face's points are, for two CPU cores.

    python -m experiments.train --config=experiments/configs/flow_cpu.py --workdir=out/flow

Learns on single photos (an update sees 4 people, 16 photos) with the detector's own landmarks, from the fit to them.
The script that this was first tried with left, after 103 minutes and 7,400 updates on one core, TRAIN 2.66 and HARD
1.62 mm rms per axis of 4.28 and 2.43 on validation people. How the weights that ship were made from there, part by
part: docs/results/2026-11-26-flow-training.md.

Without `init` it learns from the fit to the landmarks alone; with one, by turns also from the fits after each of
that network's passes but the last:

    python -m experiments.train --config=experiments/configs/flow_cpu.py --workdir=out/again \\
        --set init=out/flow/weights.npz
"""

import dataclasses

from experiments.training.config import DataConfig, OptimizerConfig, TrainConfig
from facerig_jax.config import FitConfig
from facerig_jax.synthetic.subject import HARD, TRAIN


def config() -> TrainConfig:
    """The settings."""
    return TrainConfig(
        name="flow_cpu",
        task="flow",
        model=FitConfig(),
        data=DataConfig(
            subject=dataclasses.replace(TRAIN, n_views=4),
            others=(dataclasses.replace(HARD, n_views=4, size=320),),
            landmarks="detector",
            reuse=4,
        ),
        optimizer=OptimizerConfig(learning_rate=1.5e-3, warmup=100, ema=0.998, weight_decay=1e-4),
        steps=5000,
        batch=4,
        microbatch=4,
        log_every=10,
        save_every=200,
        validate_every=500,
        validation=16,
    )

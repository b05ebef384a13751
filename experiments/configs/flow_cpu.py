"""The network that tells the classical start where the face's points are, for two CPU cores.

    python -m experiments.train --config=experiments/configs/flow_cpu.py --workdir=out/flow

Learns on single photos (the batch is 4 people, 16 photos) with the detector's own landmarks, from the fit to them. Its
weights are then the start of mixed_cpu.py.
"""

import dataclasses

from facerig_jax.config import BASE, FitConfig, FlowConfig
from facerig_jax.data.synthetic import HARD, TRAIN
from facerig_jax.training.config import DataConfig, OptimizerConfig, TrainConfig


def config() -> TrainConfig:
    """The settings."""
    return TrainConfig(
        name="flow_cpu",
        task="flow",
        model=dataclasses.replace(BASE, stages=0, start=FitConfig(), flow=FlowConfig()),
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

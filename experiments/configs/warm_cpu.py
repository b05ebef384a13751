"""Small networks that start from the classical fit, for two CPU cores.

python -m experiments.train --config=experiments/configs/warm_cpu.py --workdir=out/warm_cpu
"""

import dataclasses

from facerig_jax.config import BASE, FitConfig
from facerig_jax.data.synthetic import TRAIN
from facerig_jax.training.config import DataConfig, LossWeights, OptimizerConfig, TrainConfig


def config() -> TrainConfig:
    """The settings."""
    networks = dataclasses.replace(
        BASE.networks,
        image_size=128,
        widths=(8, 8, 16, 24, 48, 96, 96, 96, 96),
        rgb_blocks=(1, 1, 1, 1),
        expression_code=32,
        gate_hidden=48,
    )
    start = FitConfig(crop_size=128, blur=(1.0,), max_points=1000)
    return TrainConfig(
        name="warm_cpu",
        model=dataclasses.replace(BASE, networks=networks, start=start, step_bias=((-1, -3, -2, -1, -1),) * 3),
        losses=LossWeights(
            depth=0.1,
            dense=0.3,
            landmark=0.02,
            normal=30.0,
            neutral=10.0,
            expression=1.0,
            code=1.0,
            albedo=1.0,
            photometric=1.0,
        ),
        data=DataConfig(subject=dataclasses.replace(TRAIN, n_views=4), count=3000, min_views=1),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup=50),
        steps=3000,
        batch=4,
        curriculum=((0, 1),),
        log_every=10,
        save_every=100,
        validate_every=200,
        validation=16,
    )

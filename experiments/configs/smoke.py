"""Everything once, small: does training work on this machine?

    python -m experiments.train --config=experiments/configs/smoke.py --workdir=out/smoke

Tiny networks, two photos of 96 px per synthetic subject, 24 updates of the first of two stages. Expected on 2 cores:
under 3 minutes, most of it compiling; the loss falls. The weights are of no use.
"""

import dataclasses

from experiments.training.config import DataConfig, LossWeights, OptimizerConfig, TrainConfig
from facerig_jax.inorig.config import BASE
from facerig_jax.synthetic.subject import TRAIN


def config() -> TrainConfig:
    """The settings."""
    networks = dataclasses.replace(
        BASE.networks,
        image_size=64,
        widths=(4, 4, 4, 4, 8, 8, 8, 8, 8),
        rgb_blocks=(1, 1, 1, 1),
        features=8,
        uv_sizes=(8, 8, 16),
        albedo_uv_sizes=(8, 8, 16),
        uv_width=8,
        identity_code=16,
        expression_code=8,
        albedo_code=8,
        gate_hidden=16,
        step_hidden=8,
    )
    return TrainConfig(
        name="smoke",
        model=dataclasses.replace(BASE, networks=networks, stages=2, checkpoint=True),
        losses=LossWeights(neutral=1.0, expression=1.0, albedo=1.0),
        data=DataConfig(subject=dataclasses.replace(TRAIN, n_views=2, size=96)),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup=4),
        steps=24,
        batch=2,
        curriculum=((0, 1),),
        log_every=4,
        save_every=12,
        validation=0,
    )

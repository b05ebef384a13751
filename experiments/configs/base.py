"""The `base` preset on one GPU or TPU slice: the weights meant for shipping.

    python -m experiments.train --config=experiments/configs/base.py --workdir=out/base
    python -m experiments.train --config=experiments/configs/base.py --workdir=out/sweep --sweep=0   # 0, 1, 2

Four photos per synthetic subject, crops of 192 px; coarse stages first. Has not been run: no GPU was at hand. The sweep
is over learning rates, one numbered folder each.
"""

import dataclasses

from experiments.training.config import DataConfig, LossWeights, OptimizerConfig, TrainConfig
from facerig_jax.inorig.config import BASE
from facerig_jax.synthetic.subject import TRAIN


def config() -> TrainConfig:
    """The settings."""
    return TrainConfig(
        name="base",
        model=dataclasses.replace(BASE, checkpoint=True),
        losses=LossWeights(neutral=3.0, expression=1.0, code=1.0, albedo=1.0, photometric=1.0),
        data=DataConfig(subject=dataclasses.replace(TRAIN, n_views=4)),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup=500),
        steps=30_000,
        batch=32,
        microbatch=8,
        curriculum=((0, 1), (6_000, 2), (12_000, 3)),
        log_every=50,
        save_every=500,
        validate_every=1_000,
        validation=32,
        sweep=tuple({"optimizer.learning_rate": rate} for rate in (3e-4, 1e-3, 3e-3)),
    )

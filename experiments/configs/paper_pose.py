"""The published networks' pose regressor, first and alone (docs/method.md section 8).

    python -m experiments.train --config=experiments/configs/paper_pose.py --workdir=out/paper_pose

Its weights are where experiments/configs/paper.py starts from. Has not been run: no GPU was at hand.
"""

import dataclasses

from experiments.training.config import DataConfig, OptimizerConfig, TrainConfig
from facerig_jax.inorig.config import PAPER
from facerig_jax.synthetic.subject import TRAIN


def config() -> TrainConfig:
    """The settings."""
    return TrainConfig(
        name="paper_pose",
        task="pose",
        model=dataclasses.replace(PAPER, checkpoint=True),
        data=DataConfig(subject=dataclasses.replace(TRAIN, n_views=4, size=320)),
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup=200, schedule="constant"),
        steps=20_000,
        batch=8,
        validate_every=500,
        save_every=500,
    )

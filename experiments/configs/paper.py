"""The published networks, losses and optimizer: Adam at 2e-5, two subjects an update (docs/method.md section 8).

    python -m experiments.train --config=experiments/configs/paper.py --workdir=out/paper \\
        --set init=out/paper_pose/weights.npz

After experiments/configs/paper_pose.py. Has not been run: no GPU was at hand; the gradient needs 2.2 GB per subject.
"""

import dataclasses

from experiments.training.config import DataConfig, OptimizerConfig, TrainConfig
from facerig_jax.inorig.config import PAPER
from facerig_jax.synthetic.subject import TRAIN


def config() -> TrainConfig:
    """The settings."""
    return TrainConfig(
        name="paper",
        model=dataclasses.replace(PAPER, checkpoint=True),
        data=DataConfig(subject=dataclasses.replace(TRAIN, n_views=4, size=320)),
        optimizer=OptimizerConfig(learning_rate=2e-5, warmup=0, schedule="constant"),
        steps=200_000,
        batch=2,
        log_every=50,
        save_every=1_000,
        validate_every=2_000,
    )

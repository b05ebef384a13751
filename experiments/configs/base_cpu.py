"""The base networks on two CPU cores, in about 16 minutes: what a first short training gives.

    python -m experiments.train --config=experiments/configs/base_cpu.py --workdir=out/base_cpu

Crops of 128 px instead of 192, two photos per subject, each subject seen three times because drawing one takes longer
than learning from it; 1,000 updates of the first stage alone (the untrained later stages leave the neutral as it is).

2026-11-22, 2 cores, 982 s: 8 validation subjects 2.114 (mean face) -> 1.984 after 250 updates, 1.973 after 500,
1.916 mm at the end. Learned: with the published weights of the losses the posed mesh's depth rules the gradient, so the
neutral counts more here; untrained step sizes make the neutral worse (1.06 of the mean face over the first 70 updates).
"""

import dataclasses

from facerig_jax.config import BASE
from facerig_jax.synthetic.subject import TRAIN
from facerig_jax.training.config import NEUTRAL_FIRST, DataConfig, OptimizerConfig, TrainConfig


def config() -> TrainConfig:
    """The settings."""
    networks = dataclasses.replace(BASE.networks, image_size=128)
    return TrainConfig(
        name="base_cpu",
        model=dataclasses.replace(BASE, networks=networks, checkpoint=True),
        losses=NEUTRAL_FIRST,
        data=DataConfig(subject=dataclasses.replace(TRAIN, n_views=2, size=192), reuse=3),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup=20),
        steps=1000,
        batch=2,
        curriculum=((0, 1),),
        log_every=10,
        save_every=100,
        validate_every=250,
        validation=8,
    )

"""The baseline 'direct regression': code, pose and expression straight from the features, no energy looked at.

    python -m experiments.train --config=experiments/configs/regression_cpu.py --workdir=out/regression
    cp out/regression/weights.npz regression.npz
    python -m experiments.evaluate --what=methods --out=DIR \\
        --weights=facerig_jax/networks/assets/trained.npz,regression.npz

The base networks from the mean face, one stage of one step, crops of 128 px, four photos per subject with landmarks
found by the detector, TRAIN and HARD in turn.

2026-11-26, one core, 926 s: it stays at the mean face (8 validation people 2.126 mm; 2.128, 2.133, 2.129 after 300,
600 and 900 updates), while its loss falls from 76.96 to 76.77. From features averaged over each image far more people
and hours are needed than for a network that is told where points are.
"""

import dataclasses

from facerig_jax.config import BASE
from facerig_jax.synthetic.subject import HARD, TRAIN
from facerig_jax.training.config import NEUTRAL_FIRST, DataConfig, OptimizerConfig, TrainConfig


def config() -> TrainConfig:
    """The settings."""
    networks = dataclasses.replace(BASE.networks, image_size=128)
    return TrainConfig(
        name="regression_cpu",
        model=dataclasses.replace(BASE, networks=networks, update="regression", stages=1, steps=1),
        losses=NEUTRAL_FIRST,
        data=DataConfig(
            subject=dataclasses.replace(TRAIN, n_views=4, size=192),
            others=(dataclasses.replace(HARD, n_views=4, size=192),),
            landmarks="detector",
            reuse=3,
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup=20),
        steps=900,
        batch=2,
        log_every=10,
        save_every=100,
        validate_every=300,
        validation=8,
    )

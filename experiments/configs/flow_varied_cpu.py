"""The flow network goes on from the one that shipped before, on people more varied than the head's basis knows.

    python -m experiments.train --config=experiments/configs/flow_varied_cpu.py --workdir=out/varied \\
        --set init=FILE --set data.cache=DIR

(add `--prepare=I/N` to fill DIR on other cores first).
"""

import dataclasses

from experiments.configs import flow_cpu
from facerig_jax.data.synthetic import HARD_VARIED, TRAIN_VARIED
from facerig_jax.training.config import TrainConfig


def config() -> TrainConfig:
    """The settings."""
    made = flow_cpu.config()
    return dataclasses.replace(
        made,
        name="flow_varied_cpu",
        init="facerig_jax/networks/assets/trained.npz",
        data=dataclasses.replace(
            made.data,
            subject=dataclasses.replace(TRAIN_VARIED, n_views=4),
            others=(dataclasses.replace(HARD_VARIED, n_views=4, size=320),),
            min_views=1,
            seed=7,
            count=6000,
        ),
        optimizer=dataclasses.replace(made.optimizer, learning_rate=3e-4),
    )

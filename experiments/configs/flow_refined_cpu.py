"""The flow network goes on from what ships, on the refined head's people, seen by the landmark net with attention.

    python -m experiments.train --config=experiments/configs/flow_refined_cpu.py --workdir=out/refined \\
        --set data.cache=out/refined_subjects

(the same with `--prepare=0/1` first draws the subjects on another core). It now says two errors and their skew instead
of one error. HARD_REFINED and TRAIN_REFINED in turn, 1 to 4 photos each, lids half or wholly closed in every seventh.
"""

import dataclasses

from experiments.training.config import DataConfig, OptimizerConfig, TrainConfig
from facerig_jax.config import FitConfig
from facerig_jax.synthetic.subject import HARD_REFINED, TRAIN_REFINED


def config() -> TrainConfig:
    """The settings."""
    return TrainConfig(
        name="flow_refined_cpu",
        task="flow",
        init="facerig_jax/networks/assets/trained.npz",
        model=FitConfig(),
        data=DataConfig(
            subject=dataclasses.replace(TRAIN_REFINED, n_views=4),
            others=(dataclasses.replace(HARD_REFINED, n_views=4, size=320),),
            landmarks="detector",
            min_views=1,
            reuse=4,
            seed=11,
            count=12000,
        ),
        optimizer=OptimizerConfig(learning_rate=3e-4, warmup=100, ema=0.998, weight_decay=1e-4),
        steps=24000,
        batch=4,
        microbatch=4,
        log_every=10,
        save_every=200,
        validate_every=1000,
        validation=16,
    )

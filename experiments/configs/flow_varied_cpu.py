"""The flow network goes on from the one that shipped before, on people more varied than the head's basis knows.

    git show 0e8f5fe:facerig_jax/networks/assets/trained.npz > before.npz
    python -m experiments.train --config=experiments/configs/flow_varied_cpu.py --workdir=out/varied \\
        --set init=before.npz --set data.cache=out/varied_subjects --set data.count=2608

(the same with `--prepare=0/1` first draws the subjects on another core). HARD_VARIED and TRAIN_VARIED in turn, 1 to 4
photos each, seen from the fit to the detector's landmarks or from what one to four passes of the network before make
of it.

2026-11-26, one core: 2,608 people in 35 minutes (about 0.6 s each, and ten programs of 30 s to compile), 5,000
updates of 16 photos in 43 minutes (0.47 s each). Root mean square of the offsets' length on 10 validation people,
whose fits are 2.99 mm off: 2.409 after 400 updates, 2.360 (1,600), 2.303 (3,200), 2.314 mm at the end; the loss goes
on falling, 1.951 to 1.843, then 1.853.

What ships is the mean, weight by weight, of this network and the one before:

    (old, _), (new, config) = map(read_weights, ("before.npz", "out/varied/weights.npz"))
    with open("mean.npz", "wb") as file:
        write_weights(file, jax.tree.map(lambda a, b: (a + b) / 2, old, new), config, dtype="float16")

Neutral mm of 8 HARD, 8 TRAIN and 6 HARD_VARIED validation people, before 0.840, 1.289, 1.279; this one 0.866, 1.342,
1.126; three quarters of it 0.854, 1.311, 1.137; the mean 0.844, 1.294, 1.166. So the mean keeps what the network
before knew of the basis' own people, and most of what this one learnt.
"""

import dataclasses

from experiments.training.config import DataConfig, OptimizerConfig, TrainConfig
from facerig_jax.config import FitConfig
from facerig_jax.synthetic.subject import HARD_VARIED, TRAIN_VARIED


def config() -> TrainConfig:
    """The settings."""
    return TrainConfig(
        name="flow_varied_cpu",
        task="flow",
        init="facerig_jax/networks/assets/trained.npz",
        model=FitConfig(),
        data=DataConfig(
            subject=dataclasses.replace(TRAIN_VARIED, n_views=4),
            others=(dataclasses.replace(HARD_VARIED, n_views=4, size=320),),
            landmarks="detector",
            min_views=1,
            reuse=4,
            seed=7,
            count=6000,
        ),
        optimizer=OptimizerConfig(learning_rate=3e-4, warmup=100, ema=0.998, weight_decay=1e-4),
        steps=5000,
        batch=4,
        microbatch=4,
        log_every=10,
        save_every=200,
        validate_every=500,
        validation=16,
    )

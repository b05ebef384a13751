"""The network that tells the classical start where the face's points are, for two CPU cores.

    python -m experiments.train --config=experiments/configs/flow_cpu.py --workdir=out/flow

Learns on single photos (an update sees 4 people, 16 photos) with the detector's own landmarks, from the fit to them.

The weights that ship (facerig_jax/networks/assets/trained.npz) come from the script that this was first tried
with, on 2026-11-23: the same network, maps and loss, crops of 192 px, updates of 16 photos drawn from all people
at hand, half of them mirrored; 6,000 people (4,000 TRAIN, 2,000 HARD, seed 0, numbers from 20,000 on), prepared in
0.8 and 0.4 s each; one core, 60 minutes from a rate of 1.5e-3, then 43 from 8e-4 (cosine both), about 7,400
updates. Root mean square, per axis, of how far the points of the fit to the detector's landmarks are from the
truth, and of what the network leaves of it, on validation people: TRAIN 4.07 -> 2.78, HARD 2.43 -> 1.78 mm after
the first part, with other people 4.28 -> 2.66 and 2.43 -> 1.62 mm after the second. Then 66 minutes more from
5e-4 on the same people, 30 % of the photos seen from the fit to the detector's landmarks, 40 and 30 % from what one
and two passes of the network of the second part make of it; 4,150 updates. From the first fit TRAIN 4.18 -> 2.37,
HARD 2.41 -> 1.51 mm, from that after one pass TRAIN 2.44 -> 2.00, HARD 1.59 -> 1.31 mm. Then 75 minutes more from
3e-4, half of the people fitted anew by the network of the third part, three passes from 1, 2 or 4 of their photos;
4,850 updates, 30, 30, 20 and 20 % of the photos after no, one, two and three passes. From the first fit TRAIN 4.18 ->
2.25, HARD 2.41 -> 1.42 mm, after one pass TRAIN 2.44 -> 1.85, HARD 1.59 -> 1.22 mm (seen from the same fits as before).
It still falls, and photos that it learnt from are hardly better than others: more people and hours will bring more.

Without `init` it learns from the fit to the landmarks alone; with one, by turns also from the fits after each of
that network's passes but the last:

    python -m experiments.train --config=experiments/configs/flow_cpu.py --workdir=out/again \\
        --set init=out/flow/weights.npz
"""

import dataclasses

from facerig_jax.config import BASE, FitConfig, FlowConfig
from facerig_jax.synthetic.subject import HARD, TRAIN
from facerig_jax.training.config import DataConfig, OptimizerConfig, TrainConfig

# How the fit goes on from the network's points: finer, with fewer steps than the classical solver (BUILD_NOTES).
START = FitConfig(landmark_steps=3, blur=(3.0, 0.4), photometric_steps=4, expression_steps=3)


def config() -> TrainConfig:
    """The settings."""
    return TrainConfig(
        name="flow_cpu",
        task="flow",
        model=dataclasses.replace(BASE, stages=0, start=START, flow=FlowConfig()),
        data=DataConfig(
            subject=dataclasses.replace(TRAIN, n_views=4),
            others=(dataclasses.replace(HARD, n_views=4, size=320),),
            landmarks="detector",
            reuse=4,
        ),
        optimizer=OptimizerConfig(learning_rate=1.5e-3, warmup=100, ema=0.998, weight_decay=1e-4),
        steps=5000,
        batch=4,
        microbatch=4,
        log_every=10,
        save_every=200,
        validate_every=500,
        validation=16,
    )

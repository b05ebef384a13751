"""Small networks that start from the classical fit, for two CPU cores.

    python -m experiments.train --config=experiments/configs/warm_cpu.py --workdir=out/warm --set data.cache=out/kept

The first stage alone, 2.3 M parameters, crops of 128 px, 1 to 4 photos of each person (few more rarely), a cheap
classical fit to start from. One core trains (0.65 s a subject), the other prepares subjects (1.4 s each): the same
command with --prepare=0/1, each under `taskset`.

2026-11-22, an hour on 2 shared cores in two runs: 304 updates on 540 subjects (--set data.count=540 --set steps=800,
stopped), then 620 on 1,240 others, each seen twice (--set init=... --set data.count=0 --set data.first=540 --set
data.reuse=2 --set steps=620). 16 validation subjects of 1 to 4 photos, from the classical start's 1.742 mm: 1.617
after 100 updates, 1.609, 1.538 (300); second run 1.501 (155), 1.475, 1.455, 1.457. The averaged weights were
experiments/resume.npz until commit 36a79a3; stages_cpu.py went on from them. Learned: seeing 540 subjects over and
over stalls after two epochs (1.617, 1.609) while their own error still falls; the last 155 updates, at small rates,
gain nothing, so the first stage at 128 px is near its end with this many subjects.
"""

import dataclasses

from facerig_jax.config import BASE, FitConfig
from facerig_jax.synthetic.subject import TRAIN
from facerig_jax.training.config import NEUTRAL_FIRST, DataConfig, OptimizerConfig, TrainConfig


def config() -> TrainConfig:
    """The settings."""
    networks = dataclasses.replace(
        BASE.networks,
        image_size=128,
        widths=(8, 8, 16, 24, 48, 96, 96, 96, 96),
        rgb_blocks=(1, 1, 1, 1),
        expression_code=32,
        gate_hidden=48,
    )
    start = FitConfig(crop_size=128, blur=(1.0,), max_points=1000)
    return TrainConfig(
        name="warm_cpu",
        model=dataclasses.replace(BASE, networks=networks, start=start, step_bias=((-1, -3, -2, -1, -1),) * 3),
        losses=NEUTRAL_FIRST,
        data=DataConfig(subject=dataclasses.replace(TRAIN, n_views=4), count=3000, min_views=1),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup=50),
        steps=3000,
        batch=4,
        curriculum=((0, 1),),
        log_every=10,
        save_every=100,
        validate_every=200,
        validation=16,
    )

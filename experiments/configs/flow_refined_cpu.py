"""The flow network goes on from what ships, on the refined head's people, seen by the landmark net with attention.

    python -m experiments.train --config=experiments/configs/flow_refined_cpu.py --workdir=out/refined \\
        --set data.cache=out/refined_subjects

(the same with `--prepare=0/1` first draws the subjects on another core). It now says two errors and their skew instead
of one error. HARD_REFINED and TRAIN_REFINED in turn, 1 to 4 photos each, lids half or wholly closed in every seventh.
"""

import dataclasses

from experiments.configs import flow_varied_cpu
from experiments.training.config import TrainConfig
from facerig_jax.synthetic.subject import HARD_REFINED, TRAIN_REFINED


def config() -> TrainConfig:
    """The settings of flow_varied_cpu.py, for other people and longer."""
    before = flow_varied_cpu.config()
    people = dataclasses.replace(
        before.data,
        subject=dataclasses.replace(TRAIN_REFINED, n_views=4),
        others=(dataclasses.replace(HARD_REFINED, n_views=4, size=320),),
        seed=11,
        count=12000,
    )
    return dataclasses.replace(before, name="flow_refined_cpu", data=people, steps=24000, validate_every=1000)

"""The paper's three stages on top of the start that ships: its fit with the flow network, landmarks by the detector.

python -m experiments.train --config=experiments/configs/stages_cpu.py --workdir=out/stages --set data.cache=out/kept
"""

import dataclasses

from experiments.configs import flow_cpu, warm_cpu
from facerig_jax.config import FlowConfig
from facerig_jax.data.synthetic import HARD, HARD_VARIED, TRAIN, TRAIN_VARIED
from facerig_jax.training.config import TrainConfig


def config() -> TrainConfig:
    """The settings."""
    made = warm_cpu.config()
    subject, *others = (
        dataclasses.replace(kind, n_views=4, size=min(kind.size, 320))
        for kind in (TRAIN, HARD, TRAIN_VARIED, HARD_VARIED)
    )
    return dataclasses.replace(
        made,
        name="stages_cpu",
        init="facerig_jax/networks/assets/trained.npz",
        model=dataclasses.replace(made.model, start=flow_cpu.START, flow=FlowConfig()),
        data=dataclasses.replace(
            made.data,
            subject=subject,
            others=tuple(others),
            landmarks="detector",
            seed=3,
            count=1200,
        ),
        steps=900,
        curriculum=((0, 1), (500, 2), (750, 3)),
        validate_every=100,
        validation=16,
    )

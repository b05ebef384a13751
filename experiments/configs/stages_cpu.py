"""The paper's three stages, coarse to fine, on top of the start that ships, for two CPU cores.

    python -m experiments.train --config=experiments/configs/stages_cpu.py --workdir=out/stages \\
        --set data.cache=out/kept

goes on from experiments/resume.npz, where this stands. 2.4 M parameters besides the flow network, crops of 128 px, 1 to
4 photos of TRAIN, HARD, TRAIN_VARIED and HARD_VARIED people in turn, landmarks by the detector. The start is the
whole fit that ships; the stages compare the detector's points where the flow network sees them
(fit.preprocess.see_anew), and their encoders see how far it says that each vertex is off. What makes it quick is a
whole batch at once: no loop around the gradient (microbatch = batch).

2026-11-27, one core: 894 people in 33 minutes; 700 updates of 4 people on the first stage (1.25 s each), 250 on two
(2.3 to 3.5), 50 on three (13), 57 minutes in all, beside other work. The first stage began as warm_cpu's, inputs
that are new padded by zeros, last layers zero. Neutral mm of 16 validation people of all kinds, the start first, then
after each stage: 1.462, 1.412 (100 updates); 1.462, 1.416 (700); 1.462, 1.412, 1.412 (900); 1.462, 1.412, 1.412, 1.411
(1,000). So they gain 3.5 %, nearly all of it in the first hundred updates of the first stage: what a fit with the
flow network leaves is no longer what gradient steps in a space of rigs can find, or not from so few people.
"""

import dataclasses

from experiments.configs import flow_cpu, warm_cpu
from facerig_jax.config import FlowConfig
from facerig_jax.synthetic.subject import HARD, HARD_VARIED, TRAIN, TRAIN_VARIED
from facerig_jax.training.config import OptimizerConfig, TrainConfig


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
        init="experiments/resume.npz",
        model=dataclasses.replace(made.model, start=flow_cpu.START, flow=FlowConfig()),
        data=dataclasses.replace(
            made.data,
            subject=subject,
            others=tuple(others),
            landmarks="detector",
            seed=3,
            count=894,
        ),
        optimizer=OptimizerConfig(learning_rate=7e-4, warmup=50, schedule="constant", ema=0.99),
        steps=1000,
        microbatch=4,
        curriculum=((0, 1), (700, 2), (950, 3)),
        validate_every=100,
        save_every=50,
        validation=16,
    )

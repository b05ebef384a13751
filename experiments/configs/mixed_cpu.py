"""As warm_cpu, from the classical fit with the flow network, on two kinds of subjects, landmarks by the detector.

    python -m experiments.train --config=experiments/configs/mixed_cpu.py --workdir=out/mixed

Has been tried for a few updates, from the first stage in experiments/resume.npz: compiling takes 6 minutes on one busy
core, an update of 4 people with their preparing some 6 s.
"""

import dataclasses
import runpy
from pathlib import Path

from facerig_jax.config import FlowConfig
from facerig_jax.training.config import TrainConfig


def config() -> TrainConfig:
    """The settings."""
    base = runpy.run_path(str(Path(__file__).with_name("warm_cpu.py")))["config"]()
    flow = runpy.run_path(str(Path(__file__).with_name("flow_cpu.py")))["config"]()
    model = dataclasses.replace(base.model, stages=1, start=flow.model.start, flow=FlowConfig())
    return dataclasses.replace(
        base,
        name="mixed_cpu",
        init="facerig_jax/networks/assets/trained.npz",
        model=model,
        data=dataclasses.replace(flow.data, min_views=1, reuse=3),
        steps=700,
        curriculum=(),
        validate_every=100,
        validation=16,
    )

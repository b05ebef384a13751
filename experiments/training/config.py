"""Settings of a training run: everything that config.json in its folder records."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from flax import struct

from facerig_jax.config import FitConfig
from facerig_jax.inorig.config import BASE, InorigConfig
from facerig_jax.synthetic.subject import SubjectConfig

SCHEDULES = ("cosine", "constant")


@struct.dataclass
class LossWeights:
    """What each loss counts for (traced).

    Published (docs/method.md section 8), summed over stages and steps, in px of a crop of 256:

    depth:      squared distance of posed meshes up to depth.
    dense:      squared distance after a similarity.
    landmark:   detected landmarks; dense ones at stage ends only.
    normal:     1 - cosine between normals, after a similarity.
    edge:       relative edge lengths.

    Ours, at stage ends:

    neutral:    squared distance of the neutral after a similarity, mm^2.
    expression: squared error of the expression's displacement, mm^2.
    code:       squared error of the blendshape weights, where codes are named.
    albedo:     |log albedo ratio| up to one common factor per person, which the light could take.
    photometric: |colour difference| on visible face vertices.

    Of the flow network alone:

    flow:       negative log likelihood of the true offsets on the face's texels.
    """

    depth: jax.Array | float = 1.0
    dense: jax.Array | float = 1.0
    landmark: jax.Array | float = 0.1
    normal: jax.Array | float = 100.0
    edge: jax.Array | float = 0.01
    neutral: jax.Array | float = 0.0
    expression: jax.Array | float = 0.0
    code: jax.Array | float = 0.0
    albedo: jax.Array | float = 0.0
    photometric: jax.Array | float = 0.0
    flow: jax.Array | float = 1.0


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where subjects come from.

    source:  'synthetic', or a folder of subject folders (data.folders).
    seed:    of the synthetic subjects, under HELD_OUT_SEED; of the order of a folder's.
    subject: of the synthetic subjects.
    others:  further kinds of them, which take turns with `subject`; with as many photos.
    count:   how many different synthetic subjects there are; 0 = ever new ones.
    first:   number of the first of ever new ones, for a run that goes on from another's weights.
    reuse:   how often each of ever new ones is seen, where drawing one takes longer than learning from it.
    cache:   folder that keeps the subjects as they are prepared, for later epochs and runs; '' = none.
    landmarks: 'subject' as the source gives them (synthetic subjects: imitated), or 'detector': found on the photos.
    min_views: fewest photos of a synthetic subject that count, the others being masked: from this to all, few more
             rarely; 0 = always all.
    views, size: photos per subject of a folder, and the side they are reduced and padded to.
    """

    source: str = "synthetic"
    seed: int = 0
    subject: SubjectConfig = SubjectConfig()
    others: tuple[SubjectConfig, ...] = ()
    count: int = 0
    first: int = 0
    reuse: int = 1
    cache: str = ""
    landmarks: str = "subject"
    min_views: int = 0
    views: int = 4
    size: int = 512


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Adam.

    learning_rate: the highest, reached after `warmup` steps.
    schedule:      'cosine' down to a hundredth at the last step, or 'constant'.
    clip:          largest global norm of a gradient.
    b1, b2:        decay of the moments.
    weight_decay:  decoupled (AdamW).
    ema:           decay of the averaged weights that are evaluated and shipped; shorter at the start.
    """

    learning_rate: float = 1e-3
    warmup: int = 50
    schedule: str = "cosine"
    clip: float = 1.0
    b1: float = 0.9
    b2: float = 0.99
    weight_decay: float = 0.0
    ema: float = 0.999


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A run.

    name:        for messages.
    task:        'fit' the whole solver, 'pose' its pose regressor alone, or 'flow' its flow network alone
                 (training.tasks.TASKS).
    model:       the solver that is trained.
    energies:    weight of each energy inside it: feature, landmark, photometric.
    losses:      LossWeights.
    data, optimizer: see there.
    steps:       updates in all.
    batch:       subjects per update, over all devices.
    microbatch:  subjects that a device works on at once: 1 needs least memory.
    curriculum:  (first step, number of stages) pairs: coarse stages first. () = always all.
    seed:        of the first weights.
    init:        .npz weights to start from; networks that it does not hold start from random ones.
    log_every, save_every, validate_every: steps; 0 = only at the end.
    keep:        checkpoints kept.
    validation:  synthetic subjects of the validation split to measure on.
    sweep:       list of overrides {'path.to.field': value}; a run takes one of them by its number.
    """

    name: str = "train"
    task: str = "fit"
    model: InorigConfig | FitConfig = BASE
    energies: tuple[float, float, float] = (0.25, 0.025, 1.0)
    losses: LossWeights = LossWeights()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    steps: int = 1000
    batch: int = 8
    microbatch: int = 1
    curriculum: tuple[tuple[int, int], ...] = ()
    seed: int = 0
    init: str = ""
    log_every: int = 10
    save_every: int = 200
    validate_every: int = 200
    keep: int = 2
    validation: int = 8
    sweep: tuple[Any, ...] = ()

    def stages_at(self, step: int) -> int:
        """How many stages of the published method are trained at an update; 0 where it is not what is trained."""
        reached = [stages for first, stages in self.curriculum if first <= step]
        return reached[-1] if reached else getattr(self.model, "stages", 0)

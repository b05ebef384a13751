"""The task 'pose': the pose regressor alone, the mean head at its pose against the truth."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from experiments.training import losses
from experiments.training.prepare import Example, Teacher, evidence_of
from experiments.training.tasks.stages import ERRORS, neutral_errors, prepare, prepared_models
from facerig_jax.geometry.camera import normalized_to_pose, project
from facerig_jax.inorig.config import EnergyWeights, InorigConfig
from facerig_jax.inorig.params import normalize_images, regress_pose
from facerig_jax.numerics import masked_mean

__all__ = ["ERRORS", "loss", "prepare", "prepared_models"]


def loss(
    params: dict, teacher: Teacher, example: Example, energies: EnergyWeights, model: InorigConfig
) -> tuple[dict, jax.Array]:
    """See Task: the mean head at the regressed pose, up to depth."""
    del energies
    evidence, target = evidence_of(example, model), example.target
    work, size = teacher.work, evidence.photo.shape[1]
    regressed = regress_pose(params, normalize_images(evidence.photo), model.networks)
    regressed = normalized_to_pose(regressed, work.unit_mm, size)
    inverse_distance = jnp.full(regressed.shape[0], model.inverse_distance * work.unit_mm)
    posed = project(work.mean, regressed, inverse_distance)
    depth = jax.vmap(losses.depth_loss, (0, 0, None))(posed, target.projected, target.mask)
    depth = losses.reference_area(size) * masked_mean(depth, evidence.view_mask)
    return {"depth": depth}, neutral_errors(jnp.zeros((0, *work.mean.shape)), target, work)

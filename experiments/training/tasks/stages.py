"""The task 'fit': the solver with its stages is run on a subject, and every stage and step is held to the truth."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from experiments.training import losses
from experiments.training.config import TrainConfig
from experiments.training.losses import reference_area
from experiments.training.prepare import Example, Target, Teacher, evidence_of, make_example
from experiments.training.tasks.task import Errors
from facerig_jax.data.subjects import Subject
from facerig_jax.geometry.camera import to_image
from facerig_jax.geometry.mesh import vertex_normals
from facerig_jax.inorig.config import EnergyWeights, InorigConfig
from facerig_jax.inorig.energies import Observed, uses_dense
from facerig_jax.inorig.stages import solve_stages
from facerig_jax.numerics import masked_mean
from facerig_jax.types import HeadModel

ERRORS = Errors("neutral mm", "mean vertex error of the neutral face (mm)", "mean face", "after stage {}")
MIN_ALBEDO = 0.01


def prepared_models(config: TrainConfig) -> tuple[InorigConfig, ...]:
    """See Task: the solver's own settings."""
    if not isinstance(config.model, InorigConfig):
        raise ValueError("task: 'fit' and 'pose' train the published method, whose settings are an InorigConfig.")
    return (config.model,)


def prepare(subject: Subject, teacher: Teacher, model: InorigConfig, learner: InorigConfig) -> Example:
    """See Task."""
    del learner
    return make_example(subject, teacher, model)


def loss(
    params: dict, teacher: Teacher, example: Example, energies: EnergyWeights, model: InorigConfig
) -> tuple[dict, jax.Array]:
    """See Task: losses over the whole trajectory."""
    evidence, target = evidence_of(example, model), example.target
    _, trace = solve_stages(params, teacher.head, evidence, energies, model, pose=example.pose, tables=teacher.tables)
    after = {
        name: jnp.concatenate([trace["steps"][name][:, 1:], trace["stages"][name][:, None]], 1)
        for name in ("projected", "seen")
    }  # (stages, steps, V, ...) after each step
    terms = posed_losses(after, evidence, target, teacher, model)
    terms |= stage_losses(trace["stages"], evidence, target, teacher, model)
    if target.expression is not None and (model.networks.named_codes or model.linear_rig):
        codes = trace["steps"]["x"].expression[:, -1]
        gap = (codes - target.expression[None, :, : codes.shape[-1]]) ** 2
        terms["code"] = jnp.sum(masked_mean(gap, evidence.view_mask[None, :, None], (1, 2)))
    return terms, neutral_errors(trace["stages"]["neutral"], target, teacher.work)


def posed_losses(after: dict, evidence: Observed, target: Target, teacher: Teacher, model: InorigConfig) -> dict:
    """The published losses of posed meshes, summed over stages and steps, means over the views that count."""
    if target.projected is None:
        return {}
    size = evidence.photo.shape[1]
    to_reference = reference_area(size)
    work, mask = teacher.work, target.mask
    normals = vertex_normals(target.projected, work.faces)
    dense = uses_dense(work, model)

    def view(vertices, seen, truth, normals, detected):
        aligned = losses.align(vertices, truth, mask)
        terms = {
            "depth": to_reference * losses.depth_loss(vertices, truth, mask),
            "dense": to_reference * losses.dense_loss(aligned, truth, mask),
            "normal": losses.normal_loss(aligned, normals, work.faces, mask),
            "edge": losses.edge_loss(vertices, truth, teacher.edges, mask),
        }
        if not dense:
            points = losses.landmark68_loss(to_image(vertices, size, size), seen, mask, detected, work.landmarks68)
            terms["landmark"] = to_reference * points
        return terms

    def step(projected, seen):
        return jax.vmap(view)(projected, seen, target.projected, normals, evidence.landmarks)

    terms = jax.lax.map(jax.checkpoint(lambda x: jax.vmap(step)(*x)), (after["projected"], after["seen"]))
    return {name: jnp.sum(masked_mean(value, evidence.view_mask, -1)) for name, value in terms.items()}


def stage_losses(ends: dict, evidence: Observed, target: Target, teacher: Teacher, model: InorigConfig) -> dict:
    """Our losses of every stage's rig, summed over stages."""
    work, mask, views = teacher.work, target.mask, evidence.view_mask
    both = views[:, None] * mask[None]

    def stage(end):
        still = end["neutral"] * work.unit_mm
        terms = {"neutral": losses.dense_loss(losses.align(still, target.neutral, mask), target.neutral, mask)}
        if target.moved is not None:
            moved = end["vertices"] * work.unit_mm - still[None]
            terms["expression"] = masked_mean(jnp.sum((moved - target.moved) ** 2, -1), both)
        if target.albedo is not None and model.linear_colour:
            theirs, ours = (jnp.log(jnp.maximum(x, MIN_ALBEDO)) for x in (target.albedo[None], end["albedo"]))
            ratio = ours - theirs
            ratio = ratio - masked_mean(ratio, both[..., None])
            terms["albedo"] = masked_mean(jnp.abs(ratio), both[..., None])
        visible = both * end["seen"]
        terms["photometric"] = masked_mean(jnp.abs(end["rendered"] - end["observed"]), visible[..., None])
        if uses_dense(work, model):
            gap = jnp.sum((end["landmarks"] - evidence.landmarks) ** 2, -1)
            size = evidence.photo.shape[1]
            terms["landmark"] = reference_area(size) * masked_mean(gap, evidence.weight * views[:, None])
        return terms

    terms = jax.vmap(stage)({name: ends[name] for name in STAGE_FIELDS})
    return {name: jnp.sum(value) for name, value in terms.items()}


STAGE_FIELDS = ("neutral", "vertices", "albedo", "seen", "rendered", "observed", "landmarks")


def neutral_errors(neutrals, target: Target, work: HeadModel) -> jax.Array:
    """(S + 1,) mm: mean distance to the true neutral after a similarity, of the mean head and of (S, P, 3)."""

    def error(vertices):
        aligned = losses.align(vertices * work.unit_mm, target.neutral, target.mask)
        return masked_mean(jnp.linalg.norm(aligned - target.neutral, axis=-1), target.mask)

    return jax.lax.stop_gradient(jax.vmap(error)(jnp.concatenate([work.mean[None], neutrals])))

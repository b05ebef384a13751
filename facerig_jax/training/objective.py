"""What training minimises: the learned solver is run on a subject, and every stage and step is held to the truth."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from facerig_jax.checks import check_choice
from facerig_jax.data.subjects import Subject
from facerig_jax.fit.correspondences import flow_maps, flow_tables
from facerig_jax.fit.linear_points import dense_landmark_model, landmark68_model
from facerig_jax.fit.parameters import Unknowns
from facerig_jax.fit.pipeline import landmark_pose
from facerig_jax.fit.preprocess import find_landmarks, look
from facerig_jax.fit.residuals import LandmarkData
from facerig_jax.geometry.camera import from_image, normalized_to_pose, project, to_image
from facerig_jax.geometry.crop import to_crop
from facerig_jax.geometry.mesh import vertex_normals
from facerig_jax.head.coarse import thin, thin_index
from facerig_jax.head.model import landmark_positions, neutral
from facerig_jax.inorig.config import EnergyWeights, InorigConfig
from facerig_jax.inorig.energies import Observed, uses_dense
from facerig_jax.inorig.params import normalize_images, regress_pose
from facerig_jax.inorig.space import make_tables
from facerig_jax.inorig.stages import solve_learned
from facerig_jax.inorig.state import FirstGuess
from facerig_jax.networks.flow import flow_module
from facerig_jax.networks.tree import apply
from facerig_jax.numerics import HIGHEST, masked_mean, safe_norm, srgb_to_linear
from facerig_jax.raster.uv import UVTable, vertex_to_uv
from facerig_jax.training import losses
from facerig_jax.training.config import TASKS, LossWeights, TrainConfig
from facerig_jax.types import HeadModel

# Losses in pixels are those of a crop of this side, whatever the crop's.
REFERENCE_SIZE = 256
MIN_ALBEDO = 0.01
# True offsets that the flow network learns are cut at this, mm per axis.
MAX_OFFSET = 20.0


def reference_area(size: int) -> float:
    """Squared pixels of the reference crop per squared pixel of a crop of this side."""
    return (REFERENCE_SIZE / size) ** 2


@struct.dataclass
class Teacher:
    """What a run makes of its head once.

    head:   itself; work: what the solver works on.
    index:  (P',) which of its vertices those of `work` are.
    edges:  of `work`.
    tables: its UV tables by their size.
    params: of the networks that subjects are prepared with: 'detector', and 'flow' where the solver has it.
    """

    head: HeadModel
    work: HeadModel
    index: jax.Array
    edges: losses.Edges
    tables: dict[int, UVTable]
    params: dict


@struct.dataclass
class Example:
    """A subject as the solver sees it, with the truth that it is held to.

    photo:     (V, S, S, 3) uint8 crops, sRGB.
    inside:    (V, S, S) bool, inside the photo.
    landmarks: (V, L, 2) crop px.
    weight:    (V, L).
    view_mask: (V,) 1 for views that count.
    first:     what the solver starts from; None: its pose regressor says.
    target:    the truth.
    """

    photo: jax.Array
    inside: jax.Array
    landmarks: jax.Array
    weight: jax.Array
    view_mask: jax.Array
    first: FirstGuess | None
    target: Target


@struct.dataclass
class Target:
    """The truth on the vertices that the solver works on; a field is None where the subject does not know it.

    mask:      (P,) face vertices whose truth is known.
    neutral:   (P, 3) mm.
    projected: (V, P, 3) posed, projected frame of the crop, px.
    moved:     (V, P, 3) mm, displacement by the expression.
    albedo:    (P, 3) linear RGB.
    expression: (V, E).
    """

    mask: jax.Array
    neutral: jax.Array
    projected: jax.Array | None
    moved: jax.Array | None
    albedo: jax.Array | None
    expression: jax.Array | None


@struct.dataclass
class FlowExample:
    """A subject as the flow network sees it, with the truth that it is held to.

    maps:   (V, S, S, N_FLOW) float16, of fit.correspondences.flow_maps.
    offset: (V, S / 2, S / 2, 2) float16 mm, how far the fit is off: to the right and up, see there.
    known:  (V, S / 2, S / 2) bool, texels of the face whose truth is known, in views that count.
    """

    maps: jax.Array
    offset: jax.Array
    known: jax.Array


def make_teacher(head: HeadModel, model: InorigConfig, params: dict | None = None) -> Teacher:
    """Prepares a head, whose triangles must be given as numbers, for the losses of a solver.

    Args:
      head: morphable head.
      model: the solver's settings.
      params: of the networks that subjects are prepared with, see Teacher.
    """
    params = {} if params is None else params
    work = jax.tree.map(jnp.asarray, thin(head) if model.coarse else head)
    index = thin_index(head) if model.coarse else jnp.arange(head.mean.shape[0])
    tables = make_tables(work, model)
    if model.flow is not None:
        tables |= flow_tables(work, model.flow)
    return Teacher(jax.tree.map(jnp.asarray, head), work, index, losses.mesh_edges(work.faces), tables, params)


def prepared_models(config: TrainConfig) -> tuple[InorigConfig, ...]:
    """The solver's settings that a run's subjects are prepared with, one after the other.

    The flow network learns on the fit to the detected landmarks, in the crops of that fit; where there is one to start
    from, also on what its own passes but the last make of that fit.
    """
    model = config.model
    if config.task != "flow":
        return (model,)
    if model.flow is None or model.start is None:
        raise ValueError("task: 'flow' trains the network that model.flow asks for.")
    start = dataclasses.replace(model.start, blur=())
    networks = dataclasses.replace(model.networks, image_size=start.crop_size)
    passes = range(1, model.flow.passes if config.init else 1)
    flows = (None, *(dataclasses.replace(model.flow, passes=count) for count in passes))
    return tuple(dataclasses.replace(model, flow=flow, start=start, networks=networks, stages=0) for flow in flows)


def make_example(subject: Subject, teacher: Teacher, model: InorigConfig) -> Example:
    """Prepares a subject exactly as `fit_rig` does, but that its crops are rounded to 8 bits.

    Landmarks that the subject does not give are found on its photos.
    """
    head, images = teacher.head, subject.images
    images = images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images.astype(jnp.float32)
    n_views = images.shape[0]
    found, points = find_landmarks(teacher.params, images, subject.landmarks)
    mask = jnp.ones(n_views) if subject.view_mask is None else subject.view_mask
    size = jnp.broadcast_to(jnp.array(images.shape[1:3]), (n_views, 2))
    size = size if subject.image_size is None else subject.image_size
    weight = jnp.ones(points.shape[:2])
    seen, first, crop = look(images, points, weight, found & (mask > 0), size, head, model, teacher.params)
    return Example(
        photo=jnp.round(255 * seen.photo).astype(jnp.uint8),
        inside=seen.colour[..., 3] > 0.5,
        landmarks=seen.landmarks,
        weight=seen.weight,
        view_mask=seen.view_mask,
        first=first,
        target=target_of(subject, teacher, crop, seen.photo.shape[1]),
    )


def make_flow_example(example: Example, teacher: Teacher, model: InorigConfig) -> FlowExample:
    """What the flow network sees of a prepared subject; made once, so that no epoch draws the maps again."""
    work, tables, size = teacher.work, teacher.tables, example.photo.shape[1]
    evidence, first = evidence_of(example, model), example.first
    fitted = Unknowns(
        identity=first.identity,
        albedo=first.albedo,
        pose=normalized_to_pose(first.pose, work.unit_mm, size),
        inverse_distance=first.inverse_distance,
        expression=first.expression,
        light=jnp.zeros((first.pose.shape[0], 9, 3)),
    )
    points = dense_landmark_model(teacher.head) if uses_dense(work, model) else landmark68_model(teacher.head)
    count = evidence.landmarks.shape[1]
    landmarks = LandmarkData(points, evidence.landmarks, evidence.weight, jnp.ones(count), jnp.zeros((1, count, 2)))
    photo = jnp.concatenate([evidence.photo, evidence.colour[..., 3:]], -1)
    maps, frame = flow_maps(work, photo, fitted, landmarks, tables, model.flow)
    gap = to_image(example.target.projected, size, size)[..., :2] - frame.image
    gap = jnp.einsum("vpj,vij->vpi", gap, frame.turn, precision=HIGHEST) / frame.scale[:, None, None]
    table = tables[model.flow.uv_size // 2]
    offset = jax.vmap(lambda value: vertex_to_uv(value, table))(jnp.clip(gap, -MAX_OFFSET, MAX_OFFSET))
    known = vertex_to_uv(example.target.mask.astype(jnp.float32)[:, None], table)[..., 0] > 0.99
    known = known[None] & (evidence.view_mask > 0)[:, None, None]
    return FlowExample(maps.astype(jnp.float16), offset.astype(jnp.float16), known)


def evidence_of(example: Example, model: InorigConfig) -> Observed:
    """What the solver looks at."""
    photo = example.photo.astype(jnp.float32) / 255
    colour = srgb_to_linear(photo) if model.linear_colour else photo
    return Observed(
        photo=photo,
        colour=jnp.concatenate([colour, example.inside[..., None].astype(colour.dtype)], -1),
        landmarks=example.landmarks,
        weight=example.weight,
        view_mask=example.view_mask,
    )


def target_of(subject: Subject, teacher: Teacher, crop, size: int) -> Target:
    """The truth where the solver works, in crops of a side of `size` px; a posed mesh without a camera is put where its
    landmarks were detected.
    """
    index = teacher.index
    known = 1.0 if subject.known is None else subject.known[index]
    mask = (teacher.work.face_mask > 0.5) * known
    posed = subject.vertices_img
    if posed is not None:
        posed = to_crop(posed[:, index], crop)
        projected = jnp.concatenate([from_image(posed[..., :2], size, size), posed[..., 2:]], -1)
    elif subject.vertices is not None:
        projected = _projected_by_landmarks(subject, teacher, crop, size)
    else:
        projected = None
    return Target(
        mask=mask,
        neutral=subject.neutral[index],
        projected=projected,
        moved=None if subject.vertices is None else (subject.vertices - subject.neutral[None])[:, index],
        albedo=None if subject.albedo is None else subject.albedo[index],
        expression=subject.expression,
    )


def _projected_by_landmarks(subject: Subject, teacher: Teacher, crop, size: int):
    points = to_crop(subject.landmarks, crop)
    embedding = teacher.head.landmarks_dense

    def one(vertices, detected):
        model = landmark_positions(embedding, vertices)
        pose = landmark_pose(model, detected[None], embedding.weight[None], size)[0]
        return project(vertices[teacher.index], pose)

    return jax.vmap(one)(subject.vertices, points)


def example_loss(
    params: dict,
    teacher: Teacher,
    example: Example | FlowExample,
    weights: LossWeights,
    energies: EnergyWeights,
    config: TrainConfig,
) -> tuple[jax.Array, dict]:
    """The loss of one subject.

    Args:
      params: of all networks, of as many stages as `config.model` has.
      teacher: of the head.
      example: the subject.
      weights: of the losses.
      energies: the solver's own settings.
      config: static.

    Returns:
      loss: ().
      measures: name -> (), each loss before its weight, and 'error' (stages + 1,) mm: mean distance of the neutral to
        the truth after a similarity, first that of the first guess, then after every stage; see also `flow_losses`.
    """
    if check_choice("task", config.task, TASKS) == "flow":
        terms, errors = flow_losses(params, example, config.model)
    else:
        evidence, task = evidence_of(example, config.model), {"fit": fit_losses, "pose": pose_losses}[config.task]
        terms, errors = task(params, teacher, evidence, example.first, example.target, energies, config.model)
    loss = sum(getattr(weights, name) * value for name, value in terms.items())
    return loss, {**terms, "error": errors}


def fit_losses(params, teacher: Teacher, evidence: Observed, first, target: Target, energies, model: InorigConfig):
    """Losses over the whole trajectory, by name, and the neutral's errors; see `example_loss`."""
    _, trace = solve_learned(params, teacher.head, evidence, energies, model, first=first, tables=teacher.tables)
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
    return terms, neutral_errors(trace["stages"]["neutral"], first, target, teacher.work)


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


def neutral_errors(neutrals, first: FirstGuess | None, target: Target, work: HeadModel) -> jax.Array:
    """(stages + 1,) mm: mean distance to the true neutral after a similarity, of the first guess and of (S, P, 3)."""
    guess = work.mean if first is None or first.identity is None else neutral(work, first.identity)

    def error(vertices):
        aligned = losses.align(vertices * work.unit_mm, target.neutral, target.mask)
        return masked_mean(jnp.linalg.norm(aligned - target.neutral, axis=-1), target.mask)

    return jax.lax.stop_gradient(jax.vmap(error)(jnp.concatenate([guess[None], neutrals])))


def pose_losses(params, teacher: Teacher, evidence: Observed, first, target: Target, energies, model: InorigConfig):
    """The pose regressor's loss, by name: the mean head at the regressed pose against the truth, up to depth."""
    del energies
    work, size = teacher.work, evidence.photo.shape[1]
    regressed = regress_pose(params, normalize_images(evidence.photo), model.networks)
    regressed = normalized_to_pose(regressed, work.unit_mm, size)
    inverse_distance = jnp.full(regressed.shape[0], model.inverse_distance * work.unit_mm)
    posed = project(work.mean, regressed, inverse_distance)
    loss = jax.vmap(losses.depth_loss, (0, 0, None))(posed, target.projected, target.mask)
    loss = reference_area(size) * masked_mean(loss, evidence.view_mask)
    return {"depth": loss}, neutral_errors(jnp.zeros((0, *work.mean.shape)), first, target, work)


def flow_losses(params, example: FlowExample, model: InorigConfig):
    """The flow network's loss, by name: the truth is Laplace distributed around its offsets; and the offsets' rms (2,),
    mm: of the truth, and of what the network leaves of it.
    """
    offset, log_error = apply(flow_module(model.flow), params["flow"], example.maps.astype(jnp.float32))
    truth = example.offset.astype(jnp.float32)
    distance = safe_norm(offset - truth)
    loss = masked_mean(2 * log_error + distance * jnp.exp(-log_error), example.known)
    before, after = (jnp.sqrt(masked_mean(x**2, example.known)) for x in (safe_norm(truth), distance))
    return {"flow": loss}, jnp.stack([before, after])

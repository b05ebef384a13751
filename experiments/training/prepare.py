"""What a run makes of its head once, and of every subject: the solver's view of it, beside the truth."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from experiments.training import losses
from facerig_jax.api import as_photos
from facerig_jax.config import FitConfig
from facerig_jax.data.subjects import Subject
from facerig_jax.fit.correspondences import flow_tables
from facerig_jax.fit.preprocess import preprocess
from facerig_jax.geometry.alignment import pose_of_points
from facerig_jax.geometry.camera import from_image, project
from facerig_jax.geometry.crop import to_crop
from facerig_jax.head.coarse import thin, thin_index
from facerig_jax.head.model import landmark_positions
from facerig_jax.inorig.config import InorigConfig
from facerig_jax.inorig.energies import Observed
from facerig_jax.inorig.pipeline import mean_pose, observe
from facerig_jax.inorig.space import make_tables
from facerig_jax.numerics import srgb_to_linear
from facerig_jax.raster.uv import UVTable
from facerig_jax.types import Crop, HeadModel, Photos


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
    """A subject as the published method sees it, with the truth that it is held to.

    photo:     (V, S, S, 3) uint8 crops, sRGB.
    inside:    (V, S, S) bool, inside the photo.
    landmarks: (V, L, 2) crop px.
    weight:    (V, L).
    view_mask: (V,) 1 for views that count.
    pose:      (V, 6) normalised poses that the solver starts from; None: its pose regressor says.
    target:    the truth.
    """

    photo: jax.Array
    inside: jax.Array
    landmarks: jax.Array
    weight: jax.Array
    view_mask: jax.Array
    pose: jax.Array | None
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


def make_teacher(head: HeadModel, model: FitConfig | InorigConfig, params: dict | None = None) -> Teacher:
    """Prepares a head, whose triangles must be given as numbers, for the losses of a solver.

    Args:
      head: morphable head.
      model: the solver's settings.
      params: of the networks that subjects are prepared with, see Teacher.
    """
    params = {} if params is None else params
    coarse = isinstance(model, FitConfig) or model.coarse
    work = jax.tree.map(jnp.asarray, thin(head) if coarse else head)
    index = thin_index(head) if coarse else jnp.arange(head.mean.shape[0])
    tables = flow_tables(work, model.flow) if isinstance(model, FitConfig) else make_tables(work, model)
    return Teacher(jax.tree.map(jnp.asarray, head), work, index, losses.mesh_edges(work.faces), tables, params)


def photos_of(subject: Subject) -> Photos:
    """A subject's photos, complete; landmarks that it does not give are found on them."""
    return as_photos(subject.images, subject.image_size, subject.view_mask, subject.landmarks)


def make_example(subject: Subject, teacher: Teacher, model: InorigConfig) -> Example:
    """Prepares a subject exactly as `fit_rig` does, but that its crops are rounded to 8 bits."""
    head = teacher.head
    crops, _, _ = preprocess(teacher.params, photos_of(subject), head, model.crop_size, model.crop_margin)
    seen = observe(crops, head, model)
    return Example(
        photo=jnp.round(255 * crops.srgb).astype(jnp.uint8),
        inside=crops.inside > 0.5,
        landmarks=seen.landmarks,
        weight=seen.weight,
        view_mask=seen.view_mask,
        pose=None if model.networks.pose_blocks else mean_pose(crops, head, model),
        target=target_of(subject, teacher, crops.crop),
    )


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


def target_of(subject: Subject, teacher: Teacher, crop: Crop) -> Target:
    """The truth where the solver works, in crops; a posed mesh without a camera is put where its landmarks are."""
    index, size = teacher.index, crop.size
    assert subject.neutral is not None, "training needs the true face"
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
    embedding = teacher.head.landmarks_dense
    assert embedding is not None, "the detector's points are the dense ones"
    assert subject.landmarks is not None, "a source of files gives them"
    points = to_crop(subject.landmarks, crop)

    def one(vertices, detected):
        model = landmark_positions(embedding, vertices)
        pose = pose_of_points(model, detected[None], embedding.weight[None], size)[0]
        return project(vertices[teacher.index], pose)

    return jax.vmap(one)(subject.vertices, points)

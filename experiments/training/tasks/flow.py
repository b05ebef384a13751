"""The task 'flow': the flow network alone learns how far the fit to the landmarks is off, texel by texel."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from experiments.training.config import TrainConfig
from experiments.training.prepare import Target, Teacher, photos_of, target_of
from experiments.training.tasks.task import Errors
from facerig_jax.config import FitConfig, Hyper, as_arrays
from facerig_jax.data.subjects import Subject
from facerig_jax.fit.correspondences import flow_maps
from facerig_jax.fit.landmarks import landmark_data
from facerig_jax.fit.parameters import Parameters
from facerig_jax.fit.pipeline import first_guess, fit_correspondences
from facerig_jax.fit.preprocess import Crops, preprocess
from facerig_jax.fit.residuals import PointData
from facerig_jax.fit.stages import fit_landmarks
from facerig_jax.geometry.camera import to_image
from facerig_jax.inorig.config import EnergyWeights
from facerig_jax.networks.flow import flow_module, whitening
from facerig_jax.networks.tree import apply
from facerig_jax.numerics import HIGHEST, masked_mean, safe_norm
from facerig_jax.raster.uv import vertex_to_uv

ERRORS = Errors("offsets mm", "rms of the points' offsets (mm)", "before the network", "after it")
# True offsets that the network learns are cut at this, mm per axis.
MAX_OFFSET = 20.0


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


def prepared_models(config: TrainConfig) -> tuple[FitConfig, ...]:
    """See Task: the fit to the detected landmarks; where there is a network to start from, also what its own passes but
    the last make of that fit.
    """
    model = config.model
    if not isinstance(model, FitConfig) or model.flow is None:
        raise ValueError("task: 'flow' trains the network that model.flow asks for.")
    passes = range(1, model.flow.passes if config.init else 1)
    flows = (None, *(dataclasses.replace(model.flow, passes=count) for count in passes))
    return tuple(dataclasses.replace(model, flow=flow, photometric_steps=0) for flow in flows)


def prepare(subject: Subject, teacher: Teacher, model: FitConfig, learner: FitConfig) -> FlowExample:
    """See Task: fitted as `fit_rig` does, what the network then sees, and how far the fit is off."""
    head, hyper = teacher.head, as_arrays(Hyper())
    crops, _, _ = preprocess(teacher.params, photos_of(subject), head, model.crop_size, hyper.crop_margin)
    landmarks = landmark_data(head, crops, hyper, model, hyper.landmark_common)
    x, _ = fit_landmarks(head, landmarks, crops, first_guess(head, crops, hyper, model), hyper, model)
    if model.flow is not None:
        x, *_ = fit_correspondences({"learned": teacher.params}, head, landmarks, crops, x, hyper, model)
    return make_flow_example(crops, x, landmarks, target_of(subject, teacher, crops.crop), teacher, learner)


def make_flow_example(
    crops: Crops, x: Parameters, landmarks: PointData, target: Target, teacher: Teacher, model: FitConfig
) -> FlowExample:
    """What the flow network sees of a fit to landmarks; made once, so that no epoch draws the maps again."""
    assert model.flow is not None, "what learns has a network"
    work, tables, size = teacher.work, teacher.tables, crops.crop.size
    photo = jnp.concatenate([jnp.round(255 * crops.srgb) / 255, crops.inside[..., None]], -1)
    maps, frame = flow_maps(work, photo, x, landmarks, tables, model.flow)
    gap = to_image(target.projected, size, size)[..., :2] - frame.image
    gap = jnp.einsum("vpj,vij->vpi", gap, frame.turn, precision=HIGHEST) / frame.scale[:, None, None]
    table = tables[model.flow.uv_size // 2]
    offset = jax.vmap(lambda value: vertex_to_uv(value, table))(jnp.clip(gap, -MAX_OFFSET, MAX_OFFSET))
    known = vertex_to_uv(target.mask.astype(jnp.float32)[:, None], table)[..., 0] > 0.99
    known = known[None] & (crops.view_mask > 0)[:, None, None]
    return FlowExample(maps.astype(jnp.float16), offset.astype(jnp.float16), known)


def loss(
    params: dict, teacher: Teacher, example: FlowExample, energies: EnergyWeights, model: FitConfig
) -> tuple[dict, jax.Array]:
    """See Task: the truth is Laplace distributed around the network's offsets; and the offsets' rms (2,), mm: of the
    truth, and of what the network leaves of it.
    """
    del teacher, energies
    offset, errors = apply(flow_module(model.flow), params["flow"], example.maps.astype(jnp.float32))
    truth = example.offset.astype(jnp.float32)
    gap = offset - truth
    unlikely = safe_norm(jnp.einsum("...ij,...j->...i", whitening(errors), gap, precision=HIGHEST))
    likelihood = masked_mean(errors[..., 0] + errors[..., 1] + unlikely, example.known)
    before, after = (jnp.sqrt(masked_mean(jnp.sum(x**2, -1), example.known)) for x in (truth, gap))
    return {"flow": likelihood}, jnp.stack([before, after])

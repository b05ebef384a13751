"""From photos to what the solvers look at: landmarks, crops and the status of every view before the fit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from facerig_jax.config import Hyper, LearnedConfig
from facerig_jax.detect import detect
from facerig_jax.detect.landmarks import LANDMARKS68
from facerig_jax.fit import status as codes
from facerig_jax.fit.correspondences import find_points, look_at_face, points_seen, values_seen
from facerig_jax.fit.linear_points import dense_landmark_model, landmark68_model
from facerig_jax.fit.parameters import Unknowns
from facerig_jax.fit.photometric import Observed
from facerig_jax.fit.pipeline import landmark_data, landmark_pose, solve_classical
from facerig_jax.geometry.camera import pose_to_normalized, resized_pose, to_image
from facerig_jax.geometry.crop import crop_around, crop_image, inside_photo, to_crop
from facerig_jax.head.coarse import thin
from facerig_jax.head.model import landmark_positions
from facerig_jax.inorig import energies as table
from facerig_jax.inorig.state import FirstGuess
from facerig_jax.numerics import linear_to_srgb, srgb_to_linear
from facerig_jax.types import Crop, Detection, HeadModel

# Points that the detector reports.
N_LANDMARKS = 468
# A view counts when at least this share of its landmarks lies inside the photo.
MIN_INSIDE = 0.5


def find_landmarks(params: dict, images: jax.Array, landmarks=None):
    """Whether each view has a face (V,), and its landmarks (V, 468, 3) photo pixels."""
    if landmarks is not None:
        landmarks = jnp.asarray(landmarks, images.dtype)
        return jnp.all(jnp.isfinite(landmarks), (1, 2)), jnp.nan_to_num(landmarks)
    found: Detection = jax.lax.map(lambda image: detect(params["detector"], image), images)
    return found.found, found.landmarks


def view_status(found, points, mask, size) -> jax.Array:
    """(V,) int32 status before the fit."""
    inside = jnp.mean(inside_photo(points[..., :2], size, border=0.0), -1, dtype=points.dtype) >= MIN_INSIDE
    status = jnp.where(inside, codes.OK, codes.OUT_OF_FRAME)
    status = jnp.where(found, status, codes.NO_FACE)
    return jnp.where(mask > 0, status, codes.PADDING).astype(jnp.int32)


def observe(images, points, weight, usable, size, head: HeadModel, crop_size: int, crop_margin: float):
    """What the classical solver looks at, and its crops (V,). Unusable views get stand-in landmarks, to stay finite."""
    reference = head.mean[np.linspace(0, head.mean.shape[0] - 1, N_LANDMARKS).astype(int)]
    reference = reference / jnp.max(jnp.ptp(reference, axis=0))
    stand_in = to_image(reference * min(images.shape[1:3]) / 2, *images.shape[1:3])
    points = jnp.where(usable[:, None, None], points, stand_in)
    crop = crop_around(points[..., :2], crop_size, crop_margin)
    photo = jax.vmap(lambda image, crop: crop_image(srgb_to_linear(image), crop, crop_size))(images, crop)
    grid = jnp.arange(crop_size, dtype=jnp.float32)
    grid = jnp.stack(jnp.meshgrid(grid, grid), -1).reshape(1, -1, 2)
    there = grid / crop.scale[:, None, None] + crop.offset[:, None]
    inside = inside_photo(there, size).reshape(-1, crop_size, crop_size).astype(jnp.float32)
    mask = usable.astype(jnp.float32)
    return Observed(photo, inside, to_crop(points, crop), weight * mask[:, None], mask), crop


def observe_learned(observed: Observed, head: HeadModel, config: LearnedConfig) -> table.Observed:
    """The same for the learned solver: its colour space, its landmarks."""
    chosen = slice(None) if table.uses_dense(head, config) else np.array(LANDMARKS68)
    photo = linear_to_srgb(observed.image)
    colour = observed.image if config.linear_colour else photo
    return table.Observed(
        photo=photo,
        colour=jnp.concatenate([colour, observed.inside[..., None]], -1),
        landmarks=observed.landmarks[:, chosen, :2],
        weight=observed.weight[:, chosen] * table.landmark_weights(head, config)[None],
        view_mask=observed.view_mask,
    )


def look(
    images, points, weight, usable, size, head: HeadModel, config: LearnedConfig, params: dict
) -> tuple[table.Observed, FirstGuess | None, Crop]:
    """What the learned solver looks at and starts from.

    Args:
      images, points, weight, usable, size, head: as `observe` takes them.
      config: static settings.
      params: the learned solver's; looked at only where config.flow is set.

    Returns:
      evidence: its crops and landmarks.
      first: its start; None leaves that to the pose regressor.
      crop: (V,) photo px to crop px.
    """
    side, margin, start = config.networks.image_size, config.crop_margin, config.start
    observed, crop = observe(images, points, weight, usable, size, head, side, margin)
    if start is not None:
        seen = observed
        if start.crop_size != side:
            seen, _ = observe(images, points, weight, usable, size, head, start.crop_size, margin)
        x, _ = solve_start(seen, head, config, params)
        evidence, first = observe_learned(observed, head, config), guess_of(x, head, config)
        if config.flow is not None and config.stages:
            evidence, first = see_anew(seen, x, evidence, first, head, config, params)
        return evidence, first, crop
    first = None if config.networks.pose_blocks else mean_guess(observed, head, config)
    return observe_learned(observed, head, config), first, crop


def solve_start(observed: Observed, head: HeadModel, config: LearnedConfig, params: dict) -> tuple[Unknowns, dict]:
    """The classical solver's fit that the first stage starts from, with the flow network where there is one."""
    start = config.start
    if config.flow is None:
        return solve_classical(head, observed, Hyper(), start)

    def seek(x, landmarks):
        return find_points(params["flow"], head, observed, x, landmarks, config.flow)

    hyper = Hyper(tracking_common=config.flow.tracking_common, tracking_noise=config.flow.tracking_noise)
    return solve_classical(head, observed, hyper, start, seek, config.flow.passes)


def guess_of(x: Unknowns, head: HeadModel, config: LearnedConfig) -> FirstGuess:
    """That fit as a start, in the networks' crops."""
    pose = resized_pose(x.pose, config.start.crop_size, config.networks.image_size)
    pose = pose_to_normalized(pose, head.unit_mm, config.networks.image_size)
    return FirstGuess(pose, x.inverse_distance, x.identity, x.albedo, x.expression)


def see_anew(
    seen: Observed,
    x: Unknowns,
    evidence: table.Observed,
    first: FirstGuess,
    head: HeadModel,
    config: LearnedConfig,
    params: dict,
) -> tuple[table.Observed, FirstGuess]:
    """Evidence and start of the stages with what the flow network says to the start.

    Args:
      seen: the start's crops.
      x: the start.
      evidence: with the detector's landmarks; these give way to where the network sees their points.
      first: x.
      head, config, params: as for `look`.
    """
    landmarks = landmark_data(head, seen, Hyper(), config.start)
    sight = look_at_face(params["flow"], head, seen, x, landmarks, config.flow)
    work = thin(head) if config.coarse else head
    first = first.replace(offsets=values_seen(sight, jnp.asarray(work.uv)))
    if not table.uses_dense(head, config):
        return evidence, first
    model = dense_landmark_model(head.replace(dense_calibration=None))
    uv, size = landmark_positions(head.landmarks_dense, jnp.asarray(head.uv)), seen.image.shape[1]
    points, weight = points_seen(sight, model, uv, x, size)
    points = (points + 0.5) * (evidence.photo.shape[1] / size) - 0.5  # pixel centres are at integers
    weight = weight * (evidence.weight > 0)
    weight = weight / jnp.maximum(jnp.mean(weight, -1, keepdims=True), 1e-6)
    return evidence.replace(landmarks=points, weight=weight), first


def mean_guess(observed: Observed, head: HeadModel, config: LearnedConfig) -> FirstGuess:
    """The mean head, posed by its landmarks."""
    dense = table.uses_dense(head, config)
    model = dense_landmark_model(head) if dense else landmark68_model(head)
    chosen = slice(None) if dense else np.array(LANDMARKS68)
    weight = observed.weight[:, chosen] * table.landmark_weights(head, config)[None]
    size = observed.image.shape[1]
    pose = landmark_pose(model.mean, observed.landmarks[:, chosen], weight, size)
    return FirstGuess(pose_to_normalized(pose, head.unit_mm, size))

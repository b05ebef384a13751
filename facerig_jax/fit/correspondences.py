"""Where the points of a roughly fitted face really are in the photos: seen by a network, in UV space, view by view.

It takes the detector's place in the fit. The detector names 468 points without knowing the face; this network
sees the photo drawn onto the fitted face, so that what is not where it should be stands out, says how far it is off and
how sure it is, and the fit goes on from there.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from facerig_jax.config import FlowConfig, Hyper
from facerig_jax.fit.linear_points import PointModel, evaluate, position_model
from facerig_jax.fit.parameters import Parameters
from facerig_jax.fit.photometric import face_index
from facerig_jax.fit.preprocess import Crops
from facerig_jax.fit.residuals import PointData
from facerig_jax.geometry.camera import project_to_image
from facerig_jax.geometry.mesh import vertex_normals
from facerig_jax.geometry.rotation import euler_to_matrix
from facerig_jax.geometry.sampling import bilinear
from facerig_jax.head.coarse import thin
from facerig_jax.head.model import vertices
from facerig_jax.networks.flow import flow_module, whitening
from facerig_jax.networks.tree import apply
from facerig_jax.numerics import HIGHEST
from facerig_jax.raster.uv import UVTable, uv_table, uv_to_vertex, vertex_to_uv
from facerig_jax.raster.visibility import visible
from facerig_jax.types import HeadModel

# Landmarks' residuals are spread over the face by a Gaussian of this width, on maps this much coarser; mm, texels.
SPREAD_MM, SPREAD_COARSER = 8.0, 4
# Positions and residuals are seen in these units, mm; residuals are cut at MAX_RESIDUAL mm, colours at MAX_COLOUR
# deviations, and no view's colours are taken to deviate less than MIN_DEVIATION.
POSITION_MM, RESIDUAL_MM, MAX_RESIDUAL, MAX_COLOUR, MIN_DEVIATION = 100.0, 4.0, 15.0, 4.0, 0.02


@struct.dataclass
class FlowFrame:
    """How to turn pixels into what the network speaks of.

    image: (V, P, 2) crop px, the fitted face's vertices.
    turn:  (V, 2, 2) takes a difference in crop px to the head's right and up directions: the image without its roll.
    scale: (V,) px per mm.
    """

    image: jax.Array
    turn: jax.Array
    scale: jax.Array


@struct.dataclass
class Sight:
    """What the network says of some views.

    offset: (V, S, S, 2) UV maps: how far the fitted face is off, to the right and up, mm.
    errors: (V, S, S, 3) of the offsets, see networks.flow.whitening.
    frame:  FlowFrame.
    """

    offset: jax.Array
    errors: jax.Array
    frame: FlowFrame


def find_points(
    params: dict,
    head: HeadModel,
    crops: Crops,
    x: Parameters,
    landmarks: PointData,
    hyper: Hyper,
    config: FlowConfig,
) -> PointData:
    """What the fit compares from now on: face vertices, and where the network sees them.

    Args:
      params: of the network.
      head: morphable head.
      crops: crops.
      x: the fit to the detected landmarks.
      landmarks: those.
      hyper: traced settings.
      config: of the network.

    Returns:
      PointData of `config.points` points.
    """
    x = jax.lax.stop_gradient(x)
    sight = look_at_face(params, head, crops, x, landmarks, config)
    index, fresh = face_index(head, config.points)
    model = position_model(head, index)
    detected, factor = points_seen(sight, model, jnp.asarray(head.uv)[index], x, crops.linear.shape[1])
    return PointData(
        model=model,
        detected=detected,
        weight=fresh[None] * crops.view_mask[:, None],
        deviation=jnp.broadcast_to(hyper.flow_noise, (config.points,)).astype(detected.dtype),
        common=jnp.zeros((1, config.points, 2), detected.dtype),
        factor=factor,
        unit_mm=head.unit_mm,
    )


def look_at_face(
    params: dict, head: HeadModel, crops: Crops, x: Parameters, landmarks: PointData, config: FlowConfig
) -> Sight:
    """The network's answer; arguments as for `find_points`."""
    work = thin(head)
    photo = jnp.concatenate([crops.srgb, crops.inside[..., None]], -1)
    maps, frame = flow_maps(work, photo, x, landmarks, flow_tables(work, config), config)
    offset, errors = apply(flow_module(config), params, maps)
    return Sight(offset, errors, frame)


def values_seen(sight: Sight, uv: jax.Array) -> jax.Array:
    """(V, n, 5) offset and its errors at places (n, 2) of the UV layout."""
    maps = jnp.concatenate([sight.offset, sight.errors], -1)
    return jax.vmap(lambda values: uv_to_vertex(values, uv))(maps)


def points_seen(
    sight: Sight, model: PointModel, uv: jax.Array, x: Parameters, size: int
) -> tuple[jax.Array, jax.Array]:
    """Where the network sees points of the face that it looked at.

    Args:
      sight: its answer.
      model: of the points' positions.
      uv: (n, 2) theirs.
      x: the fit from which it looked.
      size: side of the crops, px.

    Returns:
      detected: (V, n, 2) crop px.
      factor: (V, n, 2, 2) of PointData.
    """

    def view(pose, inverse_distance, expression, seen, turn, scale):
        posed = project_to_image(evaluate(model, x.identity, expression), pose, inverse_distance, size)[:, :2]
        moved = jnp.matmul(seen[:, :2], turn, precision=HIGHEST)
        return posed + scale * moved, whitening(seen[:, 2:])

    frame = sight.frame
    return jax.vmap(view)(x.pose, x.inverse_distance, x.expression, values_seen(sight, uv), frame.turn, frame.scale)


def flow_tables(work: HeadModel, config: FlowConfig) -> dict[int, UVTable]:
    """UV tables of the maps that the network sees and gives, and of those that residuals are spread on, by size."""
    sizes = (config.uv_size, config.uv_size // 2, config.uv_size // SPREAD_COARSER)
    return {size: uv_table(jnp.asarray(work.uv), work.faces, size) for size in sizes}


def flow_maps(
    work: HeadModel,
    photo: jax.Array,
    x: Parameters,
    landmarks: PointData,
    tables: dict[int, UVTable],
    config: FlowConfig,
) -> tuple[jax.Array, FlowFrame]:
    """What the network sees, and the frame of what it says.

    Args:
      work: the head that `thin` gives.
      photo: (V, H, H, 4) crops, sRGB, and 1 inside the photo.
      x: the fit to the landmarks.
      landmarks: those.
      tables: of `flow_tables`.
      config: of the network.

    Returns:
      maps: (V, S, S, N_FLOW) UV maps of the views. The colours less their mean over the visible face, over their
        deviation (3), inside the photo (1), visible (1), position without the image's roll in 10 cm (3), normal (3),
        landmarks' residuals (2), and the mean (3) and deviation (1) of the colours.
      frame: FlowFrame.
    """
    size, table = photo.shape[1], tables[config.uv_size]
    face = vertex_to_uv(jnp.asarray(work.face_mask, jnp.float32)[:, None], table)
    spread = _spread(work, tables[config.uv_size // SPREAD_COARSER], landmarks)

    def view(pose, inverse_distance, expression, photo, points, weight):
        turn, scale = _upright(pose), jnp.abs(pose[3]) / work.unit_mm
        posed = vertices(work, x.identity, expression)
        image = project_to_image(posed, pose, inverse_distance, size)
        seen = visible(image[None], work.faces, size)[0].astype(image.dtype)
        upright = jnp.matmul(_roll_back(pose), euler_to_matrix(pose[:3]), precision=HIGHEST)
        position = jnp.matmul(posed, upright.T, precision=HIGHEST) * (work.unit_mm / POSITION_MM)
        normal = jnp.matmul(vertex_normals(posed, work.faces), upright.T, precision=HIGHEST)
        drawn = vertex_to_uv(jnp.concatenate([image[:, :2], seen[:, None], position, normal], -1), table)
        colour = bilinear(photo, drawn[..., :2].reshape(-1, 2)).reshape(*drawn.shape[:2], 4)
        colour, inside = colour[..., :3], colour[..., 3:]
        colour, mean, deviation = _standardise(colour, drawn[..., 2:3] * face * inside)
        model = project_to_image(evaluate(landmarks.model, x.identity, expression), pose, inverse_distance, size)
        residual = jnp.matmul(points - model[:, :2], turn.T, precision=HIGHEST) / scale
        residual = jnp.clip(residual, -MAX_RESIDUAL, MAX_RESIDUAL) * (weight > 0)[:, None] / RESIDUAL_MM
        side = colour.shape[0]
        coarse = jnp.tensordot(spread, residual, 1, precision=HIGHEST)
        residual = jax.image.resize(coarse, (side, side, 2), "linear")
        tone = jnp.broadcast_to(jnp.append(mean, deviation), (side, side, 4))
        maps = jnp.concatenate([colour, inside, drawn[..., 2:], residual, tone], -1)
        return maps, FlowFrame(image[:, :2], turn, scale)

    return jax.vmap(view)(x.pose, x.inverse_distance, x.expression, photo, landmarks.detected, landmarks.weight)


def _roll_back(pose: jax.Array) -> jax.Array:
    """(3, 3) takes the image's roll back."""
    return euler_to_matrix(-pose[:3] * jnp.array([0.0, 0.0, 1.0], pose.dtype))


def _upright(pose: jax.Array) -> jax.Array:
    """(2, 2) from crop px, v down, to right and up without the roll."""
    return jnp.array([[1.0, -1.0]], pose.dtype) * _roll_back(pose)[:2, :2]


def _standardise(colour: jax.Array, weight: jax.Array):
    """Colours (S, S, 3) less their weighted mean (3,) and over their common deviation ()."""
    total = jnp.sum(weight) + 1e-3
    mean = jnp.sum(colour * weight, (0, 1)) / total
    colour = colour - mean[None, None]
    deviation = jnp.sqrt(jnp.sum(colour**2 * weight) / (3 * total)) + MIN_DEVIATION
    return jnp.clip(colour / deviation, -MAX_COLOUR, MAX_COLOUR), mean, deviation


def _spread(work: HeadModel, table: UVTable, landmarks: PointData) -> jax.Array:
    """(s, s, L) how much each landmark that some view trusts counts at the texels of a coarse map."""
    texels = vertex_to_uv(jnp.asarray(work.mean), table)
    gap = jnp.sum((texels[:, :, None] - landmarks.model.mean[None, None]) ** 2, -1) * (work.unit_mm / SPREAD_MM) ** 2
    share = jnp.exp(-0.5 * gap) * jnp.max(landmarks.weight, 0)[None, None] + 1e-9
    return share / jnp.sum(share, -1, keepdims=True)

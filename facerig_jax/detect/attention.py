"""Forward pass of the face-mesh net with attention (arXiv:2006.10962): a mesh refined at lips and eyes, and irises.

A trunk of BlazeBlocks finds a first mesh. Round its lips and its two eyes windows are cut out of the trunk's features,
turned and stretched as the points there lie, and three smaller nets look again. The weights come from MediaPipe's
.tflite file through `experiments/build/detector.py`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ..geometry.sampling import bilinear
from ..numerics import HIGHEST
from .layers import activate, blaze_blocks, dense, flatten_batch, squeeze, strided_conv

CROP_SIZE = 192
# The regions look at the features after so many blocks, 48 x 48 of them.
TAP = 3
STRIDES = (1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1)
REGION_STRIDES = (1, 1, 2, 1, 1, 2)
BRANCH_STRIDES = (1, 1, 2, 1, 1)
REGION_SIZE = 16
# A region's window is so much larger than the bounding box of its points.
REGION_MARGIN = 1.5

N_MESH, N_IRIS = 468, 5
# Contour of the lids first: lower, upper; then rings round it, the brow last. "right" is the subject's right.
N_CONTOUR = 16
RIGHT_EYE = (
    *(33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173),
    *(130, 25, 110, 24, 23, 22, 26, 112, 243, 247, 30, 29, 27, 28, 56, 190),
    *(226, 31, 228, 229, 230, 231, 232, 233, 244, 113, 225, 224, 223, 222, 221, 189),
    *(35, 124, 46, 53, 52, 65, 143, 111, 117, 118, 119, 120, 121, 128, 245),
    *(156, 70, 63, 105, 66, 107, 55, 193),
)
LEFT_EYE = (
    *(263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398),
    *(359, 255, 339, 254, 253, 252, 256, 341, 463, 467, 260, 259, 257, 258, 286, 414),
    *(446, 261, 448, 449, 450, 451, 452, 453, 464, 342, 445, 444, 443, 442, 441, 413),
    *(265, 353, 276, 283, 282, 295, 372, 340, 346, 347, 348, 349, 350, 357, 465),
    *(383, 300, 293, 334, 296, 336, 285, 417),
)
# Four rings from the outermost to the innermost red: lower with both corners, then upper.
LIPS = (
    *(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409),
    *(78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415),
    *(76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306, 184, 74, 73, 72, 11, 302, 303, 304, 408),
    *(62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292, 183, 42, 41, 38, 12, 268, 271, 272, 407),
)
# Points of each region, in the order of its net's output, and the two that say how its window is turned.
REGIONS = {"lips": LIPS, "right_eye": RIGHT_EYE, "left_eye": LEFT_EYE}
LEVEL = {"lips": (61, 291), "right_eye": (33, 133), "left_eye": (362, 263)}
EYES = ("right_eye", "left_eye")


def attention_net(params: dict, crop: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Face-mesh net with attention.

    Args:
      params: load_detector("attention")["landmarks"].
      crop: (..., 192, 192, 3) RGB in [0, 1], an upright face.

    Returns:
      points (..., 478, 3): px of the crop (0 = its left or top edge), z in the same scale, away from the camera: 468 of
        the mesh, then 5 each of the subject's right and left iris (middle, towards the subject's right, up, left, down
        as an upright picture shows them); an iris has the mean z of its lids.
      logit (...): belief that the crop holds a face, before the sigmoid.
    """
    crop, batch = flatten_batch(crop)
    out = raw_outputs(params, crop)
    mesh = out["mesh"]
    xy = jnp.concatenate([mesh[..., :2], *(out[name] for name in REGIONS)], 1)[:, _refined_places()]
    irises = []
    for name in EYES:
        z = mesh[:, np.array(REGIONS[name][:N_CONTOUR]), 2:].mean(1, keepdims=True)
        irises.append(jnp.concatenate([out[f"{name}_iris"], jnp.broadcast_to(z, (len(z), N_IRIS, 1))], -1))
    points = jnp.concatenate([jnp.concatenate([xy, mesh[..., 2:]], -1), *irises], 1)
    return points.reshape(*batch, N_MESH + 2 * N_IRIS, 3), out["presence"].reshape(batch)


def raw_outputs(params: dict, crop: jax.Array) -> dict[str, jax.Array]:
    """What the original net puts out for crops (n, 192, 192, 3), px of the crop.

    mesh (n, 468, 3), lips (n, 80, 2), right_eye and left_eye (n, 71, 2), right_eye_iris and left_eye_iris (n, 5, 2),
    presence (n,), a logit.
    """
    x = activate(strided_conv(crop, params["stem"]), params["stem"])
    features = blaze_blocks(x, params, STRIDES[:TAP])
    x = squeeze(blaze_blocks(features, params, STRIDES[TAP:], TAP), params)
    mesh = dense(x, params["mesh"]).reshape(-1, N_MESH, 3)
    out = {"mesh": mesh, "presence": dense(x, params["presence"])[:, 0]}
    for name in REGIONS:
        with jax.named_scope(name):
            centre, axes = region_window(mesh[..., :2], name)
            y = blaze_blocks(cut_out(features, centre, axes), params[name], REGION_STRIDES)
            out[name] = _to_crop(_look(y, params[name]["points"]), centre, axes)
            if name in EYES:
                out[f"{name}_iris"] = _to_crop(_look(y, params[name]["iris"]), centre, axes)
    return out


def region_window(mesh: jax.Array, name: str) -> tuple[jax.Array, jax.Array]:
    """Where a region's net looks: a rectangle along the line between the region's two `LEVEL` points.

    mesh: (n, 468, 2). Returns its centre (n, 2) and its sides (n, 2, 2) as vectors, the first along that line.
    """
    start, end = LEVEL[name]
    along = mesh[:, end] - mesh[:, start]
    length = jnp.sqrt(jnp.maximum((along**2).sum(-1, keepdims=True), 1e-12))
    along = along / length
    frame = jnp.stack([along, along[:, ::-1] * np.array([[-1, 1]], np.float32)], 1)
    local = jnp.einsum("nij,npj->npi", frame, mesh[:, np.array(REGIONS[name])], precision=HIGHEST)
    low, high = local.min(1), local.max(1)
    centre = jnp.einsum("nij,ni->nj", frame, (low + high) / 2, precision=HIGHEST)
    return centre, REGION_MARGIN * (high - low)[..., None] * frame


def cut_out(features: jax.Array, centre: jax.Array, axes: jax.Array) -> jax.Array:
    """Features (n, 48, 48, C) inside a window of the crop, (n, 16, 16, C); zero outside the outermost features."""
    cells = (np.arange(REGION_SIZE, dtype=np.float32) + 0.5) / REGION_SIZE
    unit = np.stack(np.meshgrid(cells, cells), -1).reshape(-1, 2)
    size = features.shape[1]
    places = _to_crop(jnp.asarray(unit)[None], centre, axes) * (size / CROP_SIZE) - 0.5
    inside = ((places >= 0) & (places <= size - 1)).all(-1, keepdims=True)
    seen = jax.vmap(bilinear)(features, places) * inside
    return seen.reshape(-1, REGION_SIZE, REGION_SIZE, features.shape[-1])


def _to_crop(unit, centre, axes):
    """Points (n, p, 2) in coordinates in which a region's window is [0, 1]^2, to px of the crop."""
    return centre[:, None] + jnp.einsum("npi,nij->npj", unit - 0.5, axes, precision=HIGHEST)


def _look(x, branch):
    """(n, p, 2) points of one branch, the region's window being [0, 1]^2; its net counts in 64ths of that."""
    x = squeeze(blaze_blocks(x, branch, BRANCH_STRIDES), branch)
    return dense(x, branch["head"]).reshape(len(x), -1, 2) / (4 * REGION_SIZE)


def _refined_places() -> np.ndarray:
    """(468,) where each point of the mesh is found among the mesh's own points followed by those of the regions."""
    places, start = np.arange(N_MESH), N_MESH
    for indices in REGIONS.values():
        places[list(indices)] = start + np.arange(len(indices))
        start += len(indices)
    return places.astype(np.int32)

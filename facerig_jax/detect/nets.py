"""Forward passes of the two nets: BlazeFace short-range (arXiv:1907.05047) and the face-mesh net (arXiv:1907.06724).

Both are a strided convolution followed by BlazeBlocks: x -> act(pool(x) + pointwise(depthwise(x))). The weights come
from MediaPipe's .tflite files through `experiments/build/detector.py`; kernels are HWIO, biases and slopes (C,).
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from ..io.arrays import read_arrays
from ..numerics import HIGHEST

WEIGHTS = Path(__file__).parent / "assets" / "mediapipe_v1.npz"
DETECTOR_SIZE = 128
LANDMARK_SIZE = 192

# Stride of every BlazeBlock. The detector's stride-16 head reads the output of block 10.
DETECTOR_STRIDES = (1, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)
DETECTOR_TAP = 10
LANDMARK_TRUNK_STRIDES = (1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1)
LANDMARK_BRANCH_STRIDES = {"landmarks": (2, 1, 1), "presence": (2,)}


def load_detector() -> dict:
    """Weights of both nets as a nested dict of float32 numpy arrays: a pytree to pass to `detect` (1.4 MB on disk)."""
    stored = read_arrays(WEIGHTS)
    return unflatten_dict({path: value.astype(np.float32) for path, value in stored.items()}, sep="/")


def detector_net(params: dict, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """BlazeFace.

    Args:
      params: load_detector()["detector"].
      image: (..., 128, 128, 3) RGB in [-1, 1].

    Returns:
      regressors (..., 896, 16): px of the input relative to the anchor: box centre, box size, six key points (x, y).
      logits (..., 896): before the sigmoid. Order: 16 x 16 cells x 2 anchors, then 8 x 8 cells x 6.
    """
    x, batch = _flatten_batch(image)
    x = jax.nn.relu(_strided_conv(x, params["stem"]))
    features = []
    for i, stride in enumerate(DETECTOR_STRIDES):
        x = _blaze_block(x, params[f"block{i:02d}"], stride)
        if i in (DETECTOR_TAP, len(DETECTOR_STRIDES) - 1):
            features.append(x)
    boxes, scores = [], []
    for feature, cells in zip(features, (16, 8), strict=True):
        boxes.append(_pointwise(feature, params[f"boxes{cells}"]).reshape(*batch, -1, 16))
        scores.append(_pointwise(feature, params[f"scores{cells}"]).reshape(*batch, -1))
    return jnp.concatenate(boxes, -2), jnp.concatenate(scores, -1)


def landmark_net(params: dict, crop: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Face-mesh net.

    Args:
      params: load_detector()["landmarks"].
      crop: (..., 192, 192, 3) RGB in [0, 1], an upright face.

    Returns:
      points (..., 468, 3): px of the crop (0 = its left or top edge), z in the same scale, away from the camera.
      logit (...): belief that the crop holds a face, before the sigmoid.
    """
    x, batch = _flatten_batch(crop)
    x = _activate(_strided_conv(x, params["stem"]), params["stem"])
    for i, stride in enumerate(LANDMARK_TRUNK_STRIDES):
        x = _blaze_block(x, params[f"block{i:02d}"], stride)
    out = {}
    for name, strides in LANDMARK_BRANCH_STRIDES.items():
        branch, y = params[name], x
        for i, stride in enumerate(strides):
            y = _blaze_block(y, branch[f"block{i:02d}"], stride)
        y = _activate(_pointwise(y, branch["reduce"]), branch["reduce"])
        y = _blaze_block(y, branch["last_block"], 1)
        y = jnp.einsum("nhwi,hwio->no", y, branch["head"]["kernel"], precision=HIGHEST)
        out[name] = y + branch["head"]["bias"][None]
    return out["landmarks"].reshape(*batch, 468, 3), out["presence"].reshape(batch)


def _flatten_batch(x):
    return x.reshape(-1, *x.shape[-3:]), x.shape[:-3]


def _per_channel(x):
    """(C,) -> (1, 1, 1, C)."""
    return x[None, None, None]


def _activate(x, layer):
    """PReLU where the layer has slopes, else ReLU."""
    return jnp.where(x >= 0, x, _per_channel(layer["slope"]) * x) if "slope" in layer else jax.nn.relu(x)


def _strided_conv(x, layer):
    dims = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(x, layer["kernel"], (2, 2), "SAME", dimension_numbers=dims, precision=HIGHEST)
    return y + _per_channel(layer["bias"])


def _pointwise(x, layer):
    return jnp.einsum("nhwi,io->nhwo", x, layer["kernel"], precision=HIGHEST) + _per_channel(layer["bias"])


def _depthwise(x, layer, stride):
    """3 x 3 depthwise convolution, padding SAME, as nine shifted multiply-adds.

    Not `feature_group_count=C`: jax 0.10.2 compiles that wrongly on the CPU, and this is several times faster there.
    """
    size = x.shape[1] // stride
    before = 1 if stride == 1 else 0  # SAME with an even side and stride 2 pads one row, at the end
    x = jnp.pad(x, ((0, 0), (before, 1), (before, 1), (0, 0)))
    span = stride * (size - 1) + 1
    kernel, y = layer["kernel"][:, :, None, None, None], _per_channel(layer["bias"])
    for i in range(3):
        for j in range(3):
            y = y + x[:, i : i + span : stride, j : j + span : stride] * kernel[i, j]
    return y


def _blaze_block(x, layer, stride):
    residual = _pointwise(_depthwise(x, layer["depthwise"], stride), layer["pointwise"])
    if stride == 2:
        n, h, w, c = x.shape
        x = x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
    new_channels = residual.shape[-1] - x.shape[-1]
    return _activate(jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, new_channels))) + residual, layer)

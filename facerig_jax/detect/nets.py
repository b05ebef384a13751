"""The nets' weights, and forward passes of BlazeFace short-range (arXiv:1907.05047) and face mesh (arXiv:1907.06724).

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
from .layers import activate, blaze_block, blaze_blocks, dense, flatten_batch, pointwise, squeeze, strided_conv

ASSETS = Path(__file__).parent / "assets"
# Landmark net -> file with its and the face detector's weights. Both are kept while they are compared: the head's
# landmark calibration is that of LANDMARK_NET.
WEIGHTS = {"mesh": "mediapipe_v1.npz", "attention": "mediapipe_v2.npz"}
LANDMARK_NET = "mesh"
DETECTOR_SIZE = 128
LANDMARK_SIZE = 192

# Stride of every BlazeBlock. The detector's stride-16 head reads the output of block 10.
DETECTOR_STRIDES = (1, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)
DETECTOR_TAP = 10
LANDMARK_TRUNK_STRIDES = (1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1)
LANDMARK_BRANCH_STRIDES = {"landmarks": (2, 1, 1), "presence": (2,)}


def load_detector(landmark_net: str = LANDMARK_NET) -> dict:
    """Weights of both nets as a nested dict of float32 numpy arrays: a pytree to pass to `detect`.

    landmark_net: "mesh" or "attention" (attention.py); `detect` runs the one whose weights it is given.
    """
    stored = read_arrays(ASSETS / WEIGHTS[landmark_net])
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
    x, batch = flatten_batch(image)
    x = jax.nn.relu(strided_conv(x, params["stem"]))
    features = []
    for i, stride in enumerate(DETECTOR_STRIDES):
        x = blaze_block(x, params[f"block{i:02d}"], stride)
        if i in (DETECTOR_TAP, len(DETECTOR_STRIDES) - 1):
            features.append(x)
    boxes, scores = [], []
    for feature, cells in zip(features, (16, 8), strict=True):
        boxes.append(pointwise(feature, params[f"boxes{cells}"]).reshape(*batch, -1, 16))
        scores.append(pointwise(feature, params[f"scores{cells}"]).reshape(*batch, -1))
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
    x, batch = flatten_batch(crop)
    x = activate(strided_conv(x, params["stem"]), params["stem"])
    x = blaze_blocks(x, params, LANDMARK_TRUNK_STRIDES)
    out = {}
    for name, strides in LANDMARK_BRANCH_STRIDES.items():
        branch = params[name]
        out[name] = dense(squeeze(blaze_blocks(x, branch, strides), branch), branch["head"])
    return out["landmarks"].reshape(*batch, 468, 3), out["presence"].reshape(batch)

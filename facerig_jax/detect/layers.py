"""Layers of the detector's nets: BlazeBlocks, x -> act(pool(x) + pointwise(depthwise(x))), and what surrounds them.

Pictures and features are (n, H, W, C); kernels are HWIO, or IO for 1 x 1; biases and slopes are (C,).
"""

import jax
import jax.numpy as jnp

from ..numerics import HIGHEST


def flatten_batch(x):
    """(..., H, W, C) -> (n, H, W, C) and the leading axes."""
    return x.reshape(-1, *x.shape[-3:]), x.shape[:-3]


def activate(x, layer):
    """PReLU where the layer has slopes, else ReLU."""
    return jnp.where(x >= 0, x, _per_channel(layer["slope"]) * x) if "slope" in layer else jax.nn.relu(x)


def strided_conv(x, layer):
    """Convolution with stride 2, padding SAME."""
    dims = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(x, layer["kernel"], (2, 2), "SAME", dimension_numbers=dims, precision=HIGHEST)
    return y + _per_channel(layer["bias"])


def pointwise(x, layer):
    """1 x 1 convolution."""
    return jnp.einsum("nhwi,io->nhwo", x, layer["kernel"], precision=HIGHEST) + _per_channel(layer["bias"])


def dense(x, layer):
    """(n, C): a convolution whose kernel covers the whole map."""
    return jnp.einsum("nhwi,hwio->no", x, layer["kernel"], precision=HIGHEST) + layer["bias"][None]


def blaze_blocks(x, params, strides, first=0):
    """The blocks "block00", "block01", ... of `params`, from number `first` on, one after the other."""
    for i, stride in enumerate(strides, first):
        x = blaze_block(x, params[f"block{i:02d}"], stride)
    return x


def blaze_block(x, layer, stride):
    """One BlazeBlock; new channels of the shortcut are zero."""
    residual = pointwise(_depthwise(x, layer["depthwise"], stride), layer["pointwise"])
    if stride == 2:
        n, h, w, c = x.shape
        x = x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
    new_channels = residual.shape[-1] - x.shape[-1]
    return activate(jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, new_channels))) + residual, layer)


def squeeze(x, layer):
    """Fewer channels, then a last block."""
    return blaze_block(activate(pointwise(x, layer["reduce"]), layer["reduce"]), layer["last_block"], 1)


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


def _per_channel(x):
    """(C,) -> (1, 1, 1, C)."""
    return x[None, None, None]

"""The network that sees, in UV space, where a face that has been fitted roughly differs from the photo."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from facerig_jax.config import FlowConfig
from facerig_jax.networks.layers import convolve

GROUPS = 8
# Channels of the maps that it sees, see fit.correspondences.flow_maps.
N_FLOW = 17
# The offset in mm where the last layer gives 1, the range of the logarithms of its expected errors in mm, and the most
# that these are skewed.
GAIN_MM = 2.0
LOG_ERROR = (-2.5, 3.0)
MAX_SKEW = 3.0
# What it gives at every texel: an offset, the logarithms of two errors, their skew.
N_OUT = 5


def _conv(features: int, kernel: int = 3, stride: int = 1, *, bias: bool = False, name: str) -> nn.Conv:
    return nn.Conv(
        features, (kernel, kernel), stride, padding="SAME", use_bias=bias, conv_general_dilated=convolve, name=name
    )


class FlowBlock(nn.Module):
    """Residual block of two 3x3 convolutions; where the shape changes its skip is a mean and a 1x1 convolution."""

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, H / stride, W / stride, features)."""
        y = _conv(self.features, stride=self.stride, name="conv1")(x)
        y = nn.relu(nn.GroupNorm(GROUPS, name="norm1")(y))
        y = _conv(self.features, name="conv2")(y)
        y = nn.GroupNorm(GROUPS, name="norm2")(y)
        if x.shape != y.shape:
            if self.stride > 1:
                x = nn.avg_pool(x, (self.stride,) * 2, (self.stride,) * 2)
            x = _conv(self.features, 1, bias=True, name="skip")(x)
        return nn.relu(x + y)


class FlowNet(nn.Module):
    """A U-Net over the UV maps of single views.

    widths: channels from the finest to the coarsest level, each level half as fine as the one before.
    place: learned channels that tell it which texel is which.
    """

    widths: tuple[int, ...]
    place: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Offsets (B, S / 2, S / 2, 2) mm and their errors (B, S / 2, S / 2, 3), see `whitening`.

        x: (B, S, S, C) of `fit.correspondences.flow_maps`.
        """
        size, (finest, *coarser) = x.shape[1] // 2, self.widths
        place = self.param("place", nn.initializers.zeros, (size, size, self.place))
        x = _conv(finest, 4, 2, bias=True, name="first")(x)
        x = jnp.concatenate([x, jnp.broadcast_to(place[None], (len(x), *place.shape))], -1)
        x = FlowBlock(finest, name="down0")(x)
        levels = [x]
        for number, width in enumerate(coarser, 1):
            x = FlowBlock(width, 2, name=f"down{number}")(x)
            x = FlowBlock(width, name=f"deep{number}")(x) if number < len(coarser) else x
            levels.append(x)
        for number in reversed(range(len(coarser))):
            width, fine = self.widths[number], levels[number]
            x = _conv(width, 1, bias=True, name=f"narrow{number}")(x)
            x = jax.image.resize(x, (*fine.shape[:3], width), "linear")
            x = FlowBlock(width, name=f"up{number}")(jnp.concatenate([x, fine], -1))
        x = _conv(N_OUT, bias=True, name="out")(x)
        errors = [jnp.clip(x[..., 2:4], *LOG_ERROR), jnp.clip(x[..., 4:], -MAX_SKEW, MAX_SKEW)]
        return GAIN_MM * x[..., :2], jnp.concatenate(errors, -1)


def whitening(errors: jax.Array) -> jax.Array:
    """(..., 2, 2) 1 / mm that makes offsets of unit error in every direction.

    Args:
      errors: (..., 3) logarithm of the error to the right and upwards, mm; how much of the one is in the other.
    """
    across, up = jnp.exp(-errors[..., 0]), jnp.exp(-errors[..., 1])
    rows = [jnp.stack([across, jnp.zeros_like(across)], -1), jnp.stack([errors[..., 2] * up, up], -1)]
    return jnp.stack(rows, -2)


def widened(kernel):
    """The last layer's kernel or bias (..., 3) of a network with one error, for two equal ones: (..., N_OUT)."""
    return np.concatenate([kernel, kernel[..., 2:], np.zeros_like(kernel[..., :1])], -1)


def flow_module(config: FlowConfig) -> FlowNet:
    """The network of these sizes."""
    return FlowNet(config.widths, config.place)


@functools.cache
def flow_shapes(config: FlowConfig) -> dict:
    """Its parameters as jax.ShapeDtypeStruct.

    Raises:
      ValueError: a size in `config` is not allowed.
    """
    if any(width % GROUPS for width in config.widths):
        raise ValueError(f"flow.widths: multiples of {GROUPS} are needed, got {config.widths}.")
    if config.uv_size % 2 ** len(config.widths):
        raise ValueError(f"flow.uv_size: a multiple of {2 ** len(config.widths)} is needed, got {config.uv_size}.")

    def shapes():
        seen = jnp.zeros((1, config.uv_size, config.uv_size, N_FLOW))
        return flow_module(config).init(jax.random.key(0), seen)["params"]

    return jax.eval_shape(shapes)

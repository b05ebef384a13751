"""The convolutions, norms and residual blocks that all networks are made of. Maps are (B, H, W, C)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

GROUPS = 4
EPSILON = 1e-5


def conv(features: int, kernel: int = 3, stride: int = 1, dilation: int = 1, name: str | None = None, **options):
    """A convolution without bias, zero padded by dilation (kernel - 1) / 2 on every side."""
    padding = dilation * (kernel - 1) // 2
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=[(padding, padding)] * 2,
        kernel_dilation=(dilation, dilation),
        use_bias=False,
        name=name,
        **options,
    )


class FrozenBatchNorm(nn.Module):
    """Batch normalisation by stored statistics, which training never changes."""

    @nn.compact
    def __call__(self, x):
        size = (x.shape[-1],)
        scale, variance = (self.param(name, nn.initializers.ones, size) for name in ("scale", "var"))
        bias, mean = (self.param(name, nn.initializers.zeros, size) for name in ("bias", "mean"))
        gain = scale / jnp.sqrt(variance + EPSILON)
        return x * gain[None, None, None] + (bias - mean * gain)[None, None, None]


def norm(kind: str, name: str):
    """'batch': FrozenBatchNorm; 'group': GroupNorm of four groups; 'none': nothing."""
    if kind == "batch":
        return FrozenBatchNorm(name=name)
    if kind == "group":
        return nn.GroupNorm(GROUPS, epsilon=EPSILON, use_fast_variance=False, name=name)
    return lambda x: x


class ConvNorm(nn.Module):
    """Convolution, norm, ReLU."""

    features: int
    kernel: int = 3
    stride: int = 1
    norm: str = "batch"

    @nn.compact
    def __call__(self, x):
        x = conv(self.features, self.kernel, self.stride, name="conv")(x)
        return nn.relu(norm(self.norm, "norm")(x))


class Block(nn.Module):
    """Residual block of two 3x3 convolutions; its skip is a 1x1 convolution where the shape changes.

    With a norm the activation is ReLU, without one ('none') it is SELU.
    """

    features: int
    stride: int = 1
    dilation: int = 1
    norm: str = "none"

    @nn.compact
    def __call__(self, x):
        activation = nn.selu if self.norm == "none" else nn.relu
        y = conv(self.features, 3, self.stride, self.dilation, name="conv1")(x)
        y = activation(norm(self.norm, "norm1")(y))
        y = conv(self.features, 3, 1, self.dilation, name="conv2")(y)
        y = norm(self.norm, "norm2")(y)
        if self.stride != 1 or x.shape[-1] != self.features:
            x = conv(self.features, 1, self.stride, name="skip")(x)
            x = norm(self.norm, "skip_norm")(x)
        return activation(x + y)


def upsample(x: jax.Array) -> jax.Array:
    """(B, H, W, C) -> (B, 2 H, 2 W, C), nearest neighbour."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)

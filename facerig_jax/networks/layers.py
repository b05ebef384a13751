"""The convolutions, norms, residual blocks and last layers that networks are made of. Maps are (B, H, W, C)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

GROUPS = 4
EPSILON = 1e-5


def conv(features: int, kernel: int = 3, stride: int = 1, dilation: int = 1, name: str | None = None):
    """A convolution without bias, zero padded by dilation (kernel - 1) / 2 on every side."""
    padding = dilation * (kernel - 1) // 2
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=[(padding, padding)] * 2,
        kernel_dilation=(dilation, dilation),
        use_bias=False,
        conv_general_dilated=convolve,
        name=name,
    )


def dense(features: int, bias: bool = False, name: str | None = None):
    """A linear layer."""
    return nn.Dense(features, use_bias=bias, name=name)


def convolve(x, kernel, window_strides, padding, *, rhs_dilation, dimension_numbers, **options):
    """What flax calls; convolutions that keep the size go to `same_conv`."""
    if tuple(window_strides) == (1, 1):
        return same_conv(x, kernel, rhs_dilation[0])
    options = {"rhs_dilation": rhs_dilation, "dimension_numbers": dimension_numbers, **options}
    return jax.lax.conv_general_dilated(x, kernel, window_strides, padding, **options)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def same_conv(x: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    """Convolution of stride 1 that keeps the size: (B, H, W, I), (k, k, I, O) -> (B, H, W, O).

    Its gradient to `x` is written as a plain convolution with the flipped kernel. JAX's own rule says the same with
    other dimension labels, which XLA's CPU compiler (jaxlib 0.10.2) turns into a plain convolution at the top of a
    program only: inside a loop or a branch it runs 25 times slower. Reverse mode only.
    """
    padding = [(dilation * (size - 1) // 2,) * 2 for size in kernel.shape[:2]]
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, rhs_dilation=(dilation, dilation), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _same_conv_forward(x, kernel, dilation):
    return same_conv(x, kernel, dilation), (x, kernel)


def _same_conv_backward(dilation, inputs, out):
    x, kernel = inputs
    flipped = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    return same_conv(out, flipped, dilation), _kernel_gradient(x, out, kernel.shape[0], dilation)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _kernel_gradient(x, out, size: int, dilation: int):
    """(k, k, I, O): for every tap the correlation of the shifted input with the output's cotangent.

    Compiled for its own sake: where nobody asks for it, it is dropped, and tracing it once per shape is enough.
    """
    height, width = x.shape[1:3]
    reach = dilation * (size - 1) // 2
    x = jnp.pad(x, [(0, 0), (reach, reach), (reach, reach), (0, 0)])
    steps = [i * dilation for i in range(size)]
    taps = [[jnp.einsum("bhwi,bhwo->io", x[:, v : v + height, u : u + width], out) for u in steps] for v in steps]
    return jnp.stack([jnp.stack(row) for row in taps])


same_conv.defvjp(_same_conv_forward, _same_conv_backward)


class FrozenBatchNorm(nn.Module):
    """Batch normalisation by stored statistics, which training never changes."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(..., C) -> (..., C)."""
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
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, H / stride, W / stride, features)."""
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
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, H / stride, W / stride, features)."""
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


class MapOutput(nn.Module):
    """The last layers of a learned rig's UV maps, which a rig keeps: without biases, so that 0 gives 0."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Three UV values from the hidden maps of per-texel networks: (V, S, S, n) -> (V, S, S, 3)."""
        x = Block(x.shape[-1], name="block")(x)
        return conv(3, 1, name="out")(x)

"""The networks of a rig: UV encoders over views, the decoders' convolutional parts, and step-size networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from facerig_jax.networks.layers import Block, conv, dense, norm, upsample

# Gain of the tanh that bounds the weights which the expression and albedo decoders make for their small networks.
WEIGHT_RANGE = 6.0
EXPANSION = 8


class ViewEncoder(nn.Module):
    """UV features of a subject from the UV maps of its views: a network per view, the maximum over views, a network."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array, view_mask: jax.Array) -> jax.Array:
        """(V, S, S, C), (V,) views that count -> (S, S, width)."""
        for i, dilation in enumerate((1, 2, 4)):
            x = Block(self.width, dilation=dilation, norm="group", name=f"view_block{i}")(x)
        x = nn.relu(conv(EXPANSION * self.width, 1, name="view_out")(x))
        x = jnp.max(x * view_mask.astype(x.dtype)[:, None, None, None], 0, keepdims=True)  # ReLU: 0 is the least
        x = nn.relu(conv(self.width, 1, name="fuse")(x))
        return Block(self.width, norm="group", name="block")(x)[0]


class VectorEncoder(nn.Module):
    """A UV map as one vector."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(S, S, n) -> (16 n,)."""
        n, x = x.shape[-1], x[None]
        for i in range(4):
            x = conv(n * 2 ** (i + 1), stride=2, name=f"conv{i}")(x)
            x = nn.relu(norm("group", f"norm{i}")(x)) if i < 3 else x
        return x[0].mean((0, 1))


class CodeMap(nn.Module):
    """A code as a UV map."""

    features: int
    size: int

    @nn.compact
    def __call__(self, code: jax.Array) -> jax.Array:
        """(A,) -> (1, size, size, features)."""
        side = self.size // 4
        x = nn.selu(dense(self.features * side * side, name="dense")(code))
        x = x.reshape(1, self.features, side, side).transpose(0, 2, 3, 1)
        x = upsample(Block(self.features, name="block0")(x))
        x = upsample(Block(self.features, name="block1")(x))
        return Block(self.features, name="block2")(x)


class MapDecoder(nn.Module):
    """UV values from a code and the UV features: identity displacement, static albedo or per-texel weights.

    trunk:    channels of the code's map.
    features: channels after joining it with the UV features.
    outputs:  channels of the result.
    """

    trunk: int
    features: int
    outputs: int

    @nn.compact
    def __call__(self, code: jax.Array, uv_features: jax.Array) -> jax.Array:
        """(A,), (S, S, n) -> (S, S, outputs)."""
        x = CodeMap(self.trunk, uv_features.shape[0], name="code")(code)
        x = Block(self.features, name="block")(jnp.concatenate([x, uv_features[None]], -1))
        return conv(self.outputs, 1, name="out")(x)[0]


class WeightMaker(nn.Module):
    """The weights of the first stage's expression network, from the rig code's expression part and the UV vector."""

    hidden: int
    outputs: int

    @nn.compact
    def __call__(self, code: jax.Array, vector: jax.Array) -> jax.Array:
        """(A,), (16 n,) -> (outputs,), bounded by WEIGHT_RANGE."""
        x = nn.selu(dense(self.hidden, name="hidden")(jnp.concatenate([code, vector])))
        return WEIGHT_RANGE * jnp.tanh(dense(self.outputs, name="out")(x))


class StepNetwork(nn.Module):
    """Step sizes in (-1, 1), to be scaled, from residual statistics."""

    hidden: int
    outputs: int

    @nn.compact
    def __call__(self, statistics: jax.Array) -> jax.Array:
        """(S,) -> (outputs,)."""
        x = statistics
        for i in range(4):
            x = nn.selu(dense(self.hidden, bias=True, name=f"dense{i}")(x))
        return jnp.tanh(dense(self.outputs, bias=True, name="out")(x))

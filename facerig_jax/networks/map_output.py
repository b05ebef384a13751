"""The last layers of a learned rig's UV maps, which a rig keeps."""

import flax.linen as nn
import jax

from facerig_jax.networks.layers import Block, conv


class MapOutput(nn.Module):
    """Three UV values from the hidden maps of per-texel networks; without biases, so that 0 gives 0."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(V, S, S, n) -> (V, S, S, 3)."""
        x = Block(x.shape[-1], name="block")(x)
        return conv(3, 1, name="out")(x)

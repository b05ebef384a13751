"""Image networks: dilated residual networks (DRN-D, without dilation), feature pyramids, the pose regressor."""

import flax.linen as nn
import jax

from facerig_jax.networks.layers import Block, ConvNorm, conv, dense, upsample


class Backbone(nn.Module):
    """Feature maps of an image, each half as large as the next, coarse to fine (docs/method.md section 2).

    widths: channels of the 7x7 convolution and of layers 1 to 8.
    blocks: residual blocks in layers 3, 4, ...; with four of them the plain layers 7 and 8 follow.
    """

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    norm: str = "batch"

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """(B, S, S, 3) -> maps of S / 64 (with four residual layers, else S / 16), ..., S / 2, S pixels."""
        width = self.widths
        x = ConvNorm(width[0], 7, norm=self.norm, name="conv7")(x)
        maps = [ConvNorm(width[1], norm=self.norm, name="layer1")(x)]
        maps.append(ConvNorm(width[2], stride=2, norm=self.norm, name="layer2")(maps[-1]))
        for layer, count in enumerate(self.blocks, start=3):
            x = maps[-1]
            for block in range(count):
                name = f"layer{layer}_block{block}"
                x = Block(width[layer], stride=2 if block == 0 else 1, norm=self.norm, name=name)(x)
            maps.append(x)
        if len(self.blocks) == 4:
            x = ConvNorm(width[7], stride=2, norm=self.norm, name="layer7")(maps[-1])
            maps.append(ConvNorm(width[8], norm=self.norm, name="layer8")(x))
        return tuple(reversed(maps))


class FeaturePyramid(nn.Module):
    """Top-down pyramid over maps coarse to fine; output blocks branch off the path, which carries the plain sums."""

    features: int

    @nn.compact
    def __call__(self, maps: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        """Maps of doubling size -> the three finest, (B, h, w, features), coarse to fine."""
        x = conv(self.features, 1, name="coarsest")(maps[0])
        outputs = []
        for i, finer in enumerate(maps[1:]):
            x = upsample(x) + conv(self.features, 1, name=f"lateral{i}")(finer)
            if i >= len(maps) - 4:
                outputs.append(Block(self.features, norm="group", name=f"output{i}")(x))
        return tuple(outputs)


class PoseRegressor(nn.Module):
    """The first normalised pose of an image."""

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    hidden: int
    norm: str = "batch"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, S, S, 3) -> (B, 6)."""
        x = Backbone(self.widths, self.blocks, self.norm, name="backbone")(x)[0].mean((1, 2))
        x = nn.relu(dense(self.hidden, name="hidden")(x))
        return dense(6, bias=True, name="out")(x)

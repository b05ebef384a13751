"""Static settings of the published method, and the traced numbers of its energies (docs/method.md)."""

from __future__ import annotations

import dataclasses

import jax
from flax import struct


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the networks; the defaults are the published ones (54.7 M parameters).

    image_size:       side of the square crop that the networks see, px; a multiple of 64.
    widths:           channels of a backbone's first convolution and of its layers 1 to 8.
    rgb_blocks:       residual blocks in layers 3 to 6 of the backbone behind energy and rig features (DRN-D-38).
    albedo_blocks:    of the backbone behind albedo features, layers 3 to 5 (DRN-D-22 without its coarsest layers).
    pose_blocks:      of the pose regressor (DRN-D-22); () = no regressor: the first pose comes from the landmarks.
    pose_hidden:      width of the regressor's hidden layer.
    norm:             'batch' (running statistics, frozen) or 'group' in the backbones.
    features:         channels of every feature pyramid.
    uv_sizes:         side of the identity and expression maps of each stage, texels; a multiple of 4.
    albedo_uv_sizes:  of the albedo maps.
    uv_width:         channels of the identity and expression maps.
    albedo_width:     of the albedo maps.
    identity_code, expression_code, albedo_code: lengths of the rig code's three parts.
    codes:            K, length of a view's expression code.
    modes:            linear expression modes that the first stage mixes.
    named_codes:      True: the expression code itself is the weights of the modes (K = modes), the network corrects
                      them; False: the weights come from the network alone, as published.
    expression_gain:  largest weight of a mode that the network gives.
    gate:             width of the per-texel expression networks' hidden layer.
    albedo_gate:      of the per-texel albedo network's.
    gate_hidden:      hidden layer that makes the first stage's expression network.
    step_hidden, albedo_step_hidden: hidden layers of the step-size networks.
    dtype:            'float32' (the precision of the inputs) or 'bfloat16', for all convolutions.
    """

    image_size: int = 256
    widths: tuple[int, ...] = (16, 16, 32, 64, 128, 256, 512, 512, 512)
    rgb_blocks: tuple[int, ...] = (3, 4, 6, 3)
    albedo_blocks: tuple[int, ...] = (2, 2, 2)
    pose_blocks: tuple[int, ...] = (2, 2, 2, 2)
    pose_hidden: int = 256
    norm: str = "batch"
    features: int = 64
    uv_sizes: tuple[int, ...] = (32, 64, 128)
    albedo_uv_sizes: tuple[int, ...] = (64, 128, 128)
    uv_width: int = 32
    albedo_width: int = 16
    identity_code: int = 80
    expression_code: int = 128
    albedo_code: int = 64
    codes: int = 8
    modes: int = 32
    named_codes: bool = False
    expression_gain: float = 3.0
    gate: int = 4
    albedo_gate: int = 4
    gate_hidden: int = 512
    step_hidden: int = 64
    albedo_step_hidden: int = 8
    dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class InorigConfig:
    """Static settings of the published method; the defaults are the published method (docs/method.md section 7).

    networks:      sizes of the networks.
    crop_margin:   side of the crop over the larger side of the landmarks' box.
    landmarks:     'dense' or '68'; a head without dense points is always fitted with '68'.
    linear_colour: True: albedo and light in linear RGB; False: in the photos' own values, as published.
    inverse_distance: 1 / mm, the same for all views; 0 = orthographic, as published.
    coarse:        work on the head's coarse mesh, where it has one; the rig is decoded for all its vertices.
    visibility:    'step' looks which vertices are seen at every step, as published; 'stage' once a stage.
    energies:      which of 'feature', 'landmark', 'photometric' are minimised.
    geometry_from_colour: True lets the photometric energy move geometry too.
    update:        'learned' step sizes, or 'fixed' ones (the biases below).
    dynamic_albedo: whether the last stage's albedo depends on the expression.
    linear_rig:    True leaves the networks' displacements and albedo out: linear modes alone.
    stages, steps: how many, 1 to 3 stages.
    step_scale:    per stage, exponent range of the step sizes of identity, pose, expression, expression code, albedo.
    step_bias:     per stage, their exponents where the network gives 0.
    detach:        no gradient flows between stages nor through the residual statistics.
    checkpoint:    recompute the stages' and steps' insides in reverse mode instead of keeping them.
    """

    networks: NetworkConfig = NetworkConfig()
    crop_margin: float = 1.35
    landmarks: str = "68"
    linear_colour: bool = False
    inverse_distance: float = 0.0
    coarse: bool = False
    visibility: str = "step"
    energies: tuple[str, ...] = ("feature", "landmark", "photometric")
    geometry_from_colour: bool = False
    update: str = "learned"
    dynamic_albedo: bool = True
    linear_rig: bool = False
    stages: int = 3
    steps: int = 3
    step_scale: tuple[tuple[float, ...], ...] = ((2, 2, 4, 4, 4), (4, 4, 4, 4, 4), (4, 4, 4, 4, 4))
    step_bias: tuple[tuple[float, ...], ...] = (
        (0, -2.5, -3, -2, -2.5),
        (0, -2.5, -3.5, -2, -2.5),
        (0, -2.5, -4, -2, -2.5),
    )
    detach: bool = True
    checkpoint: bool = False

    @property
    def crop_size(self) -> int:
        """Side in pixels of the crops that the poses of a fit refer to."""
        return self.networks.image_size


@struct.dataclass
class EnergyWeights:
    """Traced settings of the published method: what each energy counts for; the defaults are the published ones.

    light_ridge: regularisation of the light solve, relative to its normal matrix.
    """

    feature: jax.Array | float = 0.25
    landmark: jax.Array | float = 0.025
    photometric: jax.Array | float = 1.0
    light_ridge: jax.Array | float = 0.0


# The published method: for parity with its code and weights.
PAPER = InorigConfig()

# For CPUs and for shipping: the same structure, small, in linear RGB, on dense landmarks, with the 52 named codes.
BASE = InorigConfig(
    networks=NetworkConfig(
        image_size=192,
        widths=(8, 8, 16, 24, 48, 96, 128, 128, 128),
        rgb_blocks=(2, 2, 2, 2),
        albedo_blocks=(1, 1, 1),
        pose_blocks=(),
        norm="group",
        features=16,
        uv_sizes=(16, 32, 64),
        albedo_uv_sizes=(16, 32, 64),
        uv_width=16,
        albedo_width=8,
        identity_code=100,
        expression_code=64,
        albedo_code=48,
        codes=52,
        modes=52,
        named_codes=True,
        expression_gain=0.5,
        gate=2,
        albedo_gate=2,
        gate_hidden=96,
        step_hidden=32,
    ),
    landmarks="dense",
    linear_colour=True,
    inverse_distance=1e-3,
    coarse=True,
    visibility="stage",
    step_scale=((2, 2, 2, 2, 2),) * 3,
    step_bias=((1, -2, -1, -1, 0),) * 3,
)

PRESETS = {"base": BASE, "paper": PAPER}

"""Imports the published PyTorch weights: every entry of the state dict goes to exactly one of our parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from facerig_jax.inorig.config import InorigConfig
from facerig_jax.inorig.params import parameter_shapes

# Entries that play no part in the forward pass (docs/method.md, "Golden arrays").
UNUSED = re.compile(r"(.*\.num_batches_tracked|opt_layer\.anchor_ep_norms)$")

ROOTS = {
    "pose/backbone": "regressor.rgb_net",
    "pose/hidden": "regressor.pose_fc.0",
    "pose/out": "regressor.pose_fc.3",
    "rgb": "opt_layer.rgb_net",
    "albedo": "opt_layer.albedo_net",
    "energy_fpn": "opt_layer.fpn",
    "rig_fpn": "opt_layer.basis_fpn",
    "albedo_fpn": "opt_layer.albedo_fpn",
}
MODELS = {"identity": "iden_model", "expression": "exp_model", "albedo": "albedo_model"}
# Prefixes of the decoders' entries: the code's first layer, its map, the joined map.
DECODERS = {
    "identity": ("sp_norm_enc", "sp_dec0", "sp_dec1"),
    "expression": ("mp_norm_enc", "mp_dec0", "mp_dec"),
    "albedo": ("ap_norm_enc", "ap_dec0", "ap_dec"),
}
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def import_published(state_dict: Mapping[str, np.ndarray], config: InorigConfig | None = None, dtype=None) -> dict:
    """The published weights as our parameters.

    Args:
      state_dict: {key: array} in PyTorch's layout (convolutions OIHW, linear layers (out, in)).
      config: sizes; default the published ones.
      dtype: of the result; default that of each array.

    Returns:
      Parameters, see `inorig.params.parameter_shapes`.

    Raises:
      ValueError: an entry is missing, left over or of the wrong shape; the message names its key.

    Example:
      params = import_published(read_pth("weights.pth"))
    """
    template = parameter_shapes(config or InorigConfig())
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    left = {key for key in state_dict if not UNUSED.match(key)}
    arrays = []
    for path, leaf in leaves:
        key = published_key(jax.tree_util.keystr(path, simple=True, separator="/"))
        if key not in left:
            raise ValueError(f"published weights: {key} is missing.")
        left.remove(key)
        array = _to_ours(np.asarray(state_dict[key]))
        if array.shape != leaf.shape:
            shape, expected = np.shape(state_dict[key]), _to_theirs(leaf.shape)
            raise ValueError(f"published weights: {key} has shape {shape}, expected {expected}.")
        arrays.append(jnp.asarray(array, dtype))
    if left:
        raise ValueError(f"published weights: {min(left)} is not part of the network ({len(left)} such entries).")
    return jax.tree_util.tree_unflatten(structure, arrays)


def published_key(path: str) -> str:
    """The state dict's key of one of our parameters, given by its path ('stages/0/step/out/bias').

    Raises:
      ValueError: the published network has no such parameter.
    """
    body, leaf = path.rsplit("/", 1)
    if match := re.fullmatch(r"stages/(\d)/(.+)", body):
        return f"opt_layer.{_stage_key(int(match[1]), match[2])}.{LEAVES[leaf]}"
    for root, theirs in ROOTS.items():
        if body == root or body.startswith(f"{root}/"):
            inner = _pyramid_key if root.endswith("fpn") else _backbone_key
            return ".".join(filter(None, [theirs, inner(body[len(root) + 1 :]), LEAVES[leaf]]))
    raise ValueError(f"The published network has no parameter {path}.")


def _backbone_key(body: str) -> str:
    """'layer3_block0/conv1' -> 'block2.0.conv1'; '' -> ''."""
    if match := re.fullmatch(r"layer(\d)_block(\d)/(.+)", body):
        return f"block{int(match[1]) - 1}.{match[2]}.{_block_key(match[3])}"
    place = {"conv7": "block0.0", "layer1": "block0.1", "layer2": "block1", "layer7": "block6.0", "layer8": "block6.1"}
    layer, _, part = body.partition("/")
    return f"{place[layer]}.{('conv', 'norm').index(part)}" if body else ""


def _pyramid_key(body: str) -> str:
    if match := re.fullmatch(r"output(\d)/(.+)", body):
        return f"layer{match[1]}.out_conv.{_block_key(match[2])}"
    return "coarsest_conv" if body == "coarsest" else f"layer{body.removeprefix('lateral')}.lateral_conv"


def _block_key(part: str, normed: bool = True) -> str:
    """A residual block's convolution or norm."""
    if part.startswith("norm"):
        return f"bn{part[-1]}"
    return {"skip": "downsample.0" if normed else "downsample", "skip_norm": "downsample.1"}.get(part, part)


def _stage_key(stage: int, body: str) -> str:
    """'identity/code/block1/conv2' of stage 2 -> 'iden_model.sp_dec0_level2.2.conv2'."""
    part, _, inner = body.partition("/")
    if part in ("step", "albedo_step"):
        net = f"step_net{stage + 2}" if part == "step" else f"ap_step_net{stage}"
        return f"{net}.net.{8 if inner == 'out' else 2 * int(inner[-1])}"
    kind, _, role = part.partition("_")
    model = MODELS[kind]
    if role == "uv":
        return f"{model}.{_encoder_key(stage, inner)}"
    if role == "vector":
        return f"{model}.vec_net0.{3 * int(inner[-1]) + inner.startswith('norm')}"
    if role == "out":
        return f"{model}.out_conv_level{stage}.{_joined_key(inner)}"
    if inner in ("hidden", "out") and kind == "expression" and stage == 0:
        return f"{model}.mp_norm_mlp_level0.{0 if inner == 'hidden' else 2}"
    dense, code, joined = DECODERS[kind]
    if inner == "code/dense":
        return f"{model}.{dense}_level{stage}.0"
    if match := re.fullmatch(r"code/block(\d)/(.+)", inner):
        return f"{model}.{code}_level{stage}.{2 * int(match[1])}.{_block_key(match[2], normed=False)}"
    return f"{model}.{joined}_level{stage}.{_joined_key(inner)}"


def _joined_key(inner: str) -> str:
    return "1" if inner == "out" else f"0.{_block_key(inner.removeprefix('block/'), normed=False)}"


def _encoder_key(stage: int, inner: str) -> str:
    if match := re.fullmatch(r"view_block(\d)/(.+)", inner):
        return f"per_view_net{stage}.{match[1]}.{_block_key(match[2])}"
    if inner.startswith("block/"):
        return f"net{stage}.2.{_block_key(inner.removeprefix('block/'))}"
    return f"per_view_net{stage}.3" if inner == "view_out" else f"net{stage}.0"


def _to_ours(array: np.ndarray) -> np.ndarray:
    """OIHW -> HWIO, (out, in) -> (in, out)."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _to_theirs(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape[::-1]

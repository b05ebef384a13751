"""The networks of the learned solver: backbones, pyramids, UV encoders, decoders, step sizes; published weights."""

from facerig_jax.networks.model import count_parameters, image_features, init_params, normalize_images, regress_pose
from facerig_jax.networks.pth import read_pth
from facerig_jax.networks.published import import_published

__all__ = [
    "count_parameters",
    "image_features",
    "import_published",
    "init_params",
    "normalize_images",
    "read_pth",
    "regress_pose",
]

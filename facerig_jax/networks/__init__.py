"""The networks of the learned solver: backbones, pyramids, UV encoders, decoders, step sizes; published weights."""

from facerig_jax.networks.model import count_parameters, image_features, init_params, normalize_images, regress_pose

__all__ = ["count_parameters", "image_features", "init_params", "normalize_images", "regress_pose"]

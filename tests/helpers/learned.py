"""The learned solver with tiny networks on the small head, through the front door."""

import dataclasses

from helpers.subjects import small_head, small_params
from helpers.tiny import SIZES, tiny_params

import facerig_jax
from facerig_jax.inorig.config import InorigConfig

CONFIG = InorigConfig(
    networks=dataclasses.replace(SIZES, pose_blocks=(), codes=6, modes=6, named_codes=True, norm="group"),
    landmarks="dense",
    linear_colour=True,
    inverse_distance=1e-3,
    coarse=True,
    visibility="stage",
    steps=2,
    step_scale=((1, 1, 1, 1, 1),) * 3,
    step_bias=((-3, -5, -4, -3, -2),) * 3,
)


def fit(images, landmarks, params=None, **changes):
    params = {**small_params(), "learned": tiny_params(CONFIG)} if params is None else params
    options = {"solver": "learned", "config": CONFIG, **changes}
    return facerig_jax.fit_rig(images, params, small_head(), landmarks=landmarks, **options)

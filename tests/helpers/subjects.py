"""A small head and synthetic subjects that the tests of solver and front door share: one compilation for all."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

import facerig_jax
from facerig_jax.head.model import landmark_positions
from facerig_jax.synthetic.subject import SubjectConfig, make_subject

SIZE = 128
CONFIG = facerig_jax.FitConfig(
    flow=None, crop_size=64, max_points=200, landmark_steps=8, photometric_steps=3, expression_steps=2
)
HYPER = facerig_jax.classical_hyper(blur=(1.5,))
# Landmarks alone: where the colours are not the subject.
POINTS_ONLY = facerig_jax.FitConfig(flow=None, crop_size=64, photometric_steps=0, landmark_steps=3)
# Expressions of the small head: some of every kind.
NAMES = ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "browInnerUp", "eyeBlinkLeft", "eyeBlinkRight")
PHOTOS = SubjectConfig(n_views=3, size=SIZE, yaw=25.0, face_share=(0.45, 0.55))


@functools.cache
def small_head(n_identity: int = 8, n_albedo: int = 6):
    """The embedded head with few modes, for exact landmarks: without a calibration for the detector's."""
    head = facerig_jax.load_head()
    chosen = np.array([head.expression_names.index(name) for name in NAMES])
    head = head.replace(
        identity_basis=head.identity_basis[:n_identity],
        expression_basis=head.expression_basis[chosen],
        albedo_basis=head.albedo_basis[:n_albedo],
        expression_names=NAMES,
        dense_calibration=None,
    )
    return jax.tree.map(jnp.asarray, head)


@functools.cache
def small_params():
    return jax.tree.map(jnp.asarray, facerig_jax.load()[0])


@functools.cache
def subject(index: int = 0, **changes):
    """A Subject of the small head and its exact landmarks (V, 468, 3) in photo pixels."""
    made = _make(small_head(), 0, index, dataclasses.replace(PHOTOS, **changes))
    return made, landmark_positions(small_head().landmarks_dense, made.vertices_img)


_make = jax.jit(make_subject, static_argnames="config")

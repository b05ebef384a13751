"""facerig_jax: a riggable 3D face from ordinary photos, in JAX.

    fit = facerig_jax.fit_rig(images)                          # (V, H, W, 3) photos of one person
    vertices, albedo = facerig_jax.apply_rig(fit.rig, code)    # (..., K) -> (..., P, 3) each
"""

from facerig_jax.api import apply_rig, fit_rig, load
from facerig_jax.config import FitConfig, Hyper
from facerig_jax.head import load_head
from facerig_jax.solve.status import describe
from facerig_jax.types import Fit, HeadModel, Rig, Views

__all__ = [
    "Fit",
    "FitConfig",
    "HeadModel",
    "Hyper",
    "Rig",
    "Views",
    "apply_rig",
    "describe",
    "fit_rig",
    "load",
    "load_head",
]

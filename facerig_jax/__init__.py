"""facerig_jax: a riggable 3D face from ordinary photos, in JAX.

fit = facerig_jax.fit_rig(images)                          # (V, H, W, 3) photos of one person
vertices, albedo = facerig_jax.apply_rig(fit.rig, code)    # (..., K) -> (..., P, 3) each
"""

from facerig_jax.platform import set_flags

set_flags()  # before anything below can start a JAX backend

from facerig_jax.api import fit_rig, load  # noqa: E402
from facerig_jax.config import EnergyWeights, FitConfig, Hyper, LearnedConfig  # noqa: E402
from facerig_jax.export import export_rig, load_rig, save_rig  # noqa: E402
from facerig_jax.fit.status import describe  # noqa: E402
from facerig_jax.head import load_head  # noqa: E402
from facerig_jax.rig.apply import apply_rig  # noqa: E402
from facerig_jax.types import Fit, HeadModel, Rig, Views  # noqa: E402

__all__ = [
    "EnergyWeights",
    "Fit",
    "FitConfig",
    "HeadModel",
    "Hyper",
    "LearnedConfig",
    "Rig",
    "Views",
    "apply_rig",
    "describe",
    "export_rig",
    "fit_rig",
    "load",
    "load_head",
    "load_rig",
    "save_rig",
]

"""facerig_jax: a riggable 3D face from ordinary photos, in JAX.

fit = facerig_jax.fit_rig(images)                          # (V, H, W, 3) photos of one person
vertices, albedo = facerig_jax.apply_rig(fit.rig, code)    # (..., K) -> (..., P, 3) each
"""

from facerig_jax.platform import set_flags

set_flags()  # before anything below can start a JAX backend

from facerig_jax import config, types  # noqa: E402
from facerig_jax.api import fit_rig, load  # noqa: E402
from facerig_jax.config import CLASSICAL, FitConfig, FlowConfig, Hyper, classical_hyper  # noqa: E402
from facerig_jax.export import export_rig, load_rig, save_rig  # noqa: E402
from facerig_jax.fit.status import Status, describe  # noqa: E402
from facerig_jax.head import load_head  # noqa: E402
from facerig_jax.pytrees import register_types  # noqa: E402
from facerig_jax.rig.apply import apply_rig  # noqa: E402
from facerig_jax.types import Cover, Fit, HeadModel, Photos, Rig, Trace, Views  # noqa: E402

__version__ = "0.2.0"

register_types(types, config)  # so that jax.export can write fits, rigs and settings down

__all__ = [
    "CLASSICAL",
    "Cover",
    "Fit",
    "FitConfig",
    "FlowConfig",
    "HeadModel",
    "Hyper",
    "Photos",
    "Rig",
    "Status",
    "Trace",
    "Views",
    "apply_rig",
    "classical_hyper",
    "describe",
    "export_rig",
    "fit_rig",
    "load",
    "load_head",
    "load_rig",
    "save_rig",
]

# Names of version 0.1 that have moved, for one version.
_MOVED = {"LearnedConfig": "InorigConfig", "EnergyWeights": "EnergyWeights"}


def __getattr__(name: str):
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import warnings

    from facerig_jax.inorig import config

    warnings.warn(f"facerig_jax.{name} is now {config.__name__}.{_MOVED[name]}.", DeprecationWarning, 2)
    return getattr(config, _MOVED[name])

"""Settings of a fit: `FitConfig` is static and shapes the program, `Hyper` is traced: changing it never recompiles."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from facerig_jax.checks import check_choice


@dataclasses.dataclass(frozen=True)
class FlowConfig:
    """The network that sees where each point of the face is in the photos (networks/flow.py, fit/correspondences.py).

    uv_size: side of the maps that it sees, texels; a multiple of 2 ** len(widths).
    widths:  its channels, fine to coarse.
    place:   learned channels that tell it which texel is which.
    passes:  how often it looks, each time from the fit to what it saw before.
    points:  face vertices that are compared (every n-th one).
    """

    uv_size: int = 96
    widths: tuple[int, ...] = (32, 64, 96, 128)
    place: int = 16
    passes: int = 5
    points: int = 500


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """Static settings of a fit: the default is what ships, `CLASSICAL` does without networks.

    flow:              the network that takes the detector's place once its landmarks are fitted; None = no network.
    crop_size:         side in pixels of the square face crop that the solver works on.
    landmarks:         'dense' (the detector's points that the head trusts) or '68' (the iBUG points that do not slide
                       along the contour: 6-10 and 17-67), which alone serves a head without dense points.
    landmark_steps:    Levenberg-Marquardt steps on points alone: on the landmarks, and after each look of the network.
    photometric_steps: steps on points and colours at each blur of `Hyper.blur`; 0 stops after the points.
    expression_steps:  steps on every view's pose and expression alone, after them.
    max_points:        face-region vertices whose colours are compared (every n-th one).
    """

    flow: FlowConfig | None = FlowConfig()
    crop_size: int = 256
    landmarks: str = "dense"
    landmark_steps: int = 3
    photometric_steps: int = 4
    expression_steps: int = 3
    max_points: int = 2000

    def __post_init__(self):
        check_choice("landmarks", self.landmarks, ("dense", "68"))
        if self.flow is not None and not isinstance(self.flow, FlowConfig):
            raise ValueError(f"flow: a FlowConfig or None is needed, got {self.flow!r}.")
        least = {"crop_size": 16, "landmark_steps": 1, "photometric_steps": 0, "expression_steps": 0, "max_points": 1}
        for name, lowest in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
                raise ValueError(f"{name}: a whole number from {lowest} on is needed, got {value!r}.")


@struct.dataclass
class Hyper:
    """Traced settings: the assumed standard deviations (what a step weighs residuals by), blur, damping.

    The defaults are those of the default solver; `classical_hyper` gives the classical one's.

    landmark_mm:       noise of a detected point: mm on the face, or relative to the measured one where the head is
                       calibrated.
    landmark_common:   noise that points share, relative to the measured one, while the identity is unknown.
    flow_noise:        how many times its errors are taken for larger than the flow network says: those of neighbours
                       are the same error.
    tracking_common:   as `landmark_common`, once only pose and expression are fitted.
    tracking_noise:    how many times larger than `landmark_mm` says a point's noise is taken to be then.
    expression:        expression weights around 0.
    expression_bound:  how far a weight may leave [0, 1].
    inverse_distance_mean, inverse_distance: prior of 1 / distance in 1 / mm.
    crop_margin:       side of the crop over the larger side of the landmarks' box.
    blur:              (B,) px, Gaussian blur of the crops whose colours are compared, coarse to fine.
    colour:            colour noise relative to the view's mean brightness.
    albedo_detail:     per-vertex albedo detail beyond the basis, relative.
    feature_detail:    what brows, lids and lips add to it.
    colour_count:      how many neighbouring colour residuals share one independent error.
    colour_misfit:     mean squared colour residual, over that of `colour` and `albedo_detail`, beyond which all of a
                       view's colours lose influence: what covers or lights the face there is not in the model.
    colour_robust:     residual, in units of `colour`, beyond which a vertex loses influence.
    light:             SH coefficients above the constant one, relative to it.
    light_tint:        colour tint of the constant coefficient, relative.
    damping:           starting Levenberg-Marquardt damping.
    dark_noise:        colour noise that does not fade with the light (8 bits, JPEG, the sensor's own), linear RGB.
    cover_share:       share of a region that looks like skin in no view, beyond which it is taken to be covered (of
                       the part around the eyes less, see fit.coverage.ENOUGH).
    shadow_step:       step of the light between the halves of the face in every view, over its level, beyond which the
                       darker half is taken to lie in a hard shadow.
    """

    landmark_mm: jax.Array | float = 1.0
    landmark_common: jax.Array | float = 1.0
    flow_noise: jax.Array | float = 6.0
    tracking_common: jax.Array | float = 0.06
    tracking_noise: jax.Array | float = 6.0
    expression: jax.Array | float = 0.15
    expression_bound: jax.Array | float = 0.03
    inverse_distance_mean: jax.Array | float = 1e-3
    inverse_distance: jax.Array | float = 6e-4
    crop_margin: jax.Array | float = 1.35
    blur: jax.Array | tuple[float, ...] = (3.0, 0.4)
    colour: jax.Array | float = 0.06
    albedo_detail: jax.Array | float = 0.12
    feature_detail: jax.Array | float = 0.8
    colour_count: jax.Array | float = 15.0
    colour_misfit: jax.Array | float = 0.2
    colour_robust: jax.Array | float = 3.0
    light: jax.Array | float = 0.6
    light_tint: jax.Array | float = 0.3
    damping: jax.Array | float = 1e-3
    dark_noise: jax.Array | float = 4.5e-4
    cover_share: jax.Array | float = 0.45
    shadow_step: jax.Array | float = 0.3


# The same optimiser on the detector's landmarks and the colours, without a network.
CLASSICAL = FitConfig(flow=None, landmark_steps=8, photometric_steps=5, expression_steps=5)


def classical_hyper(**changes) -> Hyper:
    """The numbers that go with `CLASSICAL`: wider blur, and more trust in the landmarks at the end.

    Args:
      changes: fields of Hyper, for other values.

    Returns:
      Hyper.
    """
    return Hyper(**{"blur": (4.0, 1.5), "tracking_common": 0.2, "tracking_noise": 1.0, **changes})


def default_hyper(config: FitConfig) -> Hyper:
    """The numbers that a fit uses where it is given none."""
    return classical_hyper() if config.flow is None else Hyper()


def as_arrays(hyper, dtype=jnp.float32):
    """Turns every number of traced settings into an array, so that changing it never recompiles."""
    blur = {"blur": jnp.asarray(hyper.blur, dtype).reshape(-1)} if isinstance(hyper, Hyper) else {}
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), hyper.replace(**blur))

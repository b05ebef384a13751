"""Settings of a fit: `FitConfig` is static and shapes the program, `Hyper` is traced: changing it never recompiles."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """Static settings of the classical solver.

    crop_size:         side in pixels of the square face crop that the solver works on.
    crop_margin:       side of the crop over the larger side of the landmarks' box.
    landmarks:         'dense' (the detector's points that the head trusts) or '68' (the iBUG points that do not slide
                       along the contour: 6-10 and 17-67); a head without dense points is always fitted with '68'.
    landmark_steps:    Levenberg-Marquardt steps on landmarks alone, before the photometric stages.
    expression_steps:  steps on pose and expression alone, after them.
    blur:              Gaussian blur of the crops in pixels, one photometric stage each, coarse to fine; () stops after
                       the landmarks.
    photometric_steps: steps on landmarks and colours in each of these stages.
    max_points:        face-region vertices used by the photometric energy (every n-th one).
    """

    crop_size: int = 256
    crop_margin: float = 1.35
    landmarks: str = "dense"
    landmark_steps: int = 8
    expression_steps: int = 5
    blur: tuple[float, ...] = (4.0, 1.5)
    photometric_steps: int = 5
    max_points: int = 2000


@struct.dataclass
class Hyper:
    """Traced settings: the assumed standard deviations (what a Gauss-Newton step weighs residuals by) and damping.

    landmark_mm:       noise of a detected point: mm on the face, or relative to the measured one where the head is
                       calibrated.
    landmark_common:   noise that points share, relative to the measured one, while the identity is unknown.
    tracking_common:   the same, once only pose and expression are fitted.
    expression:        expression weights around 0.
    expression_bound:  how far a weight may leave [0, 1].
    inverse_distance_mean, inverse_distance: prior of 1 / distance in 1 / mm.
    colour:            colour noise relative to the view's mean brightness.
    albedo_detail:     per-vertex albedo detail beyond the basis, relative.
    feature_detail:    what brows, lids and lips add to it.
    colour_count:      how many neighbouring colour residuals share one independent error.
    colour_robust:     residual, in units of `colour`, beyond which a vertex loses influence.
    light:             SH coefficients above the constant one, relative to it.
    light_tint:        colour tint of the constant coefficient, relative.
    damping:           starting Levenberg-Marquardt damping.
    """

    landmark_mm: jax.Array | float = 1.0
    landmark_common: jax.Array | float = 1.0
    tracking_common: jax.Array | float = 0.2
    expression: jax.Array | float = 0.15
    expression_bound: jax.Array | float = 0.03
    inverse_distance_mean: jax.Array | float = 1e-3
    inverse_distance: jax.Array | float = 6e-4
    colour: jax.Array | float = 0.06
    albedo_detail: jax.Array | float = 0.12
    feature_detail: jax.Array | float = 0.8
    colour_count: jax.Array | float = 15.0
    colour_robust: jax.Array | float = 3.0
    light: jax.Array | float = 0.6
    light_tint: jax.Array | float = 0.3
    damping: jax.Array | float = 1e-3


def as_arrays(hyper: Hyper, dtype=jnp.float32) -> Hyper:
    """Turns every number of a Hyper into an array, so that changing it never recompiles."""
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), hyper)

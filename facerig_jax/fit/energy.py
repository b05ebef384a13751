"""What a stage lowers: residuals of points, maybe of colours, and priors, as one function of the flat unknowns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from facerig_jax.config import Hyper
from facerig_jax.fit import residuals
from facerig_jax.fit.parameters import ALL, GEOMETRY, Parameters, columns, places, unflatten
from facerig_jax.fit.photometric import Colours, sample_weight
from facerig_jax.types import HeadModel


@dataclasses.dataclass(frozen=True)
class Energy:
    """What a fit lowers: points, maybe colours, and priors, as functions of the flat unknowns (D,).

    reweigh:   unknowns -> weights, which are held during a step.
    linearize: (unknowns, weights) -> Normal of the free unknowns.
    value:     (unknowns, weights) -> ().
    free:      (D',) places of the unknowns that may change, None = all.
    """

    reweigh: Callable
    linearize: Callable
    value: Callable
    free: np.ndarray | None


def fit_energy(
    head: HeadModel,
    size: int,
    x: Parameters,
    level: jax.Array,
    hyper: Hyper,
    points: tuple[residuals.PointData, ...],
    colours: Colours | None = None,
    names: tuple[str, ...] = ALL,
) -> Energy:
    """The energy of some sets of points, of colours where given, and of the priors.

    Args:
      head: morphable head.
      size: side of the crops, px.
      x: unknowns, for their sizes.
      level: (V,) expected light.
      hyper: traced settings.
      points: sets of points.
      colours: those of face vertices.
      names: fields of the unknowns that may change.
    """
    free, geometry = places(x, names), places(x, GEOMETRY)
    among = np.where(np.isin(free, geometry), np.searchsorted(geometry, free), -1)
    shared_columns, own_columns = columns(x, names)

    def reweigh(vector):
        at = unflatten(vector, x)
        whiten = tuple(residuals.point_whitening(at, data) for data in points)
        return whiten, None if colours is None else sample_weight(at, colours, hyper)

    def linearize(vector, weights):
        at, (whiten, weight) = unflatten(vector, x), weights
        normal = residuals.prior_normal(at, level, hyper, head).take(free)
        for data, white in zip(points, whiten, strict=True):
            normal = normal + residuals.point_normal(at, data, white, size).take(among)
        if colours is None:
            return normal
        residual, slope = residuals.colour_terms(at, colours.data)
        shared, own = residuals.colour_jacobian(at, colours.data)
        if names != ALL:
            shared, own = shared[..., shared_columns], own[..., own_columns]
        return normal + residuals.colour_normal(residual, slope, shared, own, weight, colours.data.detail, hyper)

    def value(vector, weights):
        at, (whiten, weight) = unflatten(vector, x), weights
        total = residuals.prior_normal(at, level, hyper, head).energy
        for data, white in zip(points, whiten, strict=True):
            total = total + residuals.point_energy(at, data, white, size)
        if colours is None:
            return total
        residual, slope = residuals.colour_terms(at, colours.data)
        return total + residuals.colour_energy(residual, slope, weight, colours.data.detail, hyper)

    return Energy(reweigh, linearize, value, None if names == ALL else free)

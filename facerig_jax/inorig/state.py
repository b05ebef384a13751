"""What the published method holds still, changes, and hands from stage to stage."""

from __future__ import annotations

import jax
from flax import struct

from facerig_jax.inorig.config import EnergyWeights
from facerig_jax.inorig.decode import DecodedRig, RigCode
from facerig_jax.inorig.energies import Observed, Posed
from facerig_jax.inorig.params import Pyramids
from facerig_jax.raster.uv import UVTable
from facerig_jax.types import HeadModel


@struct.dataclass
class Problem:
    """What stays the same during a fit; `head` is what the solver works on, `whole` what the rig is decoded for."""

    params: dict
    head: HeadModel
    whole: HeadModel
    tables: dict[int, UVTable]
    pyramids: Pyramids
    observed: Observed
    weights: EnergyWeights


@struct.dataclass
class Unknowns:
    """What one stage's steps change: code; pose (V, 6), normalised; expression (V, K)."""

    code: RigCode
    pose: jax.Array
    expression: jax.Array


@struct.dataclass
class SolverState:
    """What a stage hands to the next.

    rig:       the rig decoded so far, on the head that the solver works on.
    whole:     the same for all vertices of the head.
    pose:      (V, 6) normalised.
    expression: (V, K).
    inverse_distance: (V,) 1 / head units; never changed.
    light:     (V, 9, 3).
    projected: (V, P, 3) the rig in every view, projected frame, px.
    seen:      (V, P) its visible vertices.
    """

    rig: DecodedRig
    whole: DecodedRig
    pose: jax.Array
    expression: jax.Array
    inverse_distance: jax.Array
    light: jax.Array
    projected: jax.Array
    seen: jax.Array


@struct.dataclass
class StageEnd:
    """Where a stage's steps end: the rig, the same for all vertices, the rig in every view, pose and expression."""

    rig: DecodedRig
    whole: DecodedRig
    posed: Posed
    pose: jax.Array
    expression: jax.Array

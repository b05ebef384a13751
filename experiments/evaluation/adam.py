"""A baseline for the published method: Adam on the same energies and unknowns, with a linear rig."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from facerig_jax.geometry.camera import to_image
from facerig_jax.inorig.config import EnergyWeights, InorigConfig
from facerig_jax.inorig.decode import DecodedRig, first_rig
from facerig_jax.inorig.energies import Observed, measure
from facerig_jax.inorig.stages import begin, light_views, place
from facerig_jax.inorig.state import Problem
from facerig_jax.numerics import HIGHEST
from facerig_jax.raster.visibility import visible
from facerig_jax.types import HeadModel

# Visibility and light are brought up to date, and the identity recorded, PARTS times in each stage.
STAGES, PARTS = 3, 3


@struct.dataclass
class AdamNumbers:
    """Traced settings, tuned on the validation split (see `tuned`).

    identity, pose, expression, albedo: learning rates of the unknowns.
    forget:       1 - b1, what Adam's first moment forgets in a step.
    last:         learning rate at the last step over that at the first, linear in between.
    identity_prior, expression_prior, albedo_prior: weights of the mean squared coefficients.
    landmark, feature: weights of these energies; the photometric one counts 1.
    """

    identity: jax.Array | float = 0.3
    pose: jax.Array | float = 0.03
    expression: jax.Array | float = 0.05
    albedo: jax.Array | float = 0.2
    forget: jax.Array | float = 0.3
    last: jax.Array | float = 0.3
    identity_prior: jax.Array | float = 0.03
    expression_prior: jax.Array | float = 0.1
    albedo_prior: jax.Array | float = 0.001
    landmark: jax.Array | float = 0.025
    feature: jax.Array | float = 0.25


@struct.dataclass
class Codes:
    """The unknowns: identity (I',), albedo (A',), pose (V, 6) normalised, expression (V, M)."""

    identity: jax.Array
    albedo: jax.Array
    pose: jax.Array
    expression: jax.Array


def solve_adam(
    params: dict,
    head: HeadModel,
    observed: Observed,
    numbers: AdamNumbers,
    n_steps: int | jax.Array,
    config: InorigConfig,
    *,
    pose: jax.Array | None = None,
) -> tuple[Codes, jax.Array, jax.Array]:
    """Fits a linear rig.

    Args:
      params: all networks' parameters, for the feature energy; unused where `config.energies` leaves it out.
      head: morphable head.
      observed: crops and landmarks of V views.
      numbers: traced settings.
      n_steps: how many in all; may be traced. Features go from coarse to fine, a third of the steps each.
      config: static settings of the published method, with `linear_rig`.
      pose: (V, 6) normalised poses to start from; default: what the pose regressor says.

    Returns:
      Codes at the end, the identity (9, I') after each ninth of the steps, and the inverse distances (V,).
    """
    weights = EnergyWeights(landmark=numbers.landmark, feature=numbers.feature)
    problem, state = begin(params, head, observed, weights, config, pose=pose)
    sizes = config.networks
    x = Codes(
        identity=state.rig.identity,
        albedo=state.rig.tone[: sizes.albedo_code],
        pose=state.pose,
        expression=state.expression,
    )
    rates = Codes(numbers.identity, numbers.albedo, numbers.pose, numbers.expression)
    optimiser = optax.scale_by_adam(b1=1 - numbers.forget, b2=0.99)

    def posed_at(x: Codes):
        return place(problem, rig_at(x, problem, config), 0, x.pose, x.expression, state.inverse_distance, config)

    def run_part(stage, carry, number):
        x, moments, light, seen = carry

        def energy(x: Codes):
            features = problem.pyramids.energy[stage]
            measured = measure(posed_at(x), light, seen, features, observed, problem.head, weights, config)
            return measured.total + prior(x, numbers)

        def step(i, inner):
            x, moments = inner
            share = 1 - (1 - numbers.last) * i / n_steps
            update, moments = optimiser.update(jax.grad(energy)(x), moments)
            return jax.tree.map(lambda a, rate, u: a - rate * share * u, x, rates, update), moments

        first, last = (k * n_steps // (STAGES * PARTS) for k in (number, number + 1))
        x, moments = jax.lax.fori_loop(first, last, step, (x, moments))
        posed = posed_at(x)
        size = observed.photo.shape[1]
        seen = visible(to_image(posed.projected, size, size), problem.head.faces, size)
        return (x, moments, light_views(problem, posed, seen, light), seen), x.identity

    carry, path = (x, optimiser.init(x), state.light, state.seen), []
    for stage in range(STAGES):
        numbers_of_parts = np.arange(stage * PARTS, (stage + 1) * PARTS)
        carry, identities = jax.lax.scan(functools.partial(run_part, stage), carry, numbers_of_parts)
        path.append(identities)
    return carry[0], jnp.concatenate(path), state.inverse_distance


def rig_at(x: Codes, problem: Problem, config: InorigConfig) -> DecodedRig:
    """The linear rig at some codes, on the head that the solver works on."""
    head = problem.head
    tone = jnp.zeros(head.albedo_basis.shape[0], x.albedo.dtype).at[: x.albedo.shape[0]].set(x.albedo)
    return first_rig(head, config, x.identity, tone)


def neutral_of(head: HeadModel, identity: jax.Array) -> jax.Array:
    """Neutrals (..., P, 3), head units, of the first coefficients (..., I') of the identity basis."""
    moved = jnp.tensordot(identity, jnp.asarray(head.identity_basis)[: identity.shape[-1]], 1, precision=HIGHEST)
    return jnp.expand_dims(jnp.asarray(head.mean), range(identity.ndim - 1)) + moved


def prior(x: Codes, numbers: AdamNumbers) -> jax.Array:
    """What the published method's few steps give for free: a pull towards the mean face, at rest."""
    return (
        numbers.identity_prior * jnp.mean(x.identity**2)
        + numbers.expression_prior * jnp.mean(x.expression**2)
        + numbers.albedo_prior * jnp.mean(x.albedo**2)
    )

"""Levenberg-Marquardt on a dense system of shared and per-view unknowns."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from facerig_jax.numerics import HIGHEST
from facerig_jax.types import Descent

MIN_DAMPING, MAX_DAMPING = 1e-7, 1e3
# Every step proposes a move at each of these multiples of its damping; the next one starts a rung below what it took.
LADDER = (1.0, 10.0, 100.0, 1000.0)
# Energies are equal that differ by less than this share of the best fall, or by fewer units in the last place: near the
# end all rungs do alike, and rounding should not choose among them. Woodbury's identity takes one large sum of squares
# from another, which leaves a fit's energies in single precision true to some thousand units.
EQUAL, ROUNDING = 0.01, 4096


@struct.dataclass
class Normal:
    """A quadratic model of an energy: hessian (D, D), gradient (D,) and energy () = half the weighted squares."""

    hessian: jax.Array
    gradient: jax.Array
    energy: jax.Array

    def __add__(self, other: Normal) -> Normal:
        """Sums two residuals."""
        return jax.tree.map(jnp.add, self, other)

    def __sub__(self, other: Normal) -> Normal:
        """Takes a term away (what a common noise explains)."""
        return jax.tree.map(jnp.subtract, self, other)

    def take(self, places: np.ndarray) -> Normal:
        """The system of other unknowns: those at `places` (D',), in that order; -1 = one that this term ignores."""
        hessian, gradient = jnp.pad(self.hessian, (0, 1)), jnp.pad(self.gradient, (0, 1))
        return Normal(hessian[places[:, None], places[None]], gradient[places], self.energy)


def normal_of_views(shared: jax.Array, own: jax.Array, residual: jax.Array) -> Normal:
    """Normal equations of whitened residuals whose Jacobian has a shared and a per-view block.

    Args:
      shared: (V, n, S) derivative of each view's residuals by the shared unknowns.
      own: (V, n, O) derivative by that view's own unknowns.
      residual: (V, n).

    Returns:
      Normal of size D = S + V O.
    """
    (n_views, _, n_own), n_shared = own.shape, shared.shape[-1]
    both = jnp.concatenate([shared, own], -1)
    product = jnp.einsum("vni,vnj->vij", both, both, precision=HIGHEST)
    slope = jnp.einsum("vni,vn->vi", both, residual, precision=HIGHEST)
    corner = product[:, :n_shared, :n_shared].sum(0)
    edge = jnp.moveaxis(product[:, :n_shared, n_shared:], 0, 1).reshape(n_shared, n_views * n_own)
    eye = jnp.eye(n_views, dtype=own.dtype)
    blocks = jnp.einsum("vop,vw->vowp", product[:, n_shared:, n_shared:], eye).reshape(n_views * n_own, n_views * n_own)
    hessian = jnp.block([[corner, edge], [edge.T, blocks]])
    gradient = jnp.concatenate([slope[:, :n_shared].sum(0), slope[:, n_shared:].reshape(-1)])
    return Normal(hessian, gradient, 0.5 * jnp.sum(residual**2))


def solve_damped(normal: Normal, damping: jax.Array) -> jax.Array:
    """The step (D,) of the damped system; scaled by its diagonal first, so that units do not matter."""
    scale = jax.lax.rsqrt(jnp.maximum(jnp.diagonal(normal.hessian), 1e-12))
    scaled = normal.hessian * scale[:, None] * scale[None, :]
    scaled = scaled + damping * jnp.eye(scale.shape[0], dtype=scale.dtype)
    factor = jax.scipy.linalg.cho_factor(scaled)
    return -scale * jax.scipy.linalg.cho_solve(factor, normal.gradient * scale)


def promised_fall(normal: Normal, move: jax.Array) -> jax.Array:
    """() how far the quadratic model says that the energy falls by a move (D,)."""
    curved = jnp.matmul(normal.hessian, move, precision=HIGHEST)
    return -jnp.matmul(move, normal.gradient + 0.5 * curved, precision=HIGHEST)


def levenberg_marquardt(
    reweigh: Callable,
    linearize: Callable,
    energy: Callable,
    x: jax.Array,
    damping,
    n_steps: int,
    free: np.ndarray | None = None,
) -> tuple[jax.Array, Descent]:
    """Runs a fixed number of steps, each of which takes the best of several dampings' moves.

    A step linearises once, proposes a move for every rung of the ladder over its damping, and takes the one of lowest
    energy; it stays where it is only where all of them raise the energy.

    Args:
      reweigh: x -> weights (any pytree): robust weights, visibility and all else that is held during a step.
      linearize: (x, weights) -> Normal of the free unknowns at x.
      energy: (x, weights) -> () the energy that `linearize` models.
      x: (D,) start.
      damping: () of the first step's lowest rung.
      n_steps: T, static.
      free: (D',) places of the unknowns that may change, static; None = all may.

    Returns:
      x: (D,).
      descent: Descent of (T,) numbers.
    """
    start, ladder = x, jnp.array(LADDER, x.dtype)

    def propose(x, move):
        return x + move if free is None else x.at[free].add(move)

    def step(carry, _):
        x, damping = carry
        weights = reweigh(x)
        normal = linearize(x, weights)
        dampings = jnp.maximum(damping * ladder, MIN_DAMPING * (ladder - 1))  # undamped steps have a ladder too
        moves = jax.vmap(lambda damping: solve_damped(normal, damping))(dampings)
        candidates = jax.vmap(lambda move: propose(x, move))(moves)
        totals = jax.vmap(lambda x: energy(x, weights))(jnp.concatenate([candidates, x[None], start[None]]))
        proposed, before, at_start = totals[:-2], totals[-2], totals[-1]
        proposed = jnp.where(jnp.isfinite(proposed), proposed, jnp.inf)
        lowest, rounding = jnp.min(proposed), ROUNDING * jnp.finfo(x.dtype).eps * jnp.abs(before)
        equal = jnp.maximum(EQUAL * (before - lowest), rounding)
        best = jnp.argmax(proposed <= lowest + equal)  # the least damped of equals
        better = proposed[best] < before
        fall = jax.lax.stop_gradient(jax.vmap(lambda move: promised_fall(normal, move))(moves))
        record = Descent(
            before=before,
            after=jnp.where(better, proposed[best], before),
            start=at_start,
            promised=jnp.max(jnp.nan_to_num(fall)),
            taken=jnp.where(better, dampings[best], 0.0),
        )
        following = jnp.where(better, dampings[best] / LADDER[1], dampings[-1] * LADDER[1])
        return (jnp.where(better, candidates[best], x), jnp.clip(following, MIN_DAMPING, MAX_DAMPING)), record

    (x, _), descent = jax.lax.scan(step, (x, jnp.asarray(damping, x.dtype)), None, n_steps)
    return x, descent

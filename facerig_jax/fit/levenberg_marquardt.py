"""Levenberg-Marquardt on a dense system of shared and per-view unknowns."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from facerig_jax.numerics import HIGHEST

MIN_DAMPING, MAX_DAMPING = 1e-7, 1e3


@struct.dataclass
class Normal:
    """A quadratic model of an energy: hessian (D, D), gradient (D,) and energy () = half the weighted squares."""

    hessian: jax.Array
    gradient: jax.Array
    energy: jax.Array

    def __add__(self, other: "Normal") -> "Normal":
        """Sums two terms."""
        return jax.tree.map(jnp.add, self, other)

    def __sub__(self, other: "Normal") -> "Normal":
        """Takes a term away (what a common noise explains)."""
        return jax.tree.map(jnp.subtract, self, other)


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


def hold(normal: Normal, free: jax.Array) -> Normal:
    """The system with the unknowns where `free` (D,) is 0 held at their values."""
    kept = normal.hessian * free[:, None] * free[None, :]
    return normal.replace(hessian=kept + jnp.diag(1 - free), gradient=normal.gradient * free)


def levenberg_marquardt(
    reweigh: Callable,
    linearize: Callable,
    energy: Callable,
    x: jax.Array,
    damping,
    n_steps: int,
    free: jax.Array | None = None,
):
    """Runs a fixed number of steps; a step that does not lower the energy is undone and the damping raised.

    Args:
      reweigh: x -> weights (any pytree): robust weights, visibility and all else that is held during a step.
      linearize: (x, weights) -> Normal at x.
      energy: (x, weights) -> () the energy that `linearize` models.
      x: (D,) start.
      damping: () start.
      n_steps: static.
      free: (D,) 1 for unknowns that may change, 0 for those that are held; None = all may.

    Returns:
      x: (D,).
      damping: ().
      trace: (n_steps,) energy at the start of each step.
    """

    def step(carry, _):
        x, damping = carry
        weights = reweigh(x)
        normal = linearize(x, weights)
        candidate = x + solve_damped(normal if free is None else hold(normal, free), damping)
        better = energy(candidate, weights) < normal.energy
        x = jnp.where(better, candidate, x)
        damping = jnp.clip(jnp.where(better, damping / 4, damping * 8), MIN_DAMPING, MAX_DAMPING)
        return (x, damping), normal.energy

    (x, damping), trace = jax.lax.scan(step, (x, jnp.asarray(damping, x.dtype)), None, n_steps)
    return x, damping, trace

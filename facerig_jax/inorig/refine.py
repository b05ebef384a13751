"""Further steps of a general optimizer after a solver's own ones, on the same energies and unknowns."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from facerig_jax.inorig.decode import RigCode
from facerig_jax.inorig.state import Unknowns

# Adam's first step sizes, which fall to a tenth: the baselines' tuned ones (evaluate.tuned, adam_time), about halved
# because here the start is good.
RATES = {"identity": 0.02, "pose": 0.01, "expression": 0.002, "code": 0.02, "albedo": 0.03}
# Of a classical fit: in units of what each unknown is known to, all others given.
FIT_RATE = 0.05


def refine(energy: Callable, x, n_steps: int, rates):
    """Lowers an energy by Adam.

    Args:
      energy: unknowns -> ().
      x: unknowns of either solver, where its own steps ended.
      n_steps: static.
      rates: the first step sizes, as `x`; 0 for what stays.

    Returns:
      The unknowns of lowest energy on the way.
    """
    import optax  # takes a while to import, and few fits are refined

    optimizer = optax.scale_by_adam(b1=0.9, b2=0.99)

    def better(value, x, best):
        return jax.tree.map(lambda a, b: jnp.where(value < best[0], a, b), (value, x), best)

    def step(carry, share):
        x, moments, best = carry
        value, slope = jax.value_and_grad(energy)(x)
        change, moments = optimizer.update(slope, moments)
        moved = jax.tree.map(lambda a, rate, d: a - share * rate * d, x, rates, change)
        return (moved, moments, better(value, x, best)), None

    start = (x, optimizer.init(x), (energy(x), x))
    (x, _, best), _ = jax.lax.scan(step, start, jnp.linspace(1.0, 0.1, n_steps, dtype=jax.tree.leaves(x)[0].dtype))
    return better(energy(x), x, best)[1]


def stage_rates(view_mask: jax.Array) -> Unknowns:
    """Step sizes for a stage of the learned solver; (V,) views that do not count stay."""
    code = RigCode(RATES["identity"], RATES["code"], RATES["albedo"])
    return Unknowns(code, RATES["pose"] * view_mask[:, None], RATES["expression"] * view_mask[:, None])

"""Further steps of a general optimizer after the learned ones, on the same energies and codes."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from facerig_jax.rig.decode import RigCode
from facerig_jax.solve.state import Unknowns

# Adam's first step sizes, which fall to a tenth: the baselines' tuned ones (evaluate.tuned, adam_time), about halved
# because here the start is good.
RATES = {"identity": 0.02, "pose": 0.01, "expression": 0.002, "code": 0.02, "albedo": 0.03}


def refine(energy: Callable[[Unknowns], jax.Array], x: Unknowns, n_steps: int, view_mask: jax.Array) -> Unknowns:
    """Lowers an energy by Adam.

    Args:
      energy: Unknowns -> ().
      x: where the learned steps ended.
      n_steps: static.
      view_mask: (V,) views that count; the others stay.

    Returns:
      Unknowns.
    """
    code = RigCode(RATES["identity"], RATES["code"], RATES["albedo"])
    rates = Unknowns(code, RATES["pose"] * view_mask[:, None], RATES["expression"] * view_mask[:, None])
    optimizer = optax.scale_by_adam(b1=0.9, b2=0.99)

    def step(carry, number):
        x, moments = carry
        change, moments = optimizer.update(jax.grad(energy)(x), moments)
        share = 1 - 0.9 * number / n_steps
        return (jax.tree.map(lambda a, rate, d: a - share * rate * d, x, rates, change), moments), None

    (x, _), _ = jax.lax.scan(step, (x, optimizer.init(x)), jnp.arange(n_steps, dtype=x.pose.dtype))
    return x

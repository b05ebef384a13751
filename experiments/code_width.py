"""How wide must an expression code be to hold combinations of the head's expression shapes?

    python -m experiments.code_width

For each width K, one person's network (weights of the linear modes = gain tanh(W2 tanh(W1 code))) is fitted to random
combinations of the shapes together with their codes; then it is frozen, codes are fitted to other combinations, and
what is left is printed as rms distance over the face region. `base` adds the code itself to the weights, which at
K = modes holds every combination exactly; the table says what the network alone, as published, can hold.
"""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from experiments import cli
from facerig_jax.head import load_head
from facerig_jax.inorig.decode import mode_weights
from facerig_jax.synthetic.subject import random_expression
from facerig_jax.types import RigWeights

GAIN = 3.0
# How often a shape takes part in a combination.
CHANCE = 0.3

_WIDTHS = flags.DEFINE_list("widths", ["8", "16", "32", "52"], "Code lengths K to measure.")
_COUNT = flags.DEFINE_integer("count", 500, "Random combinations to fit to, and as many to test on.")
_STEPS = flags.DEFINE_integer("steps", 3000, "Adam steps of each of the two fits.")


def main() -> None:
    """Prints a line per width."""
    head = load_head()
    keys = jax.random.split(jax.random.key(0), 2 * _COUNT.value)
    weights = jax.vmap(lambda key: random_expression(key, head, CHANCE))(keys)
    fit_on, test_on = weights[: _COUNT.value], weights[_COUNT.value :]
    face = np.asarray(head.face_mask) > 0.5
    basis = (head.expression_basis[:, face] * head.unit_mm).reshape(len(head.expression_basis), -1)
    gram = jnp.asarray(basis @ basis.T / face.sum())
    size = rms(test_on, gram)
    print(f"{len(basis)} shapes, {_COUNT.value} combinations: rms displacement {size:.2f} mm")
    for width in map(int, _WIDTHS.value):
        left = reproduction_error(fit_on, test_on, gram, width, _STEPS.value)
        print(f"K = {width:3d}: {left:.3f} mm left, {left / size:.1%}", flush=True)


def rms(weights: jax.Array, gram: jax.Array) -> float:
    """Rms displacement, mm, of mode weights (N, M), given the modes' products (M, M) mm^2."""
    return float(jnp.sqrt(jnp.mean(jnp.einsum("nm,mk,nk->n", weights, gram, weights))))


def reproduction_error(fit_on, test_on, gram, width: int, steps: int) -> float:
    """Rms distance, mm, between other combinations and their best codes under a network fitted to `fit_on`."""
    modes = gram.shape[0]
    draw = jax.random.split(jax.random.key(1), 3)
    first = jax.random.normal(draw[0], (modes, width)) / width**0.5
    second = jax.random.normal(draw[1], (modes, modes)) / modes**0.5
    codes = 0.1 * jax.random.normal(draw[2], (len(fit_on), width))

    def made(network, codes):
        return mode_weights(RigWeights(*network, (), None), codes, named_codes=False, gain=GAIN)

    def loss(network, codes, wanted):
        error = made(network, codes) - wanted
        return jnp.mean(jnp.einsum("nm,mk,nk->n", error, gram, error))

    network, _ = descend(lambda x: loss(*x, fit_on), ((first, second), codes), steps)
    codes = descend(lambda codes: loss(network, codes, test_on), jnp.zeros_like(codes), steps)
    return rms(made(network, codes) - test_on, gram)


def descend(loss, x, steps: int):
    """Adam with a cosine schedule."""
    optimizer = optax.adam(optax.cosine_decay_schedule(0.02, steps))

    @jax.jit
    def run(x):
        def step(carry, _):
            x, state = carry
            update, state = optimizer.update(jax.grad(loss)(x), state)
            return (optax.apply_updates(x, update), state), None

        return jax.lax.scan(step, (x, optimizer.init(x)), None, length=steps)[0][0]

    return run(x)


if __name__ == "__main__":
    sys.exit(cli.run(main))

"""The baselines' numbers, each tuned on the validation split with the same budget of trials.

    python -m experiments.evaluate --what=tune --method=NAME --trials=24 --count=8

The validation split is the synthetic subjects of seed 900,000 (--renderer=hard): neither trained nor tested on. Mean
of the neutral's and the posed meshes' true vertex error on 8 of them, 4 photos each, at the first and the best trial
(mean face: 2.327 mm):

    linear 2.029 -> 1.911, classical 1.629 -> 1.491, fixed 2.130 -> 2.111, adam 2.152 -> 2.102,
    adam_time 2.171 -> 2.095 (--time_steps=67)
"""

import numpy as np

# name -> numbers: Hyper of the classical solver, step sizes, AdamNumbers.
TUNED: dict[str, dict[str, float]] = {
    "linear": {
        "landmark_mm": 1.802,
        "landmark_common": 0.7163,
        "expression": 0.6847,
        "inverse_distance": 0.000886,
    },
    "classical": {
        "landmark_mm": 1.369,
        "landmark_common": 0.5237,
        "expression": 0.1672,
        "colour": 0.04912,
        "albedo_detail": 0.1988,
    },
    "fixed": {"identity": 8.893, "pose": 0.0267, "expression": 0.05772, "albedo": 1.475},
    "adam": {
        "identity": 0.2368,
        "pose": 0.03879,
        "expression": 0.02889,
        "albedo": 0.1541,
        "forget": 0.5411,
        "last": 0.2914,
        "identity_prior": 0.05961,
        "expression_prior": 0.07174,
        "albedo_prior": 0.000824,
        "landmark": 0.01366,
    },
    "adam_time": {
        "identity": 0.04444,
        "pose": 0.02303,
        "expression": 0.003762,
        "albedo": 0.06876,
        "forget": 0.1344,
        "last": 0.04215,
        "identity_prior": 0.1463,
        "expression_prior": 0.2423,
        "albedo_prior": 0.000283,
        "landmark": 0.05577,
    },
}
# Numbers that are shares.
SHARES = ("forget", "last")


def search(objective, start: dict[str, float], trials: int, seed: int = 0, say=lambda line: None):
    """Random search around the best so far, with a spread that shrinks; all numbers are positive.

    Args:
      objective: numbers -> error; what is not finite is never the best.
      start: the first trial.
      trials: how many in all.
      seed: of the search.
      say: told of every trial.

    Returns:
      The best numbers, and their error.
    """
    rng = np.random.default_rng(seed)
    best, error = dict(start), float(objective(start))
    say(f"trial 1 of {trials}: {error:.4f}")
    for trial in range(1, trials):
        spread = 0.7 * 0.93**trial
        candidate = {name: value * float(np.exp(spread * rng.normal())) for name, value in best.items()}
        candidate |= {name: min(candidate[name], 1.0) for name in SHARES if name in candidate}
        value = float(objective(candidate))
        if np.isfinite(value) and not value >= error:
            best, error = candidate, value
        say(f"trial {trial + 1} of {trials}: {value:.4f}, best {error:.4f}")
    return best, error

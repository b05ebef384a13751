"""The baselines' numbers, each tuned on the validation split with the same budget of trials.

    python -m experiments.evaluate --what=tune --method=NAME --trials=24 --count=8

The validation split is the synthetic subjects of seed 900,000 (--renderer=hard): neither trained nor tested on.
"""

import numpy as np

# name -> numbers: Hyper of the classical solver, step sizes, AdamNumbers.
TUNED: dict[str, dict[str, float]] = {
    "linear": {"landmark_mm": 1.0, "landmark_common": 1.0, "expression": 0.15, "inverse_distance": 6e-4},
    "classical": {
        "landmark_mm": 1.0,
        "landmark_common": 1.0,
        "expression": 0.15,
        "colour": 0.06,
        "albedo_detail": 0.12,
    },
    "fixed": {"identity": 10.0, "pose": 0.01, "expression": 0.1, "albedo": 1.0},
    "adam": {
        "identity": 0.3,
        "pose": 0.03,
        "expression": 0.05,
        "albedo": 0.2,
        "forget": 0.3,
        "last": 0.3,
        "identity_prior": 0.03,
        "expression_prior": 0.1,
        "albedo_prior": 0.001,
        "landmark": 0.025,
    },
    "adam_time": {
        "identity": 0.1,
        "pose": 0.01,
        "expression": 0.03,
        "albedo": 0.1,
        "forget": 0.1,
        "last": 0.1,
        "identity_prior": 0.1,
        "expression_prior": 0.3,
        "albedo_prior": 0.001,
        "landmark": 0.025,
    },
}
# The same on the learned solver's own energies, learned features included: to be tuned with the weights at hand,
#   python -m experiments.evaluate --what=tune --method=adam_features --weights=FILE
# until then as without, with the feature energy's published weight.
TUNED |= {f"{name}_features": TUNED[name] | {"feature": 0.25} for name in ("fixed", "adam", "adam_time")}
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

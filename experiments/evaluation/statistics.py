"""Means over subjects with bootstrap intervals, differences between methods, and groups of subjects."""

from __future__ import annotations

import numpy as np

N_DRAWS = 2000
# Bands of age, years, and of |yaw|, degrees; a group below MIN_GROUP subjects is shown but never called the worst.
AGES, YAWS, MIN_GROUP = (30, 50), (15, 30, 45), 3


def bootstrap_interval(values, n_draws: int = N_DRAWS, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over subjects (percentiles)."""
    values = np.asarray(values, np.float64)
    draws = np.random.default_rng(seed).integers(0, len(values), (n_draws, len(values)))
    low, high = np.percentile(values[draws].mean(1), [2.5, 97.5])
    return float(low), float(high)


def paired_difference(a, b) -> tuple[float, float, float]:
    """Mean of a - b over subjects and its 95 % interval; both (N,), the same subjects in the same order."""
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    return float(difference.mean()), *bootstrap_interval(difference)


def summarise(values) -> dict[str, float]:
    """One number per subject (NaN: not known) -> n, mean, median, std, low and high of the mean's 95 % interval."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return {"n": 0} | dict.fromkeys(("mean", "median", "std", "low", "high"), float("nan"))
    low, high = bootstrap_interval(values)
    return {
        "n": len(values),
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "std": float(values.std()),
        "low": low,
        "high": high,
    }


def tercile_names(values, names: tuple[str, str, str]) -> list[str]:
    """Which third of the values each one lies in."""
    order = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return [names[min(3 * int(place) // len(order), 2)] for place in order]


def band_names(values, edges, unit: str) -> list[str]:
    """The band between `edges` that each value lies in, in words."""
    words = [f"under {edges[0]} {unit}"] + [f"{a} to {b} {unit}" for a, b in zip(edges, edges[1:], strict=False)]
    words.append(f"{edges[-1]} {unit} and over")
    return [words[int(place)] for place in np.searchsorted(edges, values, side="right")]


def in_order(group: str):
    """Sort key: skin tones from light to dark, bands from low to high, other names by the alphabet."""
    first = group.split()[0]
    ranks = {"lightest": 0, "middle": 1, "darkest": 2, "under": -1}
    return (int(first) if first.isdigit() else ranks.get(first, 0)), group


def groupings(traits: dict[str, np.ndarray]) -> dict[str, list[str]]:
    """What results are broken down by: name -> the group of every row. Traits that are not known are left out.

    Args:
      traits: name -> one number per row: 'melanin', 'sex' (0 female, 1 male), 'age' (years), 'yaw' (degrees).
    """
    known = {name: np.asarray(x, float) for name, x in traits.items() if len(x) and np.isfinite(x).all()}
    makers = {
        "melanin": ("skin tone", lambda x: tercile_names(x, ("lightest third", "middle third", "darkest third"))),
        "sex": ("sex", lambda x: ["male" if value > 0.5 else "female" for value in x]),
        "age": ("age", lambda x: band_names(x, AGES, "years")),
        "yaw": ("yaw", lambda x: band_names(np.abs(x), YAWS, "degrees")),
    }
    return {label: maker(known[name]) for name, (label, maker) in makers.items() if name in known}


def breakdown(values, groups: dict[str, list[str]]) -> list[dict]:
    """`summarise` of every group; each entry also names its 'factor' and 'group'."""
    values, rows = np.asarray(values, np.float64), []
    for factor, labels in groups.items():
        for group in sorted(set(labels), key=in_order):
            chosen = np.array([label == group for label in labels])
            rows.append({"factor": factor, "group": group} | summarise(values[chosen]))
    return rows


def worst_group(rows: list[dict]) -> dict | None:
    """The group with the largest mean among those of at least MIN_GROUP, or None."""
    large = [row for row in rows if row["n"] >= MIN_GROUP]
    return max(large, key=lambda row: row["mean"]) if large else None

"""The files of an evaluation: one line per subject and method, per view, every distance, and the summary.

A folder belongs to one set of settings. Rows that are there are not computed again; a folder with other settings is
refused.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import numpy as np

from experiments.evaluation.statistics import paired_difference, summarise
from facerig_jax.io.arrays import read_arrays
from facerig_jax.io.files import atomic_write

KEYS = ("subject", "method", "views")
# Text columns; all others are numbers.
TEXT = ("subject", "method")


@dataclasses.dataclass
class Results:
    """What is known so far.

    folder:    where the files are.
    rows:      one dict per subject, method and number of views.
    views:     one dict per subject, method and view.
    distances: subject -> '<method>.<protocol>' -> distances in mm, all points of the protocol.
    """

    folder: Path
    rows: list[dict] = dataclasses.field(default_factory=list)
    views: list[dict] = dataclasses.field(default_factory=list)
    distances: dict[str, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)

    def has(self, subject: str, method: str, views: int) -> bool:
        """Whether this row is there."""
        return any((r["subject"], r["method"], int(r["views"])) == (subject, method, views) for r in self.rows)

    def chosen(self, method: str, views: int) -> list[dict]:
        """A method's rows, in the order of the subjects."""
        return [row for row in self.rows if row["method"] == method and int(row["views"]) == views]

    def methods(self, views: int) -> list[str]:
        """Methods with rows, in the order of their first."""
        return list(dict.fromkeys(row["method"] for row in self.rows if int(row["views"]) == views))

    def pooled(self, method: str, protocol: str) -> np.ndarray:
        """All subjects' distances, float32."""
        found = [d[key] for d in self.distances.values() if (key := f"{method}.{protocol}") in d]
        return np.concatenate(found).astype(np.float32) if found else np.zeros(0, np.float32)

    def save(self, subject: str) -> None:
        """Writes the tables, and this subject's distances; atomic, so that a run can be stopped at any time."""
        write_csv(self.folder / "results.csv", self.rows)
        write_csv(self.folder / "views.csv", self.views)
        if subject in self.distances:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **{k: v.astype(np.float16) for k, v in self.distances[subject].items()})
            with atomic_write(self.folder / "distances" / f"{subject}.npz") as file:
                file.write(buffer.getvalue())


def open_results(folder, settings: dict) -> tuple[Results, dict]:
    """The results in a folder, empty when there are none.

    Args:
      folder: made when missing.
      settings: JSON-able; a value of None takes what the folder says. 'weights' (name -> checksum) may grow.

    Returns:
      Results, and the settings with what the folder added.

    Raises:
      ValueError: the folder's results were made with other settings.
    """
    folder = Path(folder)
    file = folder / "settings.json"
    settings = json.loads(json.dumps(settings))
    if not file.is_file():
        if (folder / "results.csv").exists():
            raise ValueError(f"{folder} holds a results.csv without settings.json; give another --out.")
        return Results(folder), settings
    found = json.loads(file.read_text())
    for name, digest in settings.get("weights", {}).items():
        if found.get("weights", {}).get(name, digest) != digest:
            raise ValueError(f"{folder} holds results of other weights called {name}; rename the file or the folder.")
    if "weights" in settings:
        settings["weights"] = found.get("weights", {}) | settings["weights"]
    for key in sorted((set(found) | set(settings)) - {"weights"}):
        if settings.get(key) is not None and settings[key] != found.get(key):
            raise ValueError(
                f"{folder} holds results of other settings ({key}: {found.get(key)!r} there, {settings[key]!r} here); "
                "give another --out."
            )
    results = Results(folder, read_csv(folder / "results.csv"), read_csv(folder / "views.csv"))
    for path in sorted((folder / "distances").glob("*.npz")):
        results.distances[path.stem] = read_arrays(path)
    return results, found | {key: value for key, value in settings.items() if value is not None}


def write_settings(folder, settings: dict) -> None:
    """Records what the results were made with."""
    with atomic_write(Path(folder) / "settings.json", "w") as file:
        file.write(json.dumps(settings, indent=1, sort_keys=True) + "\n")


def write_csv(path, rows: list[dict]) -> None:
    """Rows of unequal keys as one table, blank where a row has none; atomic."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_write(path, "w") as file:
        writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {k: f"{v:.6g}" if isinstance(v, float) and np.isfinite(v) else "" if v != v else v for k, v in row.items()}
            for row in rows
        )


def read_csv(path) -> list[dict]:
    """The rows that `write_csv` wrote; blanks are left out."""
    if not Path(path).is_file():
        return []
    with open(path, newline="") as file:
        return [
            {key: value if key in TEXT else float(value) for key, value in row.items() if value != ""}
            for row in csv.DictReader(file)
        ]


def column(rows: list[dict], name: str) -> np.ndarray:
    """One number per row, NaN where a row has none."""
    return np.array([row.get(name, np.nan) for row in rows], float)


# Summary

# Protocols whose distances are pooled over all points of all subjects.
POOLED = {"vertex": "vertex", "now": "now_mean", "now_metrical": "now_metrical_mean"}
NO_MEASURE = ("views", "melanin", "sex", "age", "yaw", "failed")


def measures(rows: list[dict]) -> list[str]:
    """The columns that are errors or times."""
    names = dict.fromkeys(key for row in rows for key in row)
    return [name for name in names if name not in (*KEYS, *NO_MEASURE)]


def summary(results: Results, views: int) -> list[dict]:
    """One row per method and measure: over subjects, and where every point was kept, pooled over all of them."""
    table = []
    for method in results.methods(views):
        rows = results.chosen(method, views)
        for name in measures(rows):
            row = {"method": method, "measure": name, "views": views} | summarise(column(rows, name))
            protocol = next((p for p, label in POOLED.items() if label == name), None)
            pooled = results.pooled(method, protocol) if protocol else np.zeros(0)
            if len(pooled):
                row |= {
                    "pooled_mean": float(pooled.mean()),
                    "pooled_median": float(np.median(pooled)),
                    "pooled_std": float(pooled.std()),
                }
            table.append(row)
    return table


def comparisons(results: Results, views: int, names=("vertex", "posed", "now_mean")) -> list[dict]:
    """Paired differences of every two methods, over the subjects that both have: a - b with its 95 % interval."""
    table, methods = [], results.methods(views)
    for name in names:
        for i, a in enumerate(methods):
            for b in methods[i + 1 :]:
                first, second = ({r["subject"]: r[name] for r in results.chosen(m, views) if name in r} for m in (a, b))
                common = [subject for subject in first if subject in second]
                if not common:
                    continue
                pairs = ([side[subject] for subject in common] for side in (first, second))
                mean, low, high = paired_difference(*pairs)
                better = a if high < 0 else b if low > 0 else "undecided"
                table.append(
                    {"measure": name, "a": a, "b": b, "n": len(common), "a_minus_b": mean}
                    | {"low": low, "high": high, "better": better}
                )
    return table

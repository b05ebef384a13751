"""Brings raw face scans to the head's topology, for training and for the true-vertex error.

    python -m experiments.register --scans=DIR_or_file --out=OUT
    python -m experiments.register --check=10               # our own subjects, resampled: error against the truth

DIR holds one folder per person: neutral.ply or .obj (mm) with its landmarks points7.txt, points68.txt or points468.txt
('x y z' a line), and, if there are any, further scans NAME.ply of other expressions (landmarks NAME_points.txt, or none
where they are in the frame of the neutral one). --layout=stirling reads the Stirling/ESRC database instead, see
facerig_jax/data/stirling.py. OUT/<person>/ then holds registered.npz and NAME.npz (vertices (P, 3) mm in the head
frame, known (P,), the pose in the scan), the same as .ply, and a .png to look at: do look. OUT/register.csv sums up.

What is there already is kept (--overwrite: made again), so an interrupted run can be continued.
"""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

import facerig_jax  # isort: skip  sets XLA flags before jax starts
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import cli
from experiments.evaluation.scanner import ScannerConfig, resample
from experiments.evaluation.statistics import bootstrap_interval
from facerig_jax.checks import check_choice
from facerig_jax.data.scans import REGISTERED_STEM, ScanFiles, find_scans, read_scan_files
from facerig_jax.data.stirling import stirling_scans
from facerig_jax.evaluate.vertex import vertex_error
from facerig_jax.io.files import atomic_write
from facerig_jax.register import Registration, Scan, register_scan
from facerig_jax.register.files import read_registration, write_registration
from facerig_jax.synthetic.subject import SubjectConfig, make_subject

LAYOUTS = {"folders": find_scans, "stirling": stirling_scans}
# Subjects of --check; settings were chosen on others.
CHECK_SEED = 1_000_000
# Below this share of the face, or above this distance, a person should look before the result is used.
LOW_SHARE, HIGH_MM = 0.5, 0.3

_SCANS = flags.DEFINE_string("scans", None, "A scan, a person's folder, or a folder of such folders.")
_OUT = flags.DEFINE_string("out", None, "Folder to write.")
_LAYOUT = flags.DEFINE_string("layout", "folders", f"How the scans are laid out: {', '.join(LAYOUTS)}.")
_UNIT = flags.DEFINE_float("unit_mm", 1.0, "Millimetres per unit of the files: 1000 for metres.", lower_bound=1e-6)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Register again what is in --out already.")
_PICTURES = flags.DEFINE_bool("pictures", True, "Also draw scan, result and distances.")
_CHECK = flags.DEFINE_integer("check", 0, "Register this many made-up scans and compare with the truth.", lower_bound=0)


def main() -> None:
    """Scans from files, or the check."""
    if _CHECK.value:
        check(_CHECK.value, Path(_OUT.value) if _OUT.value else None)
        return
    for flag in (_SCANS, _OUT):
        if not flag.value:
            raise cli.UserError(f"--{flag.name} is missing: python -m experiments.register --scans=DIR --out=OUT")
    scans = LAYOUTS[check_choice("--layout", _LAYOUT.value, LAYOUTS)](_SCANS.value)
    rows, failures = register_all(scans, Path(_OUT.value))
    write_csv(Path(_OUT.value) / "register.csv", rows)
    if failures:
        raise cli.UserError(f"{len(failures)} of {len(scans)} scans were not registered, see above.")


def register_all(scans: list[ScanFiles], out: Path):
    """Registers all scans, a person's neutral one first; rows for the table, and what failed."""
    head, rows, failures = facerig_jax.load_head(), [], []
    neutral: dict[str, Registration] = {}
    for number, files in enumerate(scans, 1):
        label = f"{number} of {len(scans)}  {files.subject}/{files.name}"
        start = time.perf_counter()
        try:
            found = register_one(head, files, out, neutral)
        except ValueError as error:  # InputError among them
            failures.append(files)
            print(f"{label}: {error}", file=sys.stderr, flush=True)
            continue
        rows.append({"subject": files.subject, "scan": files.name, **found.statistics})
        print(f"{label}: {describe(found)}, {time.perf_counter() - start:.1f} s", flush=True)
    return rows, failures


def register_one(head, files: ScanFiles, out: Path, neutral: dict[str, Registration]) -> Registration:
    """One scan from file to file, or what an earlier run made of it."""
    stem = out / files.subject / (REGISTERED_STEM if files.is_neutral else files.name)
    done = stem.with_name(f"{stem.name}.npz")
    if done.exists() and not _OVERWRITE.value:
        found = read_registration(done, head)
    else:
        if not files.is_neutral and files.subject not in neutral:
            raise ValueError(f"{files.mesh}: the neutral scan of {files.subject} has to be registered first.")
        mesh, points = read_scan_files(files, _UNIT.value)
        scan = Scan(mesh.vertices, mesh.faces, points)
        found = register_scan(head, scan, neutral=None if files.is_neutral else neutral[files.subject])
        write_registration(stem, head, scan, found, _PICTURES.value)
    if files.is_neutral:
        neutral[files.subject] = found
    return found


def describe(found: Registration) -> str:
    """One line of figures, with a warning where they are poor."""
    mean, share = found.statistics["mean_mm"], found.statistics["known_share"]
    text = f"{mean:.2f} mm from the scan, {100 * share:.0f} % of the face seen"
    poor = not (share > LOW_SHARE and mean < HIGH_MM)
    return text + (" - look at the picture before you use it" if poor else "")


def check(count: int, out: Path | None) -> None:
    """Scans of our own subjects, 1 mm off the head's basis, with holes, noise and rough landmarks; some are clouds."""
    head, rows = facerig_jax.load_head(), []
    mask = jnp.asarray(head.face_mask)
    device_head = jax.tree.map(jnp.asarray, head)
    for number in range(count):
        truth = np.asarray(draw_neutral(device_head, number), np.float64)
        kind = ("mesh", "cloud")[number % 4 == 3]
        scanner = ScannerConfig(triangulated=kind == "mesh")
        scan, (rotation, shift) = resample(head, truth, np.random.default_rng(number), scanner)
        start = time.perf_counter()
        found = register_scan(head, scan)
        seconds = time.perf_counter() - start
        plain = np.linalg.norm(found.in_scan_frame() - (truth @ rotation.T + shift), axis=1)
        aligned = float(vertex_error(jnp.asarray(found.vertices, jnp.float32), jnp.asarray(truth, jnp.float32), mask))
        face = head.face_mask > 0.5
        errors = {"aligned mm": aligned, "as it is mm": plain[face].mean(), "p95 mm": np.percentile(plain[face], 95)}
        row = {"subject": number, "scan": kind, **errors, "to scan mm": found.statistics["mean_mm"], "seconds": seconds}
        say(row, header=not rows)
        rows.append(row)
        if out:
            write_registration(out / f"{number}" / REGISTERED_STEM, head, scan, found, _PICTURES.value)
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key not in ("subject", "scan")}
    say({"subject": "mean", "scan": "", **means})
    for key in ("aligned mm", "as it is mm"):
        low, high = bootstrap_interval([row[key] for row in rows])
        print(
            f"{key}: mean {means[key]:.3f}, 95 % interval {low:.3f}-{high:.3f}, worst {max(r[key] for r in rows):.3f}"
        )
    if out:
        write_csv(out / "check.csv", rows)


@jax.jit
def draw_neutral(head, index):
    """(P, 3) mm; the photos are not drawn, since nothing uses them."""
    return make_subject(head, CHECK_SEED, index, SubjectConfig(off_basis=1.0)).neutral


def say(row: dict, header: bool = False) -> None:
    """A line of the table."""
    if header:
        print("  ".join(f"{key:>11}" for key in row))
    cells = (f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values())
    print("  ".join(f"{cell:>11}" for cell in cells), flush=True)


def write_csv(path: Path, rows: list[dict]) -> None:
    """The table as a file; nothing where there are no rows."""
    if rows:
        with atomic_write(path, "w") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    cli.run(main)

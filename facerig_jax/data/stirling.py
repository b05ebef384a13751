"""The Stirling/ESRC 3D face database as subjects for training and evaluation.

The data come from pics.stir.ac.uk/ESRC on request and may not be passed on; none of it was at hand when this was
written. The layout is the one that public code for the FG2018 benchmark reads (open-mmlab/mmhuman3d,
stirling converter), with its pattern continued to the other expressions:

    ROOT/M_3D_N/m1001_N.obj                    raw scans, mm: M or F, then the expression: N neutral, others as given
    ROOT/F_3D_A/F1001_A.obj
    ROOT/annotations/M_3D_N/m1001_N.lnd        their seven landmarks, a line each: name x y z
    ROOT/Subset_2D_FG2018/HQ/M1001_xxx.jpg     photos; the name begins with the subject

Subjects are written in upper or lower case. A photo whose second part is an expression that the subject was scanned
with (M1001_A_left.jpg) shows that expression, any other photo the neutral face. A landmarks.npz among the photos counts
as in a folder source. Faces in the head's topology are what

    python -m experiments.register --layout=stirling --scans=ROOT --out=REGISTERED

writes: REGISTERED/M1001/registered.npz for N, and REGISTERED/M1001/A.npz for the others.
"""

from __future__ import annotations

import re
from pathlib import Path

from facerig_jax.data.folders import (
    Entry,
    FileSource,
    SourceConfig,
    existing_folder,
    make_source,
)
from facerig_jax.data.landmark_files import landmarks_beside
from facerig_jax.data.photos import PHOTO_SUFFIXES
from facerig_jax.data.registered import find_file
from facerig_jax.data.scans import REGISTERED_STEM, ScanFiles
from facerig_jax.io.files import InputError
from facerig_jax.types import HeadModel

NEUTRAL = "N"
PHOTOS = "Subset_2D_FG2018/HQ"
DEFAULT = SourceConfig()
_SCAN_FOLDER = re.compile(r"[MF]_3D_(\w+)", re.IGNORECASE)


def stirling_source(
    root,
    head: HeadModel,
    config: SourceConfig = DEFAULT,
    detector: dict | None = None,
    registered=None,
    photos: str = PHOTOS,
) -> FileSource:
    """Subjects that have photos and a neutral scan.

    Args:
      root: ROOT.
      head: the model whose topology the truth has.
      config: how many photos, their size, their choice.
      detector: weights of the landmark detector; default `load_detector()`.
      registered: what experiments.register wrote; None: no truth in the head's topology.
      photos: folder of the photos below ROOT.

    Returns:
      FileSource; `vertices` is filled where every photo's expression was registered.

    Raises:
      InputError: a folder is missing, no subject has both photos and a scan, or truth is there for some only.
    """
    root = existing_folder(root)
    scans = {(files.subject, files.name): files for files in stirling_scans(root)}
    people: dict[str, list[Path]] = {}
    for path in sorted(existing_folder(root / photos).iterdir()):
        if path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith("."):
            people.setdefault(path.name.split("_")[0].upper(), []).append(path)
    entries = []
    for subject in sorted(people):
        if (subject, NEUTRAL) in scans:
            shown = [_expression(path, subject, scans) for path in people[subject]]
            entries.append(_entry(subject, people[subject], shown, scans[subject, NEUTRAL], registered))
    if not entries:
        raise InputError(f"{root}: no subject has both photos in {photos} and a neutral scan in M_3D_N or F_3D_N.")
    return make_source(f"stirling {root}", entries, head, config, detector)


def stirling_scans(root) -> list[ScanFiles]:
    """All raw scans below ROOT, the neutral one of a subject first.

    Raises:
      InputError: there are none.
    """
    root, found = existing_folder(root), []
    for folder in sorted(root.iterdir()):
        kind = _SCAN_FOLDER.fullmatch(folder.name)
        if kind is None or not folder.is_dir():
            continue
        for path in sorted(folder.glob("*.obj")):
            points = root / "annotations" / folder.name / f"{path.stem}.lnd"
            found.append(
                ScanFiles(
                    subject=path.stem.split("_")[0].upper(),
                    name=kind[1].upper(),
                    mesh=path,
                    points=points if points.is_file() else None,
                    is_neutral=kind[1].upper() == NEUTRAL,
                )
            )
    if not found:
        raise InputError(f"{root}: no scans; folders such as M_3D_N with m1001_N.obj in them are expected.")
    return sorted(found, key=lambda files: (files.subject, not files.is_neutral, files.name))


def _expression(path: Path, subject: str, scans) -> str:
    """The expression that a photo shows, by the second part of its name."""
    parts = path.stem.upper().split("_")
    return parts[1] if len(parts) > 1 and (subject, parts[1]) in scans else NEUTRAL


def _entry(subject: str, photos, shown, scan: ScanFiles, registered) -> Entry:
    folder = None if registered is None else existing_folder(registered) / subject
    stems = [REGISTERED_STEM if name == NEUTRAL else name for name in shown]
    return Entry(
        subject=subject,
        photos=tuple(photos),
        landmarks=landmarks_beside(photos[0]),
        neutral=folder and find_file(folder, REGISTERED_STEM),
        faces=tuple(find_file(folder, stem) for stem in stems) if folder else (),
        scan=(scan.mesh, scan.points) if scan.points else None,
    )

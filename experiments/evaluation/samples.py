"""Whom the methods are compared on: synthetic people, or people from folders with a scan each."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator

import jax
import numpy as np

from experiments.evaluation.scans import Scan
from experiments.evaluation.study import Sample, photos_of
from facerig_jax.checks import check_choice
from facerig_jax.data.folders import FileSource, SourceConfig, folder_source, read_scan
from facerig_jax.data.subjects import HELD_OUT_SEED
from facerig_jax.detect.landmarks import LANDMARKS68, POINTS7
from facerig_jax.io.files import InputError
from facerig_jax.synthetic import presets
from facerig_jax.synthetic.subject import make_subject

PHOTO_SIDE = 1024  # of scanned people's photos, padded: one size, so that nothing is compiled twice


def renderers() -> dict[str, presets.SubjectConfig]:
    """The generator's presets by name, in lower case."""
    return {name.lower(): value for name, value in vars(presets).items() if isinstance(value, presets.SubjectConfig)}


def chosen_renderer(options) -> presets.SubjectConfig:
    """The generator's settings asked for; refuses a name that it does not have."""
    return renderers()[check_choice("--renderer", options.renderer, renderers())]


def synthetic_samples(head, detector, options, views: int, seed: int = HELD_OUT_SEED) -> Iterator[Sample]:
    """Synthetic subjects with so many views, drawn one at a time; held out unless `seed` says otherwise."""
    config = dataclasses.replace(chosen_renderer(options), n_views=views)
    draw = jax.jit(make_subject, static_argnames="config")
    for index in range(options.count):
        subject = draw(head, seed, index, config)
        photos = photos_of(subject, detector if options.landmarks == "detector" else None)
        missed = int((np.asarray(photos.view_mask) == 0).sum())
        if missed:
            print(f"\nsubject {index}: no face found in {missed} photos, which do not count.", file=sys.stderr)
        yield Sample(f"{seed}_{index:05d}", photos, subject)


def scanned_people(root: str, head, detector, views: int) -> FileSource:
    """The people of a folder, each with a raw scan and its points."""
    source = folder_source(root, head, SourceConfig(n_views=views, size=PHOTO_SIDE), detector=detector)
    missing = [entry.subject for entry in source.entries if entry.scan is None]
    if missing:
        raise InputError(f"--subjects={root}: {missing[0]} has no neutral.ply with points7.txt.")
    return source


def folder_samples(source: FileSource) -> Iterator[Sample]:
    """Scanned people; where photos are missing, views that do not count."""
    for index, entry in enumerate(source.entries):
        person = source(index)
        mesh, points = read_scan(source, index)
        truth = None if person.neutral is None else person
        yield Sample(entry.subject, photos_of(person, None), truth, Scan(mesh.vertices, seven_points(points)))


def seven_points(points: np.ndarray) -> np.ndarray:
    """(7, 3) of (7, 3), (68, 3) or (468, 3) landmarks."""
    order = {7: range(7), 68: POINTS7, 468: [LANDMARKS68[k] for k in POINTS7]}
    return points[list(order[len(points)])]

"""A person's own data: one folder per subject, with photos and, for training, the true face in the head's topology.

    DIR/<subject>/
      *.jpg *.png ...            photos, any name; order by name, numbers by value
      landmarks.npz              optional: under each photo's file name (468, 3) px of that upright photo, see
                                 landmark_files; photos that it does not name go to the detector
      registered.npz .ply .obj   optional: the neutral face, vertices in the head's order, mm
      <photo>.npz .ply .obj      optional, beside <photo>.jpg: the face of that photo with its expression, likewise and
                                 in the frame of registered.*
      neutral.ply .obj           optional: a raw scan, mm, and points7.txt, its landmarks: for evaluation, and for
                                 python -m experiments.register, which writes registered.npz

Truth is all or nothing: either every subject has registered.*, or none counts; the same for the photos' faces.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from facerig_jax.data.landmark_files import detect_landmarks, landmarks_beside, read_landmarks, rescale
from facerig_jax.data.photos import find_inputs, pad_to_bucket, read_photo
from facerig_jax.data.registered import Registered, find_file, read_registered
from facerig_jax.data.scans import NEUTRAL_STEM, REGISTERED_STEM
from facerig_jax.data.subjects import Subject
from facerig_jax.detect import load_detector
from facerig_jax.geometry.alignment import similarity
from facerig_jax.io.files import InputError
from facerig_jax.io.meshes import MESH_SUFFIXES, Mesh, read_mesh, read_points
from facerig_jax.types import HeadModel


@dataclasses.dataclass(frozen=True)
class Entry:
    """The files of one subject.

    subject:   its name.
    photos:    in order, at least one.
    landmarks: file, or None.
    neutral:   file of the neutral face in the head's topology, or None.
    faces:     per photo the file of its face with expression, or None.
    scan:      raw scan and its landmarks, or None.
    """

    subject: str
    photos: tuple[Path, ...]
    landmarks: Path | None = None
    neutral: Path | None = None
    faces: tuple[Path | None, ...] = ()
    scan: tuple[Path, Path] | None = None


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """How subjects are made from files.

    n_views: photos of a subject; where there are fewer, the first is repeated with view_mask 0.
    size:    side of the square they are reduced to and padded to, px.
    seed:    which photos are chosen where there are more: a pure function of (index, seed). None: the first ones.
    draws:   how many indices one subject has, each with its own choice of photos.
    neutral_photos: the photos show the neutral face, so it is the truth of every view.
    """

    n_views: int = 4
    size: int = 512
    seed: int | None = None
    draws: int = 1
    neutral_photos: bool = False


@dataclasses.dataclass(frozen=True)
class FileSource:
    """Subjects from files: a `data.subjects.Source`. Made by `folder_source` and `stirling.stirling_source`."""

    name: str
    entries: tuple[Entry, ...]
    head: HeadModel
    detector: dict
    config: SourceConfig
    found: dict = dataclasses.field(default_factory=dict, compare=False, repr=False)  # photo -> (468, 3) photo px

    def __len__(self) -> int:
        return len(self.entries) * self.config.draws

    def __call__(self, index: int) -> Subject:
        """Subject index % (number of subjects).

        Fields: images (V, S, S, 3) uint8, image_size, view_mask (0: padding, or no face was found), landmarks; where
        there is truth neutral and known, and where every photo has its face, vertices. All numpy arrays.

        Raises:
          IndexError: index is not in 0..len - 1.
          InputError: a file cannot be used, or no photo of the subject shows a face; one sentence.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: subjects are numbered 0..{len(self) - 1}, got {index}.")
        entry, config = self.entries[index % len(self.entries)], self.config
        chosen, mask = choose_views(len(entry.photos), config.n_views, index, config.seed)
        photos = [read_photo(entry.photos[i], config.size) for i in chosen]
        images, sizes = pad_to_bucket(photos, (config.size,))
        landmarks = np.stack([self._landmarks(entry, i, photos[v], images[v]) for v, i in enumerate(chosen)])
        mask = mask * landmarks.any((1, 2))
        if not mask.any():
            raise InputError(f"{entry.photos[0].parent}: no face was found in the photos of {entry.subject}.")
        truth = self._truth(entry, chosen)
        return Subject(images=images, image_size=sizes, view_mask=mask.astype(np.float32), landmarks=landmarks, **truth)

    def _landmarks(self, entry: Entry, number: int, photo, image) -> np.ndarray:
        """(468, 3) px of the reduced photo; zero where no face is found."""
        path = entry.photos[number]
        if path not in self.found:
            given = read_landmarks(entry.landmarks).get(path.name) if entry.landmarks else None
            if given is None:
                self.found[path] = detect_landmarks(self.detector, image)
            else:
                self.found[path] = rescale(given, photo.scale).astype(np.float32)
        return self.found[path]

    def _truth(self, entry: Entry, chosen) -> dict:
        if entry.neutral is None:
            return {}
        neutral, to_head = _neutral(self.head, entry.neutral)
        truth = {"neutral": neutral.vertices, "known": neutral.known}
        if self.config.neutral_photos:
            truth["vertices"] = np.repeat(neutral.vertices[None], len(chosen), axis=0)
        elif entry.faces and entry.faces[0] is not None:
            faces = [read_registered(entry.faces[i], self.head).vertices for i in chosen]
            truth["vertices"] = np.stack([to_head(face) for face in faces])
        return truth


def folder_source(
    folder, head: HeadModel, config: SourceConfig = SourceConfig(), detector: dict | None = None, registered=None
) -> FileSource:
    """Subjects from a folder of folders, as this module's page describes.

    Args:
      folder: DIR.
      head: the model whose topology the truth has.
      config: how many photos, their size, their choice.
      detector: weights of the landmark detector; default `load_detector()`.
      registered: folder that experiments.register wrote; default: the truth lies beside the photos.

    Returns:
      FileSource, a `data.subjects.Source`; all its subjects have arrays of the same shapes.

    Raises:
      InputError: no such folder, a subject without photos, or truth for some but not for all; one sentence.

    Example:
      source = folder_source("people", load_head(), SourceConfig(n_views=4, size=256))
      subject = source(0)
    """
    folder = existing_folder(folder)
    people = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith((".", "_"))]
    if not people:
        raise InputError(f"{folder} holds no folders; give a folder with one folder of photos per subject.")
    truth = None if registered is None else existing_folder(registered)
    entries = tuple(_entry(person, person if truth is None else truth / person.name) for person in people)
    return make_source(f"folder {folder}", entries, head, config, detector)


def make_source(name: str, entries, head: HeadModel, config: SourceConfig, detector: dict | None) -> FileSource:
    """The source of some entries, after the checks that need no file to be read."""
    if config.n_views < 1 or config.draws < 1 or config.size < 32:
        raise InputError(f"{name}: n_views and draws must be at least 1 and size at least 32, got {config}.")
    entries = _all_or_none(tuple(entries))
    if config.neutral_photos and entries[0].neutral is None:
        raise InputError(f"{name}: neutral_photos needs the true face of every subject, {REGISTERED_STEM}.npz.")
    return FileSource(name, entries, head, load_detector() if detector is None else detector, config)


def existing_folder(folder) -> Path:
    """The path of a folder that exists, or an InputError."""
    if not Path(folder).expanduser().is_dir():
        raise InputError(f"{folder} is no folder; give one that exists.")
    return Path(folder).expanduser()


def _entry(folder: Path, truth: Path) -> Entry:
    photos = find_inputs(folder).files
    scan, points = find_file(folder, NEUTRAL_STEM, MESH_SUFFIXES), folder / "points7.txt"
    return Entry(
        subject=folder.name,
        photos=photos,
        landmarks=landmarks_beside(photos[0]),
        neutral=find_file(truth, REGISTERED_STEM),
        faces=tuple(find_file(truth, photo.stem) for photo in photos),
        scan=(scan, points) if scan and points.is_file() else None,
    )


def _all_or_none(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Refuses truth for some; takes the photos' faces away where there is no neutral to go with them."""
    have = [entry.neutral is not None for entry in entries]
    if any(have) and not all(have):
        missing = entries[have.index(False)]
        raise InputError(
            f"{missing.photos[0].parent}: no {REGISTERED_STEM}.npz, .ply or .obj for {missing.subject}, and "
            f"{sum(have)} of {len(have)} subjects have one; give all or none."
        )
    if not all(have):
        return tuple(dataclasses.replace(entry, faces=()) for entry in entries)
    faces = [(entry, number) for entry in entries for number in range(len(entry.photos))]
    given = [bool(entry.faces) and entry.faces[number] is not None for entry, number in faces]
    if any(given) and not all(given):
        entry, number = faces[given.index(False)]
        raise InputError(
            f"{entry.photos[number]}: no face mesh of the same name beside it, and {sum(given)} of {len(given)} photos "
            "have one; give all or none."
        )
    return entries


def choose_views(n_photos: int, n_views: int, index: int, seed: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Which photos are the views (n_views,) and their mask (n_views,): 0 where the first photo stands in.

    A pure function: the same everywhere. Chosen photos keep their order.
    """
    if n_photos <= n_views:
        chosen = np.arange(n_views) * (np.arange(n_views) < n_photos)
        return chosen, (np.arange(n_views) < n_photos).astype(np.float32)
    if seed is None:
        return np.arange(n_views), np.ones(n_views, np.float32)
    generator = np.random.default_rng((seed, index))
    return np.sort(generator.permutation(n_photos)[:n_views]), np.ones(n_views, np.float32)


def _neutral(head: HeadModel, path: Path):
    """The neutral face in the head frame and the rigid motion (P, 3) -> (P, 3) that brings its file's frame there.

    What experiments.register wrote is in the head frame; a mesh from elsewhere is laid onto the mean face.
    """
    found = read_registered(path, head)
    if path.suffix.lower() == ".npz":
        return found, lambda vertices: vertices
    mean = head.unit_mm * np.asarray(head.mean)
    move = similarity(found.vertices, mean, np.asarray(head.face_mask), with_scale=False)
    return Registered(np.asarray(move(found.vertices)), found.known), lambda vertices: np.asarray(move(vertices))


def read_scan(source: FileSource, index: int) -> tuple[Mesh, np.ndarray]:
    """The raw scan of a subject and its landmarks (L, 3), for protocols that compare surfaces.

    Raises:
      InputError: the subject has none, or a file cannot be read.
    """
    entry = source.entries[index % len(source.entries)]
    if entry.scan is None:
        raise InputError(f"{entry.photos[0].parent}: no raw scan ({NEUTRAL_STEM}.ply or .obj with points7.txt).")
    return read_mesh(entry.scan[0]), read_points(entry.scan[1])

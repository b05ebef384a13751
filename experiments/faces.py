"""Which face of each photo is the person's, and what is said about the others."""

from __future__ import annotations

import dataclasses

import numpy as np

from experiments import cli
from facerig_jax.data.people import STRANGE, People, likeness, who_is_who
from facerig_jax.data.survey import Seen
from facerig_jax.types import HeadModel

# What --face may be besides a number.
ALIKE, LARGEST = "alike", "largest"
# Names that a note lists before it only counts.
NAMED = 8


def check_face(face: str) -> None:
    """Refuses a wrong --face."""
    if face not in (ALIKE, LARGEST) and not (face.isdigit() and int(face)):
        raise cli.UserError(f"--face: {ALIKE}, {LARGEST} or a number from 1 on are allowed, got {face!r}.")


@dataclasses.dataclass(frozen=True)
class Picked:
    """What `pick_faces` found.

    number:   (N,) int, which face of each photo is the person's, -1 for none.
    usable:   (N,) bool, which photos are of the person, or show no face.
    notes:    for the user.
    doubtful: photos in which no face is certainly the person's.
    """

    number: np.ndarray
    usable: np.ndarray
    notes: list[str]
    doubtful: tuple[int, ...] = ()


def pick_faces(head: HeadModel, seen: Seen, names, face: str) -> Picked:
    """The person's faces among all that were seen, as --face wants it."""
    some = seen.found.any(1)
    number = np.where(some, seen.found.argmax(1), -1)
    if face == LARGEST:
        return Picked(number, np.ones(len(names), bool), [])
    if face != ALIKE:
        return from_the_left(seen, names, int(face))
    first, (photo, index) = number, np.nonzero(seen.found)
    odds = likeness(head, seen.landmarks[photo, index], seen.colours[photo, index])
    people = who_is_who(odds, photo, len(names))
    number = np.where(people.face >= 0, index[people.face], -1)
    out = list(people.strangers)
    notes = []
    if not people.majority and out:
        out = np.flatnonzero(some & ~people.certain).tolist()
        notes.append(
            f"These {some.sum()} pictures show several people: only {people.certain.sum()} look like one, and no more "
            f"than these are used; give photos of one person, or --face={LARGEST} to use all."
        )
    if out:
        who = listed([names[k] for k in out])
        notes.append(f"Left out, as the face is not the one of the others: {who} (--face={LARGEST} takes all).")
    usable = np.ones(len(names), bool)
    usable[out] = False
    notes += tell_of_several(seen, names, number != first, people, usable)
    notes += tell_of_doubt(odds, people, names, out)
    return Picked(number, usable, notes, tuple(np.flatnonzero(some & ~people.certain).tolist()))


def from_the_left(seen: Seen, names, which: int) -> Picked:
    """`pick_faces` by the place in the photo; photos with fewer faces are left out."""
    centre = np.where(seen.found, seen.boxes[..., 0] + seen.boxes[..., 2], np.inf)
    usable = seen.found.sum(1) >= which
    number = np.where(usable, centre.argsort(1)[:, min(which, centre.shape[1]) - 1], -1)
    out = [name for name, ok in zip(names, usable, strict=True) if not ok]
    notes = [f"Left out, as there are fewer than {which} faces: {listed(out)}."] if out else []
    return Picked(number, usable, notes)


def tell_of_several(seen: Seen, names, other, people: People, usable) -> list[str]:
    """Notes on photos that show several faces: which was taken; other (N,) bool: not the largest."""
    several = (seen.found.sum(1) > 1) & usable
    doubtful = several & (~people.certain | (seen.found.any(1).sum() == 1)) & ~other
    taken = listed([names[k] for k in np.flatnonzero(several & other)])
    unsure = listed([f"{names[k]} ({seen.found[k].sum()} faces)" for k in np.flatnonzero(doubtful)])
    ask = "--face=2 takes the second from the left, and so on."
    notes = [f"Of several faces the one most like the others' is taken, not the largest: {taken}."] if taken else []
    notes += [f"Several faces, of which the largest is taken: {unsure}; {ask}"] if unsure else []
    if people.rivals and several.any():
        notes.append(f"{people.rivals + 1} people are in as many of the photos; one of them is taken; {ask}")
    return notes


def tell_of_doubt(odds, people: People, names, out) -> list[str]:
    """A note where no two faces are alike and some differ much, so that nothing can tell who is meant."""
    shown = np.flatnonzero(people.face >= 0)
    if len(shown) < 2 or people.certain.any() or out:
        return []
    faces = people.face[shown]
    if odds[np.ix_(faces, faces)][~np.eye(len(faces), dtype=bool)].max() >= STRANGE:
        return []
    return [
        f"The faces in {listed([names[k] for k in shown])} may be those of {len(shown)} people; all are used, as "
        f"nothing tells which is meant: leave out who is not."
    ]


def listed(names) -> str:
    """Names in a row; of many, the first and how many more."""
    names = list(names)
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")

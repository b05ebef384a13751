"""Do the weights that ship make fits better? Measured where the truth is known: a network of noise must not pass.

Reprojection cannot tell: weights of zeros leave the fit to the detector's points, which then lie all the closer.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

import facerig_jax
from facerig_jax.data.photos import read_photo
from facerig_jax.data.subjects import VALIDATION_SEED
from facerig_jax.evaluate.vertex import vertex_error
from facerig_jax.synthetic.subject import HARD, make_subject

PHOTOS_FOLDER = Path(__file__).parents[1] / "docs" / "photos"
# People of a seed that no training uses, two photos each, as they come.
PEOPLE = 4
PHOTOS = dataclasses.replace(HARD, n_views=2)
# Two things have to hold of the mean true error of the neutral. The fit ends nearer the truth than the classical one:
# its error is below BAR of it. And what the network sees brings it there: after its looks, before any colours, the
# error is below LOOKS of what the landmarks alone leave. Measured: as it ships 0.585 and 0.68; with zeroed weights 0.76
# and 1.00, with shuffled ones 1.27 and 1.07 (classical 1.607 mm, landmarks alone 1.944 mm).
BAR, LOOKS = 0.8, 0.8


@pytest.fixture(scope="module")
def people():
    make = jax.jit(make_subject, static_argnames="config")
    return [make(facerig_jax.load()[1], VALIDATION_SEED, index, PHOTOS) for index in range(PEOPLE)]


def errors(people, learned, config=None) -> np.ndarray:
    """Mean true errors of the neutral, mm, (3,): after the landmarks, before the colours, at the end."""
    params, head = facerig_jax.load()
    basis, mean = np.asarray(head.identity_basis), np.asarray(head.mean)
    found = []
    for person in people:
        fit = facerig_jax.fit_rig(person.images, {**params, "learned": learned}, head, config=config)
        assert int(fit.status) == facerig_jax.Status.OK
        colours = len(fit.trace.photometric.moved)
        codes = np.asarray(fit.trace.identity)[np.array([0, -1 - colours, -1])]
        found.append(
            [TRUE_ERROR(mean + np.tensordot(code, basis, 1), person.neutral, head.face_mask) for code in codes]
        )
    return np.mean(found, 0)


TRUE_ERROR = jax.jit(vertex_error)


def passes(found: np.ndarray, classical: np.ndarray) -> bool:
    """Whether a fit with some weights is worth its network."""
    landmarks, looks, end = found
    return end < BAR * classical[-1] and looks < LOOKS * landmarks


@pytest.fixture(scope="module")
def classical(people):
    return errors(people, {}, facerig_jax.CLASSICAL)


def shipped():
    """The networks' weights, on the host."""
    return jax.tree.map(np.asarray, facerig_jax.load()[0]["learned"])


def test_the_weights_that_ship_pass(people, classical):
    found = errors(people, shipped())
    assert passes(found, classical), (found, classical)


def test_weights_a_ten_thousandth_larger_pass(people, classical):
    found = errors(people, jax.tree.map(lambda x: 1.0001 * x, shipped()))
    assert passes(found, classical), (found, classical)


@pytest.mark.parametrize("kind", ["zeroed", "shuffled"])
def test_weights_that_say_nothing_fail(people, classical, kind, rng):
    change = {"zeroed": np.zeros_like, "shuffled": lambda x: rng.permutation(x.ravel()).reshape(x.shape)}[kind]
    found = errors(people, jax.tree.map(change, shipped()))
    assert not passes(found, classical), (found, classical)


def test_photos_alone_give_the_same_bits_as_photos_with_weights_and_head(people):
    """The one-argument form is the explicit form of the default, and stays the same program."""
    short = facerig_jax.fit_rig(people[0].images)
    explicit = facerig_jax.fit_rig(people[0].images, *facerig_jax.load())
    jax.tree.map(np.testing.assert_array_equal, short, explicit)


@pytest.mark.thorough
def test_no_stage_on_three_bundled_photos_ends_where_it_began():
    """The last fit of these three was refused at every damping that was tried: 2083.08, 2083.08, 2083.08."""
    names = ("frontal", "looking_down", "mouth_open")
    images = np.stack([read_photo(PHOTOS_FOLDER / f"{name}.jpg").image for name in names])
    trace = facerig_jax.fit_rig(images, *facerig_jax.load()).trace
    for stage in (trace.landmarks, trace.correspondences, trace.photometric, trace.expression):
        assert np.all(stage.moved)
        assert not np.any(stage.stalled)
        assert np.all(stage.after <= stage.before)
    assert trace.expression.moved.shape == (3,)
    assert np.all(trace.expression.after[:, -1] < 0.9 * trace.expression.start[:, -1])

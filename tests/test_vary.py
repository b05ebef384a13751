"""What training changes in a flow network's subjects: the photo, never where its points are."""

import numpy as np

from facerig_jax.networks.flow import N_FLOW
from facerig_jax.training.objective import FlowExample
from facerig_jax.training.vary import DEVIATION, HIDE, INSIDE, MEAN, NORMAL, RESIDUAL, SEEN, mirror, vary

SIZE, VIEWS = 8, 200


def example() -> FlowExample:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(VIEWS, SIZE, SIZE, N_FLOW))
    maps[..., SEEN], maps[..., INSIDE] = 1, 1
    maps[..., MEAN], maps[..., DEVIATION] = 0.5, 0.1
    offset = rng.normal(size=(VIEWS, SIZE // 2, SIZE // 2, 2))
    known = np.broadcast_to(np.arange(SIZE // 2)[None, None] < 3, (VIEWS, SIZE // 2, SIZE // 2))
    return FlowExample(maps.astype(np.float16), offset.astype(np.float16), known)


def test_mirrored_twice_is_the_same():
    given = example()
    maps, offset, known = mirror(*mirror(given.maps[0], given.offset[0], given.known[0]))
    np.testing.assert_array_equal(maps, given.maps[0])
    np.testing.assert_array_equal(offset, given.offset[0])
    np.testing.assert_array_equal(known, given.known[0])


def test_photos_change_and_the_truth_is_at_most_mirrored():
    given = example()
    varied = vary(given, np.random.default_rng(1))
    mirrored = varied.known[:, 0, 0] == 0
    assert 0.4 < mirrored.mean() < 0.6
    for number in range(VIEWS):
        _, offset, _ = mirror(given.maps[number], given.offset[number], given.known[number])
        np.testing.assert_array_equal(varied.offset[number], offset if mirrored[number] else given.offset[number])
    straight, before = varied.maps[~mirrored], given.maps[~mirrored]
    np.testing.assert_array_equal(straight[..., INSIDE.start : NORMAL.stop], before[..., INSIDE.start : NORMAL.stop])
    hidden = np.all(varied.maps[..., RESIDUAL] == 0, (1, 2, 3))
    assert abs(hidden.mean() - HIDE) < 0.1
    assert np.abs(straight[..., :3] - before[..., :3]).max() > 0.5
    assert np.ptp(straight[..., MEAN.start]) > 0.2
    assert varied.maps.dtype == given.maps.dtype


def test_the_same_draws_give_the_same_photos():
    first, again, other = (vary(example(), np.random.default_rng(seed)).maps for seed in (2, 2, 3))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


def test_a_photo_without_a_known_face_keeps_its_colours():
    given = example()
    given = given.replace(known=np.zeros_like(given.known))
    varied = vary(given, np.random.default_rng(1))
    np.testing.assert_array_equal(varied.maps[..., MEAN.start :], given.maps[..., MEAN.start :])

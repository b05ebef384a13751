"""The flow network: what it sees does not depend on the image's roll, what it says is mm to the right and up."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.subjects import SIZE, small_head, subject

from experiments.evaluation.compare import ablation_rows
from facerig_jax.config import FitConfig, FlowConfig, as_arrays, classical_hyper
from facerig_jax.fit import pipeline
from facerig_jax.fit.correspondences import find_points, flow_maps, flow_tables
from facerig_jax.fit.landmarks import landmark_data
from facerig_jax.fit.preprocess import Crops
from facerig_jax.fit.residuals import point_pixels, point_whitening
from facerig_jax.fit.stages import fit_colours, fit_landmarks, fit_views
from facerig_jax.geometry.camera import project_to_image
from facerig_jax.head.coarse import thin
from facerig_jax.head.model import vertices
from facerig_jax.inorig.config import BASE
from facerig_jax.io.files import InputError
from facerig_jax.io.serialize import to_plain
from facerig_jax.networks.flow import whitening
from facerig_jax.networks.tree import paths
from facerig_jax.numerics import linear_to_srgb
from facerig_jax.types import Crop
from facerig_jax.weights import SCHEMA_VERSION, check_params, init_params, read_weights

FLOW = FlowConfig(uv_size=32, widths=(8, 8), place=4, passes=2, points=60)
START = FitConfig(flow=FLOW, crop_size=SIZE, photometric_steps=0, landmark_steps=3)
HYPER = as_arrays(classical_hyper())
# What the network says here: two mm to the right, one down, an error of e^0.5 mm to the right, e^-0.3 upwards, skewed.
SAYS = jnp.array([1.0, -0.5, 0.5, -0.3, 0.4])


def quiet_network() -> dict:
    """An untrained network whose last layer says the same of every texel."""
    params = init_params(jax.random.key(0), START)["flow"]
    return {**params, "out": {**params["out"], "bias": SAYS}}


def look(turned: bool):
    """The small subject's first photo, maybe turned by a quarter to the left, and the mean head posed in it."""
    made, landmarks = subject()
    image, points = np.asarray(made.images[:1], np.float32), np.asarray(landmarks[:1])
    if turned:
        image = np.rot90(image, axes=(1, 2)).copy()
        points = np.stack([points[..., 1], SIZE - 1 - points[..., 0], points[..., 2]], -1)
    image, ones = jnp.asarray(image), jnp.ones((1, SIZE, SIZE))
    crop = Crop(jnp.ones(1), jnp.zeros((1, 2)), SIZE)
    crops = Crops(
        image, linear_to_srgb(image), ones, jnp.asarray(points), jnp.ones(points.shape[:2]), jnp.ones(1), crop
    )
    return crops, *begin(small_head(), crops)


@jax.jit
def begin(head, crops):
    return pipeline.first_guess(head, crops, HYPER, START), landmark_data(head, crops, HYPER, START)


seek = jax.jit(find_points, static_argnums=6)


@jax.jit
def see(head, crops, x, landmarks):
    work = thin(head)
    photo = jnp.concatenate([crops.srgb, crops.inside[..., None]], -1)
    return flow_maps(work, photo, x, landmarks, flow_tables(work, FLOW), FLOW)[0]


@pytest.mark.parametrize("turned", [False, True])
def test_what_the_network_says_is_mm_to_the_heads_right_and_up(turned):
    crops, x, landmarks = look(turned)
    points = seek(quiet_network(), small_head(), crops, x, landmarks, HYPER, FLOW)
    posed = project_to_image(points.model.mean, x.pose[0], x.inverse_distance[0], SIZE)[:, :2]
    roll = float(x.pose[0, 2])
    assert abs(roll - (np.pi / 2 if turned else 0)) < 0.2
    right, up = np.array([np.cos(roll), -np.sin(roll)]), np.array([-np.sin(roll), -np.cos(roll)])
    wanted = posed + x.pose[0, 3] * (2 * right - up)[None]
    np.testing.assert_allclose(points.detected[0], wanted, atol=1e-3)
    np.testing.assert_allclose(points.deviation, HYPER.flow_noise)
    own = point_whitening(x, points).own[0] * HYPER.flow_noise
    for side, whitened in ((right, [np.exp(-0.5), 0.4 * np.exp(0.3)]), (up, [0, np.exp(0.3)])):
        np.testing.assert_allclose(own @ (x.pose[0, 3] * side), np.broadcast_to(whitened, (60, 2)), atol=1e-4)


def test_what_the_network_sees_does_not_depend_on_the_roll():
    straight, turned = (np.asarray(see(small_head(), *look(turned))) for turned in (False, True))
    gap = np.abs(straight - turned)
    assert np.median(gap) < 1e-4
    assert np.mean(gap > 0.05) < 0.03  # what is visible, and the crop's border, may differ by a pixel


@pytest.mark.parametrize("passes", [1, 3])
def test_every_pass_starts_from_what_the_one_before_found(passes, monkeypatch):
    """Every look finds the face 2 px further to the right than it was fitted."""
    crops, *_ = look(turned=False)
    flow = dataclasses.replace(FLOW, passes=passes)

    def further(params, head, crops, x, landmarks, hyper, config):
        fitted = landmarks.detected + point_pixels(x, landmarks, SIZE)
        return landmarks.replace(detected=fitted.at[..., 0].add(2))

    monkeypatch.setattr(pipeline, "find_points", further)

    @functools.partial(jax.jit, static_argnums=2)
    def middle(head, crops, flow):
        config = dataclasses.replace(START, landmark_steps=6, flow=flow)
        x, trace, _ = pipeline.solve({"learned": {"flow": {}}}, head, crops, HYPER, config)
        posed = vertices(head, x.identity, x.expression[0])
        return jnp.mean(project_to_image(posed, x.pose[0], x.inverse_distance[0], SIZE)[:, 0]), trace

    still, _ = middle(small_head(), crops, None)
    moved, trace = middle(small_head(), crops, flow)
    assert trace.correspondences.taken.shape == (passes, 6)
    np.testing.assert_allclose(moved - still, 2 * passes, atol=0.15 * passes)


@pytest.mark.thorough
def test_points_and_colours_keep_their_say_when_expressions_are_fitted_to_landmarks():
    """The landmarks lie 3 px beside the points: the less they count for, the nearer the face stays to the points."""
    crops, *_ = look(turned=False)
    config = dataclasses.replace(START, landmark_steps=6, max_points=200, photometric_steps=2, expression_steps=5)
    beside = crops.replace(landmarks=crops.landmarks.at[..., 0].add(3))

    @jax.jit
    def fitted(head, crops, beside, noise):
        hyper = as_arrays(classical_hyper(tracking_noise=noise, blur=(1.5,)))
        points = landmark_data(head, crops, hyper, config)
        x, _ = fit_landmarks(head, points, crops, pipeline.first_guess(head, crops, hyper, config), hyper, config)
        x, _ = fit_colours(head, points, crops, x, hyper, config, 1.5)
        end, _ = fit_views(head, points, beside, x, hyper, config)
        return x, end, jnp.mean(point_pixels(end, points, SIZE)[..., 0])

    off = []
    for noise in (1.0, 3.0, 30.0):
        x, end, moved = fitted(small_head(), crops, beside, noise)
        off.append(float(moved))
        for name in ("identity", "albedo", "light", "inverse_distance"):
            np.testing.assert_array_equal(getattr(end, name), getattr(x, name))
    assert 1.0 < off[0] < 2.0
    assert 0 < 2 * off[1] < off[0]
    assert abs(off[2]) < 0.1


def test_every_row_of_the_ablation_leaves_out_something_else():
    config = dataclasses.replace(START, photometric_steps=4, flow=dataclasses.replace(FLOW, passes=5))
    for model in (config, BASE):
        params = init_params(jax.random.key(0), model)
        rows = ablation_rows(small_head(), [("", params, model, "")])
        assert rows[0].run.args[2] == model
        made = {(row.run.args[2], str(row.run.keywords)) for row in rows}
        assert len({row.name for row in rows}) == len(made) == len(rows)
        for row in rows:
            check_params(row.run.args[0], row.run.args[2])
    with pytest.raises(InputError, match="--what=ablation needs one file"):
        ablation_rows(small_head(), [])


def test_settings_that_do_not_fit_are_refused_in_words():
    for changes, message in (
        ({"uv_size": 30}, r"flow.uv_size: a multiple of 4 is needed, got 30"),
        ({"widths": (8, 9)}, r"flow.widths: multiples of 8 are needed"),
    ):
        config = dataclasses.replace(START, flow=dataclasses.replace(FLOW, **changes))
        with pytest.raises(ValueError, match=message):
            init_params(jax.random.key(0), config)
    with pytest.raises(ValueError, match="landmarks: '86' is not one of 'dense', '68'"):
        FitConfig(landmarks="86")


def test_a_file_whose_network_says_one_error_is_read_as_one_of_two_equal_errors(tmp_path):
    params = init_params(jax.random.key(0), START)
    out = {"kernel": np.ones((3, 3, 8, 3), np.float32), "bias": np.array([1.0, -0.5, 0.5], np.float32)}
    arrays = {f"flow/{path}": np.asarray(leaf) for path, leaf in paths({**params["flow"], "out": out}).items()}
    about = {"schema_version": np.int32(SCHEMA_VERSION), "solver": "fit", "notes": "{}"}
    np.savez(tmp_path / "old.npz", config=json.dumps(to_plain(START)), **about, **arrays)
    read, config = read_weights(tmp_path / "old.npz")
    assert config == START
    np.testing.assert_array_equal(read["flow"]["out"]["bias"], [1.0, -0.5, 0.5, 0.5, 0.0])
    np.testing.assert_array_equal(read["flow"]["out"]["kernel"][..., 3], 1.0)
    np.testing.assert_array_equal(read["flow"]["out"]["kernel"][..., 4], 0.0)
    np.testing.assert_allclose(whitening(jnp.array([0.5, 0.5, 0.0])), np.exp(-0.5) * np.eye(2), rtol=1e-6)

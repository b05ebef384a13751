"""The flow network: what it sees does not depend on the image's roll, what it says is mm to the right and up."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.subjects import SIZE, small_head, subject
from helpers.tiny import FOR_SMALL_HEAD as CONFIG

from experiments.cli import UserError
from experiments.compare import ablation_rows
from facerig_jax.config import FitConfig, FlowConfig, Hyper
from facerig_jax.fit.correspondences import find_points, flow_maps, flow_tables
from facerig_jax.fit.parameters import flatten
from facerig_jax.fit.photometric import Observed, colour_data, light_level
from facerig_jax.fit.pipeline import (
    fit_colours,
    fit_energy,
    fit_expressions,
    fit_landmarks,
    initial,
    landmark_data,
    refine_colours,
    solve_classical,
)
from facerig_jax.fit.preprocess import look as look_at_photos
from facerig_jax.fit.residuals import landmark_pixels
from facerig_jax.geometry.camera import normalized_to_pose, project, to_image
from facerig_jax.head.coarse import thin
from facerig_jax.head.model import landmark_positions, vertices
from facerig_jax.networks.model import check_params, init_params
from facerig_jax.networks.weights import TRAINED, trained
from facerig_jax.numerics import linear_to_srgb
from facerig_jax.training.config import DataConfig, TrainConfig
from facerig_jax.training.examples import Examples
from facerig_jax.training.loop import first_params, make_batch, preparing_params
from facerig_jax.training.objective import (
    example_loss,
    make_example,
    make_flow_example,
    make_teacher,
    prepared_models,
)
from facerig_jax.training.train_step import init_state, make_mesh, make_update

FLOW = FlowConfig(uv_size=32, widths=(8, 8), place=4, passes=2, points=60)
START = FitConfig(crop_size=SIZE, blur=(), landmark_steps=3)
# What the network says here: two mm to the right, one down, an error of e^0.5 mm.
SAYS = jnp.array([1.0, -0.5, 0.5])


def quiet_network() -> dict:
    """An untrained network whose last layer says the same of every texel."""
    config = dataclasses.replace(CONFIG, start=START, flow=FLOW)
    params = init_params(jax.random.key(0), config)["flow"]
    return {**params, "out": {**params["out"], "bias": SAYS}}


def look(turned: bool):
    """The small subject's first photo, maybe turned by a quarter to the left, and the mean head posed in it."""
    made, landmarks = subject()
    image, points = np.asarray(made.images[:1], np.float32), np.asarray(landmarks[:1])
    if turned:
        image = np.rot90(image, axes=(1, 2)).copy()
        points = np.stack([points[..., 1], SIZE - 1 - points[..., 0], points[..., 2]], -1)
    ones = jnp.ones((1, SIZE, SIZE))
    observed = Observed(jnp.asarray(image), ones, jnp.asarray(points), jnp.ones(points.shape[:2]), jnp.ones(1))
    return observed, *begin(small_head(), observed)


@jax.jit
def begin(head, observed):
    return initial(head, observed, Hyper(), START), landmark_data(head, observed, Hyper(), START)


seek = jax.jit(find_points, static_argnums=5)


@jax.jit
def see(head, observed, x, landmarks):
    work = thin(head)
    photo = jnp.concatenate([linear_to_srgb(observed.image), observed.inside[..., None]], -1)
    return flow_maps(work, photo, x, landmarks, flow_tables(work, FLOW), FLOW)[0]


@pytest.mark.parametrize("turned", [False, True])
def test_what_the_network_says_is_mm_to_the_heads_right_and_up(turned):
    observed, x, landmarks = look(turned)
    points = seek(quiet_network(), small_head(), observed, x, landmarks, FLOW)
    posed = to_image(project(points.model.mean, x.pose[0], x.inverse_distance[0]), SIZE, SIZE)[:, :2]
    roll = float(x.pose[0, 2])
    assert abs(roll - (np.pi / 2 if turned else 0)) < 0.2
    right, up = np.array([np.cos(roll), -np.sin(roll)]), np.array([-np.sin(roll), -np.cos(roll)])
    wanted = posed + x.pose[0, 3] * (2 * right - up)[None]
    np.testing.assert_allclose(points.detected[0], wanted, atol=1e-3)
    np.testing.assert_allclose(points.weight[0], np.exp(-1), rtol=1e-5)


def test_what_the_network_sees_does_not_depend_on_the_roll():
    straight, turned = (np.asarray(see(small_head(), *look(turned))) for turned in (False, True))
    gap = np.abs(straight - turned)
    assert np.median(gap) < 1e-4
    assert np.mean(gap > 0.05) < 0.03  # what is visible, and the crop's border, may differ by a pixel


def test_the_loss_is_least_where_the_network_says_the_truth():
    model = dataclasses.replace(CONFIG, start=START, flow=FLOW, stages=1)
    model = dataclasses.replace(model, networks=dataclasses.replace(model.networks, image_size=SIZE))
    config = TrainConfig(task="flow", model=model, data=DataConfig(source="here"))
    made, landmarks = subject()
    given = jax.tree.map(np.asarray, made.replace(landmarks=landmarks))
    teacher = make_teacher(small_head(), model)
    (plain,) = prepared_models(config)
    example = jax.jit(make_example, static_argnums=2)(given, teacher, plain)
    first = example.first
    work = teacher.work
    posed = vertices(work, first.identity, first.expression)
    pose = normalized_to_pose(first.pose, work.unit_mm, SIZE)
    roll, scale = pose[:, 2:3], pose[:, 3:4]
    off = scale * jnp.concatenate([2 * jnp.cos(roll) + jnp.sin(roll), 2 * jnp.sin(roll) - jnp.cos(roll)], 1)
    true = project(posed, pose, first.inverse_distance).at[..., :2].add(off[:, None])
    example = example.replace(target=example.target.replace(projected=true))
    example = make_flow_example(example, teacher, model)
    params = {"flow": quiet_network()}
    loss, measures = example_loss(params, teacher, example, config.losses, None, config)
    np.testing.assert_allclose(measures["error"], [5**0.5, 0], atol=2e-3)
    np.testing.assert_allclose(loss, 1.0, atol=2e-3)  # 2 log b + |d| / b with b = e^0.5, d = 0


@pytest.mark.parametrize("passes", [1, 3])
def test_every_pass_starts_from_what_the_one_before_found(passes):
    """Every look finds the face 2 px further to the right than it was fitted."""
    observed, *_ = look(turned=False)
    config = dataclasses.replace(START, landmark_steps=6)

    def further(x, landmarks):
        fitted = landmarks.detected + landmark_pixels(x, landmarks, SIZE)
        return landmarks.replace(detected=fitted.at[..., 0].add(2))

    @functools.partial(jax.jit, static_argnums=2)
    def middle(head, observed, seek):
        x, trace = solve_classical(head, observed, Hyper(), config, seek, passes)
        posed = project(vertices(head, x.identity, x.expression[0]), x.pose[0], x.inverse_distance[0])
        return jnp.mean(to_image(posed, SIZE, SIZE)[:, 0]), trace

    still, _ = middle(small_head(), observed, None)
    moved, trace = middle(small_head(), observed, further)
    assert trace["point_stages"].shape == (passes, config.landmark_steps)
    np.testing.assert_allclose(moved - still, 2 * passes, atol=0.15 * passes)


def test_points_and_colours_keep_their_say_when_expressions_are_fitted_to_landmarks():
    """The landmarks lie 3 px beside the points: the less they count for, the nearer the face stays to the points."""
    observed, *_ = look(turned=False)
    config = dataclasses.replace(START, landmark_steps=6, blur=(1.5,), max_points=200, photometric_steps=2)
    beside = observed.replace(landmarks=observed.landmarks.at[..., 0].add(3))

    @jax.jit
    def fitted(head, observed, beside, noise):
        hyper = Hyper(tracking_noise=noise)
        points = landmark_data(head, observed, hyper, config)
        x, _ = fit_landmarks(head, points, observed, initial(head, observed, hyper, config), hyper, config)
        x, _ = fit_colours(head, points, observed, x, hyper, config, 1.5)
        end, _ = fit_expressions(head, points, beside, x, hyper, config)
        return x, end, jnp.mean(landmark_pixels(end, points, SIZE)[..., 0])

    off = []
    for noise in (1.0, 3.0, 30.0):
        x, end, moved = fitted(small_head(), observed, beside, noise)
        off.append(float(moved))
        for name in ("identity", "albedo", "light", "inverse_distance"):
            np.testing.assert_array_equal(getattr(end, name), getattr(x, name))
    assert 1.0 < off[0] < 2.0
    assert 0 < 2 * off[1] < off[0]
    assert abs(off[2]) < 0.1


def test_the_stages_compare_points_where_the_network_sees_them():
    model = dataclasses.replace(CONFIG, start=START, flow=FLOW, stages=1, landmarks="dense")
    model = dataclasses.replace(model, networks=dataclasses.replace(model.networks, image_size=2 * SIZE))
    made, points = subject()
    params, head = {"flow": quiet_network()}, small_head()
    usable, size, weight = jnp.ones(len(points), bool), jnp.full((len(points), 2), SIZE), jnp.ones(points.shape[:2])
    seen, first, _ = jax.jit(look_at_photos, static_argnums=6)(
        made.images, points, weight, usable, size, head, model, params
    )
    pose = normalized_to_pose(first.pose, head.unit_mm, 2 * SIZE)
    true = landmark_positions(head.landmarks_dense, vertices(head, first.identity, first.expression))
    right, up = (jnp.stack([jnp.cos(a), -jnp.sin(a)], -1) for a in (pose[:, 2], pose[:, 2] + jnp.pi / 2))
    off = pose[:, 3:4] * (2 * right - up)
    wanted = to_image(project(true, pose, first.inverse_distance), 2 * SIZE, 2 * SIZE)[..., :2] + off[:, None]
    np.testing.assert_allclose(seen.landmarks, wanted, atol=2e-3)
    np.testing.assert_allclose(first.offsets, jnp.broadcast_to(jnp.array([2, -1, 0.5]), first.offsets.shape), atol=1e-4)


def test_refining_lowers_the_energy_of_the_colours():
    observed, *_ = look(turned=False)
    config = dataclasses.replace(START, landmark_steps=6, blur=(1.5,), max_points=200, photometric_steps=1)

    @functools.partial(jax.jit, static_argnums=2)
    def refined(head, observed, n_steps):
        steps = dataclasses.replace(config, refine_steps=n_steps)
        points = landmark_data(head, observed, Hyper(), config)
        x, _ = fit_landmarks(head, points, observed, initial(head, observed, Hyper(), config), Hyper(), config)
        x, _ = fit_colours(head, points, observed, x, Hyper(), config, 1.5)
        colours = colour_data(head, observed, x, Hyper(), config, 1.5)
        energy = fit_energy(head, observed, x, light_level(colours), Hyper(), (points,), colours)
        end = refine_colours(head, points, observed, x, Hyper(), steps) if n_steps else x
        return energy.value(flatten(end), energy.reweigh(flatten(x)))

    start, some, many = (float(refined(small_head(), observed, n_steps)) for n_steps in (0, 3, 20))
    assert many < some < start


def test_it_learns_on_its_own_passes_too_once_there_is_one_to_start_from():
    model = dataclasses.replace(CONFIG, start=START, flow=dataclasses.replace(FLOW, passes=3), stages=0)
    config = TrainConfig(task="flow", model=model)
    assert [model.flow for model in prepared_models(config)] == [None]
    flows = [model.flow for model in prepared_models(dataclasses.replace(config, init="weights.npz"))]
    assert [flow and flow.passes for flow in flows] == [None, 1, 2]


def test_training_the_network_lowers_its_loss():
    model = tiny.changed(named_codes=True, pose_blocks=())
    start = FitConfig(crop_size=64, landmarks="68", landmark_steps=2)
    config = TrainConfig(task="flow", model=dataclasses.replace(model, start=start, flow=FLOW), steps=30, batch=2)
    mesh, head = make_mesh(), tiny.tiny_head()
    teacher = make_teacher(head, config.model)
    examples = Examples(tiny.TinySubjects(), teacher, config, 2)
    batch = make_batch(examples, config, 0, mesh)
    state, update, weights = init_state(config, mesh), make_update(config, 1, mesh), config.losses
    weights = jax.tree.map(jnp.float32, weights)
    losses = []
    for _ in range(config.steps):
        state, measures = update(state, teacher, batch, weights)
        losses.append(float(measures["loss"]))
    assert losses[-1] < losses[0] - 0.3
    varied = dataclasses.replace(config, data=dataclasses.replace(config.data, vary=True))
    first, again, later = (make_batch(examples, varied, step, mesh).maps for step in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert float(jnp.abs(first - batch.maps).max()) > 0.1
    assert float(jnp.abs(first - later).max()) > 0.1


def test_a_run_goes_on_from_the_network_that_ships():
    model = dataclasses.replace(CONFIG, start=FitConfig(), flow=trained()[1].flow, stages=1)
    config = TrainConfig(model=model, init=str(TRAINED))
    params = first_params(config)
    assert len(params["stages"]) == 1
    used = preparing_params(config, params)["flow"]
    assert all(np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (used, trained()[0]["flow"])), strict=True))
    assert "flow" not in preparing_params(dataclasses.replace(config, init=""), params)


def test_every_row_of_the_ablation_leaves_out_something_else():
    model = dataclasses.replace(CONFIG, start=FitConfig(), flow=dataclasses.replace(FLOW, passes=5), stages=0)
    params = init_params(jax.random.key(0), model)
    rows = ablation_rows(small_head(), [("", params, model, "")])
    assert rows[0].run.args[-1] == model
    assert len({row.name for row in rows}) == len({row.run.args[-1] for row in rows}) == len(rows)
    with pytest.raises(UserError, match="--what=ablation needs one file"):
        ablation_rows(small_head(), [("", params, dataclasses.replace(model, flow=None), "")])
    model = dataclasses.replace(model, stages=3)
    params = init_params(jax.random.key(0), model)
    rows = ablation_rows(small_head(), [("", params, model, "")])
    assert rows[0].run.args[-1] == model
    assert len({row.name for row in rows}) == len({row.run.args[-1] for row in rows}) == len(rows)
    for row in rows:
        check_params(row.run.args[0], row.run.args[-1])


def test_settings_that_do_not_fit_are_refused_in_words():
    for changes, message in (
        ({"stages": 0, "refine": 3}, "refine: it goes on with the energy of the last stage, or of start's colours"),
        ({"start": None}, "flow: it serves the classical solver's fit"),
        ({"flow": dataclasses.replace(FLOW, uv_size=30)}, r"flow.uv_size: a multiple of 4 is needed, got 30"),
        ({"flow": dataclasses.replace(FLOW, widths=(8, 9))}, r"flow.widths: multiples of 8 are needed"),
    ):
        config = dataclasses.replace(CONFIG, **{"start": START, "flow": FLOW, **changes})
        with pytest.raises(ValueError, match=message):
            init_params(jax.random.key(0), config)
    config = TrainConfig(model=dataclasses.replace(CONFIG, start=START, flow=FLOW))
    with pytest.raises(ValueError, match="init: model.flow needs the weights of a trained flow network"):
        Examples(tiny.TinySubjects(), make_teacher(small_head(), CONFIG), config, 1)
    with pytest.raises(ValueError, match="task: 'flow' trains the network that model.flow asks for"):
        Examples(tiny.TinySubjects(), None, TrainConfig(task="flow", model=CONFIG), 1)

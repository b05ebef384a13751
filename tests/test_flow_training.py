"""Training the flow network: its loss is least at the truth, it learns on its own passes, it goes on from weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from helpers.subjects import SIZE, small_head, subject

from experiments.training.config import DataConfig, TrainConfig
from experiments.training.examples import Examples
from experiments.training.loop import first_params, make_batch, preparing_params
from experiments.training.prepare import make_teacher, photos_of, target_of
from experiments.training.tasks import example_loss
from experiments.training.tasks.flow import make_flow_example, prepared_models
from experiments.training.train_step import init_state, make_mesh, make_update
from facerig_jax.config import FitConfig, FlowConfig, as_arrays, classical_hyper
from facerig_jax.fit.landmarks import landmark_data
from facerig_jax.fit.pipeline import first_guess
from facerig_jax.fit.preprocess import preprocess
from facerig_jax.fit.stages import fit_landmarks
from facerig_jax.geometry.camera import project
from facerig_jax.head.model import vertices
from facerig_jax.inorig.config import BASE
from facerig_jax.weights import TRAINED, init_params, trained

FLOW = FlowConfig(uv_size=32, widths=(8, 8), place=4, passes=2, points=60)
START = FitConfig(flow=FLOW, crop_size=SIZE, photometric_steps=0, landmark_steps=3)


@pytest.mark.thorough
def test_the_loss_is_least_where_the_network_says_the_truth():
    """The truth is put two mm to the right and one down of the fit; so does the network say, with an error of e^0.5."""
    config = TrainConfig(task="flow", model=START, data=DataConfig(source="here"))
    made, points = subject()
    given = jax.tree.map(np.asarray, made.replace(landmarks=points))
    teacher, hyper = make_teacher(small_head(), START), as_arrays(classical_hyper())

    @jax.jit
    def fitted(given, teacher):
        head = teacher.head
        crops, _, _ = preprocess({}, photos_of(given), head, SIZE, hyper.crop_margin)
        landmarks = landmark_data(head, crops, hyper, START)
        x, _ = fit_landmarks(head, landmarks, crops, first_guess(head, crops, hyper, START), hyper, START)
        return crops, x, landmarks, target_of(given, teacher, crops.crop)

    crops, x, landmarks, target = fitted(given, teacher)
    posed = vertices(teacher.work, x.identity, x.expression)
    roll, scale = x.pose[:, 2:3], x.pose[:, 3:4]
    off = scale * jnp.concatenate([2 * jnp.cos(roll) + jnp.sin(roll), 2 * jnp.sin(roll) - jnp.cos(roll)], 1)
    true = project(posed, x.pose, x.inverse_distance).at[..., :2].add(off[:, None])
    example = make_flow_example(crops, x, landmarks, target.replace(projected=true), teacher, START)
    network = init_params(jax.random.key(0), START)["flow"]
    params = {"flow": {**network, "out": {**network["out"], "bias": jnp.array([1.0, -0.5, 0.5, 0.5, 0.0])}}}
    loss, measures = example_loss(params, teacher, example, config.losses, None, config)
    np.testing.assert_allclose(measures["error"], [5**0.5, 0], atol=2e-3)
    np.testing.assert_allclose(loss, 1.0, atol=2e-3)  # 2 log b + |d| / b with b = e^0.5, d = 0


def test_it_learns_on_its_own_passes_too_once_there_is_one_to_start_from():
    config = TrainConfig(task="flow", model=dataclasses.replace(START, flow=dataclasses.replace(FLOW, passes=3)))
    assert [model.flow for model in prepared_models(config)] == [None]
    flows = [model.flow for model in prepared_models(dataclasses.replace(config, init="weights.npz"))]
    assert [flow and flow.passes for flow in flows] == [None, 1, 2]


@pytest.mark.thorough
def test_training_the_network_lowers_its_loss():
    model = FitConfig(flow=FLOW, crop_size=64, landmarks="68", landmark_steps=2)
    config = TrainConfig(task="flow", model=model, steps=30, batch=2)
    mesh, head = make_mesh(), tiny.tiny_head()
    teacher = make_teacher(head, model)
    examples = Examples(tiny.TinySubjects(), teacher, config, 2)
    batch = make_batch(examples, config, 0, mesh)
    state, update = init_state(config, mesh), make_update(config, config.stages_at(0), mesh)
    weights = jax.tree.map(jnp.float32, config.losses)
    losses = []
    for _ in range(config.steps):
        state, measures = update(state, teacher, batch, weights)
        losses.append(float(measures["loss"]))
    assert losses[-1] < losses[0] - 0.3


def test_a_run_goes_on_from_the_network_that_ships():
    config = TrainConfig(task="flow", model=FitConfig(), init=str(TRAINED))
    params = first_params(config)
    used = preparing_params(config, params)["flow"]
    for found in (params["flow"], used):
        jax.tree.map(np.testing.assert_array_equal, found, trained()[0]["flow"])
    assert "flow" not in preparing_params(dataclasses.replace(config, init=""), params)


def test_settings_without_a_network_to_train_are_refused_in_words():
    for model in (BASE, dataclasses.replace(START, flow=None)):
        with pytest.raises(ValueError, match="task: 'flow' trains the network that model.flow asks for"):
            Examples(tiny.TinySubjects(), None, TrainConfig(task="flow", model=model), 1)

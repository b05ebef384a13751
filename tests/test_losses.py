"""Training losses equal the published ones (tests/data/golden_units.npz), and are 0 where they should be."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.dome import face_model
from helpers.goldens import relative, vertex_embedding

from experiments.training import losses
from facerig_jax.geometry.camera import to_image

TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "data" / "golden_units.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def region():
    """Faces counter-clockwise seen from outside, and the face region's mask, of the goldens' head."""
    model = face_model()
    return model["tri"][:, ::-1].copy(), jnp.asarray(model["face_region_mask"], jnp.float64)


def views(golden):
    return zip(jnp.asarray(golden["loss_vert"][0]), jnp.asarray(golden["loss_gt"][0]), strict=True)


def test_depth_and_dense_losses_equal_the_published_code(golden, region):
    _, mask = region
    for view, (mesh, truth) in enumerate(views(golden)):
        aligned = losses.align(mesh, truth, mask)
        root = jnp.sum(jnp.linalg.norm(aligned - truth, axis=-1) * mask) / mask.sum()
        assert relative(losses.depth_loss(mesh, truth, mask), golden["loss_depth"][0, view]) < TOLERANCE
        assert relative(losses.dense_loss(aligned, truth, mask), golden["loss_dense"][0, view]) < TOLERANCE
        assert relative(root, golden["loss_dense_root"][0, view]) < TOLERANCE


def test_normal_loss_equals_the_published_code(golden, region):
    faces, mask = region
    for view, (mesh, truth) in enumerate(views(golden)):
        normals = jnp.asarray(golden["loss_gt_normal"][0, view])
        value = losses.normal_loss(losses.align(mesh, truth, mask), normals, faces, mask)
        assert relative(value, golden["loss_normal"][0, view]) < TOLERANCE


def test_edge_loss_equals_the_published_code(golden, region):
    faces, mask = region
    edges = losses.mesh_edges(faces)
    value = np.mean([losses.edge_loss(mesh, truth, edges, mask) for mesh, truth in views(golden)])
    assert relative(value, golden["loss_edge"]) < TOLERANCE


def test_landmark_loss_equals_the_published_code(golden):
    model = face_model()
    embedding = vertex_embedding(model["kpt_ind"])
    loss, value = jax.jit(losses.landmark68_loss), []
    for view, (mesh, _) in enumerate(views(golden)):
        seen, face = (jnp.asarray(golden[key][0, view, 0]) for key in ("land_full_mask", "land_face_mask"))
        detected = jnp.asarray(golden["land_kpts"][0, view])
        value.append(loss(to_image(mesh, 256, 256), seen, face, detected, embedding))
    assert relative(np.mean(value), golden["loss_land"]) < TOLERANCE


def test_losses_are_zero_for_what_they_ignore(golden, region):
    faces, mask = region
    truth = jnp.asarray(golden["loss_gt"][0, 0])
    moved = 1.3 * truth @ jnp.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]) + 7.0
    aligned = losses.align(moved, truth, mask)
    normals = losses.vertex_normals(truth, jnp.asarray(faces))
    assert float(losses.depth_loss(truth + jnp.array([[0.0, 0.0, 9.0]]), truth, mask)) < 1e-18
    assert float(losses.dense_loss(aligned, truth, mask)) < 1e-18
    assert float(losses.normal_loss(aligned, 3.0 * normals, jnp.asarray(faces), mask)) < 1e-12
    assert float(losses.edge_loss(moved / 1.3, truth, losses.mesh_edges(faces), mask)) < 1e-5

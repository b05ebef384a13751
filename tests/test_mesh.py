"""Vertex normals, the visibility rule and the UV tables."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import dome
from helpers import raster_reference as reference
from helpers.blobs import sphere, sphere_in_image
from jax.test_util import check_grads

from facerig_jax.geometry.mesh import triangle_normals, vertex_normals
from facerig_jax.geometry.sampling import bilinear
from facerig_jax.raster.uv import UVTable, uv_table, uv_to_vertex, vertex_to_uv
from facerig_jax.raster.visibility import depth_map, visible

DATA = pathlib.Path(__file__).parent / "data"


def test_normals_of_a_sphere_point_outwards():
    vertices, faces = sphere()
    normals = vertex_normals(jnp.asarray(vertices, jnp.float32), faces)
    assert float(jnp.sum(normals * vertices, -1).min()) > 0.99
    np.testing.assert_allclose(jnp.linalg.norm(normals, axis=-1), 1, atol=1e-6)


def test_normals_agree_with_a_loop_over_triangles_and_batch():
    vertices, faces = sphere()
    vertices = vertices + np.random.default_rng(0).normal(0, 0.2, (2, 3, *vertices.shape))
    with jax.enable_x64(True):
        normals = vertex_normals(jnp.asarray(vertices), faces)
        expected = np.zeros_like(vertices[1, 2])
        for a, b, c in faces:
            v = vertices[1, 2]
            expected[[a, b, c]] += np.cross(v[b] - v[a], v[c] - v[a])
        expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
        np.testing.assert_allclose(normals[1, 2], expected, atol=1e-12)
        assert triangle_normals(jnp.asarray(vertices), faces).shape == (2, 3, len(faces), 3)


def test_normals_have_exact_derivatives_and_none_where_there_is_no_area():
    with jax.enable_x64(True):
        vertices, faces = sphere(4, 5)
        check_grads(lambda v: vertex_normals(v, faces), (jnp.asarray(vertices),), order=1, modes=("fwd", "rev"))
    flat = jnp.zeros((3, 3))
    face = jnp.array([[0, 1, 2]])
    assert not vertex_normals(flat, face).any()
    assert not jax.grad(lambda v: vertex_normals(v, face).sum())(flat).any()


def test_normals_refuse_other_shapes():
    with pytest.raises(ValueError, match="vertices: expected shape"):
        vertex_normals(jnp.zeros((4, 2)), jnp.zeros((1, 3), jnp.int32))


@jax.jit
def visible_64(vertices_img, faces):
    return visible(vertices_img, faces, 64)


def test_the_near_half_of_a_sphere_is_visible():
    vertices, faces = sphere_in_image(64, 25.0)
    seen = np.asarray(visible_64(jnp.asarray(vertices[None], jnp.float32), faces))[0]
    z = vertices[:, 2]
    assert seen[z > 2].all()
    assert not seen[z < -12].any()  # nearer the outline, samples mix with the background and vertices behind it pass
    inside_out = np.asarray(visible_64(jnp.asarray(vertices[None], jnp.float32), faces[:, ::-1]))[0]
    assert inside_out[z < -12].all()  # only the far side faces the camera now, and nothing hides it


def test_a_sphere_in_front_hides_what_lies_behind_it_in_its_own_view_only():
    near, faces = sphere_in_image(64, 12.0, (31.5, 31.5, 40))
    far, _ = sphere_in_image(64, 6.0, (31.5, 31.5, 0))
    aside = far - [25.0, 0, 0]
    views = np.stack([np.concatenate([near, far]), np.concatenate([near, aside])])
    both = np.concatenate([faces, faces + len(near)])
    seen = np.asarray(visible_64(jnp.asarray(views, jnp.float32), both))[:, len(near) :]
    assert not seen[0].any()
    assert 0.4 < seen[1].mean() < 0.85


def folded_sheet(seed, n=9):
    """A sheet folded over itself in depth, on the 1/256 px grid, partly outside the 64 x 64 image."""
    rng = np.random.default_rng(seed)
    v, u = np.meshgrid(np.linspace(-6, 70, n), np.linspace(-6, 70, n), indexing="ij")
    fold = 10 * np.sin(u / 7 + rng.uniform(0, 6)) + 8 * np.cos(v / 5 + rng.uniform(0, 6))
    points = np.stack([u + fold, v + fold[:, ::-1], 20 * np.sin(u / 9 + v / 11)], -1) + rng.normal(0, 2, (n, n, 3))
    index = np.arange(n * n).reshape(n, n)
    a, b, c, d = (i.reshape(-1) for i in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    faces = np.concatenate([np.stack([a, c, b], -1), np.stack([b, c, d], -1)]).astype(np.int32)
    return np.round(points.reshape(-1, 3) * 256) / 256, faces


def brute_force_visible(points, faces, size):
    """The rule in float64: (P,) visible, and (P,) margin to the decision in pixels."""
    layers = reference.layers(points * [1, 1, -1 / 1000], faces, size, size, "back")
    surface = np.where(np.isfinite(layers.min(0)), -1000 * layers.min(0), -200.0)
    padded = np.pad(surface, 80)  # zero outside the image
    u, v = points[:, 0] + 80, points[:, 1] + 80
    u0, v0 = np.floor(u).astype(int), np.floor(v).astype(int)
    du, dv = u - u0, v - v0
    top = padded[v0, u0] * (1 - du) + padded[v0, u0 + 1] * du
    bottom = padded[v0 + 1, u0] * (1 - du) + padded[v0 + 1, u0 + 1] * du
    margin = points[:, 2] - (top * (1 - dv) + bottom * dv - 1)
    return margin > 0, np.abs(margin)


def test_visibility_agrees_with_brute_force_on_folded_sheets():
    sheets = [folded_sheet(seed) for seed in range(6)]
    faces = sheets[0][1]
    seen = np.asarray(visible_64(jnp.asarray(np.stack([points for points, _ in sheets]), jnp.float32), faces))
    for (points, _), got in zip(sheets, seen, strict=True):
        expected, margin = brute_force_visible(points, faces, 64)
        assert 0.1 < expected.mean() < 0.9
        np.testing.assert_array_equal(got[margin > 1e-3], expected[margin > 1e-3])


def test_visibility_has_no_gradient_and_survives_vertices_that_are_not_finite():
    vertices, faces = sphere_in_image(64, 25.0)
    broken = np.array(vertices[None], np.float32)
    broken[0, 5] = np.nan
    seen = np.asarray(visible_64(broken, faces))[0]
    assert not seen[5]
    assert seen[vertices[:, 2] > 15].mean() > 0.9
    gradient = jax.grad(lambda v: jnp.where(visible_64(v, faces), v[..., 2], 0).sum())(
        jnp.asarray(vertices[None], jnp.float32)
    )
    assert set(np.unique(gradient[..., :2])) == {0.0}


def test_the_depth_map_is_the_sphere_and_the_background_minus_200():
    vertices, faces = sphere_in_image(64, 25.0)
    depth = np.asarray(depth_map(jnp.asarray(vertices[None], jnp.float32), faces, 64, 64))[0]
    assert depth[0, 0] == -200
    assert 24 < depth[31, 31] <= 25


@pytest.mark.parametrize("size", [32, 64, 128])
def test_uv_tables_agree_with_the_golden(size):
    golden = np.load(DATA / "golden_v2.npz", allow_pickle=False)
    vertices, weights = golden[f"uv_table_{size}_vertex"], golden[f"uv_table_{size}_weight"]
    model = dome.face_model()
    with jax.enable_x64(True):
        uv = jnp.asarray(model["uv"])
        table = uv_table(uv, model["tri"][:, ::-1], size)
        np.testing.assert_array_equal(table.covered, np.abs(weights).sum(-1) > 0)
        golden_table = UVTable(jnp.asarray(vertices), jnp.asarray(weights))
        np.testing.assert_allclose(vertex_to_uv(uv, table), vertex_to_uv(uv, golden_table), atol=1e-12)
        outside = ~np.asarray(table.covered)
        np.testing.assert_array_equal(np.sort(table.vertices[outside]), np.sort(vertices[outside]))


def test_a_texel_shows_the_uv_it_sits_at_and_vertices_read_it_back():
    model, size = dome.face_model(), 32
    uv = jnp.asarray(model["uv"], jnp.float32)
    table = uv_table(uv, model["tri"], size)
    texture = np.asarray(vertex_to_uv(uv, table))
    rows, columns = np.nonzero(table.covered)
    expected = np.stack([columns / (size - 1), 1 - rows / (size - 1)], -1)
    np.testing.assert_allclose(texture[rows, columns], expected, atol=1e-5)
    grid = np.stack(np.meshgrid(np.arange(size) / (size - 1), 1 - np.arange(size) / (size - 1)), -1)
    np.testing.assert_allclose(uv_to_vertex(jnp.asarray(grid, jnp.float32), uv), uv, atol=1e-5)


def test_a_uv_layout_that_fills_the_square_covers_every_inner_texel():
    uv = jnp.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
    table = uv_table(uv, jnp.array([[0, 1, 2], [1, 3, 2]]), 16)
    assert np.asarray(table.covered)[:-1, :-1].all()
    assert bilinear(jnp.ones((4, 4, 1)), jnp.array([[3.0, 3.0]]))[0, 0] == 1

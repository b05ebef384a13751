"""The rasterizer is exact, keeps its contract in odd geometry, and composes with every transformation of JAX."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import raster_reference as reference
from jax.test_util import check_grads

from facerig_jax.geometry import raster_jax
from facerig_jax.geometry.rasterize import (
    DEPTH_RANGE,
    barycentrics,
    get_rasterizer,
    image_to_clip,
    interpolate,
    rasterize,
    triangle_ids,
)

H, W, F = 32, 64, 24
SOUP = np.arange(3 * F, dtype=np.int32).reshape(F, 3)  # triangles that share no vertex: one program for most tests


@functools.partial(jax.jit, static_argnames="cull")
def soup_ids(clip, cull="none"):
    return triangle_ids(clip[None], SOUP, H, W, cull)[0]


def soup(points):
    """(P, 3) pixels and depth -> (3F, 4) clip space, filled up with triangles nobody sees."""
    points = np.concatenate([points, np.full((3 * F - len(points), 3), [-500.0, -500.0, 0.0])])
    return points, reference.to_clip(points, H, W)


def on_grid(points):
    return np.round(np.asarray(points, np.float64) * [256, 256, 1]) / [256, 256, 1]


def random_points(kind, seed):
    rng = np.random.default_rng(seed)
    centre = np.repeat(rng.uniform([-8, -8, -1], [W + 8, H + 8, 1], (F, 3)), 3, 0)
    extent = {"small": 2, "medium": 20, "large": 300, "sliver": 30, "whole pixels": 15, "degenerate": 10}[kind]
    points = centre + rng.uniform(-1, 1, (3 * F, 3)) * [extent, extent, 0.2]
    if kind == "sliver":
        points[1::3] = points[::3] + (points[2::3] - points[::3]) * 0.6 + rng.uniform(-0.05, 0.05, (F, 3))
    if kind == "whole pixels":
        points = np.round(points * [1, 1, 100]) / [1, 1, 100]
    if kind == "degenerate":
        points[1::6], points[2::6] = points[::6], (points[::6] + points[2::6]) / 2
    return on_grid(points)


@pytest.mark.parametrize("cull", ["none", "back", "front"])
@pytest.mark.parametrize("kind", ["small", "medium", "large", "sliver", "whole pixels", "degenerate"])
def test_agrees_with_an_exhaustive_reference(kind, cull):
    for seed in range(5):
        points, clip = soup(random_points(kind, seed))
        expected, clear = reference.nearest(reference.layers(points, SOUP, H, W, cull))
        ids = np.asarray(soup_ids(clip, cull))
        np.testing.assert_array_equal(ids > 0, expected > 0)
        np.testing.assert_array_equal(ids[clear], expected[clear])


def grid_mesh(columns, rows, seed, step=4):
    """A sheet of triangles over part of the image, its vertices moved about on whole pixels."""
    rng = np.random.default_rng(seed)
    v, u = np.meshgrid(np.arange(rows) * step + 3, np.arange(columns) * step + 5, indexing="ij")
    inner = np.zeros((rows, columns, 1))
    inner[1:-1, 1:-1] = 1
    points = np.stack([u, v], -1) + inner * rng.integers(-1, 2, (rows, columns, 2))
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (i.reshape(-1) for i in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    faces = np.concatenate([np.stack([a, c, b], -1), np.stack([b, c, d], -1)]).astype(np.int32)
    return np.concatenate([points.reshape(-1, 2), np.zeros((rows * columns, 1))], -1), faces


def test_pixels_on_shared_edges_and_vertices_have_exactly_one_owner():
    points, faces = grid_mesh(12, 6, 0)
    clip = reference.to_clip(points, H, W)
    alone = jax.jit(jax.vmap(lambda face: triangle_ids(clip[None], face[None], H, W)[0]))(faces)  # faces are batched
    owners = np.asarray(alone > 0).sum(0)
    expected = np.zeros((H, W), int)
    expected[3:23, 5:49] = 1  # the outline's right and bottom edges belong to the neighbours that are not there
    np.testing.assert_array_equal(owners, expected)


def test_the_lowest_id_wins_ties():
    one = np.array([[2.0, 2, 0.25], [4, 30, 0.25], [60, 11, 0.25]])
    points, clip = soup(np.tile(one, (F, 1)))
    ids = np.asarray(soup_ids(clip))
    assert set(np.unique(ids)) == {0, 1}


def test_depth_outside_the_range_is_cut():
    points, clip = soup(np.array([[-100.0, -100, -3], [-100, 300, -3], [300, 16, 3]]))
    ids = np.asarray(soup_ids(clip))
    expected, _ = reference.nearest(reference.layers(points, SOUP, H, W))
    np.testing.assert_array_equal(ids, expected)
    assert 0 < (ids > 0).sum() < H * W


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("component", range(4))
def test_a_vertex_that_is_not_finite_drops_only_its_own_triangle(bad, component):
    points, clip = soup(random_points("medium", 7))
    clip[4, component] = bad
    ids = np.asarray(soup_ids(clip))
    points[4] = np.nan
    expected, clear = reference.nearest(reference.layers(points, SOUP, H, W))
    np.testing.assert_array_equal(ids > 0, expected > 0)
    np.testing.assert_array_equal(ids[clear], expected[clear])


@pytest.mark.parametrize("size", [1e3, 1e4, 1e6, 1e12])
def test_a_huge_triangle_covers_the_image_and_hides_what_lies_behind(size):
    points, clip = soup(np.array([[-size, -size, 0.5], [-size, 3 * size, 0.5], [3 * size, -size, 0.5]] * 2))
    points, clip = points.astype(np.float32), np.array(clip)
    clip[3:6, 2] = 0.25  # the second one is nearer
    assert (np.asarray(soup_ids(clip)) == 2).all()
    assert (np.asarray(soup_ids(clip, cull="front")) == 0).all()


@pytest.mark.parametrize("cull", ["none", "back", "front"])
def test_triangles_through_the_camera_plane_agree_with_float64_ray_casting(cull):
    rng = np.random.default_rng(3)
    for _ in range(5):
        clip = np.concatenate([rng.uniform(-3, 3, (3 * F, 2)), rng.uniform(-1, 1, (3 * F, 1)), np.ones((3 * F, 1))], -1)
        clip[:, 3] = rng.uniform(-2, 3, 3 * F)
        clip = clip.astype(np.float32)
        expected, clear = ray_cast(clip.astype(np.float64), cull)
        ids = np.asarray(soup_ids(clip, cull))
        assert clear.mean() > 0.6
        np.testing.assert_array_equal(ids[clear], expected[clear])
    behind = np.tile(np.array([0.1, 0.2, 0.0, -1.0], np.float32), (3 * F, 1)) * rng.uniform(1, 2, (3 * F, 1))
    assert not np.asarray(soup_ids(behind.astype(np.float32), cull)).any()


def ray_cast(clip, cull):
    """ids by solving for each pixel's point of each triangle in clip space; and pixels far from any edge or tie."""
    column, row = (2 * np.arange(W) + 1) / W - 1, 1 - (2 * np.arange(H) + 1) / H
    y, x = np.meshgrid(row, column, indexing="ij")
    depth, clear = np.full((F, H, W), np.inf), np.ones((H, W), bool)
    for layer, face in zip(depth, SOUP, strict=True):
        corners = clip[face]
        seen = corners[:, [0, 1, 3]].T  # weights -> (x, y, w)
        if abs(np.linalg.det(seen)) < 1e-6:
            clear &= False
            continue
        if cull != "none" and (np.linalg.det(seen) > 0) != (cull == "back"):
            continue
        weights = np.einsum("ij,jhw->ihw", np.linalg.inv(seen), np.stack([x, y, np.ones_like(x)]))  # per unit of 1 / w
        z = np.einsum("i,ihw->hw", corners[:, 2], weights)
        inside = (weights >= 0).all(0) & (np.abs(z) <= 1)
        slope = np.abs(np.linalg.inv(seen)).sum(1)[:, None, None]
        clear &= (np.abs(weights) > 0.002 * slope).all(0) & (np.abs(np.abs(z) - 1) > 1e-2)
        layer[inside] = z[inside]
    ids, apart = reference.nearest(depth)
    return ids, clear & apart


def test_many_tiles_are_drawn_in_several_rounds(monkeypatch):
    points, clip = soup(random_points("large", 1))
    expected = np.asarray(soup_ids(clip))
    monkeypatch.setattr(raster_jax, "_MAX_TILES", H * W // 4)
    ids = jax.jit(lambda clip: raster_jax.triangle_ids(clip[None], SOUP, H, W)[0])(clip)
    np.testing.assert_array_equal(ids, expected)


def test_one_compilation_serves_all_meshes_of_a_shape():
    soup_ids(soup(random_points("small", 0))[1])
    before = soup_ids._cache_size()
    soup_ids(soup(random_points("large", 1))[1])
    assert soup_ids._cache_size() == before


def test_vmap_at_any_depth_equals_a_loop():
    clip = np.stack([soup(random_points("medium", seed))[1] for seed in range(4)]).reshape(2, 2, 3 * F, 4)
    clip[1, 0, 5] = np.nan
    clip[1, 1, 7, 3] = -0.5
    one = functools.partial(rasterize, faces=SOUP, height=H, width=W)
    nested = jax.jit(jax.vmap(jax.vmap(one)))(clip)
    for i in range(2):
        for j in range(2):
            np.testing.assert_array_equal(nested.ids[i, j], soup_ids(clip[i, j]))
    assert jnp.isfinite(nested.b0).all()


def test_drawing_a_batch_in_one_loop_equals_one_by_one():
    clip = np.stack([soup(random_points("medium", seed))[1] for seed in range(4)])
    clip[1, 5], clip[2, 7, 3] = np.nan, -0.5
    together = jax.jit(raster_jax._draw_images, static_argnums=(2, 3, 4))(clip, SOUP, H, W, "none")  # off the CPU
    np.testing.assert_array_equal(together, triangle_ids(clip, SOUP, H, W))
    np.testing.assert_array_equal(together[3], soup_ids(clip[3]))


def image_loss(clip, attributes):
    image = interpolate(attributes, rasterize(clip, SOUP, H, W), SOUP)
    return jnp.sum(image**2)


def test_gradients_agree_through_jit_vmap_scan_and_checkpoint():
    clip = jnp.stack([soup(random_points("medium", seed))[1] for seed in range(3)])
    attributes = jnp.asarray(np.random.default_rng(0).random((3 * F, 3)), jnp.float32)
    gradient = jax.jit(jax.grad(image_loss))
    loop = jnp.stack([gradient(one, attributes) for one in clip])

    def total(clip):
        step = jax.checkpoint(lambda sum_, one: (sum_ + image_loss(one, attributes), None))
        return jax.lax.scan(step, 0.0, clip)[0]

    scanned = jax.jit(jax.grad(total))(clip)
    mapped = jax.jit(jax.vmap(jax.grad(image_loss), (0, None)))(clip, attributes)
    assert float(jnp.abs(loop).max()) > 0.1
    np.testing.assert_allclose(scanned, loop, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(mapped, loop, rtol=1e-4, atol=1e-4)


def test_a_vertex_that_is_not_finite_leaves_the_gradient_finite():
    clip = np.array(soup(random_points("medium", 2))[1])
    clip[4] = np.nan
    gradient = jax.jit(jax.grad(image_loss))(clip, jnp.ones((3 * F, 3)))
    assert jnp.isfinite(gradient).all()


def test_derivatives_of_weights_and_depth_agree_with_finite_differences():
    rng = np.random.default_rng(5)
    with jax.enable_x64(True):
        corners = np.array([[-0.8, -0.7, 0.1, 1.0], [0.9, -0.6, -0.3, 1.0], [0.1, 0.9, 0.4, 1.0], [0.5, 0.5, 0.8, 1.0]])
        clip = jnp.asarray(corners * rng.uniform(0.5, 2, (4, 1)))  # perspective: w differs
        faces = jnp.array([[0, 1, 2], [1, 3, 2]])
        attributes = jnp.asarray(rng.standard_normal((4, 2)))
        ids = rasterize(clip, faces, 6, 8).ids
        assert set(np.unique(ids)) == {0, 1, 2}

        def values(clip, attributes):
            fragments = barycentrics(clip, faces, ids)
            return fragments.b0, fragments.b1, fragments.depth, interpolate(attributes, fragments, faces)

        check_grads(values, (clip, attributes), order=1, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)


def test_interpolation_is_perspective_correct():
    rng = np.random.default_rng(6)
    world = rng.uniform(-1, 1, (3, 4)) * [2, 2, 0.5, 0] + [0, 0, 0, 2.0]
    world[:, 3] += rng.uniform(-0.5, 0.5, 3)
    clip = jnp.asarray(world, jnp.float32)
    faces = jnp.array([[0, 1, 2]])
    fragments = rasterize(clip, faces, H, W)
    image = np.asarray(interpolate(clip, fragments, faces))  # the clip coordinates themselves are linear in the world
    hit = np.asarray(fragments.ids) > 0
    assert hit.sum() > 50
    rows, columns = np.nonzero(hit)
    np.testing.assert_allclose(image[hit][:, 0] / image[hit][:, 3], (2 * columns + 1) / W - 1, atol=2e-5)
    np.testing.assert_allclose(image[hit][:, 1] / image[hit][:, 3], 1 - (2 * rows + 1) / H, atol=2e-5)
    np.testing.assert_allclose(np.asarray(fragments.depth)[hit], image[hit][:, 2] / image[hit][:, 3], atol=1e-5)
    assert not image[~hit].any()


def test_image_frame_puts_pixel_centres_at_integers_and_the_nearest_at_the_largest_z():
    points = np.array([[10.0, 4, 30], [10, 20, 30], [40, 4, 30], [9, 3, -50], [9, 30, -50], [60, 3, -50]])
    faces = np.array([[0, 1, 2], [3, 4, 5]], np.int32)
    fragments = rasterize(image_to_clip(jnp.asarray(points, jnp.float32), H, W), faces, H, W, cull="back")
    ids = np.asarray(fragments.ids)
    assert ids[4, 10] == 1  # counter-clockwise on the picture: front; the near triangle hides the far one
    assert ids[3, 9] == 2
    np.testing.assert_allclose(np.asarray(-DEPTH_RANGE * fragments.depth)[ids == 1], 30, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(-DEPTH_RANGE * fragments.depth)[ids == 2], -50, rtol=1e-6)
    position = interpolate(jnp.asarray(points, jnp.float32), fragments, faces)
    rows, columns = np.nonzero(ids)
    np.testing.assert_allclose(position[rows, columns, :2], np.stack([columns, rows], -1), atol=1e-4)


def test_what_is_not_allowed_is_refused_in_words():
    clip, faces = jnp.zeros((3, 4)), jnp.array([[0, 1, 2]])
    assert get_rasterizer("auto") is get_rasterizer("jax")
    with pytest.raises(ValueError, match="'jay' is not one of 'auto', 'jax'. Did you mean 'jax'"):
        get_rasterizer("jay")
    with pytest.raises(ValueError, match="cull: 'backs' is not one of"):
        rasterize(clip, faces, 8, 8, cull="backs")
    with pytest.raises(ValueError, match="vertices_clip: expected shape"):
        rasterize(clip[:, :3], faces, 8, 8)
    with pytest.raises(ValueError, match="at least one triangle"):
        rasterize(clip, faces[:0], 8, 8)
    with pytest.raises(ValueError, match="expected 1 to 8192 pixels, got 8 x 10000"):
        rasterize(clip, faces, 8, 10000)

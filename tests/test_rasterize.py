"""Every rasterizer backend is exact, keeps the contract in odd geometry, and composes with JAX's transformations."""

import contextlib
import dataclasses
import functools
import importlib.util
import os
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import raster_reference as reference
from jax.test_util import check_grads

from facerig_jax.raster import jax_backend as raster_jax
from facerig_jax.raster.rasterize import (
    DEPTH_RANGE,
    barycentrics,
    get_rasterizer,
    image_to_clip,
    interpolate,
    rasterize,
    triangle_ids,
)

os.environ.setdefault("WARP_CACHE_PATH", str(Path(__file__).parents[1] / ".cache" / "warp"))  # read when Warp starts

H, W, F = 32, 64, 24
SOUP = np.arange(3 * F, dtype=np.int32).reshape(F, 3)  # triangles that share no vertex: one program for most tests


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_kept_on_disk():
    """jaxlib 0.10.2 crashed once (segmentation fault) writing one of these programs to the compilation cache."""
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9)
    yield
    jax.config.update("jax_persistent_cache_min_compile_time_secs", before)


@dataclasses.dataclass(frozen=True)
class Backend:
    """A rasterizer where it runs.

    name:      what get_rasterizer calls it.
    platform:  JAX's name of the platform, None = the default one.
    subpixels: its snapping grid. At 256 per pixel, the tests' own, coverage must agree everywhere; a coarser one is
               given points on its grid, and pixels are compared where moving the picture by one step changes nothing.
    """

    name: str
    platform: str | None
    subpixels: int = 256

    @property
    def exact(self):
        return self.subpixels == 256


BACKENDS = {
    "jax": Backend("jax", None),
    "warp-cpu": Backend("warp", "cpu"),
    "warp-cuda": Backend("warp", "cuda"),
    "nvdiffrast": Backend("nvdiffrast", "cuda", 16),
}


@pytest.fixture(params=BACKENDS)
def backend(request):
    backend = BACKENDS[request.param]
    try:
        device = jax.devices(backend.platform)[0]
    except RuntimeError:
        pytest.skip(f"JAX has no {backend.platform} device here")
    if backend.name == "nvdiffrast":
        pytest.importorskip("nvdiffrast.torch", reason="nvdiffrast is installed by hand, and is not here")
    with jax.default_device(device):
        yield backend


@functools.partial(jax.jit, static_argnames=("cull", "rasterizer"))
def soup_ids(clip, cull="none", rasterizer="auto"):
    return triangle_ids(clip[None], SOUP, H, W, cull, rasterizer)[0]


def soup(points):
    """(P, 3) pixels and depth -> (3F, 4) clip space, filled up with triangles nobody sees."""
    points = np.concatenate([points, np.full((3 * F - len(points), 3), [-500.0, -500.0, 0.0])])
    return points, reference.to_clip(points, H, W)


def on_grid(points, subpixels=256):
    steps = [subpixels, subpixels, 1]
    return np.round(np.asarray(points, np.float64) * steps) / steps


def assert_sees(ids, points, cull, backend):
    """The ids are the reference's: coverage wherever the backend is exact, the winner wherever there is a clear one."""
    expected, clear = reference.nearest(reference.layers(points, SOUP, H, W, cull))
    settled = np.ones_like(clear)
    for shift in () if backend.exact else np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]]) / backend.subpixels:
        settled &= expected == reference.nearest(reference.layers(points + shift, SOUP, H, W, cull))[0]
    np.testing.assert_array_equal(ids[settled] > 0, expected[settled] > 0)
    np.testing.assert_array_equal(ids[settled & clear], expected[settled & clear])


def random_points(kind, seed, subpixels=256):
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
    return on_grid(points, subpixels)


@pytest.mark.parametrize("cull", ["none", "back", "front"])
@pytest.mark.parametrize("kind", ["small", "medium", "large", "sliver", "whole pixels", "degenerate"])
def test_agrees_with_an_exhaustive_reference(backend, kind, cull):
    for seed in range(5):
        points, clip = soup(random_points(kind, seed, backend.subpixels))
        assert_sees(np.asarray(soup_ids(clip, cull, backend.name)), points, cull, backend)


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


def test_pixels_on_shared_edges_and_vertices_have_exactly_one_owner(backend):
    points, faces = grid_mesh(12, 6, 0)
    clip = reference.to_clip(points, H, W)

    @jax.jit
    @jax.vmap  # over the faces
    def alone(face):
        return triangle_ids(clip[None], face[None], H, W, rasterizer=backend.name)[0]

    owners = np.asarray(alone(faces) > 0).sum(0)
    expected = np.zeros((H, W), int)
    expected[3:23, 5:49] = 1  # the outline's right and bottom edges belong to the neighbours that are not there
    if not backend.exact:  # another rule may give the outline's pixels to others
        outline = np.s_[[3, 23], 5:50], np.s_[3:24, [5, 49]]
        assert max(owners[pixels].max() for pixels in outline) <= 1
        for pixels in outline:
            owners[pixels] = expected[pixels] = 0
    np.testing.assert_array_equal(owners, expected)


def test_the_lowest_id_wins_ties(backend):
    if backend.name == "nvdiffrast":
        pytest.skip("nvdiffrast leaves ties open")
    one = np.array([[2.0, 2, 0.25], [4, 30, 0.25], [60, 11, 0.25]])
    points, clip = soup(np.tile(one, (F, 1)))
    ids = np.asarray(soup_ids(clip, "none", backend.name))
    assert set(np.unique(ids)) == {0, 1}


def test_depth_outside_the_range_is_cut(backend):
    points, clip = soup(np.array([[-100.0, -100, -3], [-100, 300, -3], [300, 16, 3]]))
    ids = np.asarray(soup_ids(clip, "none", backend.name))
    assert_sees(ids, points, "none", backend)
    assert 0 < (ids > 0).sum() < H * W


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("component", range(4))
def test_a_vertex_that_is_not_finite_drops_only_its_own_triangle(backend, bad, component):
    points, clip = soup(random_points("medium", 7, backend.subpixels))
    clip[4, component] = bad
    points[4] = np.nan
    assert_sees(np.asarray(soup_ids(clip, "none", backend.name)), points, "none", backend)


@pytest.mark.parametrize("size", [1e3, 1e4, 1e6, 1e12])
def test_a_huge_triangle_covers_the_image_and_hides_what_lies_behind(backend, size):
    points, clip = soup(np.array([[-size, -size, 0.5], [-size, 3 * size, 0.5], [3 * size, -size, 0.5]] * 2))
    points, clip = points.astype(np.float32), np.array(clip)
    clip[3:6, 2] = 0.25  # the second one is nearer
    assert (np.asarray(soup_ids(clip, "none", backend.name)) == 2).all()
    assert (np.asarray(soup_ids(clip, "front", backend.name)) == 0).all()


@pytest.mark.parametrize("cull", ["none", "back", "front"])
def test_triangles_through_the_camera_plane_agree_with_float64_ray_casting(backend, cull):
    rng = np.random.default_rng(3)
    for _ in range(5):
        clip = np.concatenate([rng.uniform(-3, 3, (3 * F, 2)), rng.uniform(-1, 1, (3 * F, 1)), np.ones((3 * F, 1))], -1)
        clip[:, 3] = rng.uniform(-2, 3, 3 * F)
        clip = clip.astype(np.float32)
        expected, clear = ray_cast(clip.astype(np.float64), cull, 0.002 if backend.exact else 0.008)
        ids = np.asarray(soup_ids(clip, cull, backend.name))
        assert clear.mean() > (0.6 if backend.exact else 0.3)
        np.testing.assert_array_equal(ids[clear], expected[clear])
    behind = np.tile(np.array([0.1, 0.2, 0.0, -1.0], np.float32), (3 * F, 1)) * rng.uniform(1, 2, (3 * F, 1))
    assert not np.asarray(soup_ids(behind.astype(np.float32), cull, backend.name)).any()


def ray_cast(clip, cull, margin):
    """ids by solving for each pixel's point of each triangle in clip space; and pixels far from any edge or tie.

    margin: how far from an edge, in units of x / w and y / w; 0.002 is 1/16 pixel of the 64 in a row.
    """
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
        clear &= (np.abs(weights) > margin * slope).all(0) & (np.abs(np.abs(z) - 1) > 1e-2)
        layer[inside] = z[inside]
    ids, apart = reference.nearest(depth)
    return ids, clear & apart


def test_many_tiles_are_drawn_in_several_rounds(monkeypatch):
    points, clip = soup(random_points("large", 1))
    expected = np.asarray(soup_ids(clip))
    monkeypatch.setattr(raster_jax, "_MAX_TILES", H * W // 4)
    ids = jax.jit(lambda clip: raster_jax.triangle_ids(clip[None], SOUP, H, W)[0])(clip)
    np.testing.assert_array_equal(ids, expected)


def test_one_compilation_serves_all_meshes_of_a_shape(backend):
    soup_ids(soup(random_points("small", 0))[1], "none", backend.name)
    before = soup_ids._cache_size()
    soup_ids(soup(random_points("large", 1))[1], "none", backend.name)
    assert soup_ids._cache_size() == before


def test_vmap_at_any_depth_equals_a_loop(backend):
    clip = np.stack([soup(random_points("medium", seed))[1] for seed in range(4)]).reshape(2, 2, 3 * F, 4)
    clip[1, 0, 5] = np.nan
    clip[1, 1, 7, 3] = -0.5
    one = functools.partial(rasterize, faces=SOUP, height=H, width=W, rasterizer=backend.name)
    nested = jax.jit(jax.vmap(jax.vmap(one)))(clip)
    for i in range(2):
        for j in range(2):
            np.testing.assert_array_equal(nested.ids[i, j], soup_ids(clip[i, j], "none", backend.name))
    assert jnp.isfinite(nested.b0).all()


def test_drawing_a_batch_in_one_loop_equals_one_by_one():
    clip = np.stack([soup(random_points("medium", seed))[1] for seed in range(4)])
    clip[1, 5], clip[2, 7, 3] = np.nan, -0.5
    together = jax.jit(raster_jax._draw_images, static_argnums=(2, 3, 4))(clip, SOUP, H, W, "none")  # off the CPU
    np.testing.assert_array_equal(together, triangle_ids(clip, SOUP, H, W))
    np.testing.assert_array_equal(together[3], soup_ids(clip[3]))


def image_loss(clip, attributes, rasterizer="auto"):
    image = interpolate(attributes, rasterize(clip, SOUP, H, W, rasterizer=rasterizer), SOUP)
    return jnp.sum(image**2)


def test_gradients_agree_through_jit_vmap_scan_and_checkpoint(backend):
    clip = jnp.stack([soup(random_points("medium", seed))[1] for seed in range(3)])
    attributes = jnp.asarray(np.random.default_rng(0).random((3 * F, 3)), jnp.float32)
    loss = functools.partial(image_loss, rasterizer=backend.name)
    gradient = jax.jit(jax.grad(loss))
    loop = jnp.stack([gradient(one, attributes) for one in clip])

    def total(clip):
        step = jax.checkpoint(lambda sum_, one: (sum_ + loss(one, attributes), None))
        return jax.lax.scan(step, 0.0, clip)[0]

    scanned = jax.jit(jax.grad(total))(clip)
    mapped = jax.jit(jax.vmap(jax.grad(loss), (0, None)))(clip, attributes)
    assert float(jnp.abs(loop).max()) > 0.1
    np.testing.assert_allclose(scanned, loop, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(mapped, loop, rtol=1e-4, atol=1e-4)


def test_a_vertex_that_is_not_finite_leaves_the_gradient_finite(backend):
    clip = np.array(soup(random_points("medium", 2))[1])
    clip[4] = np.nan
    gradient = jax.jit(jax.grad(functools.partial(image_loss, rasterizer=backend.name)))(clip, jnp.ones((3 * F, 3)))
    assert jnp.isfinite(gradient).all()


def test_derivatives_of_weights_and_depth_agree_with_finite_differences(backend):
    rng = np.random.default_rng(5)
    with jax.enable_x64(True):
        corners = np.array([[-0.8, -0.7, 0.1, 1.0], [0.9, -0.6, -0.3, 1.0], [0.1, 0.9, 0.4, 1.0], [0.5, 0.5, 0.8, 1.0]])
        clip = jnp.asarray(corners * rng.uniform(0.5, 2, (4, 1)))  # perspective: w differs
        faces = jnp.array([[0, 1, 2], [1, 3, 2]])
        attributes = jnp.asarray(rng.standard_normal((4, 2)))
        ids = rasterize(clip, faces, 6, 8, rasterizer=backend.name).ids  # of float64 vertices
        assert set(np.unique(ids)) == {0, 1, 2}

        def values(clip, attributes):
            fragments = barycentrics(clip, faces, ids)
            return fragments.b0, fragments.b1, fragments.depth, interpolate(attributes, fragments, faces)

        check_grads(values, (clip, attributes), order=1, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)


def test_interpolation_is_perspective_correct(backend):
    rng = np.random.default_rng(6)
    world = rng.uniform(-1, 1, (3, 4)) * [2, 2, 0.5, 0] + [0, 0, 0, 2.0]
    world[:, 3] += rng.uniform(-0.5, 0.5, 3)
    clip = jnp.asarray(world, jnp.float32)
    faces = jnp.array([[0, 1, 2]])
    fragments = rasterize(clip, faces, H, W, rasterizer=backend.name)
    image = np.asarray(interpolate(clip, fragments, faces))  # the clip coordinates themselves are linear in the world
    hit = np.asarray(fragments.ids) > 0
    assert hit.sum() > 50
    rows, columns = np.nonzero(hit)
    np.testing.assert_allclose(image[hit][:, 0] / image[hit][:, 3], (2 * columns + 1) / W - 1, atol=2e-5)
    np.testing.assert_allclose(image[hit][:, 1] / image[hit][:, 3], 1 - (2 * rows + 1) / H, atol=2e-5)
    np.testing.assert_allclose(np.asarray(fragments.depth)[hit], image[hit][:, 2] / image[hit][:, 3], atol=1e-5)
    assert not image[~hit].any()


def test_image_frame_puts_pixel_centres_at_integers_and_the_nearest_at_the_largest_z(backend):
    points = np.array([[10.0, 4, 30], [10, 20, 30], [40, 4, 30], [9, 3, -50], [9, 30, -50], [60, 3, -50]])
    faces = np.array([[0, 1, 2], [3, 4, 5]], np.int32)
    clip = image_to_clip(jnp.asarray(points, jnp.float32), H, W)
    fragments = rasterize(clip, faces, H, W, cull="back", rasterizer=backend.name)
    ids = np.asarray(fragments.ids)
    assert ids[5, 11] == 1  # counter-clockwise on the picture: front; the near triangle hides the far one
    assert ids[15, 20] == 2
    if backend.exact:  # both own their upper left vertex
        assert ids[4, 10] == 1
        assert ids[3, 9] == 2
    np.testing.assert_allclose(np.asarray(-DEPTH_RANGE * fragments.depth)[ids == 1], 30, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(-DEPTH_RANGE * fragments.depth)[ids == 2], -50, rtol=1e-6)
    position = interpolate(jnp.asarray(points, jnp.float32), fragments, faces)
    rows, columns = np.nonzero(ids)
    np.testing.assert_allclose(position[rows, columns, :2], np.stack([columns, rows], -1), atol=1e-4)


def test_what_is_not_allowed_is_refused_in_words():
    clip, faces = jnp.zeros((3, 4)), jnp.array([[0, 1, 2]])
    assert get_rasterizer("auto") is get_rasterizer("jax")
    assert get_rasterizer("warp") is not get_rasterizer("jax")
    with pytest.raises(ValueError, match="'jay' is not one of 'auto', 'jax', 'warp', 'nvdiffrast'. Did you mean 'jax'"):
        get_rasterizer("jay")
    with pytest.raises(ValueError, match="cull: 'backs' is not one of"):
        rasterize(clip, faces, 8, 8, cull="backs")
    with pytest.raises(ValueError, match="vertices_clip: expected shape"):
        rasterize(clip[:, :3], faces, 8, 8)
    with pytest.raises(ValueError, match="at least one triangle"):
        rasterize(clip, faces[:0], 8, 8)
    with pytest.raises(ValueError, match="expected 1 to 8192 pixels, got 8 x 10000"):
        rasterize(clip, faces, 8, 10000)


def test_warp_sees_what_the_portable_backend_sees():
    rng = np.random.default_rng(8)
    faces = rng.integers(0, 3000, (4000, 3), np.int32)
    clip = rng.uniform([-1.2, -1.2, -1.1, 1], [1.2, 1.2, 1.1, 1], (2, 3000, 4))
    clip[..., :2] = clip[..., :2] * 0.2 + rng.uniform(-0.9, 0.9, (2, 1, 2))  # a knot of triangles through one another
    clip[1] *= rng.uniform(0.2, 5, (3000, 1))  # perspective
    clip[1, :40, 3] *= -1
    for height, width, cull in ((96, 128, "none"), (96, 128, "back"), (7, 1000, "front")):
        draw = functools.partial(triangle_ids, jnp.asarray(clip, jnp.float32), faces, height, width, cull)
        portable, warp = np.asarray(draw("jax")), np.asarray(draw("warp"))
        assert (portable > 0).mean() > 0.02
        np.testing.assert_array_equal(portable[0], warp[0])  # every bit of the depth agrees
        assert (portable[1] != warp[1]).mean() < 1e-3  # homogeneous edges are rounded, each in its own order


def test_warp_sees_the_same_with_several_threads_per_triangle():
    clip = np.stack([soup(random_points("large", seed))[1] for seed in range(2)])
    clip[1, 7, 3] = -0.5
    get_rasterizer("warp")
    module = sys.modules["facerig_jax.raster.warp_backend"]
    several = jax.jit(functools.partial(module._draw_images, height=H, width=W, cull="none", lanes=module._CUDA_LANES))
    with jax.default_device("cpu"):  # by its name
        np.testing.assert_array_equal(several(clip, SOUP), triangle_ids(clip, SOUP, H, W, rasterizer="warp"))


def test_the_warp_kernel_compiles_for_cuda_without_a_device(tmp_path):
    import warp

    get_rasterizer("warp")
    module = sys.modules["facerig_jax.raster.warp_backend"]._draw.module
    warp.compile_aot_module(module, arch=75, use_ptx=True, module_dir=tmp_path)
    (ptx,) = tmp_path.glob("*.ptx")
    assert b"atom.global.min.s64" in ptx.read_bytes()


def fresh(name):
    """A module of the raster package, run once more beside the one in use."""
    path = Path(raster_jax.__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"fresh_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("module", "package", "advice"),
    [
        ("warp_backend", "warp", r"'warp' needs warp-lang .* pip install 'facerig_jax\[warp\]'"),
        (
            "nvdiffrast_backend",
            "nvdiffrast",
            r"'nvdiffrast' needs nvdiffrast and PyTorch.*github.com/NVlabs/nvdiffrast",
        ),
    ],
)
def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch, module, package, advice):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=advice):
        fresh(module)


@pytest.fixture
def nvdiffrast_stand_in(monkeypatch):
    """Our nvdiffrast module over a stand-in with nvdiffrast's conventions: row 0 is the bottom, channel 3 is id + 1."""

    def draw(_, corners, triangles, resolution, grad_db):
        height, width = resolution
        assert np.isfinite(corners).all()  # what it would do with others is not documented
        points = (corners[..., :3] / corners[..., 3:] + [1, 1, 0]) * [width / 2, height / 2, 1] - [0.5, 0.5, 0]
        ids = [reference.nearest(reference.layers(one, triangles, height, width))[0] for one in points]
        return np.stack([np.zeros_like(ids)] * 3 + [ids], -1).astype(np.float32), None  # v up: the first row is low

    context = lambda *_, **__: contextlib.nullcontext()  # noqa: E731
    cuda = types.SimpleNamespace(is_available=lambda: True, ExternalStream=context, stream=context)
    torch = types.SimpleNamespace(cuda=cuda, no_grad=context, device=context)
    monkeypatch.setitem(sys.modules, "torch", torch)
    drawing = types.SimpleNamespace(rasterize=draw, RasterizeCudaContext=context)
    monkeypatch.setitem(sys.modules, "nvdiffrast", types.SimpleNamespace(torch=drawing))
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", drawing)
    module = fresh("nvdiffrast_backend")

    class Tensor(np.ndarray):
        device = types.SimpleNamespace(index=0)

        def copy_(self, values):
            self[...] = values

    def callback(function, result, **_):
        def call(*arrays):
            out = np.zeros(result.shape, result.dtype).view(Tensor)
            function(types.SimpleNamespace(stream=lambda: 0), out, *map(np.asarray, arrays))
            return np.asarray(out)

        return lambda *arrays: jax.pure_callback(call, result, *arrays)

    monkeypatch.setattr(module, "buffer_callback", callback)
    monkeypatch.setattr(module, "_tensor", lambda array: array)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    return module


def test_the_nvdiffrast_module_keeps_the_contract_over_a_stand_in(nvdiffrast_stand_in):
    """What is ours to get right where nvdiffrast cannot run: rows, ids, culling before occlusion, dropped triangles."""
    coarse = dataclasses.replace(BACKENDS["nvdiffrast"], platform=None)
    for kind, cull in (("medium", "none"), ("large", "back"), ("large", "front")):
        points, clip = soup(random_points(kind, 3, coarse.subpixels))
        clip[4, 2] = np.nan
        points[4] = np.nan
        ids = jax.jit(functools.partial(nvdiffrast_stand_in.triangle_ids, height=H, width=W, cull=cull))(
            clip[None], SOUP
        )
        assert (ids > 0).mean() > 0.05
        assert_sees(np.asarray(ids)[0], points, cull, coarse)


def test_nvdiffrast_refuses_in_words_where_it_cannot_run(nvdiffrast_stand_in, monkeypatch):
    clip, faces = jnp.zeros((1, 3, 4)), jnp.zeros((1, 3), jnp.int32)
    with pytest.raises(ValueError, match="fewer than 2\\^24 triangles for nvdiffrast"):
        nvdiffrast_stand_in.triangle_ids(clip, jax.ShapeDtypeStruct((2**24, 3), jnp.int32), 8, 8)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with pytest.raises(RuntimeError, match="needs JAX on a CUDA device, found tpu"):
        nvdiffrast_stand_in.triangle_ids(clip, faces, 8, 8)
    with pytest.raises(RuntimeError, match="'warp' needs JAX on a CPU or CUDA, found tpu"):
        get_rasterizer("warp")(clip, faces, 8, 8)
    monkeypatch.setattr(sys.modules["torch"].cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="PyTorch finds none"):
        nvdiffrast_stand_in.triangle_ids(clip, faces, 8, 8)

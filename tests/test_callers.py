"""Callers' mistakes at the public doors: each is refused in one sentence that says what is allowed."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.rigs import small_head as head_of_a_rig
from helpers.subjects import SIZE, small_head, small_params
from PIL import Image

import facerig_jax
from facerig_jax.checks import check_images
from facerig_jax.fit.status import Status
from facerig_jax.io.arrays import read_arrays
from facerig_jax.io.files import InputError

GREY = np.full((2, SIZE, SIZE, 3), 0.5, np.float32)
BYTES = np.full((2, SIZE, SIZE, 3), 128, np.uint8)
PICTURE = Image.fromarray(BYTES[0])


def refused(words: str, function, *args, **named) -> None:
    """Checks that a call is refused in one sentence with these words."""
    with pytest.raises(ValueError, match=words) as caught:
        function(*args, **named)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert "allow_pickle" not in message


# Photos


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ("photos/a.jpg", r"images: expected an array of pixels, got str\. Files are read by"),
        (PICTURE, r"images: expected an array of pixels, got Image\. A Pillow picture becomes one"),
        ([PICTURE, PICTURE], r"images\[0\]: expected an array of pixels, got Image"),
        ([BYTES[0], "b.jpg"], r"images\[1\]: expected an array of pixels, got str"),
        (None, "images: expected an array of pixels, got NoneType"),
        ([], "images: at least one photo is needed, got an empty list"),
        (
            [BYTES[0], BYTES[0, :9]],
            r"one size and type, got \(128, 128, 3\) uint8 and, as number 1, \(9, 128, 3\) uint8",
        ),
        ([BYTES[0], GREY[0]], r"one size and type.*number 1, \(128, 128, 3\) float32"),
        (BYTES[:0], r"at least one photo of at least one pixel is needed, got shape \(0, 128, 128, 3\)"),
        (BYTES[:, :0], "at least one photo of at least one pixel"),
        (BYTES[0], r"expected shape \(V, H, W, 3\), got \(128, 128, 3\)\. One photo is photo\[None\]"),
        (BYTES[..., :1].repeat(4, -1), "without transparency"),
        (BYTES[..., 0], r"expected shape \(V, H, W, 3\), got \(2, 128, 128\)"),
        (BYTES.astype(np.uint16), r"expected uint8 or float in \[0, 1\], got uint16\. Divide by 65535"),
        (BYTES.astype(np.int32), r"got int32\. Turn 0\.\.255 into bytes"),
        (BYTES.astype(np.int64), r"got int64\. Turn 0\.\.255 into bytes"),
        (BYTES > 0, "got bool"),
        (BYTES.astype(complex), "got complex128"),
        (BYTES.astype(object), "got object"),
        (BYTES.astype(np.float32), r"float photos are in \[0, 1\], got values up to 128"),
        (jnp.asarray(BYTES, jnp.bfloat16), r"float photos are in \[0, 1\], got values up to 128"),
        ([BYTES[0].astype(float)] * 2, r"float photos are in \[0, 1\]"),
    ],
)
def test_what_are_no_photos_is_refused_in_words(images, words):
    refused(words, facerig_jax.fit_rig, images, small_params(), small_head())


@pytest.mark.parametrize("dtype", ["uint16", "int32", "bool"])
def test_the_type_of_photos_is_seen_while_tracing(dtype):
    trace = jax.eval_shape
    refused(f"got {dtype}", trace, check_images, jax.ShapeDtypeStruct((2, 8, 8, 3), dtype))
    refused("at least one photo", trace, check_images, jax.ShapeDtypeStruct((0, 8, 8, 3), "uint8"))


@pytest.mark.parametrize(
    "images",
    [
        BYTES,
        GREY,
        jnp.asarray(BYTES),
        GREY * np.nan,
        np.where(np.arange(3) == 0, np.inf, GREY),
        GREY * 2.4,  # an overshoot, 1.2
        GREY.astype(np.float16),
    ],
)
def test_photos_pass_as_they_are(images):
    assert check_images(images) is images


def test_a_list_of_photos_of_one_size_is_stacked():
    for kind in (np.asarray, jnp.asarray):
        for several in (list, tuple):
            stacked = check_images(several(kind(image) for image in BYTES))
            assert stacked.dtype == np.uint8
            np.testing.assert_array_equal(stacked, BYTES)


def test_arrays_of_other_libraries_are_taken():
    class Theirs:
        shape, dtype = BYTES.shape, "theirs"

        def __array__(self, dtype=None, copy=None):
            return BYTES

    assert check_images(Theirs()).dtype == np.uint8


# What goes with them


@pytest.mark.parametrize("weight", [np.ones(68), np.ones((2, 68)), np.ones((3, 468)), np.ones((468, 1)), 1.0])
def test_landmark_weights_of_another_shape_are_refused(weight):
    refused(
        r"landmark_weight: expected shape \(468,\) or \(2, 468\), got \(",
        facerig_jax.fit_rig,
        BYTES,
        small_params(),
        small_head(),
        landmark_weight=weight,
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (lambda: (BYTES, small_head(), small_params()), "params: expected Mapping, got HeadModel"),
        (lambda: (BYTES, facerig_jax.load()), "params: expected Mapping, got tuple. They are what"),
        (lambda: (BYTES, small_params(), "makehuman"), "head: expected HeadModel, got str"),
    ],
)
def test_weights_and_head_in_each_others_place_are_refused(arguments, words):
    refused(words, facerig_jax.fit_rig, *arguments())


def test_describe_takes_the_status_of_every_view():
    status = jnp.array([Status.OK, Status.PADDING])
    assert facerig_jax.describe(status) == ["ok", "padding, not a photo"]
    assert facerig_jax.describe(status[None]) == [["ok", "padding, not a photo"]]
    assert facerig_jax.describe(np.int32(1)) == facerig_jax.describe(1) == "no face found"
    refused("status: 99 is not one of 0 to 5", facerig_jax.describe, 99)


# Files


def test_a_rig_and_a_path_in_each_others_place_are_refused(tmp_path):
    head, rig = head_of_a_rig()
    for function in (facerig_jax.save_rig, facerig_jax.export_rig):
        name = function.__name__
        refused(rf"rig: expected Rig, got str\. The rig comes first: {name}\(fit.rig, path\)", function, "a.npz", "b")
        refused(r"path: expected str or PathLike, got HeadModel", function, rig, head)
        refused(r"rig: expected Rig, got dict", function, {}, tmp_path / "a.npz")
    refused(r"export_rig\(fit.rig, path\)", facerig_jax.export_rig, tmp_path / "a.npz", rig)
    assert not list(tmp_path.iterdir())


def test_save_rig_takes_its_former_order_with_a_warning(tmp_path):
    _, rig = head_of_a_rig()
    facerig_jax.save_rig(rig, tmp_path / "new.npz")
    with pytest.warns(DeprecationWarning, match=r"save_rig\(rig, path\)"):
        facerig_jax.save_rig(tmp_path / "old.npz", rig)
    new, old = facerig_jax.load_rig(tmp_path / "new.npz"), facerig_jax.load_rig(str(tmp_path / "old.npz"))
    np.testing.assert_array_equal(new.neutral, old.neutral)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        facerig_jax.save_rig(path=tmp_path / "named.npz", rig=rig)


def test_a_file_that_is_no_rig_is_named_for_what_it_is(tmp_path):
    head, rig = head_of_a_rig()
    facerig_jax.export_rig(rig, tmp_path / "rig.glb", head)
    refused(
        r"rig\.glb: not a readable \.npz of plain arrays \(it is a GLB\)", facerig_jax.load_rig, tmp_path / "rig.glb"
    )
    np.save(tmp_path / "one.npy", np.zeros(3))
    refused("it is a single array", facerig_jax.load_rig, tmp_path / "one.npy")
    (tmp_path / "empty.npz").touch()
    refused("it is empty", facerig_jax.load_rig, tmp_path / "empty.npz")
    (tmp_path / "text.npz").write_text("hello")
    refused(r"it is no \.npz", facerig_jax.load_rig, tmp_path / "text.npz")
    refused("Is a directory", facerig_jax.load_rig, tmp_path)


def test_python_objects_in_an_npz_are_refused_without_advice_to_read_them(tmp_path):
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    refused("it holds Python objects, which are never read", read_arrays, tmp_path / "objects.npz")


def test_a_damaged_npz_is_one_sentence_wherever_the_damage_is(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", a=np.arange(999), b=np.zeros(9))
    whole = (tmp_path / "a.npz").read_bytes()
    assert set(read_arrays(tmp_path / "a.npz")) == {"a", "b"}
    complaints = []
    for place in range(0, len(whole), 7):
        (tmp_path / "bad.npz").write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            read_arrays(tmp_path / "bad.npz")
        except InputError as error:
            complaints.append(str(error))
    form = re.compile(r"[^\n]*bad\.npz: not a readable \.npz of plain arrays \([^\n]*\)\.")
    assert len(complaints) > 20
    assert all(map(form.fullmatch, complaints))
    for size in (1, 4, 30, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.npz").write_bytes(whole[:size])
        refused("not a readable", read_arrays, tmp_path / "cut.npz")

"""The reader of PyTorch files: equal to what PyTorch wrote; nothing in a hostile file runs or leads out of bounds."""

import os
import pathlib
import struct
import sys
import zipfile
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from facerig_jax.inorig.pth import read_pth

REAL = pathlib.Path(__file__).parent / "data" / "torch_checkpoint.pth"  # written by data/make_torch_checkpoint.py


# Files by hand: opcodes of protocol 2 as torch.save emits them, and the zip around them.
class Name(NamedTuple):
    text: str  # 'module name'


class Call(NamedTuple):
    function: object
    arguments: tuple


class Persistent(NamedTuple):
    reference: tuple


def emit(value) -> bytes:
    """The opcodes that push a value."""
    match value:
        case bytes():
            return value
        case Name(text):
            return b"c" + text.replace(" ", "\n").encode() + b"\n"
        case Call(function, arguments):
            return emit(function) + emit(arguments) + b"R"
        case Persistent(reference):
            return emit(reference) + b"Q"
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            number = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + struct.pack("<B", len(number)) + number
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(emit, value)) + b"t"
        case list():
            return b"](" + b"".join(map(emit, value)) + b"e"
        case dict():
            return b"}(" + b"".join(emit(item) for pair in value.items() for item in pair) + b"u"


def tensor(size=(3,), stride=(1,), offset=0, numel=3, key="0", kind="FloatStorage"):
    storage = Persistent(("storage", Name(f"torch {kind}"), key, "cpu", numel))
    hooks = Call(Name("collections OrderedDict"), ())
    return Call(Name("torch._utils _rebuild_tensor_v2"), (storage, offset, size, stride, False, hooks))


ABC = np.array([1.5, -2.0, 3.0], "<f4")


def write(path, value, storages=None, members=None, compression=zipfile.ZIP_STORED):
    """A .pth file of a value (or of a stream, as bytes) and its storages; `members` are added or, if None, left out."""
    stream = value if isinstance(value, bytes) else b"\x80\x02" + emit(value) + b"."
    files = {"data.pkl": stream, "byteorder": b"little", "version": b"3\n"}
    files |= {f"data/{key}": raw for key, raw in (storages or {"0": ABC.tobytes()}).items()} | (members or {})
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, raw in files.items():
            if raw is not None:
                archive.writestr(f"some/{name}", raw)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.pth"


def refusal(path, **options) -> str:
    """What read_pth says to a file: one line that begins with its path."""
    with pytest.raises(ValueError) as caught:
        read_pth(path, **options)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert text.endswith((".", "?"))
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


# What PyTorch writes
def ramp(*shape, dtype="float32"):
    """The numbers of make_torch_checkpoint.py."""
    numbers = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    return (numbers if dtype in ("uint8", "uint16") else numbers - 3).astype(jnp.dtype(dtype))


WHOLE = ramp(6, 5)
DTYPES = "float64 int32 complex64 float16 bfloat16 int16 uint16 int8 uint8 bool".split()  # noqa: SIM905
EXPECTED = {
    "code": ramp(2, 4),
    **{f"as_{dtype}": ramp(7, dtype=dtype) for dtype in DTYPES},
    "as_float8": ramp(7, dtype="float8_e4m3fn"),
    "whole": WHOLE,
    "transposed": WHOLE.T,
    "rows": WHOLE[1:5:2, 1:],
    "expanded": np.broadcast_to(ramp(3, 1), (3, 4)),
    "scalar": np.float32(2.5),
    "empty": np.zeros((0, 3), "float32"),
    "conv.weight": ramp(3, 2, 3, 3),
    "conv.bias": ramp(3),
    "norm.weight": ramp(3),
    "norm.bias": ramp(3),
    "norm.running_mean": ramp(3),
    "norm.running_var": ramp(3),
    "norm.num_batches_tracked": np.int64(1),
    "parameter": ramp(2, 2),
}


def assert_equal(arrays, expected):
    assert list(arrays) == list(expected)
    for name, want in expected.items():
        assert (arrays[name].dtype, arrays[name].shape) == (want.dtype, want.shape), name
        np.testing.assert_array_equal(arrays[name], want, err_msg=name)


def test_a_checkpoint_that_pytorch_wrote_is_read_exactly():
    assert_equal(read_pth(REAL), EXPECTED)


def test_arrays_are_read_only_views_that_share_memory_as_the_tensors_did():
    arrays = read_pth(REAL)
    assert all(np.shares_memory(arrays["whole"], arrays[name]) for name in ("transposed", "rows"))
    assert arrays["transposed"].strides == (4, 20)
    assert arrays["expanded"].strides == (4, 0)
    assert not any(array.flags.writeable for array in arrays.values())


def test_a_big_endian_file_gives_the_same_numbers_in_native_order(path):
    value = {"x": tensor(), "z": tensor((2,), numel=2, key="1", kind="ComplexFloatStorage")}
    value["h"] = tensor((3,), key="2", kind="BFloat16Storage")
    z, h = np.array([1 + 2j, 3 - 4j], "<c8"), np.array([1, 2, -3], jnp.bfloat16)
    storages = {
        "0": ABC.astype(">f4").tobytes(),
        "1": z.astype(">c8").tobytes(),
        "2": h.view("u2").astype(">u2").tobytes(),
    }
    arrays = read_pth(write(path, value, storages, {"byteorder": b"big"}))
    assert_equal(arrays, {"x": ABC, "z": z, "h": h})
    assert all(array.dtype.isnative for array in arrays.values())
    assert "byteorder" in refusal(write(path, value, storages, {"byteorder": b"middle"}))


def test_a_file_without_byteorder_is_little_endian(path):
    assert_equal(read_pth(write(path, {"x": tensor()}, members={"byteorder": None})), {"x": ABC})


def test_protocol_4_is_read_too(path):
    text = lambda s: b"\x8c" + bytes([len(s)]) + s.encode() + b"\x94"  # noqa: E731  SHORT_BINUNICODE MEMOIZE
    name = lambda module, name: text(module) + text(name) + b"\x93\x94"  # noqa: E731  STACK_GLOBAL MEMOIZE
    storage = b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x03t\x94Q"
    x = (
        name("torch._utils", "_rebuild_tensor_v2")
        + b"("
        + storage
        + b"K\x00K\x03\x85K\x01\x85\x89"
        + emit({})
        + b"tR\x94"
    )
    stream = b"\x80\x04}\x94" + text("x") + x + b"s" + text("y") + b"h\x0c" + b"s."
    arrays = read_pth(write(path, stream))
    assert_equal(arrays, {"x": ABC, "y": ABC})


def test_bool_bytes_other_than_0_and_1_become_true(path):
    arrays = read_pth(write(path, {"x": tensor(kind="BoolStorage")}, {"0": b"\x00\x02\xff"}))
    np.testing.assert_array_equal(arrays["x"].view("u1"), [0, 1, 1])


# Where the state dict is
SUB = {"w": tensor()}


@pytest.mark.parametrize(
    ("value", "options", "keys"),
    [
        (SUB, {}, ["w"]),
        ({"w": tensor(), "epoch": 3, "note": "x", "rate": 0.1, "none": None, "flags": [True]}, {}, ["w"]),
        ({"state_dict": SUB, "optimizer": {"state": {0: {"m": tensor(key="gone")}}}}, {}, ["w"]),
        ({"state_dict": SUB, "best": tensor(key="gone")}, {}, ["w"]),
        ({"model": SUB, "model_ema": {"e": tensor()}}, {}, ["w"]),
        ({"model": SUB, "model_ema": {"e": tensor()}}, {"key": "model_ema"}, ["e"]),
        ({"weights_of_mine": SUB}, {}, ["w"]),
        ({"x": tensor(), "more": SUB}, {"key": ""}, ["x"]),
        ({"module.a": tensor(), "module.b": tensor()}, {}, ["a", "b"]),
        ({"module.a": tensor(), "n": tensor()}, {}, ["module.a", "n"]),
        ({"a": Call(Name("torch._utils _rebuild_parameter"), (tensor(), True, None))}, {}, ["a"]),
    ],
)
def test_the_state_dict_is_found(path, value, options, keys):
    assert list(read_pth(write(path, value), **options)) == keys


@pytest.mark.parametrize(
    ("value", "options", "words"),
    [
        ({"netG": SUB, "netD": SUB}, {}, "choose one: key='netG' | 'netD'"),
        ({"state_dict": SUB, "model": SUB}, {}, "choose one"),
        ({"x": tensor(), "more": SUB}, {}, "choose one"),
        ({"netG": SUB, "netD": SUB}, {"key": "netg"}, "Did you mean 'netG'?"),
        ({"state_dict": {"w": tensor(), "sub": SUB}}, {}, "not flat: 'sub'"),
        ({"epoch": 3}, {}, "no dict of tensors"),
        ({1: tensor()}, {}, "not text"),
        (tensor(), {}, "holds a tensor"),
        ([tensor()], {}, "holds a list"),
    ],
)
def test_what_holds_no_single_state_dict_is_refused(path, value, options, words):
    assert words in refusal(write(path, value), **options)


# Hostile streams
@pytest.mark.parametrize("name", ["posix system", "os system", "builtins eval", "builtins getattr", "__builtin__ exec"])
@pytest.mark.parametrize(
    "stream",
    [
        lambda name, text: emit(Call(Name(name), (text,))),
        lambda name, text: emit(name.split()[0]) + emit(name.split()[1]) + b"\x93" + emit((text,)) + b"R",
        lambda name, text: emit(Name(name)) + emit((text,)) + b"\x81",
        lambda name, text: b"(" + emit(Name(name)) + emit(text) + b"o",
        lambda name, text: b"(" + emit(text) + b"i" + name.replace(" ", "\n").encode() + b"\n",
    ],
    ids=["REDUCE", "STACK_GLOBAL", "NEWOBJ", "OBJ", "INST"],
)
def test_a_call_of_anything_but_tensor_parts_is_refused_and_not_run(path, tmp_path, monkeypatch, name, stream):
    ran = tmp_path / "ran"
    monkeypatch.setattr(os, "system", lambda _: ran.touch())
    code = f"touch {ran}" if "system" in name else f"open({str(ran)!r}, 'w')"
    payload = stream(name, code)
    for value in ({"w": tensor(), "x": payload}, payload):
        text = refusal(write(path, value))
        assert "opcode INST" in text or (repr(name.replace(" ", ".")) in text and "neither imported nor run" in text)
    assert not ran.exists()


def test_a_module_that_a_file_names_is_not_imported(path):
    before = set(sys.modules)
    refusal(write(path, {"x": Call(Name("antigravity fly"), ())}))
    refusal(write(path, {"x": Call(Name("numpy._core.multiarray _reconstruct"), ())}))
    assert set(sys.modules) - before == set()


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02.",
        b"\x80\x02}",
        b"\x80\x02)\x85\x86.",
        b"\x80\x02h\x07.",
        b"\x80\x02N)R.",
        b"\x80\x02X\xff\xff\xff\xffab.",
        b"\x80\x02}\x88\x88\x88u.",
        b"\x80\x02]K\x01K\x02s.",
        b"\x80\x02" + emit(Persistent(("storage", "float32", "0", "cpu", 3))) + b".",
        b"\x80\x02" + emit(Persistent(("module", Name("torch FloatStorage"), "0", "cpu", 3))) + b".",
        b"\x80\x02" + emit(Call(Name("torch FloatStorage"), ())) + b".",
        b"\x80\x02" + emit(Call(Name("torch._utils _rebuild_tensor_v2"), ("s", 0, (1,), (1,)))) + b".",
        b"\x80\x02}" + b")" + b"\x85" * 300_000 + b"Ns.",
        b"\x80\x02]q\x00h\x00a.",
        b"\x80\x02cback\\slash\nname\n.",
        b"no opcodes",
    ],
)
def test_a_malformed_stream_is_refused_in_words(path, stream):
    assert refusal(write(path, stream))


# Hostile tensors
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (tensor(stride=(2,)), "reaches to element 4"),
        (tensor(stride=(2**47,)), "reaches to element"),
        (tensor(offset=1), "reaches to element 3"),
        (tensor(size=(), stride=(), offset=3), "reaches to element 3"),
        (tensor(size=(2, 2), stride=(2, 1)), "reaches to element 3"),
        (tensor(stride=(-1,), offset=2), "negative or impossible"),
        (tensor(size=(-3,)), "negative or impossible"),
        (tensor(offset=-1), "negative or impossible"),
        (tensor(size=(2**64 + 3,)), "negative or impossible"),
        (tensor(size=(True,)), "negative or impossible"),
        (tensor(size=(2**30,), stride=(0,)), "claim 4294967296 bytes"),
        (tensor(size=(2**40, 2**40), stride=(0, 0)), "negative or impossible"),
        (tensor(size=(3, 1), stride=(1,)), "not one that torch.save writes"),
        (tensor(size=(1,) * 33, stride=(0,) * 33), "not one that torch.save writes"),
        (tensor(size=(0, 2**47, 2**47), stride=(1, 1, 1)), "negative or impossible"),
        (tensor(numel=2, size=(2,)), "12 bytes, more than 8"),
        (tensor(numel=4), "12 bytes, not 16"),
        (tensor(kind="LongStorage"), "12 bytes, not 24"),
        (tensor(numel=-1), "not one that torch.save writes"),
        (tensor(numel=2**70), "not one that torch.save writes"),
        (tensor(key="1"), "no member 'some/data/1'"),
        (tensor(key="../data.pkl"), "no member"),
    ],
)
def test_a_tensor_that_its_bytes_do_not_back_is_refused(path, value, words):
    assert words in refusal(write(path, {"w": value}))


def test_many_views_of_one_storage_cannot_claim_more_than_the_bound(path):
    size = 2**16
    value = {f"w{i}": tensor((size,), (1,), numel=size) for i in range(400)}
    assert "claim 104857600 bytes" in refusal(write(path, value, {"0": bytes(4 * size)}))


# Files of other kinds
def test_a_missing_file_is_named(path):
    with pytest.raises(FileNotFoundError, match=f"{path}: no such file."):
        read_pth(path)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", "before PyTorch 1.6; nothing of it was run"),
        (b"<!DOCTYPE html><title>Quota exceeded</title>", "<!DOCTYPE html>"),
        (b"PK\x03\x04 and then nothing", "cut short"),
        (b"", "not a PyTorch file"),
    ],
)
def test_a_file_that_is_no_zip_is_refused_by_what_it_is(path, head, words):
    path.write_bytes(head)
    assert words in refusal(path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"members": {"constants.pkl": b"", "code/__torch__.py": b""}}, "TorchScript"),
        ({"members": {"data.pkl": None, "x.txt": b""}}, "no <name>/data.pkl"),
        ({"compression": zipfile.ZIP_DEFLATED}, "compressed"),
        ({"storages": {"0": ABC.tobytes()[:7]}}, "7 bytes, not 12"),
        ({"storages": {"0": ABC.tobytes() + b"more"}}, "16 bytes, more than 12"),
    ],
)
def test_a_zip_of_another_kind_is_refused_by_what_it_is(path, options, words):
    assert words in refusal(write(path, {"w": tensor()}, **options))


def test_a_damaged_byte_is_noticed_by_its_checksum(path):
    raw = write(path, {"w": tensor()}).read_bytes()
    path.write_bytes(raw.replace(ABC.tobytes(), ABC[::-1].tobytes()))
    assert "Bad CRC-32" in refusal(path)


def test_no_damage_raises_anything_but_a_value_error(path, rng):
    whole = REAL.read_bytes()
    with zipfile.ZipFile(REAL) as archive:
        members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    stream = members["data.pkl"]

    def damaged(raw):
        raw = bytearray(raw)
        for at in rng.integers(len(raw), size=rng.integers(1, 4)):
            raw[at] = rng.integers(256)
        return bytes(raw[: rng.integers(len(raw))] if rng.random() < 0.1 else raw)

    read = 0
    for i in range(600):
        if i % 2:
            path.write_bytes(damaged(whole))
        else:
            write(path, damaged(stream), members={k: v for k, v in members.items() if k != "data.pkl"})
        try:
            arrays = read_pth(path)
        except ValueError:
            continue
        read += 1
        assert all(np.array(array).shape == array.shape for array in arrays.values())
    assert 50 < read < 550

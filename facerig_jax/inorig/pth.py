"""Reads the tensors of a PyTorch `.pth` file into NumPy arrays: no PyTorch, and nothing in the file is run.

Since PyTorch 1.6 `torch.save` writes an uncompressed zip: `<name>/data.pkl` (a pickle stream, see torch_pickle.py),
`<name>/data/<key>` (the bytes of one storage each), `<name>/byteorder` ('little' or 'big'; absent before 2.1) and
`<name>/version`. Shapes, strides and sizes are claims of the file: each is checked against the bytes that are there
before an array is made, and only the tensors returned are read at all.
"""

import os
import struct
import zipfile
from typing import BinaryIO

import numpy as np

from facerig_jax.checks import check_choice
from facerig_jax.inorig.torch_pickle import SAVE_STATE_DICT, Storage, Tensor, interpret

# What a hostile file may cost. Members are uncompressed and together no larger than the file: they need no limit.
MAX_PICKLE_BYTES = 64 * 2**20
# Expanded and shared tensors are views that cost nothing until they are copied: at most this for all arrays together.
MAX_VIEW_FACTOR, MAX_VIEW_BYTES = 16, 64 * 2**20
# Under these names a checkpoint usually holds its state dict: they go before other dicts of tensors.
USUAL_KEYS = ("state_dict", "model_state_dict", "model")
# What zipfile raises on bytes that are not as written.
DAMAGE = (zipfile.BadZipFile, OSError, EOFError, RuntimeError, OverflowError, struct.error, UnicodeDecodeError)


def read_pth(path: str | os.PathLike, *, key: str | None = None) -> dict[str, np.ndarray]:
    """Reads the state dict of a PyTorch checkpoint (`torch.save`, PyTorch 1.6 or later) as NumPy arrays.

    Accepted: a state dict (dict or OrderedDict of tensors or parameters), or a checkpoint dict which holds one as an
    entry (one level deep, not flattened). Of several the one named 'state_dict', 'model_state_dict' or 'model' is
    taken; where that does not decide, the file is refused with the entries that `key` can choose from. What is no
    tensor (epoch, learning rate, ...) or lies deeper (optimizer, scheduler) is left out and not read. If every key
    starts with 'module.' (DataParallel), that prefix is removed.

    Args:
      path: the `.pth` / `.pt` file.
      key: the entry of a checkpoint dict to read, such as 'model_ema'; '' is the top level; None: see above.

    Returns:
      {key: array} in the order of the file, with its shapes and dtypes (bfloat16 and float8 by ml_dtypes) and in
      PyTorch's axis order (convolution weights are OIHW). The arrays are native-endian whatever the file's byte order,
      and read-only views: tensors of one storage share memory, and a transposed tensor stays non-contiguous.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: not a file of that kind (TorchScript, the format before 1.6, damaged, written with checksums off), an
        object in it that is neither tensor nor plain container (named; nothing of it is run), sizes or strides that
        its bytes do not back, no state dict or no single one.

    Example:
      arrays = read_pth("drn_d_22.pth")
      arrays["layer0.0.weight"].shape  # (16, 3, 7, 7)
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: no such file.")
    with open(path, "rb") as file:
        try:
            return _read(file, key)
        except DAMAGE as error:
            raise ValueError(f"{path}: damaged or cut short ({error}); copy or download it again.") from error
        except (IndexError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: its data.pkl is not one that torch.save writes ({error!s:.80}).") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _read(file: BinaryIO, key: str | None) -> dict[str, np.ndarray]:
    file_bytes = os.fstat(file.fileno()).st_size
    if not zipfile.is_zipfile(file):
        file.seek(0)
        raise ValueError(_what_else(file.read(20)))
    with zipfile.ZipFile(file) as archive:
        root = _root(archive, file_bytes)
        tensors = _state_dict(interpret(_member(archive, root + "data.pkl", MAX_PICKLE_BYTES)), key)
        total, limit = sum(t.nbytes for t in tensors.values()), MAX_VIEW_FACTOR * file_bytes + MAX_VIEW_BYTES
        if total > limit:
            raise ValueError(f"its tensors claim {total} bytes, more than the {limit} that a file of its size may.")
        storages = _storages(archive, root, {(t.storage, t.dtype) for t in tensors.values()})
    return {name: _view(name, t, storages[t.storage.key, t.dtype]) for name, t in tensors.items()}


def _what_else(head: bytes) -> str:
    """One sentence on a file that is no zip, by its first bytes."""
    if head.startswith(b"PK"):
        return "cut short: it starts as a zip file but has no directory at its end; copy or download it again."
    if head.startswith(b"\x80"):
        return (
            "a bare pickle, as torch.save wrote before PyTorch 1.6; nothing of it was run. Where PyTorch is at hand, "
            "convert it: torch.save(torch.load(path, map_location='cpu', weights_only=True), new_path)."
        )
    return f"not a PyTorch file: it starts with {head!r}, not as a zip file does."


def _root(archive: zipfile.ZipFile, file_bytes: int) -> str:
    """The folder `<name>/` of data.pkl, after the checks that concern the whole zip."""
    members = archive.infolist()
    roots = {m.filename.removesuffix("data.pkl") for m in members if m.filename.partition("/")[2] == "data.pkl"}
    if len(roots) != 1:
        raise ValueError("a zip file, but not one of torch.save: it has no <name>/data.pkl.")
    (root,) = roots
    if any(m.filename.startswith((root + "code/", root + "constants.pkl")) for m in members):
        raise ValueError(f"a TorchScript archive, a program with its weights; nothing of it was run. {SAVE_STATE_DICT}")
    if any(m.compress_type != zipfile.ZIP_STORED or m.flag_bits & 1 for m in members):
        raise ValueError("a compressed or encrypted zip file, which torch.save never writes; save or zip it anew (-0).")
    if sum(m.file_size for m in members) > file_bytes:
        raise ValueError("its zip members claim more bytes than the file has.")
    return root


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """The bytes of a member, at most `most`; zipfile checks their CRC-32."""
    if name not in archive.NameToInfo:
        raise ValueError(f"it has no member {name!r:.80}.")
    if archive.getinfo(name).file_size > most:
        raise ValueError(f"its member {name!r:.80} has {archive.getinfo(name).file_size} bytes, more than {most}.")
    try:
        return archive.read(name)
    except ValueError as error:  # an offset too large to seek
        raise zipfile.BadZipFile(str(error)) from error


def _storages(archive: zipfile.ZipFile, root: str, wanted: set[tuple[Storage, np.dtype]]) -> dict:
    """{(storage key, dtype): its bytes as native unsigned words}; each member is read once."""
    stated = root + "byteorder" in archive.NameToInfo
    order = _member(archive, root + "byteorder", 16).strip() if stated else b"little"
    if order not in (b"little", b"big"):
        raise ValueError(f"its byteorder is {order!r:.80}, neither 'little' nor 'big'.")
    raw, words = {}, {}
    for storage, dtype in wanted:
        claimed = storage.numel * storage.dtype.itemsize
        if storage.key not in raw:
            raw[storage.key] = _member(archive, f"{root}data/{storage.key}", claimed)
        if len(raw[storage.key]) != claimed:
            raise ValueError(f"its storage {storage.key!r:.80} has {len(raw[storage.key])} bytes, not {claimed}.")
        if claimed % dtype.itemsize:
            raise ValueError(f"its storage {storage.key!r:.80} has {claimed} bytes, no whole number of {dtype}.")
        words[storage.key, dtype] = _native(raw[storage.key], dtype, order.decode())
    return words


def _native(raw: bytes, dtype: np.dtype, order: str) -> np.ndarray:
    """Bytes -> (numel,) unsigned integers of the dtype's size (if complex, of its parts'); a view where possible."""
    size = dtype.itemsize // (2 if dtype.kind == "c" else 1)
    words = np.frombuffer(raw, np.dtype(f"u{size}").newbyteorder(order))
    words = words if words.dtype.isnative else words.astype(words.dtype.newbyteorder("="))
    return (words != 0).view(np.uint8) if dtype.kind == "b" else words  # NumPy takes bools to be the bytes 0 and 1


def _view(name: str, tensor: Tensor, words: np.ndarray) -> np.ndarray:
    """The tensor as a read-only array on the storage's words, never outside them."""
    numel = words.nbytes // tensor.dtype.itemsize
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride, strict=True))
    if 0 in tensor.size:
        array = np.empty(tensor.size, tensor.dtype)
    elif last >= numel:
        raise ValueError(f"its tensor {name!r:.80} reaches to element {last} of a storage that has {numel}.")
    else:
        strides = [step * tensor.dtype.itemsize for step in tensor.stride]
        array = np.ndarray(tensor.size, tensor.dtype, words, tensor.offset * tensor.dtype.itemsize, strides)
    array.flags.writeable = False
    return array


def _holds_tensors(value) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return any(isinstance(item, Tensor) for item in items)


def _state_dict(value, key: str | None) -> dict[str, Tensor]:
    """The state dict in what the file holds, by the rules of `read_pth`."""
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__.lower()}, not a state dict. {SAVE_STATE_DICT}")
    entries = {**value, "": value}
    choices = {k: v for k, v in entries.items() if isinstance(k, str) and isinstance(v, dict) and _holds_tensors(v)}
    if not choices:
        raise ValueError(f"it holds no dict of tensors. {SAVE_STATE_DICT}")
    likely = [key] if key is not None else [k for k in USUAL_KEYS if k in choices] or list(choices)
    if len(likely) > 1:
        raise ValueError(f"it holds tensors in several places; choose one: key={' | '.join(map(repr, choices)):.300}.")
    chosen = choices[check_choice("key", likely[0], choices)]
    nested = [name for name, item in chosen.items() if _holds_tensors(item)]
    if nested and key is None:
        raise ValueError(f"its state dict is not flat: {nested[0]!r:.80} holds tensors of its own.")
    tensors = {name: item for name, item in chosen.items() if isinstance(item, Tensor)}
    if not all(isinstance(name, str) for name in tensors):
        raise ValueError("its state dict has keys that are not text.")
    parallel = all(name.startswith("module.") for name in tensors)
    return {name.removeprefix("module.") if parallel else name: item for name, item in tensors.items()}

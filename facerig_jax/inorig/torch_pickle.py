"""The object in the `data.pkl` of a PyTorch file, interpreted instead of unpickled: nothing in the stream can run.

A pickle stream is a program: an unpickler imports what the stream names and calls it. With a restricted `find_class`
all its opcodes stay at work, and it is safe only as long as nothing that may be called leads further. So there is no
unpickler here: `pickletools.genops` splits the stream into opcodes, and `interpret` gives a meaning to those that
`torch.save` emits, on a stack that can hold nothing but None, bool, int, float, str, tuple, list, dict, dtypes,
functions of this file and the two records below. A name in the stream is a key of `GLOBALS`; it is never imported. So
no code from the file, or chosen by it, can run.

Format: `torch/serialization.py`, `torch/_utils.py` and `torch/_tensor.py` of PyTorch 1.13 and 2.15.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pickletools import genops
from types import FunctionType

import jax.numpy as jnp
import numpy as np

SAVE_STATE_DICT = (
    "Where PyTorch and the code are at hand, save the tensors alone: torch.save(model.state_dict(), path)."
)


@dataclass(frozen=True)
class Storage:
    """One member `data/<key>`: numel elements of a dtype."""

    dtype: np.dtype
    key: str
    numel: int


@dataclass(frozen=True)
class Tensor:
    """A strided view of a storage; offset and strides count elements of dtype."""

    storage: Storage
    dtype: np.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all its elements, which the storage need not have (an expanded view repeats some)."""
        return math.prod(self.size) * self.dtype.itemsize


def _empty_dict() -> dict:
    return {}


def _not_needed(*_):
    return None


def _rebuild_v2(storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None) -> Tensor:
    return _rebuild_v3(storage, offset, size, stride, requires_grad, hooks, None, metadata)


def _rebuild_v3(storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None) -> Tensor:
    if not (isinstance(storage, Storage) and isinstance(dtype, np.dtype | None) and len(size) == len(stride) <= 32):
        raise TypeError("a tensor of strange parts")
    counts = all(type(n) is int and 0 <= n < 2**48 for n in (offset, *size, *stride))
    if not counts or math.prod(n or 1 for n in size) >= 2**48:
        raise ValueError("a tensor in it has a negative or impossible offset, size or stride.")
    if metadata:
        raise ValueError("a tensor in it is a lazy conjugate or negative; save tensor.resolve_conj().resolve_neg().")
    return Tensor(storage, storage.dtype if dtype is None else dtype, offset, tuple(size), tuple(stride))


def _parameter(data, *_) -> Tensor:
    if not isinstance(data, Tensor):
        raise TypeError("a parameter that is no tensor")
    return data


STORAGE_DTYPES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
    "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}  # fmt: skip
FLOAT8 = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
OTHER_DTYPES = ("uint16", "uint32", "uint64", *FLOAT8)  # their tensors lie in untyped storages
# All that a stream may name, 'module name': a dtype, or a function of this file. Nothing is looked up anywhere else.
GLOBALS: dict[str, np.dtype | Callable] = {
    **{f"torch {name}Storage": jnp.dtype(dtype) for name, dtype in STORAGE_DTYPES.items()},
    **{f"torch {name}": jnp.dtype(name) for name in (*STORAGE_DTYPES.values(), *OTHER_DTYPES)},
    "torch.storage UntypedStorage": jnp.dtype("uint8"),
    "torch._utils _rebuild_tensor": _rebuild_v2,
    "torch._utils _rebuild_tensor_v2": _rebuild_v2,
    "torch._utils _rebuild_tensor_v3": _rebuild_v3,
    "torch._utils _rebuild_parameter": _parameter,
    "torch._utils _rebuild_parameter_with_state": _parameter,
    "collections OrderedDict": _empty_dict,
    # Plain data that optimizers, schedulers and random states leave in a checkpoint.
    **dict.fromkeys(
        ("collections Counter", "torch Size", "torch device", "builtins set", "__builtin__ set"), _not_needed
    ),
}


def _named(name: str):
    if name not in GLOBALS:
        raise ValueError(
            f"refused: its data.pkl names {name.replace(' ', '.')!r:.120}, which no tensor needs; it was neither "
            f"imported nor run. {SAVE_STATE_DICT}"
        )
    return GLOBALS[name]


def _persistent(reference) -> Storage:
    """The storage of a persistent id ('storage', type, key, location, numel)."""
    match reference:
        case ("storage", np.dtype() as dtype, str() as key, _, int() as numel) if 0 <= numel < 2**48:
            return Storage(dtype, key, numel)
    raise TypeError("a reference to no storage")


def _set_items(target: dict, flat: list) -> None:
    if len(flat) % 2:
        raise TypeError("a dict key without its value")
    for key, value in zip(flat[::2], flat[1::2], strict=True):
        if not isinstance(key, str | int | float | None):  # hashing a deeply nested tuple would overflow the C stack
            raise TypeError("a dict key that is neither text nor number")
        dict.__setitem__(target, key, value)


def _opcodes(stream: bytes):
    """(name, argument) of every opcode."""
    try:
        for opcode, argument, _ in genops(stream):
            yield opcode.name, argument
    except (ValueError, DeprecationWarning) as error:  # the latter of backslashes in names, where warnings are errors
        raise TypeError(str(error)) from error


def interpret(stream: bytes):
    """The object in a pickle stream of `torch.save` (any protocol), tensors as `Tensor` records.

    Raises ValueError for a name outside `GLOBALS` and for an opcode with no meaning here; IndexError, KeyError or
    TypeError for a stream whose opcodes do not fit together.
    """
    stack: list = []
    marks: list[int] = []
    memo: dict = {}

    def pop_to_mark() -> list:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def pop(count: int) -> list:
        if len(stack) < count:
            raise IndexError("too few values")
        return [stack.pop() for _ in range(count)][::-1]

    for opcode, argument in _opcodes(stream):
        match opcode:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack[-1]
            case "MARK":
                marks.append(len(stack))
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "LONG4" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST" | "EMPTY_SET":  # a set holds no tensors: a list will do, and nothing needs to be hashed
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(pop(int(opcode[-1]))))
            case "TUPLE":
                stack.append(tuple(pop_to_mark()))
            case "APPEND":
                (item,) = pop(1)
                list.append(stack[-1], item)
            case "APPENDS" | "ADDITEMS":
                items = pop_to_mark()
                list.extend(stack[-1], items)
            case "SETITEM":
                items = pop(2)
                _set_items(stack[-1], items)
            case "SETITEMS":
                items = pop_to_mark()
                _set_items(stack[-1], items)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_named(argument))
            case "STACK_GLOBAL":
                stack.append(_named(" ".join(pop(2))))
            case "BINPERSID":
                stack.append(_persistent(*pop(1)))
            case "REDUCE":
                function, arguments = pop(2)
                if not isinstance(function, FunctionType):  # one of GLOBALS: no other way leads onto the stack
                    raise TypeError("a call of no function")
                stack.append(function(*arguments))
            case "BUILD":  # the attributes of an OrderedDict (a state dict's _metadata) are not needed
                pop(1)
            case _:
                raise ValueError(f"its data.pkl has the opcode {opcode}, which torch.save writes for no tensor.")
    raise IndexError("no end")

"""Settings and measures as JSON: frozen dataclasses to and from plain values, changed by `path.to.field=value`."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import math
import typing

import numpy as np


def to_plain(settings) -> dict:
    """A dataclass as nested dicts of numbers, strings, lists and None, as JSON has them."""
    return {field.name: _plain(getattr(settings, field.name)) for field in dataclasses.fields(settings)}


def _plain(value):
    if dataclasses.is_dataclass(value):
        return to_plain(value)
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def to_json(value):
    """Containers, arrays and numbers of any library as JSON knows them; numbers that are not finite become None."""
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, str):
        return value
    number = np.asarray(value).tolist()
    if isinstance(number, list):
        return to_json(number)
    return None if isinstance(number, float) and not math.isfinite(number) else number


def from_plain(kind: type, values: dict, where: str = ""):
    """The inverse of `to_plain`.

    Args:
      kind: the dataclass.
      values: its fields by name; missing ones keep their default.
      where: path of `values` in the whole, for messages.

    Raises:
      ValueError: a field that `kind` does not have, or a value of another type, in words.
    """
    types = typing.get_type_hints(kind)
    for name in values:
        _check_field(kind, name, where)
    return kind(**{name: _convert(types[name], value, f"{where}{name}") for name, value in values.items()})


def with_overrides(settings, overrides):
    """A dataclass with some fields changed.

    Args:
      settings: frozen dataclass, maybe with dataclasses in it.
      overrides: strings 'a.b=value', or a dict {'a.b': value}; values are Python literals, other text is a string.

    Returns:
      A new dataclass of the same type.

    Raises:
      ValueError: no '=', an unknown field (naming the closest one), or a value of another type.
    """
    if not isinstance(overrides, dict):
        overrides = dict(_parse(text) for text in overrides)
    for path, value in overrides.items():
        settings = _replaced(settings, path.split("."), value, path)
    return settings


def _parse(text: str):
    path, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r}: settings are changed as path.to.field=value.")
    try:
        return path.strip(), ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        return path.strip(), value.strip()


def _replaced(settings, names, value, path):
    name, *rest = names
    _check_field(type(settings), name, path[: -len(".".join(names))])
    if rest:
        inner = getattr(settings, name)
        if not dataclasses.is_dataclass(inner):
            raise ValueError(f"{path}: {name} has no fields.")
        return dataclasses.replace(settings, **{name: _replaced(inner, rest, value, path)})
    hint = typing.get_type_hints(type(settings))[name]
    return dataclasses.replace(settings, **{name: _convert(hint, value, path)})


def _check_field(kind, name, where):
    names = [field.name for field in dataclasses.fields(kind)]
    if name not in names:
        close = difflib.get_close_matches(name, names, 1, 0.5)
        hint = f" Did you mean {where}{close[0]}?" if close else ""
        raise ValueError(f"{where}{name}: no such setting; {kind.__name__} has {', '.join(names)}.{hint}")


def _convert(hint, value, path):
    """A plain value as the annotated type."""
    if dataclasses.is_dataclass(hint):
        return from_plain(hint, value, path + ".") if isinstance(value, dict) else _same(hint, value, path)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            raise ValueError(f"{path}: a list is needed, got {value!r}.")
        kinds = [inner[0]] * len(value) if inner[1:] == (...,) else inner
        if len(kinds) != len(value):
            raise ValueError(f"{path}: {len(kinds)} values are needed, got {len(value)}.")
        return tuple(_convert(kind, item, path) for kind, item in zip(kinds, value, strict=True))
    if inner:  # a union
        for kind in inner:
            try:
                return _convert(kind, value, path)
            except ValueError:
                continue
        raise ValueError(f"{path}: {value!r} is not one of {', '.join(getattr(k, '__name__', str(k)) for k in inner)}.")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return _same(hint, value, path)


def _same(hint, value, path):
    if hint is typing.Any or (isinstance(value, hint) and (hint is bool or not isinstance(value, bool))):
        return value
    raise ValueError(f"{path}: a value of type {hint.__name__} is needed, got {value!r}.")

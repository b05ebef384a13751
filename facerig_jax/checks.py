"""Trace-time checks at the public doors: one sentence saying what is wrong, where, and what is allowed."""

import difflib


def check_shape(name: str, array, *expected) -> dict[str, int]:
    """Checks an array's shape against sizes; a string names a free size, `...` any leading axes.

    Returns the sizes the names were bound to. Raises ValueError naming the argument, the expected and the actual shape.
    """
    shape, pattern = tuple(array.shape), list(expected)
    tail = pattern[1:] if pattern and pattern[0] is ... else pattern
    got = shape[len(shape) - len(tail) :] if pattern and pattern[0] is ... else shape
    sizes: dict[str, int] = {}
    fits = len(got) == len(tail)
    for want, have in zip(tail, got, strict=False):
        fits = fits and (sizes.setdefault(want, have) == have if isinstance(want, str) else want == have)
    if not fits:
        wanted = ", ".join("..." if size is ... else str(size) for size in pattern)
        raise ValueError(f"{name}: expected shape ({wanted}), got {shape}.")
    return sizes


def check_choice(name: str, value: str, allowed) -> str:
    """Refuses a value outside `allowed`, naming the closest one."""
    allowed = list(allowed)
    if value not in allowed:
        close = difflib.get_close_matches(str(value), allowed, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{name}: {value!r} is not one of {', '.join(map(repr, allowed))}.{hint}")
    return value

"""Trace-time checks at the public doors: one sentence saying what is wrong, where, and what is allowed."""

from __future__ import annotations

import difflib
import os

import jax
import jax.numpy as jnp
import numpy as np

# Float photos are in [0, 1]; a little above is an overshoot of some filter.
MAX_FLOAT = 1.5


def check_shape(name: str, array, *expected) -> dict[str, int]:
    """Checks an array's shape against sizes; a string names a free size, `...` any leading axes.

    Returns the sizes the names were bound to. Raises ValueError naming the argument, the expected and the actual shape.
    """
    shape, pattern = np.shape(array), list(expected)
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


def check_one_of_shapes(name: str, array, *allowed: tuple[int, ...]) -> None:
    """Refuses an array that has none of the allowed shapes."""
    if np.shape(array) not in allowed:
        raise ValueError(f"{name}: expected shape {' or '.join(map(str, allowed))}, got {np.shape(array)}.")


def check_kind(name: str, value, kind, hint: str = "") -> None:
    """Refuses a value of another type; `kind` is a type or a tuple of them, `hint` what the caller may have meant."""
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = " or ".join(other.__name__ for other in kinds)
        raise ValueError(f"{name}: expected {wanted}, got {type(value).__name__}.{hint and ' ' + hint}")


def check_images(images):
    """The photos that `fit_rig` was given, as one array.

    Args:
      images: (V, H, W, 3) sRGB, uint8 or float in [0, 1], V >= 1; or a list of V such (H, W, 3) of one size.

    Returns:
      (V, H, W, 3), of the type it was.

    Raises:
      ValueError: what it is instead, and what is allowed. Whether floats are in [0, 1] is seen outside of jit only.
    """
    images = _stacked(images) if isinstance(images, (list, tuple)) else _as_array("images", images)
    shape, dtype = images.shape, images.dtype
    if len(shape) != 4 or shape[-1] != 3:
        hints = {3: " One photo is photo[None].", 4: " Colours are RGB, without transparency: images[..., :3]."}
        raise ValueError(f"images: expected shape (V, H, W, 3), got {shape}.{hints.get(len(shape), '')}")
    if not all(shape):
        raise ValueError(f"images: at least one photo of at least one pixel is needed, got shape {shape}.")
    if dtype != np.uint8 and not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"images: expected uint8 or float in [0, 1], got {dtype}.{_how_to_scale(dtype)}")
    if dtype != np.uint8 and _is_here(images):
        values = np.asarray(images)
        top = float(np.max(values, where=np.isfinite(values), initial=0))
        if top > MAX_FLOAT:
            raise ValueError(f"images: float photos are in [0, 1], got values up to {top:g}; divide by their white.")
    return images


def _stacked(images):
    """One array of equally sized photos."""
    images = [_as_array(f"images[{number}]", image) for number, image in enumerate(images)]
    if not images:
        raise ValueError("images: at least one photo is needed, got an empty list.")
    first = images[0]
    for number, image in enumerate(images):
        if image.shape != first.shape or image.dtype != first.dtype:
            raise ValueError(
                f"images: a list of photos needs one size and type, got {first.shape} {first.dtype} and, as number "
                f"{number}, {image.shape} {image.dtype}; pad them to one size and give their own as image_size."
            )
    return np.stack(images) if all(isinstance(image, np.ndarray) for image in images) else jnp.stack(images)


def _as_array(name: str, value):
    """An array as it is, another library's as numpy's; refuses what is none, saying how to get one from it."""
    if isinstance(value, (np.ndarray, jax.Array)):
        return value
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return np.asarray(value)
    hint = ""
    if isinstance(value, (str, os.PathLike)):
        hint = " Files are read by python -m experiments.fit, or imageio.v3.imread(path)."
    elif type(value).__module__.startswith("PIL."):
        hint = " A Pillow picture becomes one by numpy.asarray(picture.convert('RGB'))."
    raise ValueError(f"{name}: expected an array of pixels, got {type(value).__name__}.{hint}")


def _how_to_scale(dtype) -> str:
    """Advice for integers that are no bytes."""
    if dtype == np.uint16:
        return " Divide by 65535."
    return " Turn 0..255 into bytes with images.astype('uint8')." if jnp.issubdtype(dtype, jnp.integer) else ""


def _is_here(array) -> bool:
    """Whether the values can be looked at: not while tracing, nor where other processes hold some of them."""
    return not isinstance(array, jax.core.Tracer) and getattr(array, "is_fully_addressable", True)

"""What happened to a view and to a subject. Reported as numbers, because nothing can be raised inside jit."""

from __future__ import annotations

import enum

import jax
import jax.numpy as jnp
import numpy as np

# A view whose landmarks miss by more than this share of the face's size is reported as a poor fit.
POOR_FIT = 0.05


class Status(enum.IntEnum):
    """The numbers in `Fit.status` and `Fit.views.status`."""

    OK = 0
    NO_FACE = 1
    OUT_OF_FRAME = 2
    NOT_FINITE = 3
    POOR_FIT = 4
    PADDING = 5

    @property
    def words(self) -> str:
        """The status as a sentence."""
        return WORDS[self]


# Views that took part in a fit.
USED = (Status.OK, Status.POOR_FIT)
WORDS = {
    Status.OK: "ok",
    Status.NO_FACE: "no face found",
    Status.OUT_OF_FRAME: "most landmarks lie outside the photo",
    Status.NOT_FINITE: "the fit did not stay finite",
    Status.POOR_FIT: "the face does not fit the landmarks",
    Status.PADDING: "padding, not a photo",
}


def describe(status) -> str | list:
    """The status in words.

    Args:
      status: () one of `Status`, as in `Fit.status`, or an array of them, as in `Fit.views.status`.

    Returns:
      Its sentence, or nested lists of sentences.

    Raises:
      ValueError: no such status.
    """
    numbers = np.asarray(status)
    if numbers.ndim:
        return [describe(number) for number in numbers]
    try:
        return Status(int(numbers)).words
    except ValueError:
        raise ValueError(f"status: {numbers} is not one of {min(Status)} to {max(Status)}.") from None


def end_status(status, pose, expression, error) -> jax.Array:
    """(V,) status after the fit, from the status before it and the landmarks' relative error (V,)."""
    finite = jnp.all(jnp.isfinite(pose), -1) & jnp.all(jnp.isfinite(expression), -1)
    used = status == Status.OK
    status = jnp.where(used & (error > POOR_FIT), Status.POOR_FIT, status)
    return jnp.where(used & ~finite, Status.NOT_FINITE, status)


def subject_status(status, neutral) -> jax.Array:
    """() status of the subject from its views' and its rig's neutral (P, 3)."""
    used = (status != Status.NO_FACE) & (status != Status.OUT_OF_FRAME) & (status != Status.PADDING)
    whole = jnp.where(jnp.any(used), Status.OK, Status.NO_FACE)
    return jnp.where(jnp.all(jnp.isfinite(neutral)), whole, Status.NOT_FINITE).astype(jnp.int32)

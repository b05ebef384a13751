"""What happened to a view and to a subject. Reported as numbers, because nothing can be raised inside jit."""

import numpy as np

OK = 0
NO_FACE = 1
OUT_OF_FRAME = 2
NOT_FINITE = 3
POOR_FIT = 4
PADDING = 5

WORDS = {
    OK: "ok",
    NO_FACE: "no face found",
    OUT_OF_FRAME: "most landmarks lie outside the photo",
    NOT_FINITE: "the fit did not stay finite",
    POOR_FIT: "the face does not fit the landmarks",
    PADDING: "padding, not a photo",
}


def describe(status) -> str | list:
    """The status in words.

    Args:
      status: () one of this module's numbers, as in `Fit.status`; or (V,) of them, as in `Fit.views.status`.

    Returns:
      Its sentence; of an array the list of its sentences.

    Raises:
      ValueError: no such status.
    """
    numbers = np.asarray(status)
    if numbers.ndim:
        return [describe(number) for number in numbers]
    if numbers.item() not in WORDS:
        raise ValueError(f"status: {numbers.item()!r} is not one of {min(WORDS)} to {max(WORDS)}.")
    return WORDS[numbers.item()]

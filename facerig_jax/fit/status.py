"""What happened to a view and to a subject. Reported as numbers, because nothing can be raised inside jit."""

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


def describe(status) -> str:
    """The status in words.

    Args:
      status: () one of this module's numbers, as in `Fit.status` and `Fit.views.status`.

    Returns:
      Its sentence.

    Raises:
      KeyError: no such status.
    """
    return WORDS[int(status)]

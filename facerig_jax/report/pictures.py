"""Pictures for a person to look at: overlays, landmark dots, heat maps and contact sheets, as uint8 sRGB arrays.

Pixel centres lie at integer coordinates, u to the right, v down, as everywhere in this library.
"""

from __future__ import annotations

import numpy as np

from facerig_jax.io.files import optional_import, to_bytes


def draw_points(image, points, colour=(0, 230, 118), radius: float = 1.5, outline: bool = True) -> np.ndarray:
    """Draws points as small anti-aliased discs, with a dark rim so that they show on any ground.

    Args:
      image: (H, W, 3) sRGB, uint8 or float in [0, 1].
      points: (L, 2) or (L, 3) u, v px (a third column is ignored); those outside or not finite are left out.
      colour: three values 0..255 for all points, or (L, 3).
      radius: of the disc, px.
      outline: draw the rim.

    Returns:
      (H, W, 3) uint8, a new array.
    """
    canvas = to_bytes(image).astype(np.float32)
    points = np.asarray(points, np.float32)
    colours = np.broadcast_to(np.asarray(colour, np.float32), (len(points), 3))
    for point, paint in zip(points[:, :2], colours, strict=True):
        if outline:
            _disc(canvas, point, radius + 1, np.zeros(3, np.float32), 0.6)
        _disc(canvas, point, radius, paint, 1.0)
    return np.round(canvas).astype(np.uint8)


def _disc(canvas, centre, radius, paint, opacity) -> None:
    """Blends one disc into (H, W, 3) float32, in place; coverage falls linearly over the pixel at the rim."""
    height, width = canvas.shape[:2]
    reach = radius + 1
    if not np.isfinite(centre).all() or (centre < -reach).any() or (centre > [width + reach, height + reach]).any():
        return
    u0, v0 = np.maximum(np.floor(centre - reach), 0).astype(int)
    u1, v1 = np.minimum(np.ceil(centre + reach) + 1, [width, height]).astype(int)
    distance = np.hypot(np.arange(u0, u1) - centre[0], np.arange(v0, v1)[:, None] - centre[1])
    weight = opacity * np.clip(radius + 0.5 - distance, 0, 1)[..., None]
    patch = canvas[v0:v1, u0:u1]
    patch += weight * (paint - patch)


def _colour_table() -> np.ndarray:
    """(256, 3) uint8: lightness rises evenly from near black to pale yellow while the hue turns from blue over red.

    Built in OKLab (B. Ottosson 2020, bottosson.github.io/posts/oklab), so that equal steps look equal.
    """
    t = np.linspace(0, 1, 256)
    lightness = 0.12 + 0.84 * t
    hue = np.deg2rad(-80 + 185 * t)
    chroma = 0.17 * np.sin(np.pi * np.clip(0.06 + 0.88 * t, 0, 1)) ** 0.8
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short
    linear = np.clip(np.stack([red, green, blue], axis=1), 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255 * srgb).astype(np.uint8)


COLOUR_TABLE = _colour_table()


def heat_map(values, maximum: float | None = None, mask=None, ground=(235, 235, 235)) -> np.ndarray:
    """Colours a field of non-negative numbers, dark for 0 and pale yellow for `maximum` and above.

    Args:
      values: (H, W); not finite counts as outside the mask.
      maximum: value of the brightest colour; None takes the largest one within the mask.
      mask: (H, W) bool or 0/1; pixels outside get the ground colour. None: everywhere.
      ground: three values 0..255.

    Returns:
      (H, W, 3) uint8.
    """
    values = np.asarray(values, np.float32)
    inside = np.isfinite(values) & (True if mask is None else np.asarray(mask) > 0)
    clean = np.where(inside, values, 0)
    top = float(clean.max(initial=0)) if maximum is None else float(maximum)
    level = np.round(255 * np.clip(clean / top if top > 0 else 0 * clean, 0, 1)).astype(np.uint8)
    return np.where(inside[..., None], COLOUR_TABLE[level], np.asarray(ground, np.uint8))


def resize(image, size) -> np.ndarray:
    """Antialiased resampling of (H, W, 3) or (H, W) to `size` = (height, width); uint8."""
    pil_image = optional_import("PIL.Image", "Drawing pictures")
    return np.asarray(pil_image.fromarray(to_bytes(image)).resize(tuple(size)[::-1], pil_image.Resampling.LANCZOS))


def fit_within(image, side: int) -> np.ndarray:
    """`image` reduced, never enlarged, so that its larger side is at most `side`; uint8."""
    image = to_bytes(image)
    height, width = image.shape[:2]
    scale = side / max(height, width)
    return image if scale >= 1 else resize(image, (max(1, round(height * scale)), max(1, round(width * scale))))


def grid(
    images, columns: int, labels=None, cell: int | None = None, gap: int = 6, ground=(250, 250, 250)
) -> np.ndarray:
    """A contact sheet: pictures in rows, each centred in a square cell, with an optional label below.

    Args:
      images: pictures (h, w, 3) or (h, w), uint8 or float in [0, 1]; None leaves a cell empty.
      columns: cells in a row.
      labels: one string per picture, or None.
      cell: side of a cell, px; None takes the largest picture's.
      gap: px between cells and around.
      ground: three values 0..255.

    Returns:
      (H, W, 3) uint8.
    """
    images = [None if image is None else to_bytes(image) for image in images]
    if not images or columns < 1:
        raise ValueError(f"grid: at least one picture and one column are needed, got {len(images)} and {columns}.")
    cell = cell or max((max(image.shape[:2]) for image in images if image is not None), default=64)
    caption = 0 if labels is None else max(14, cell // 12)
    rows, step = -(-len(images) // columns), (cell + caption + gap, cell + gap)
    sheet = np.empty((rows * step[0] + gap, min(columns, len(images)) * step[1] + gap, 3), np.uint8)
    sheet[:] = ground
    for number, image in enumerate(images):
        top, left = gap + number // columns * step[0], gap + number % columns * step[1]
        if image is not None:
            image = fit_within(image, cell)
            height, width = image.shape[:2]
            v, u = top + (cell - height) // 2, left + (cell - width) // 2
            sheet[v : v + height, u : u + width] = image if image.ndim == 3 else image[..., None]
        if labels is not None:
            _write(sheet[top + cell : top + cell + caption, left : left + cell], labels[number])
    return sheet


def _write(patch: np.ndarray, text: str) -> None:
    """Writes one centred line into (h, w, 3) uint8, in place, black or white against the ground."""
    pil_image = optional_import("PIL.Image", "Drawing pictures")
    draw, font = optional_import("PIL.ImageDraw", "Drawing pictures"), optional_import("PIL.ImageFont", "Drawing")
    height, width = patch.shape[:2]
    canvas = pil_image.fromarray(np.ascontiguousarray(patch))
    ink = (30, 30, 30) if patch[0, 0].mean() > 127 else (235, 235, 235)
    style = {"font": font.load_default(0.72 * height), "fill": ink, "anchor": "mm"}
    draw.Draw(canvas).text((width / 2, height / 2), str(text), **style)
    patch[:] = np.asarray(canvas)

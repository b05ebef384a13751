"""The rig's texture: an albedo unwrapped from the photos, completed by the rig's own.

Each view's colours are divided by its estimated light, brought to a common exposure and blended by how well the view
sees each texel. What no view sees is taken from the rig's albedo, toned like the skin nearby.

Texels follow the convention of image files (glTF, OBJ): the centre of row i, column j of S x S lies at
uv ((j + 0.5) / S, 1 - (i + 0.5) / S).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from facerig_jax.checks import check_shape
from facerig_jax.config import Hyper
from facerig_jax.fit.photometric import colour_trust
from facerig_jax.fit.reprojection import face_brightness
from facerig_jax.fit.status import Status
from facerig_jax.geometry.camera import project_to_image
from facerig_jax.geometry.crop import inside_photo, to_photo
from facerig_jax.geometry.light import sh_basis, shade
from facerig_jax.geometry.mesh import vertex_normals
from facerig_jax.geometry.rotation import euler_to_matrix, rotate
from facerig_jax.geometry.sampling import bilinear
from facerig_jax.numerics import masked_mean, srgb_to_linear
from facerig_jax.programs import kept
from facerig_jax.raster.render import block_mean, linear_to_srgb8
from facerig_jax.raster.uv import UVTable, uv_table, uv_to_vertex, vertex_to_uv
from facerig_jax.raster.visibility import BACKGROUND_DEPTH, depth_map
from facerig_jax.rig.apply import apply_rig
from facerig_jax.rig.neural import rest_albedo
from facerig_jax.types import Crop, HeadModel, Rig, Views

# Cosines between which a surface goes from not used to fully used.
GRAZING = (0.2, 0.6)
# The depth map covers this many crop widths, at this many pixels per crop pixel.
DEPTH_WINDOW, DEPTH_ZOOM = 1.5, 2
# px of the depth map: how far behind it a texel is still seen; how near an edge of a nearer part, and how much nearer.
DEPTH_TOLERANCE, EDGE, STEP = 2.0, 7, 14.0
# Shading below this share of the view's mean is not trusted to divide by.
MIN_SHADING = 0.3
# Towards the border of the face region and beyond, log colours this far from the rig's albedo (hair, cloth, background)
# lose their weight.
SKIN_DEVIATION = 0.35
FEATURES = ("brows", "eyelids", "eyes", "nose", "lips")
# How far the colours of one view may differ from the rig's albedo: log luminance over 1 / 8 of the texture, log
# colour over 1 / 16. Light varies as slowly over the face; what exceeds these is taken for light that was missed.
TONE, TINT = 0.2, 0.06
# A view that is a poor fit counts this much; expressions lose weight by exp(-|code|^2), as folds would be baked in.
POOR_WEIGHT = 0.02
# Detail finer than 1 / 64 of the texture comes from the best views: weights to this power.
DETAIL_POWER = 4
_TINY = 1e-6


@struct.dataclass
class _View:
    """One view, ready to be unwrapped; see Views for the fields that are its."""

    pose: jax.Array
    inverse_distance: jax.Array
    expression: jax.Array
    light: jax.Array
    crop: Crop
    photo: jax.Array  # (H, W, 3) sRGB, uint8.
    photo_size: jax.Array  # (2,) height and width within it.
    trust: jax.Array  # () weight of the view, 0 = skip.
    lit: jax.Array  # () in (0, 1] how far its colours rise above the noise of a dark photo.


def unwrap_texture(
    head: HeadModel,
    rig: Rig,
    views: Views,
    photos,
    sizes,
    size: int = 1024,
    cover=None,
) -> np.ndarray:
    """Albedo texture of a fitted person.

    Args:
      head: the head the rig was made with (faces, uv, part, face_mask).
      rig: of the person.
      views: V views; only those with status OK or POOR_FIT are used.
      photos: (V, H, W, 3) uint8 sRGB, the padded photos of the fit.
      sizes: (V, 2) height and width of each photo within its padding.
      size: S, texels per side.
      cover: Cover of the fit: what is covered has the rig's albedo; None = nothing is.

    Returns:
      (S, S, 3) uint8 sRGB; eyes and mouth interior have the rig's albedo, texels outside the layout repeat their
      surroundings, so that filtering never meets a foreign colour.

    Raises:
      ValueError: shapes that do not belong together, or a texture that is too small.

    Example:
      texture = unwrap_texture(head, fit.rig, fit.views, images, sizes, cover=fit.cover)
    """
    n_views = check_shape("photos", photos, "V", "H", "W", 3)["V"]
    check_shape("sizes", sizes, n_views, 2)
    check_shape("views.pose", views.pose, n_views, 6)
    if size < 64 or size % 64:
        raise ValueError(f"size: expected a multiple of 64 texels, got {size}.")
    hidden = jnp.zeros(head.mean.shape[0], jnp.float32) if cover is None else jnp.asarray(cover.vertices)
    return np.asarray(_unwrap(head, rig, views, jnp.asarray(photos), jnp.asarray(sizes), hidden, size)[0])


def albedo_texture(head: HeadModel, rig: Rig, size: int = 512) -> np.ndarray:
    """The rig's per-vertex albedo as a texture (size, size, 3) uint8 sRGB, filled outside the layout."""
    return np.asarray(_albedo_texture(head, rig, size))


@jax.jit
def vertex_colours(texture, uv) -> jax.Array:
    """Linear RGB (P, 3) of a texture (S, S, 3) uint8 sRGB at uv (P, 2), for drawing a mesh by its vertices."""
    return uv_to_vertex(srgb_to_linear(texture.astype(jnp.float32) / 255), _texel_uv(uv, texture.shape[0]))


@functools.partial(jax.jit, static_argnames="size")
def _albedo_texture(head: HeadModel, rig: Rig, size: int) -> jax.Array:
    table = uv_table(_texel_uv(head.uv, size), head.faces, size)
    return linear_to_srgb8(_fill(vertex_to_uv(rest_albedo(rig), table), table.covered.astype(jnp.float32)))


@kept("size")
def _unwrap(head: HeadModel, rig: Rig, views: Views, photos, sizes, hidden, size: int):
    """Texture (S, S, 3) uint8 and how much of each texel's colour was seen (S, S) in [0, 1]."""
    with jax.named_scope("chart"):
        table = uv_table(_texel_uv(head.uv, size), head.faces, size)
        skin = (table.covered & (jnp.asarray(head.part)[table.vertices[..., 0]] == 0)).astype(jnp.float32)
        model = vertex_to_uv(rest_albedo(rig), table)
        face = vertex_to_uv(jnp.asarray(head.face_mask)[:, None], table)[..., 0]
        features = vertex_to_uv(_features(head), table)[..., 0]
        clear = vertex_to_uv(1 - hidden[:, None], table)[..., 0]
    trust = jnp.exp(-jnp.sum(views.expression**2, -1)) + _TINY
    trust = trust * jnp.select([views.status == Status.OK, views.status == Status.POOR_FIT], [1.0, POOR_WEIGHT], 0.0)
    lit = colour_trust(face_brightness(head, rig, views), Hyper())
    stack = _View(
        views.pose, views.inverse_distance, views.expression, views.light, views.crop, photos, sizes, trust, lit
    )

    def add(total, view):
        def seen(total):
            colour, weight = _unwrap_view(head, rig, view, table, model, face, features, skin, clear)
            return _accumulate(total, colour, weight, view.trust)

        return jax.lax.cond(view.trust > 0, seen, lambda total: total, total), None

    nothing = jnp.zeros((size, size, 4), jnp.float32)
    with jax.named_scope("views"):
        (coarse, fine, best), _ = jax.lax.scan(add, (nothing, nothing, jnp.zeros((size, size), jnp.float32)), stack)
    with jax.named_scope("complete"):
        observed = coarse[..., :3] / (coarse[..., 3:] + _TINY**2) + fine[..., :3] / (fine[..., 3:] + _TINY**4)
        confidence = _smoothstep(best / 0.5) * skin
        clearest = jnp.max(jnp.where(trust > 0, lit, 0.0))
        texture = _complete(observed, confidence, model, skin, clearest)
        return linear_to_srgb8(_fill(texture, table.covered.astype(jnp.float32))), confidence


def _unwrap_view(head, rig, view: _View, table: UVTable, model, face, features, skin, clear):
    """Albedo (S, S, 3) seen by one view, at the exposure of the rig's, and weight (S, S) in [0, 1]."""
    verts, _ = apply_rig(rig, view.expression)
    size = view.crop.size
    posed = project_to_image(verts, view.pose, view.inverse_distance, size)
    normals = rotate(euler_to_matrix(view.pose[:3]), vertex_normals(verts, head.faces))
    shading = shade(sh_basis(normals), view.light)
    level = masked_mean(shading, head.face_mask[:, None], axis=0)
    shading = jnp.maximum(shading, MIN_SHADING * level[None])
    where = to_photo(posed[:, :2], view.crop)
    zoomed = (posed - jnp.array([[(size - 1) / 2] * 2 + [0.0]], posed.dtype)) * DEPTH_ZOOM
    columns = [where, zoomed, normals[:, 2:], shading]
    texels = vertex_to_uv(jnp.concatenate(columns, -1), table)
    where, zoomed, facing, shading = jnp.split(texels, (2, 5, 6), -1)
    seen = _seen(head, posed, zoomed, size) * inside_photo(where, view.photo_size[None]) * skin
    low, high = GRAZING
    seen = seen * (facing[..., 0] > low) * (clear > 0.05)
    photo = _soften(srgb_to_linear(view.photo.astype(jnp.float32) / 255), where, seen)
    colour = bilinear(photo, where) / jnp.maximum(shading, _TINY)
    colour = colour * _gain(colour, model, seen * (face > 0.5) * (facing[..., 0] > high))
    weight = _feather(seen, skin) * jnp.clip((facing[..., 0] - low) / (high - low), 0, 1) ** 2
    weight = weight * _skin_likeness(colour, model, face, features, seen) * _smoothstep(clear)
    return colour * _relight(colour, model, weight), weight * view.lit


def _seen(head, posed, zoomed, size: int) -> jax.Array:
    """(S, S) 1 where a texel is visible by the depth-map rule and not beside an edge of something nearer."""
    side = int(DEPTH_WINDOW * DEPTH_ZOOM * size)
    centre = (side - 1) / 2
    middle = jnp.array([[(size - 1) / 2] * 2 + [0.0]], posed.dtype)
    scaled = (posed - middle) * DEPTH_ZOOM + jnp.array([[centre, centre, 0.0]], posed.dtype)
    depth = depth_map(scaled[None], head.faces, side, side)[0]
    nearest = _pool(depth, EDGE, jax.lax.max, -jnp.inf)
    ground = _pool((depth > BACKGROUND_DEPTH).astype(jnp.float32), EDGE, jax.lax.min, 1.0)
    texel = zoomed[..., :2] + centre
    maps = bilinear(jnp.stack([depth, nearest, ground], -1), texel)
    z = zoomed[..., 2]
    return ((z > maps[..., 0] - DEPTH_TOLERANCE) & (z > maps[..., 1] - STEP) & (maps[..., 2] > 0.99)).astype(
        jnp.float32
    )


def _soften(photo, where, seen) -> jax.Array:
    """The photo, blurred where it is finer than the texture, so that sampling it at single points does not alias."""
    du, dv = where[:, 1:] - where[:, :-1], where[1:] - where[:-1]
    area = jnp.abs(du[:-1, :, 0] * dv[:, :-1, 1] - du[:-1, :, 1] * dv[:, :-1, 0])
    footprint = jnp.sqrt(masked_mean(jnp.minimum(area, 100.0), seen[1:, 1:] * seen[:-1, :-1]))
    sigma = 0.5 * jnp.sqrt(jnp.maximum(footprint**2 - 1, 0.01))

    def kernel(n):
        place = jnp.arange(n, dtype=jnp.float32)
        weight = jnp.exp(-0.5 * ((place[:, None] - place[None]) / sigma) ** 2)
        return weight / weight.sum(1, keepdims=True)

    def blurred(photo):
        return jnp.einsum("ij,jkc,lk->ilc", kernel(photo.shape[0]), photo, kernel(photo.shape[1]))

    return jax.lax.cond(footprint > 1.2, blurred, lambda photo: photo, photo)


def _gain(colour, model, mask) -> jax.Array:
    """(1, 1, 3) median of model / colour over the mask; 1 where the mask is empty."""
    step = max(1, colour.shape[0] // 128)
    ratio = jnp.log((model + _TINY) / jnp.maximum(colour, 1e-3))[::step, ::step]
    ratio = jnp.where(mask[::step, ::step, None] > 0, ratio, jnp.nan)
    return jnp.exp(jnp.nan_to_num(jnp.nanmedian(ratio, (0, 1), keepdims=True)))


def _relight(colour, model, weight) -> jax.Array:
    """(S, S, 3) slowly varying factor that keeps the tone of a view near the rig's albedo, see TONE and TINT."""
    size, ratio = colour.shape[0], _log_ratio(colour, model)
    grey = jnp.mean(ratio, -1, keepdims=True)
    tint = _excess(_coarse(ratio - grey, weight, size // 16), TINT)
    return jnp.exp(-tint - _excess(_coarse(grey, weight, size // 8), TONE))


def _excess(values, limit: float) -> jax.Array:
    """What `values` have beyond a soft limit."""
    return values - limit * jnp.tanh(values / limit)


def _log_ratio(colour, model) -> jax.Array:
    return jnp.log(jnp.maximum(colour, 1e-3)) - jnp.log(jnp.maximum(model, 1e-3))


def _feather(seen, skin) -> jax.Array:
    """Visibility in [0, 1] that falls smoothly to 0 inside its border (the layout's own border does not count)."""
    reach = max(1, seen.shape[0] // 256)
    inner = _pool(jnp.where(skin > 0, seen, 1.0), 4 * reach + 1, jax.lax.min, 1.0) * skin
    smooth = inner
    for _ in range(2):
        smooth = _mean(smooth * skin, 2 * reach + 1) / jnp.maximum(_mean(skin, 2 * reach + 1), _TINY) * skin
    return smooth


def _features(head: HeadModel) -> jax.Array:
    """(P, 1) in [0, 1]: the parts of the face that need not look like skin, where the head knows them."""
    named = [jnp.asarray(head.regions[name]) for name in FEATURES if name in head.regions]
    return functools.reduce(jnp.maximum, named, jnp.zeros(head.mean.shape[0], jnp.float32))[:, None]


def _skin_likeness(colour, model, face, features, seen) -> jax.Array:
    """(S, S) weight in [0, 1]: 1 on features and deep in the face, elsewhere the colours' likeness to skin."""
    gap = jnp.sum(_log_ratio(colour, model) ** 2, -1, keepdims=True)
    distance = _coarse(gap, seen, colour.shape[0] // 64)[..., 0] / SKIN_DEVIATION**2
    deep = _coarse(face[..., None], jnp.ones_like(face), colour.shape[0] // 4)[..., 0]
    sure = jnp.maximum(_smoothstep((deep - 0.6) / 0.35), features)
    return sure + (1 - sure) * jnp.exp(-0.5 * distance**2)


def _accumulate(total, colour, weight, trust):
    """Adds one view to the sums (coarse, fine) of (S, S, 4) weighted colour and weight, and to the best weight."""
    coarse, fine, best = total
    base = _coarse(colour, (weight > 0).astype(jnp.float32), colour.shape[0] // 64)
    wide, sharp = (weight * trust)[..., None], ((weight * trust)[..., None]) ** DETAIL_POWER
    coarse += jnp.concatenate([wide * base, wide], -1)
    fine += jnp.concatenate([sharp * (colour - base), sharp], -1)
    return coarse, fine, jnp.maximum(best, weight)


def _complete(observed, confidence, model, skin, lit) -> jax.Array:
    """Observed colours where they are sure, elsewhere the model's, toned as the nearest observed, if lit, are."""
    tone = _coarse(_log_ratio(observed, model), confidence, observed.shape[0] // 8)
    tone = lit * (tone - _excess(tone, TONE))
    toned = jnp.where(skin[..., None] > 0, model * jnp.exp(tone), model)
    return jnp.clip(confidence[..., None] * observed + (1 - confidence[..., None]) * toned, 0, 1)


def _fill(values, weight) -> jax.Array:
    """Spreads (S, S, C) from where weight (S, S) is 1 to where it is 0, by a pyramid of means (pull-push)."""
    levels = [(values, weight[..., None])]
    while levels[-1][0].shape[0] % 2 == 0:
        value, trust = levels[-1]
        total = block_mean(trust, 2)
        levels.append((block_mean(value * trust, 2) / jnp.maximum(total, _TINY), jnp.minimum(4 * total, 1.0)))
    value, trust = levels.pop()
    value = jnp.where(trust > 0, value, jnp.sum(value * trust, (0, 1), keepdims=True) / jnp.maximum(trust.sum(), _TINY))
    while levels:
        own, trust = levels.pop()
        wider = jax.image.resize(value, own.shape, "linear")
        value = trust * own + (1 - trust) * wider
    return value


def _coarse(values, weight, block: int) -> jax.Array:
    """Weighted local mean of (S, S, C) over about `block` texels, smooth; nearby means where the weight is 0."""
    total = block_mean(weight[..., None], block)
    means = block_mean(values * weight[..., None], block) / jnp.maximum(total, _TINY)
    return jax.image.resize(_fill(means, jnp.minimum(4 * total[..., 0], 1.0)), values.shape, "linear")


def _pool(image, width: int, operation, start: float) -> jax.Array:
    """Running maximum or minimum of (H, W) over width x width pixels."""
    start = jnp.asarray(start, image.dtype)
    image = jax.lax.reduce_window(image, start, operation, (width, 1), (1, 1), "SAME")
    return jax.lax.reduce_window(image, start, operation, (1, width), (1, 1), "SAME")


def _mean(image, width: int) -> jax.Array:
    """Running mean of (H, W) over width x width pixels, 0 outside."""
    return _pool(image, width, jax.lax.add, 0.0) / width**2


def _smoothstep(x) -> jax.Array:
    x = jnp.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _texel_uv(uv, size: int) -> jax.Array:
    """uv of image files -> uv of `raster.uv`, whose outermost texels lie on the border of the square."""
    return (jnp.asarray(uv) * size - 0.5) / (size - 1)

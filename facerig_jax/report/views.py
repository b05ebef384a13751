"""What a fit looks like: each photo with its overlay, geometry, albedo, lighting and residual; the rig in motion."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from facerig_jax.geometry.camera import project_to_image
from facerig_jax.geometry.crop import crop_image, to_crop, zoom_points, zoomed
from facerig_jax.geometry.light import sh_basis, shade
from facerig_jax.geometry.mesh import vertex_normals
from facerig_jax.geometry.rotation import euler_to_matrix, rotate
from facerig_jax.numerics import HIGHEST, linear_to_srgb, masked_mean, normalize, srgb_to_linear
from facerig_jax.programs import kept
from facerig_jax.raster.render import clay, composite, linear_to_srgb8, render_mesh, turntable
from facerig_jax.report.pictures import draw_points, heat_map
from facerig_jax.rig.apply import apply_rig
from facerig_jax.rig.neural import rest_albedo
from facerig_jax.texture import vertex_colours
from facerig_jax.types import HeadModel, Rig, Views

# Opacity of the meshes laid over a photo.
OVERLAY, GEOMETRY = 0.85, 1.0
# sRGB difference of the brightest colour of the residual pictures.
RESIDUAL_SCALE = 0.25
# Grey of the lighting picture at the view's mean light.
GREY = 0.5
# Where the albedo depends on the expression, the texture changes with it: not below this albedo, nor by more than this.
DARK, MAX_TINT = 1e-3, 4.0
# Codes that the expression strip shows both ways, where a rig's have none of the names below.
UNNAMED = 8
# The expression strip: title -> codes at full strength.
EXPRESSIONS = {
    "jawOpen": ("jawOpen",),
    "mouthSmile": ("mouthSmileLeft", "mouthSmileRight"),
    "mouthFrown": ("mouthFrownLeft", "mouthFrownRight"),
    "mouthPucker": ("mouthPucker",),
    "cheekPuff": ("cheekPuff",),
    "eyeBlink": ("eyeBlinkLeft", "eyeBlinkRight"),
    "browInnerUp": ("browInnerUp",),
    "browDown": ("browDownLeft", "browDownRight"),
}


def view_pictures(
    head: HeadModel, rig: Rig, views: Views, photos, keep, size: int = 384
) -> list[dict[str, np.ndarray] | None]:
    """The pictures of every view, by one compiled program.

    Args:
      head: the head the rig was made with.
      rig: of the person.
      views: V views.
      photos: (V, H, W, 3) uint8 sRGB, padded photos.
      keep: (V,) bool; others (padding, no face) get None.
      size: side of the pictures, px; they show the crop that was fitted.

    Returns:
      per view name -> (size, size, 3) uint8: 'input', 'landmarks' (the detected ones on the input), 'overlay',
      'geometry', 'albedo', 'lighting', 'residual' (mean absolute sRGB difference, see RESIDUAL_SCALE).
    """
    drawn = jax.tree.map(np.asarray, _draw(head, rig, views, jnp.asarray(photos), size))
    landmarks = np.asarray(to_crop(views.landmarks, zoomed(views.crop, size)))
    return [_finish(drawn, number, landmarks[number]) if kept else None for number, kept in enumerate(keep)]


def _finish(drawn: dict[str, np.ndarray], number: int, landmarks) -> dict[str, np.ndarray]:
    """The pictures of one view: detected landmarks as dots, the residual as colours."""
    pictures = {name: images[number] for name, images in drawn.items() if name not in ("difference", "mask")}
    pictures["landmarks"] = draw_points(pictures["input"], landmarks, radius=0.8, outline=False)
    pictures["residual"] = heat_map(drawn["difference"][number], RESIDUAL_SCALE, drawn["mask"][number] > 0.99)
    return pictures


@kept("size")
def _draw(head: HeadModel, rig: Rig, views: Views, photos, size: int) -> dict[str, jax.Array]:
    """Name -> (V, size, size, 3) uint8, and 'difference' (sRGB) and 'mask' (V, size, size)."""

    def draw(view):
        views, photo = view
        verts, albedo = apply_rig(rig, views.expression)
        posed = project_to_image(verts, views.pose, views.inverse_distance, views.crop.size)
        posed = zoom_points(posed, size / views.crop.size)
        normals = rotate(euler_to_matrix(views.pose[:3]), vertex_normals(verts, head.faces))
        shading = jnp.maximum(shade(sh_basis(normals), views.light), 0)
        face = jnp.asarray(head.face_mask)[:, None]
        channels = jnp.concatenate([albedo * shading, albedo, shading, normals, face], -1)
        channels, coverage = render_mesh(posed, head.faces, channels, size, size, 2, 0.0)
        lit, albedo, shading, normals, face = jnp.split(channels, (3, 6, 9, 12), -1)
        photo = crop_image(srgb_to_linear(photo.astype(jnp.float32) / 255), zoomed(views.crop, size))
        level = masked_mean(shading, face, axis=(0, 1))
        lit = jnp.clip(lit, 0, 1)
        return {
            "input": linear_to_srgb8(photo),
            "overlay": linear_to_srgb8(composite(lit * face, face[..., 0], photo, OVERLAY)),
            "geometry": linear_to_srgb8(
                composite(clay(normalize(normals)) * coverage[..., None], coverage, photo, GEOMETRY)
            ),
            "albedo": linear_to_srgb8(albedo + (1 - coverage[..., None])),
            "lighting": linear_to_srgb8(GREY * shading / jnp.mean(level) + (1 - coverage[..., None])),
            "difference": jnp.mean(jnp.abs(linear_to_srgb(jnp.clip(photo, 0, 1)) - linear_to_srgb(lit)), -1),
            "mask": face[..., 0],
        }

    return jax.lax.map(draw, (views, photos))


def rig_pictures(head: HeadModel, rig: Rig, texture, n_frames: int = 24, size: int = 320):
    """The textured rig turning, and its expressions.

    Args:
      head: the head the rig was made with.
      rig: of the person.
      texture: (S, S, 3) uint8 sRGB of the skin.
      n_frames: frames of the full turn; the first looks at the front.
      size: side of the pictures, px.

    Returns:
      frames (n_frames, size, size, 3) uint8, and name -> (size, size, 3) uint8 for each of `expression_codes`.
    """
    colours = textured_colours(head, rig, texture)
    soft = _soft_light(rig.neutral, head.faces)

    def picture(vertices, tint):
        return turntable(vertices, head.faces, colours * tint * _soft_light(vertices, head.faces), 1, size)[0]

    frames = turntable(rig.neutral, head.faces, colours * soft, n_frames, size)
    codes, strip = expression_codes(rig), {}
    if codes:
        moved, tones = apply_rig(rig, np.stack(list(codes.values())))
        tint = jnp.clip(tones / jnp.maximum(rest_albedo(rig), DARK)[None], 0, MAX_TINT)
        with ThreadPoolExecutor() as pool:
            strip = dict(zip(codes, pool.map(picture, moved, tint), strict=True))
    return frames, strip


@jax.jit
def _soft_light(vertices, faces) -> jax.Array:
    """(P, 1) soft light from the front and above that turns with the head."""
    normals = vertex_normals(jnp.asarray(vertices), faces)
    front = jnp.maximum(jnp.matmul(normals, jnp.array([0.25, 0.35, 0.9], normals.dtype), precision=HIGHEST), 0)
    return (0.45 + 0.15 * normals[:, 1] + 0.45 * front)[:, None]


def textured_colours(head: HeadModel, rig: Rig, texture) -> jax.Array:
    """(P, 3) linear RGB: the texture on the skin, the rig's albedo on eyes and mouth interior."""
    colours = vertex_colours(jnp.asarray(texture), jnp.asarray(head.uv))
    return jnp.where((jnp.asarray(head.part) == 0)[:, None], colours, rest_albedo(rig))


def expression_codes(rig: Rig) -> dict[str, np.ndarray]:
    """Name -> (K,) code of each of the EXPRESSIONS whose shapes the rig has; if none, the first codes at +1 and -1."""
    names, unit = {name: number for number, name in enumerate(rig.code_names)}, np.eye(rig.n_codes, dtype=np.float32)
    known = {title: parts for title, parts in EXPRESSIONS.items() if all(part in names for part in parts)}
    if known:
        return {title: unit[[names[part] for part in parts]].sum(0) for title, parts in known.items()}
    titles = rig.code_names or tuple(f"code {number}" for number in range(rig.n_codes))
    return {
        f"{titles[k]} {sign}1": float(f"{sign}1") * unit[k] for k in range(min(UNNAMED, rig.n_codes)) for sign in "+-"
    }

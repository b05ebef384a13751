"""What covers the face in the picture itself: glasses, hidden by what is nearer, and hands or objects before all."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from facerig_jax.geometry.camera import project, to_image
from facerig_jax.geometry.light import sh_basis, shade
from facerig_jax.numerics import normalize
from facerig_jax.synthetic.noise import smoothstep, value_noise

_FINGERS = 4


@struct.dataclass
class Glasses:
    """A pair of glasses: worn 0 or 1; half_size (2,) mm of a lens; colours (3,) linear RGB.

    square: 0 oval, 1 rectangular. rim: mm. tint: share of the light that a lens lets through. shine: of its reflection.
    """

    worn: jax.Array
    half_size: jax.Array
    square: jax.Array
    rim: jax.Array
    tint: jax.Array
    shine: jax.Array
    colour: jax.Array
    drop: jax.Array


def draw_glasses(key, share: float) -> Glasses:
    """Random glasses, worn with probability `share`."""
    keys = jax.random.split(key, 9)
    uniform = [jax.random.uniform(k) for k in keys]
    dark = 0.3 * jax.random.uniform(keys[8], (3,)) ** 3
    return Glasses(
        worn=(uniform[0] < share).astype(jnp.float32),
        half_size=jnp.stack([22.0 + 7 * uniform[1], 15.0 + 9 * uniform[2]]),
        square=uniform[3],
        rim=0.7 + 3.3 * uniform[4] ** 2,
        tint=jnp.where(uniform[5] < 0.15, 0.05 + 0.3 * uniform[6], 0.9 + 0.1 * uniform[6]),
        shine=uniform[7] ** 3,
        colour=dark,
        drop=4 * (uniform[6] - 0.3),
    )


def put_on(glasses: Glasses, picture, depth, eyes, pose, inverse_distance, size: int):
    """Draws glasses over a picture.

    Args:
      glasses: Glasses.
      picture: (3, S, S) linear RGB.
      depth: (S, S) z px of what is seen, towards the camera.
      eyes: (2, 3) head frame, the middles of the right and left lid openings.
      pose, inverse_distance: of the camera.
      size: S.

    Returns:
      (3, S, S)
    """
    v, u = jnp.meshgrid(jnp.arange(size, dtype=jnp.float32), jnp.arange(size, dtype=jnp.float32), indexing="ij")
    cover, through, shine = jnp.zeros_like(u), jnp.ones_like(u), jnp.zeros_like(u)
    width, height = glasses.half_size[0], glasses.half_size[1]

    def see(points):
        return to_image(project(points, pose, inverse_distance), size, size)

    pixel = pose[3]  # px per mm
    for index, side in ((0, -1.0), (1, 1.0)):
        middle = eyes[index] + jnp.stack([side * 1.5, -2.0 - glasses.drop, 15.0])
        across, upward = jnp.array([1.0, 0.0, -0.12 * side]), jnp.array([0.0, 1.0, 0.1])
        points = see(jnp.stack([middle, middle + across, middle + upward, middle - side * across * (width + 1)]))
        centre, du, dv = points[0], points[1] - points[0], points[2] - points[0]
        det = du[0] * dv[1] - du[1] * dv[0]
        det = jnp.where(jnp.abs(det) < 1e-3, 1e-3, det)
        x, y = u - centre[0], v - centre[1]
        a, b = (x * dv[1] - y * dv[0]) / det, (y * du[0] - x * du[1]) / det  # mm in the lens's plane
        p, q = (a / width) ** 2, (b / height) ** 2
        oval, square = jnp.sqrt(p + q), jnp.sqrt(jnp.sqrt(p * p + q * q))
        radius = oval + glasses.square * (square - oval)
        off = (radius - 1) * jnp.minimum(width, height)  # mm from the rim, about
        seen = smoothstep(-4.0 * pixel, 0.0, centre[2] + a * du[2] + b * dv[2] - depth)
        blur = 0.5 / pixel
        rim = smoothstep(glasses.rim / 2 + blur, glasses.rim / 2 - blur, jnp.abs(off)) * seen
        lens = smoothstep(blur, -blur, off) * seen
        band = smoothstep(0.5, 0.9, value_noise((a / 14 + 3, b / 30 + index, 0 * a), jnp.uint32(5)))
        through, shine = through * (1 - lens * (1 - glasses.tint)), shine + lens * band * glasses.shine
        outer = middle + side * across * (width + 1) + upward * 5
        hinge = see(jnp.stack([outer, outer * jnp.array([0.0, 1.0, 0.0]) + jnp.array([side * 77.0, 0.0, -80.0])]))
        cover = jnp.maximum(cover, rim)
        cover = jnp.maximum(cover, _segment(u, v, depth, hinge[0], hinge[1], (0.6 + 0.3 * glasses.rim) * pixel, pixel))
    inner = see(
        jnp.stack(
            [
                eyes[0] + jnp.stack([-1.5 + width, 3.0 - glasses.drop, 15.0]),
                eyes[1] + jnp.stack([1.5 - width, 3.0 - glasses.drop, 15.0]),
            ]
        )
    )
    bridge = _segment(u, v, depth, inner[0], inner[1], (0.5 + 0.35 * glasses.rim) * pixel, pixel)
    cover, through, shine = jnp.maximum(cover, bridge), through, 0.5 * shine
    picture = picture * through[None] + shine[None]
    return picture + cover[None] * (glasses.colour[:, None, None] * (0.6 + shine)[None] - picture)


def _segment(u, v, depth, start, end, half_width, pixel):
    """(S, S) coverage by a rod between two points (3,) px, where nothing is nearer."""
    along = end - start
    squared = jnp.maximum(along[0] ** 2 + along[1] ** 2, 1e-3)
    t = jnp.clip(((u - start[0]) * along[0] + (v - start[1]) * along[1]) / squared, 0, 1)
    distance = jnp.hypot(u - start[0] - t * along[0], v - start[1] - t * along[1])
    seen = smoothstep(-4.0 * pixel, 0.0, start[2] + t * along[2] - depth)
    return smoothstep(half_width + 0.7, half_width - 0.7, distance) * seen


def put_before(key, picture, points, pixel, skin, light, size: int):
    """Draws a hand or an object before everything.

    Args:
      key: random key.
      picture: (3, S, S) linear RGB.
      points: (n, 2) px places on the face that it may cover.
      pixel: px per mm.
      skin: (3,) linear RGB albedo of a hand.
      light: (9, 3) that lights it.
      size: S.

    Returns:
      (3, S, S)
    """
    keys = iter(jax.random.split(key, 10))
    v, u = jnp.meshgrid(jnp.arange(size, dtype=jnp.float32), jnp.arange(size, dtype=jnp.float32), indexing="ij")
    tip = points[jax.random.randint(next(keys), (), 0, len(points))]
    angle = jax.random.uniform(next(keys), minval=0.0, maxval=2 * jnp.pi)
    from_below = jnp.array([0.35 * jnp.cos(angle), 1.0 + 0.3 * jnp.sin(angle)])
    outwards = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    along = normalize(jnp.where(jax.random.uniform(next(keys)) < 0.6, from_below, outwards))
    across = jnp.stack([-along[1], along[0]])
    spread = 17 + 6 * jax.random.uniform(next(keys))
    alpha, height, slope_u, slope_v = (jnp.zeros_like(u) for _ in range(4))
    bends = 0.15 * jax.random.normal(next(keys), (_FINGERS,))
    for finger in range(_FINGERS + 1):
        palm = finger == _FINGERS
        shift = (finger - (_FINGERS - 1) / 2) * spread if not palm else 0.0
        reach = jnp.array([0.0, -9.0, -6.0, 8.0, 75.0])[finger]
        start = tip + pixel * (across * shift + along * (reach + (40.0 if palm else 0.0)))
        direction = along if palm else normalize(along + bends[finger] * across)
        radius = pixel * (40.0 if palm else 9.0)
        end = start + pixel * direction * (120.0 if palm else 95.0)
        line = end - start
        t = jnp.clip(((u - start[0]) * line[0] + (v - start[1]) * line[1]) / jnp.sum(line**2), 0, 1)
        du, dv = (u - start[0] - t * line[0]) / radius, (v - start[1] - t * line[1]) / radius
        inside = du * du + dv * dv
        own = jnp.sqrt(jnp.maximum(1 - inside, 0)) * (0.6 if palm else 1.0)
        nearer = own > height
        slope_u, slope_v = jnp.where(nearer, du, slope_u), jnp.where(nearer, dv, slope_v)
        height = jnp.maximum(height, own)
        alpha = jnp.maximum(alpha, smoothstep(1.0, 1 - 2.0 / radius, jnp.sqrt(inside)))
    thing_key, colour_key, kind_key = next(keys), next(keys), next(keys)
    half = pixel * (15 + 55 * jax.random.uniform(thing_key, (2,)))
    du, dv = u - tip[0] - along[0] * half[1], v - tip[1] - along[1] * half[1]
    a, b = du * across[0] + dv * across[1], du * along[0] + dv * along[1]
    box = smoothstep(1.0, -1.0, jnp.maximum(jnp.abs(a) - half[0], jnp.abs(b) - half[1]))
    is_hand = jax.random.uniform(kind_key) < 0.7
    alpha = jnp.where(is_hand, alpha, box)
    normal = jnp.stack([slope_u, -slope_v, jnp.maximum(height, 0.2)], -1)
    normal = normalize(jnp.where(is_hand, normal, jnp.array([[[0.2, 0.1, 0.95]]])))
    lit = jnp.maximum(shade(sh_basis(normal).reshape(-1, 9), light).reshape(*normal.shape), 0.02)
    thing = jax.random.uniform(colour_key, (3,)) ** 2
    colour = jnp.where(is_hand, skin, thing)[:, None, None] * lit.transpose(2, 0, 1)
    return picture + alpha[None] * (colour - picture)

"""Backgrounds of many kinds, (3, H, W) linear RGB, out of focus to a varying degree."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from facerig_jax.synthetic.noise import fractal_noise, smoothstep, value_noise


def random_background(key, size: int) -> jax.Array:
    """(3, S, S): smooth colours, a wall, lights out of focus, rectangles, foliage, bricks, or a room's corner."""
    kind_key, colour_key, own_key, seed_key = jax.random.split(key, 4)
    colours = jax.random.uniform(colour_key, (8, 3)) ** 1.7
    # Most things are nearly grey or brown; a few are bright.
    grey = 1 - jax.random.uniform(seed_key, (8, 1)) ** 3
    warm = jnp.array([[1.1, 1.0, 0.85]])
    colours = jnp.clip(colours + grey * (colours.mean(1, keepdims=True) * warm - colours), 0, 1)
    kinds = (_smooth, _wall, _bokeh, _rectangles, _foliage, _bricks, _corner)
    kind = jax.random.randint(kind_key, (), 0, len(kinds))
    place = jnp.arange(size) / size
    v, u = jnp.meshgrid(place, place, indexing="ij")
    seed = jax.random.bits(seed_key)
    return jax.lax.switch(kind, kinds, own_key, u, v, colours, seed)


def _mix(a, b, t):
    """Colours (3,) a and b mixed by t (H, W), or pictures (3, H, W)."""
    a, b = (c[:, None, None] if c.ndim == 1 else c for c in (a, b))
    return a + (b - a) * t[None]


def _smooth(key, u, v, colours, seed):
    coarse = jax.random.uniform(key, (5, 5, 1)) * colours[:5][None] + 0.2 * jax.random.uniform(key, (5, 5, 3)) ** 3
    return jax.image.resize(coarse, (*u.shape, 3), "cubic").clip(0, 1).transpose(2, 0, 1)


def _wall(key, u, v, colours, seed):
    fall = jax.random.normal(key, (2,))
    shade = 0.8 + 0.35 * (fall[0] * (u - 0.5) + fall[1] * (v - 0.5))
    rough = 1 + 0.12 * fractal_noise((u * 40, v * 40, 0 * u), seed, 3)
    return colours[0][:, None, None] * (shade * rough)[None]


def _bokeh(key, u, v, colours, seed):
    picture = 0.25 * _mix(colours[0], colours[1], v)
    place = jax.random.uniform(key, (14, 4))

    def add(picture, item):
        at, number = item
        radius = 0.02 + 0.09 * at[2]
        inside = smoothstep(radius, 0.8 * radius, jnp.hypot(u - at[0], v - at[1]))
        return picture + (at[3] * inside)[None] * colours[number][:, None, None], None

    return jax.lax.scan(add, picture, (place, jnp.arange(14) % 8))[0]


def _rectangles(key, u, v, colours, seed):
    picture = _mix(colours[0], colours[1], 0.3 * u)
    box_key, soft_key = jax.random.split(key)
    boxes = jax.random.uniform(box_key, (9, 5))
    soft = 0.004 + 0.04 * jax.random.uniform(soft_key) ** 2

    def add(picture, item):
        box, number = item
        half_u, half_v = 0.03 + 0.25 * box[2] ** 2, 0.03 + 0.35 * box[3] ** 2
        lean = 0.3 * (box[4] - 0.5)
        du, dv = u - box[0] + lean * (v - 0.5), v - box[1]
        inside = smoothstep(soft, -soft, jnp.maximum(jnp.abs(du) - half_u, jnp.abs(dv) - half_v))
        texture = 1 + 0.25 * jnp.sin(60 * (box[4] - 0.5) * (u + v))
        return _mix(picture, colours[number][:, None, None] * texture[None], 0.9 * inside), None

    return jax.lax.scan(add, picture, (boxes, jnp.arange(9) % 8))[0]


def _foliage(key, u, v, colours, seed):
    cells, bright = jax.random.uniform(key, (2,), minval=0.2)
    noise = fractal_noise((u * 30 * cells, v * 30 * cells, 0 * u), seed, 4, 0.7)
    picture = _mix(colours[0], colours[1], smoothstep(-0.8, 0.8, noise))
    return picture * (0.4 + bright * value_noise((u * 4, v * 4, 0 * u), seed))[None]


def _bricks(key, u, v, colours, seed):
    scale, lean, gap, joint = jax.random.uniform(key, (4,))
    rows, columns = 8 + 14 * scale, 3 + 10 * scale
    x, y = (u + 0.3 * (lean - 0.5) * v) * columns, v * rows
    x = x + 0.5 * (jnp.floor(y) % 2)
    inside = jnp.minimum(jnp.abs(x % 1 - 0.5) * rows / columns, jnp.abs(y % 1 - 0.5))
    line = smoothstep(0.5, 0.5 - 0.02 - 0.1 * gap, inside)
    tone = 0.7 + 0.6 * value_noise((jnp.floor(x) * 1.37 + 0.5, jnp.floor(y) * 1.71 + 0.5, 0 * u), seed)
    return _mix(joint * colours[1], colours[0][:, None, None] * tone[None], line)


def _corner(key, u, v, colours, seed):
    edge, floor, lean, soft = jax.random.uniform(key, (4,))
    right = smoothstep(-0.004, 0.004 + 0.02 * soft, u - edge + 0.1 * (lean - 0.5) * v)
    walls = _mix(colours[0], 0.75 * colours[0], right) * (0.75 + 0.3 * u * (1 - edge) + 0.2 * (1 - v))[None]
    low = smoothstep(-0.005, 0.01, v - 0.75 - 0.4 * floor)
    picture = jnp.abs(u - 0.15) + jnp.abs(v - 0.3) * 0.7
    frame = smoothstep(0.2, 0.19, picture)
    content = _mix(colours[2], colours[3], smoothstep(-0.3, 0.3, fractal_noise((u * 12, v * 12, 0 * u), seed, 3)))
    return _mix(_mix(walls, colours[4], low), content, frame)

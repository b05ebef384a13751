"""Bilinear sampling of images and feature maps, with the method's own gradient for the sampling positions."""

import jax
import jax.numpy as jnp


def _corners(height: int, width: int, x: jax.Array, y: jax.Array):
    """Yields (row, column, weight) of the four neighbours of pixel positions; outside neighbours weigh 0."""
    x0, y0 = jnp.floor(x), jnp.floor(y)
    for dy in (0, 1):
        for dx in (0, 1):
            col, row = x0 + dx, y0 + dy
            weight = (1 - jnp.abs(x - col)) * (1 - jnp.abs(y - row))
            inside = (col >= 0) & (col <= width - 1) & (row >= 0) & (row <= height - 1)
            row = jnp.clip(jnp.nan_to_num(row), 0, height - 1).astype(jnp.int32)
            col = jnp.clip(jnp.nan_to_num(col), 0, width - 1).astype(jnp.int32)
            yield row, col, jnp.where(inside, weight, 0)


@jax.jit
def bilinear(image: jax.Array, points: jax.Array) -> jax.Array:
    """Samples at pixel positions of the map itself; zero outside; differentiable in the usual way.

    Args:
      image: (H, W, C).
      points: (..., 2) column u, row v in pixels of `image`, centres at integers.

    Returns:
      (..., C)
    """
    height, width, _ = image.shape
    return sum(
        image[row, col] * weight[..., None]
        for row, col, weight in _corners(height, width, points[..., 0], points[..., 1])
    )


def central_differences(image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Half of (right - left) and of (lower - upper) neighbours, (H, W, C) each; borders copy their inner neighbour."""
    du = (image[:, 2:] - image[:, :-2]) / 2
    dv = (image[2:] - image[:-2]) / 2
    return (
        jnp.concatenate([du[:, :1], du, du[:, -1:]], 1),
        jnp.concatenate([dv[:1], dv, dv[-1:]], 0),
    )


@jax.custom_jvp
def sample_smooth(image: jax.Array, points: jax.Array) -> jax.Array:
    """`bilinear` whose derivative with respect to `points` is the bilinearly sampled central-difference gradient.

    The method's rule (docs/method.md section 1): smoother than the bilinear kernel's own piecewise constant
    derivative. The derivative with respect to the map is the usual one. Works in forward and reverse mode.
    """
    return bilinear(image, points)


@sample_smooth.defjvp
def _sample_smooth_jvp(primals, tangents):
    (image, points), (image_dot, points_dot) = primals, tangents
    # The primal must be the custom sampler again: with `bilinear`, second derivatives would use its kernel.
    slopes = bilinear(jnp.concatenate(central_differences(image), -1), points)
    du, dv = jnp.split(slopes, 2, -1)
    moved = du * points_dot[..., :1] + dv * points_dot[..., 1:]
    return sample_smooth(image, points), bilinear(image_dot, points) + moved


def image_to_map_points(points: jax.Array, image_size: tuple[int, int], map_size: tuple[int, int]) -> jax.Array:
    """Pixel positions in an image (H, W) -> pixel positions in a smaller map of it, align_corners convention."""
    ratio = [(map_size[1] - 1) / (image_size[1] - 1), (map_size[0] - 1) / (image_size[0] - 1)]
    return points * jnp.expand_dims(jnp.array(ratio, points.dtype), range(points.ndim - 1))

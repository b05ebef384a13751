"""Bilinear sampling of images and feature maps, with the method's own gradient for the sampling positions."""

import jax
import jax.numpy as jnp


def _neighbours(size: int, position: jax.Array):
    """The two neighbours along one axis: (place, weight, whether it lies inside the map); outside, place is 0."""
    low = jnp.floor(position)
    for place in (low, low + 1):
        inside = (place >= 0) & (place <= size - 1)
        yield jnp.where(inside, place, 0).astype(jnp.int32), 1 - jnp.abs(position - place), inside


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
    columns, rows = tuple(_neighbours(width, points[..., 0])), tuple(_neighbours(height, points[..., 1]))
    total = jnp.zeros((), image.dtype)
    for row, by_row, row_inside in rows:
        for column, by_column, column_inside in columns:
            weight = jnp.where(column_inside & row_inside, by_column * by_row, 0)
            total = total + image.at[row, column].get(mode="promise_in_bounds") * weight[..., None]
    return total


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

"""What a fit adds up: whitened residuals with their Jacobians for landmarks, colours and priors."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import struct

from facerig_jax.config import Hyper
from facerig_jax.fit.levenberg_marquardt import Normal, normal_of_views
from facerig_jax.fit.linear_points import PointModel, evaluate
from facerig_jax.fit.parameters import N_LIGHT, N_POSE, Parameters, join_own
from facerig_jax.geometry.camera import project_to_image
from facerig_jax.geometry.light import sh_basis
from facerig_jax.geometry.rotation import euler_to_matrix, rotate
from facerig_jax.geometry.sampling import sample_smooth
from facerig_jax.numerics import HIGHEST, normalize
from facerig_jax.types import HeadModel


@struct.dataclass
class PointData:
    """What the landmark term compares.

    model:     PointModel of L points, C = 3.
    detected:  (V, L, 2) crop px.
    weight:    (V, L).
    deviation: (L,) mm, noise of each point.
    common:    (N, L, 2) mm, noise shared by the points, see LandmarkCalibration.
    factor:    (V, L, 2, 2) 1 / mm, whitens offsets to the right and up, beside weight and deviation; None = equal in
               every direction.
    unit_mm:   millimetres per head unit.
    """

    model: PointModel
    detected: jax.Array
    weight: jax.Array
    deviation: jax.Array
    common: jax.Array
    factor: jax.Array | None = None
    unit_mm: float = struct.field(pytree_node=False, default=1.0)

    def view_axes(self) -> PointData:
        """Axes for `jax.vmap` over views."""
        nowhere = self.replace(model=None, deviation=None, common=None)
        return nowhere.replace(**jax.tree.map(lambda _: 0, self.of_view()))

    def of_view(self) -> dict:
        """The fields that are each view's own."""
        return {"detected": self.detected, "weight": self.weight, "factor": self.factor}


@struct.dataclass
class Whitening:
    """Makes one step's residuals independent: own (V, L, 2, 2), pixels to units of noise; common (V, N, 2 L)."""

    own: jax.Array
    common: jax.Array


def point_pixels(x: Parameters, data: PointData, size: int) -> jax.Array:
    """(V, L, 2) model minus detected points in crop pixels."""

    def one(pose, inverse_distance, expression):
        return project_to_image(evaluate(data.model, x.identity, expression), pose, inverse_distance, size)[:, :2]

    return jax.vmap(one)(x.pose, x.inverse_distance, x.expression) - data.detected


def point_whitening(x: Parameters, data: PointData) -> Whitening:
    """Whitening at the current scale and roll of each view, both held during a step.

    With noise covariance D + U'U (own and common), D^-1/2 whitens the residual r and Woodbury's identity gives
    r' (D + U'U)^-1 r = |a|^2 - |B a|^2 with a = D^-1/2 r, B = chol(I + W W')^-1 W and W = U D^-1/2.
    """

    def one(pose, weight, factor):
        pose = jax.lax.stop_gradient(pose)
        back = euler_to_matrix(-pose[:3] * jnp.array([0.0, 0.0, 1.0], pose.dtype))[:2, :2]
        back = jnp.array([[1.0, -1.0]], pose.dtype) * back
        strength = jnp.sqrt(weight) / data.deviation
        back = back[None] if factor is None else jnp.matmul(factor, back, precision=HIGHEST)
        own = strength[:, None, None] * back * data.unit_mm / jnp.maximum(jnp.abs(pose[3]), 1e-9)
        common = (data.common * strength[None, :, None]).reshape(data.common.shape[0], -1)
        gram = jnp.eye(common.shape[0], dtype=common.dtype) + jnp.matmul(common, common.T, precision=HIGHEST)
        return Whitening(own, jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(gram), common, lower=True))

    return jax.vmap(one)(x.pose, data.weight, data.factor)


def point_energy(x: Parameters, data: PointData, whiten: Whitening, size: int) -> jax.Array:
    """Half the squared residuals in units of their noise."""
    own, common = _whitened_landmarks(x, data, whiten, size)
    return 0.5 * (jnp.sum(own**2) - jnp.sum(common**2))


def point_normal(x: Parameters, data: PointData, whiten: Whitening, size: int) -> Normal:
    """Normal equations of `point_energy`, of the unknowns GEOMETRY alone."""

    def jacobian(pose, inverse_distance, expression, turn):
        points = evaluate(data.model, x.identity, expression)

        def pixel(point, pose, inverse_distance):
            return project_to_image(point[None], pose, inverse_distance, size)[0, :2]

        by_point, by_pose, by_distance = jax.vmap(jax.jacfwd(pixel, (0, 1, 2)), (0, None, None))(
            points, pose, inverse_distance
        )
        identity = jnp.einsum("lij,klj->lik", by_point, data.model.identity, precision=HIGHEST)
        expressed = jnp.einsum("lij,klj->lik", by_point, data.model.expression, precision=HIGHEST)
        own = jnp.concatenate([by_pose, by_distance[..., None], expressed], -1)
        turned = (jnp.einsum("lij,ljk->lik", turn, block, precision=HIGHEST) for block in (identity, own))
        return tuple(block.reshape(-1, block.shape[-1]) for block in turned)

    shared, own = jax.vmap(jacobian)(x.pose, x.inverse_distance, x.expression, whiten.own)
    residual, explained = _whitened_landmarks(x, data, whiten, size)
    mix = functools.partial(jnp.einsum, "vnl,vlk->vnk", whiten.common, precision=HIGHEST)
    return normal_of_views(shared, own, residual) - normal_of_views(mix(shared), mix(own), explained)


def _whitened_landmarks(x: Parameters, data: PointData, whiten: Whitening, size: int):
    """Residuals in units of their own noise (V, 2 L), and what common noise explains of them (V, N)."""
    pixels = point_pixels(x, data, size)
    own = jnp.einsum("vlij,vlj->vli", whiten.own, pixels, precision=HIGHEST).reshape(x.n_views, -1)
    return own, jnp.einsum("vnl,vl->vn", whiten.common, own, precision=HIGHEST)


@struct.dataclass
class ColourData:
    """What the photometric term compares.

    model:       PointModel of n face vertices with their tangents, C = 9.
    albedo_mean: (n, 3) and albedo_basis: (A, n, 3), log linear RGB.
    detail:      (n, 1) or (n, 3) standard deviation of each vertex's log albedo around the basis.
    image:       (V, S, S, 3) blurred crops, linear RGB.
    brightness:  (V,) mean colour of the face in each view.
    """

    model: PointModel
    albedo_mean: jax.Array
    albedo_basis: jax.Array
    detail: jax.Array
    image: jax.Array
    brightness: jax.Array


def image_point_and_basis(geometry, pose, inverse_distance, size: int):
    """Image point (2,) crop px and SH basis (9,) of one vertex given by position and tangents (9,)."""
    normal = normalize(jnp.cross(*rotate(euler_to_matrix(pose[:3]), geometry[3:].reshape(2, 3))))
    return project_to_image(geometry[None, :3], pose, inverse_distance, size)[0, :2], sh_basis(normal)


def point_albedo(x: Parameters, data: ColourData) -> jax.Array:
    """(n, 3) linear RGB of the compared vertices."""
    return jnp.exp(data.albedo_mean + jnp.tensordot(x.albedo, data.albedo_basis, 1, precision=HIGHEST))


def colour_terms(x: Parameters, data: ColourData):
    """Residuals (V, n, 3) = (crops - albedo * shading) / brightness, and their slope by albedo detail (V, n, 3)."""
    size = data.image.shape[1]
    albedo = point_albedo(x, data)

    def one(pose, inverse_distance, expression, light, image, brightness):
        geometry = evaluate(data.model, x.identity, expression)
        points, basis = jax.vmap(lambda g: image_point_and_basis(g, pose, inverse_distance, size))(geometry)
        shading = jnp.matmul(basis, light, precision=HIGHEST)
        rendered = albedo * shading
        return (sample_smooth(image, points) - rendered) / brightness, rendered / brightness

    return jax.vmap(one)(x.pose, x.inverse_distance, x.expression, x.light, data.image, data.brightness)


def colour_jacobian(x: Parameters, data: ColourData):
    """(V, n, 3, S) and (V, n, 3, O) derivatives of the colour residuals.

    The chain rule is applied at one place: a vertex's colour sees the shape only through 9 numbers, its position and
    two tangents, so the bases enter by one product instead of hundreds of tangents through the renderer.
    """
    size = data.image.shape[1]
    albedo = point_albedo(x, data)

    def one(pose, inverse_distance, expression, light, image, brightness):
        geometry = evaluate(data.model, x.identity, expression)

        def residual(geometry, albedo, pose, inverse_distance):
            point, basis = image_point_and_basis(geometry, pose, inverse_distance, size)
            shading = jnp.matmul(basis, light, precision=HIGHEST)
            return (sample_smooth(image, point) - albedo * shading) / brightness, (basis, shading)

        derivative = jax.jacfwd(residual, (0, 2, 3), has_aux=True)
        (by_shape, by_pose, by_distance), (basis, shading) = jax.vmap(derivative, (0, 0, None, None))(
            geometry, albedo, pose, inverse_distance
        )
        identity = jnp.einsum("nij,knj->nik", by_shape, data.model.identity, precision=HIGHEST)
        expressed = jnp.einsum("nij,knj->nik", by_shape, data.model.expression, precision=HIGHEST)
        toned = -jnp.moveaxis(data.albedo_basis, 0, -1) * (albedo * shading / brightness)[..., None]
        channels = jnp.eye(3, dtype=basis.dtype)[None, :, None]
        by_light = -(albedo / brightness)[:, :, None, None] * basis[:, None, :, None] * channels
        own = join_own(by_pose, by_distance[..., None], expressed, by_light.reshape(-1, 3, N_LIGHT))
        return jnp.concatenate([identity, toned], -1), own

    return jax.vmap(one)(x.pose, x.inverse_distance, x.expression, x.light, data.image, data.brightness)


def colour_energy(
    residual: jax.Array, slope: jax.Array, weight: jax.Array, detail: jax.Array, hyper: Hyper
) -> jax.Array:
    """Half the weighted squares after every vertex's own albedo detail d ~ N(0, detail^2) is integrated out.

    residual, slope, weight: (V, n, 3); detail: (n, 1) or (n, 3). Residuals that all views share cost little (the skin
    may simply be darker there); residuals that differ between views are geometry. Neighbouring vertices share their
    errors, so the sum counts for `colour_count` times fewer.
    """
    weight = weight / hyper.colour**2
    explained = detail_gain(slope, weight, detail) * jnp.sum(weight * slope * residual, 0)
    return 0.5 * (jnp.sum(weight * residual**2) - jnp.sum(explained**2)) / hyper.colour_count


def colour_normal(residual, slope, shared, own, weight, detail, hyper: Hyper) -> Normal:
    """Normal equations of `colour_energy`; shared (V, n, 3, S), own (V, n, 3, O)."""
    n_views = residual.shape[0]
    root = jnp.sqrt(weight / hyper.colour_count) / hyper.colour

    def rows(a):
        return (a * root[..., None]).reshape(n_views, root[0].size, a.shape[-1])

    plain = normal_of_views(rows(shared), rows(own), (residual * root).reshape(n_views, -1))
    gain = detail_gain(slope, weight / hyper.colour**2, detail)
    # What the detail explains is one residual per vertex and channel that depends on every view's unknowns.
    pull = (root**2 * slope * (gain * jnp.sqrt(hyper.colour_count))[None])[..., None]
    by_shared = jnp.sum(pull * shared, 0)
    by_own = jnp.moveaxis(pull * own, 0, 2).reshape(*own.shape[1:3], -1)
    columns = jnp.concatenate([by_shared, by_own], -1).reshape(residual[0].size, -1)
    explained = jnp.sum(pull[..., 0] * residual, 0).reshape(-1)
    return plain - Normal(
        jnp.matmul(columns.T, columns, precision=HIGHEST),
        jnp.matmul(columns.T, explained, precision=HIGHEST),
        0.5 * jnp.sum(explained**2),
    )


def detail_gain(slope, weight, detail):
    """(n, 3) posterior deviation of the detail: 1 / sqrt(1 / detail^2 + sum_v weight slope^2)."""
    return jax.lax.rsqrt(1.0 / detail**2 + jnp.sum(weight * slope**2, 0))


def prior_normal(x: Parameters, light_level: jax.Array, hyper: Hyper, head: HeadModel) -> Normal:
    """Gaussian priors and the soft bounds of the expression weights, as a diagonal system.

    light_level: (V,) expected constant coefficient of each view's light; head: for its unit and expression prior.
    """
    shared = jnp.concatenate([x.identity, x.albedo])
    own_weight, own_error, own_bound = _own_prior(x, light_level, hyper, head)
    weight = jnp.concatenate([jnp.ones_like(shared), own_weight.reshape(-1)])
    error = jnp.concatenate([shared, own_error.reshape(-1)])
    pull = jnp.concatenate([jnp.zeros_like(shared), own_bound.reshape(-1)])
    active = (pull != 0) / hyper.expression_bound**2
    energy = 0.5 * jnp.sum(weight * error**2) + 0.5 * jnp.sum(pull**2) / hyper.expression_bound**2
    return Normal(jnp.diag(weight + active), weight * error + pull / hyper.expression_bound**2, energy)


def _own_prior(x: Parameters, light_level, hyper: Hyper, head: HeadModel):
    """Weights, errors and bound violations (V, O) of the per-view unknowns."""
    n_views, n_expression = x.expression.shape
    level = light_level[:, None]
    blendshapes = head.expression_prior == "unit_interval"
    dtype = x.pose.dtype
    ones = jnp.ones((n_views, 1), dtype)
    constant, others = jnp.ones((1, 3), dtype) / hyper.light_tint, jnp.ones((8, 3), dtype) / hyper.light
    light_weight = (jnp.concatenate([constant, others]).reshape(1, N_LIGHT) / level) ** 2
    weight = join_own(
        jnp.zeros((n_views, N_POSE), dtype),
        ones / (hyper.inverse_distance * head.unit_mm) ** 2,
        jnp.broadcast_to(1 / hyper.expression**2 if blendshapes else jnp.ones((), dtype), (n_views, n_expression)),
        light_weight,
    )
    expected = jnp.zeros((n_views, 9, 3), dtype).at[:, 0].set(level).reshape(n_views, N_LIGHT)
    error = join_own(
        x.pose,
        x.inverse_distance[:, None] - hyper.inverse_distance_mean * head.unit_mm,
        x.expression,
        x.light.reshape(n_views, N_LIGHT) - expected,
    )
    outside = (jnp.minimum(x.expression, 0) + jnp.maximum(x.expression - 1, 0)) * blendshapes
    bound = join_own(0 * x.pose, 0 * ones, outside, jnp.zeros((n_views, N_LIGHT), dtype))
    return weight, error, bound

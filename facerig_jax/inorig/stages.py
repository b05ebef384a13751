"""The published method: three coarse-to-fine stages of three gradient steps with learned sizes, as one scan.

docs/method.md section 7. `solve_stages` is the table of contents, `run_stage` one stage's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from facerig_jax.geometry.camera import normalized_to_pose, project, to_image
from facerig_jax.geometry.light import ambient_light, sh_basis, solve_light
from facerig_jax.geometry.mesh import vertex_normals
from facerig_jax.head.coarse import thin
from facerig_jax.inorig.config import EnergyWeights, InorigConfig
from facerig_jax.inorig.decode import DecodedRig, RigCode, decode, first_rig
from facerig_jax.inorig.energies import Measured, Observed, Posed, measure, model_landmarks, observed_colours, shading
from facerig_jax.inorig.params import image_features, normalize_images, regress_pose, stage_modules
from facerig_jax.inorig.space import RigSpace, make_tables, rig_space
from facerig_jax.inorig.state import Problem, SolverState, StageEnd, Unknowns
from facerig_jax.networks.tree import apply
from facerig_jax.numerics import masked_mean, srgb_to_linear
from facerig_jax.raster.uv import UVTable
from facerig_jax.raster.visibility import visible
from facerig_jax.rig.neural import displace, mode_weights, shade_albedo
from facerig_jax.types import HeadModel

# Darkest albedo whose shading, colour / albedo, says something about the light.
MIN_ALBEDO = 1e-6
# Which vertices of the views (V, P, 3) px a camera sees: (vertices_img, faces, size) -> (V, P) bool.
Visibility = Callable[[jax.Array, jax.Array, int], jax.Array]


def solve_stages(
    params: dict,
    head: HeadModel,
    observed: Observed,
    weights: EnergyWeights,
    config: InorigConfig,
    *,
    pose: jax.Array | None = None,
    see: Visibility = visible,
    tables: dict[int, UVTable] | None = None,
) -> tuple[SolverState, dict]:
    """Fits a rig and every view's pose, expression and light.

    Args:
      params: all networks' parameters.
      head: morphable head.
      observed: crops and landmarks of V views.
      weights: traced settings.
      config: static settings.
      pose: (V, 6) normalised poses to start from; default: what the pose regressor says.
      see: visibility rule.
      tables: of `inorig.space.make_tables` for the head that the solver works on, where they are at hand.

    Returns:
      state: SolverState after the last stage.
      trace: 'start' the mean head's 'projected' vertices (V, P, 3) and 'light' (V, 9, 3); 'steps' name ->
        (stages, steps, ...), see `take_step`; 'stages' name -> (stages, ...), see `finish_stage`.
    """
    problem, state = begin(params, head, observed, weights, config, pose=pose, see=see, tables=tables)

    def stage(state, number):
        return run_stage(problem, number, config, see, state)

    stage = jax.checkpoint(stage) if config.checkpoint else stage
    end, trace = jax.lax.scan(stage, state, np.arange(config.stages))
    return end, {"start": {"projected": state.projected, "light": state.light}, **trace}


def begin(
    params: dict,
    head: HeadModel,
    observed: Observed,
    weights: EnergyWeights,
    config: InorigConfig,
    *,
    pose: jax.Array | None = None,
    see: Visibility = visible,
    tables: dict[int, UVTable] | None = None,
) -> tuple[Problem, SolverState]:
    """What comes before the stages: features, the first pose, the mean head. Arguments as for `solve_stages`."""
    with jax.named_scope("features"):
        photos = normalize_images(observed.photo)
        pyramids = image_features(params, photos, config.networks)
        pose = regress_pose(params, photos, config.networks) if pose is None else pose
        pose = jax.lax.stop_gradient(pose) if config.detach else pose
        work = thin(head) if config.coarse else head
        tables = make_tables(work, config) if tables is None else tables
        problem = Problem(params, work, head, tables, pyramids, observed, weights)
    with jax.named_scope("start"):
        return problem, start(problem, pose, config, see)


def start(problem: Problem, pose: jax.Array, config: InorigConfig, see: Visibility) -> SolverState:
    """The mean head at rest in poses (V, 6), under the light that explains it best."""
    head, count = problem.head, pose.shape[0]
    rig = first_rig(head, config)
    expression = jnp.zeros((count, config.networks.codes), pose.dtype)
    inverse = jnp.full(count, config.inverse_distance * head.unit_mm, pose.dtype)
    posed = place(problem, rig, 0, pose, expression, inverse, config)
    seen = see(_image(posed, problem), head.faces, problem.observed.photo.shape[1])
    ambient = jnp.broadcast_to(ambient_light(pose.dtype), (count, 9, 3))
    light = light_views(problem, posed, seen, ambient)
    whole = first_rig(problem.whole, config)
    return SolverState(rig, whole, pose, expression, inverse, light, posed.projected, seen)


def run_stage(
    problem: Problem, number: int | jax.Array, config: InorigConfig, see: Visibility, state: SolverState
) -> tuple[SolverState, dict]:
    """One stage: new UV features, codes from zero, gradient steps; then visibility and light.

    What differs between stages is chosen by `number`, at run time where it is traced; the rest is compiled once.
    """
    state = jax.lax.stop_gradient(state) if config.detach else state
    branches = [functools.partial(optimise, problem, stage, config, see) for stage in range(config.stages)]
    fixed = isinstance(number, int)
    end, steps = branches[number](state) if fixed else jax.lax.switch(number, branches, state)
    with jax.named_scope("finish"):
        state, after = finish_stage(problem, state, end, config, see)
    return state, {"steps": steps, "stages": after}


def optimise(
    problem: Problem, stage: int, config: InorigConfig, see: Visibility, state: SolverState
) -> tuple[StageEnd, dict]:
    """The gradient steps of one stage, and the rig that they end with."""
    head, params = problem.head, problem.params["stages"][stage]
    with jax.named_scope(f"stage{stage}_space"):
        space = stage_space(problem, stage, state, config)

    def step(x, _):
        return take_step(problem, stage, space, state, x, config, see)

    step = jax.checkpoint(step) if config.checkpoint else step
    x = Unknowns(zero_code(config, state.pose.dtype), state.pose, state.expression)
    with jax.named_scope(f"stage{stage}_steps"):
        x, steps = jax.lax.scan(step, x, None, length=config.steps)
    with jax.named_scope(f"stage{stage}_end"):
        rig = decode(params, stage, space, x.code, state.rig, head, config)
        whole = decode(params, stage, space, x.code, state.whole, problem.whole, config)
        posed = place(problem, rig, stage, x.pose, x.expression, state.inverse_distance, config)
    return StageEnd(rig, whole, posed, x.pose, x.expression), steps


def stage_space(problem: Problem, stage: int, state: SolverState, config: InorigConfig) -> RigSpace:
    """The space of rigs of one stage, from the images as the previous stage's reconstruction sees them."""
    return rig_space(
        problem.params["stages"][stage],
        stage,
        problem.pyramids,
        state.projected,
        state.seen,
        problem.observed.view_mask,
        problem.head,
        problem.tables,
        config,
    )


def zero_code(config: InorigConfig, dtype) -> RigCode:
    """The rig code that every stage starts from."""
    sizes = config.networks
    return RigCode(*(jnp.zeros(n, dtype) for n in (sizes.identity_code, sizes.expression_code, sizes.albedo_code)))


def place(
    problem: Problem, rig: DecodedRig, stage: int, pose, expression, inverse_distance, config: InorigConfig
) -> Posed:
    """A decoded rig in every view; `stage` is the last one whose networks take part."""
    head, sizes = problem.head, config.networks
    stages = problem.params["stages"]
    neural = not config.linear_rig
    named = sizes.named_codes or config.linear_rig
    moved = displace(
        jnp.asarray(head.expression_basis)[: sizes.modes],
        rig.weights,
        tuple(stages[i]["expression_out"] for i in range(1, stage + 1)) if neural else (),
        expression,
        head.uv,
        unit_mm=head.unit_mm,
        named_codes=named,
        gain=sizes.expression_gain,
        dtype=sizes.dtype,
    )
    vertices = rig.neutral[None] + moved
    real = normalized_to_pose(pose, head.unit_mm, sizes.image_size)
    dynamic = stages[stage].get("albedo_out") if stage == 2 and neural else None
    still = jax.lax.stop_gradient(expression)
    return Posed(
        vertices=vertices,
        projected=project(vertices, real, inverse_distance),
        albedo=shade_albedo(rig.albedo, rig.weights, dynamic, still, head.uv, sizes.dtype),
        identity=rig.identity,
        modes=mode_weights(rig.weights, expression, named, sizes.expression_gain),
        pose=real,
        inverse_distance=inverse_distance,
    )


def stage_energy(
    problem: Problem, stage: int, space: RigSpace, state: SolverState, config: InorigConfig, see: Visibility
) -> Callable[[Unknowns], tuple[jax.Array, tuple]]:
    """What a stage's steps lower: Unknowns -> (total, (Measured, 'projected' vertices, which are 'seen'))."""
    head, observed, params = problem.head, problem.observed, problem.params["stages"][stage]
    size, features = observed.photo.shape[1], problem.pyramids.energy[stage]

    def energy(x: Unknowns):
        rig = decode(params, stage, space, x.code, state.rig, head, config)
        posed = place(problem, rig, stage, x.pose, x.expression, state.inverse_distance, config)
        fresh = config.visibility == "step"
        seen = see(_image(posed, problem), head.faces, size) if fresh else state.seen
        measured = measure(posed, state.light, seen, features, observed, head, problem.weights, config)
        return measured.total, (measured, posed.projected, seen)

    return energy


def take_step(
    problem: Problem,
    stage: int,
    space: RigSpace,
    state: SolverState,
    x: Unknowns,
    config: InorigConfig,
    see: Visibility,
) -> tuple[Unknowns, dict]:
    """One gradient step with learned sizes, or with `config.update`'s.

    Returns:
      x: after the step.
      trace: at the start of the step 'total', 'feature', 'landmark', 'photometric' energies, 'residual' statistics,
        'gradient', 'projected' vertices and which are 'seen'; 'exponent' (5,) in (-1, 1) and 'size' (5,) of the steps
        of identity, pose, expression, expression code, albedo; 'x' after the step.
    """
    energy = stage_energy(problem, stage, space, state, config, see)
    (total, (measured, projected, seen)), gradient = jax.value_and_grad(energy, has_aux=True)(x)
    exponent = step_exponents(problem.params["stages"][stage], stage, measured, problem.observed.view_mask, config)
    scale, bias = (jnp.array(x[stage], exponent.dtype) for x in (config.step_scale, config.step_bias))
    size = 10.0 ** (scale * exponent + bias)
    x = descend(x, gradient, size, jnp.sum(problem.observed.view_mask))
    measures = {"total": total, **measured.terms, "residual": measured.residual, "projected": projected, "seen": seen}
    return x, {**measures, "gradient": gradient, "exponent": exponent, "size": size, "x": x}


def step_exponents(params: dict, stage: int, measured: Measured, view_mask, config: InorigConfig) -> jax.Array:
    """(5,) in (-1, 1) from the residual statistics averaged over views; 0 where step sizes are fixed."""
    statistics = {name: masked_mean(value, view_mask[:, None], axis=0) for name, value in measured.residual.items()}
    statistics = jax.lax.stop_gradient(statistics) if config.detach else statistics
    if config.update != "learned":
        return jnp.zeros(5, view_mask.dtype)
    modules = stage_modules(config, stage)
    geometry = jnp.concatenate([statistics["feature"], statistics["landmark"]])
    geometry = apply(modules["step"], params["step"], geometry)
    return jnp.concatenate([geometry, apply(modules["albedo_step"], params["albedo_step"], statistics["photometric"])])


def descend(x: Unknowns, gradient: Unknowns, size: jax.Array, count: jax.Array) -> Unknowns:
    """x - size * gradient; times the number of views for what belongs to one, because energies are means over views."""
    code, slope = x.code, gradient.code
    return Unknowns(
        code=RigCode(
            identity=code.identity - size[0] * slope.identity,
            expression=code.expression - size[3] * slope.expression,
            albedo=code.albedo - size[4] * slope.albedo,
        ),
        pose=x.pose - count * size[1] * gradient.pose,
        expression=x.expression - count * size[2] * gradient.expression,
    )


def finish_stage(
    problem: Problem, state: SolverState, end: StageEnd, config: InorigConfig, see: Visibility
) -> tuple[SolverState, dict]:
    """Sees what the cameras see of the stage's rig, and solves the light.

    Returns:
      state: for the next stage.
      trace: 'projected', 'vertices' (V, P, 3), 'seen' (V, P), 'neutral' (P, 3), 'albedo', 'rendered' and 'observed'
        colours (V, P, 3), 'light' and, for linear RGB, 'linear_light' (V, 9, 3), 'landmarks' (V, L, 2) px.
    """
    head, posed = problem.head, end.posed
    image = _image(posed, problem)
    seen = see(image, head.faces, problem.observed.photo.shape[1])
    light = light_views(problem, posed, seen, state.light)
    colours, _ = observed_colours(problem.observed, image)
    face = seen & (head.face_mask > 0.5)[None]
    trace = {
        "projected": posed.projected,
        "seen": seen,
        "vertices": posed.vertices,
        "neutral": end.rig.neutral,
        "albedo": posed.albedo,
        "rendered": posed.albedo * shading(posed.projected, light, head),
        "observed": colours,
        "light": light,
        "linear_light": light if config.linear_colour else light_views(problem, posed, seen, light, srgb_to_linear),
        "landmarks": model_landmarks(posed, image, seen, face, problem.observed, head, config),
    }
    kept = state.inverse_distance
    return SolverState(end.rig, end.whole, end.pose, end.expression, kept, light, posed.projected, seen), trace


def light_views(problem: Problem, posed: Posed, seen: jax.Array, before: jax.Array, to_space=lambda x: x) -> jax.Array:
    """Closed-form light (V, 9, 3) from the colours of visible face-region vertices; no gradient.

    `to_space` takes colours and albedo to the space in which the light is wanted.
    """
    head = problem.head
    colours, inside = observed_colours(problem.observed, _image(posed, problem))
    lit = jnp.all(posed.albedo > MIN_ALBEDO, -1)
    use = seen & inside & lit & (head.face_mask > 0.5)[None]
    basis = sh_basis(vertex_normals(posed.projected, head.faces))
    solve = jax.vmap(functools.partial(solve_light, ridge=problem.weights.light_ridge))
    return jax.lax.stop_gradient(solve(basis, to_space(posed.albedo), to_space(colours), use, before))


def _image(posed: Posed, problem: Problem) -> jax.Array:
    size = problem.observed.photo.shape[1]
    return to_image(posed.projected, size, size)

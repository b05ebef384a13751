"""Times the parts of the library on this machine: python -m experiments.benchmark --what=raster

Each section is a function that yields `Row`s and remarks; add one to SECTIONS and it appears under --what. Times are
the best of several calls after compilation, which is the figure least disturbed by other work on the machine; compare
ratios within one run rather than milliseconds of different runs.
"""

import dataclasses
import functools
import resource
import runpy
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import cli
from experiments.training.loop import make_batch, make_examples
from experiments.training.prepare import make_teacher
from experiments.training.sources import make_sources
from experiments.training.train_step import init_state, make_mesh, make_update, replicated
from facerig_jax.geometry.mesh import vertex_normals
from facerig_jax.head import load_head
from facerig_jax.inorig.config import PRESETS, EnergyWeights, InorigConfig
from facerig_jax.inorig.energies import Observed, landmark_weights
from facerig_jax.inorig.stages import solve_stages
from facerig_jax.raster.rasterize import RASTERIZERS, image_to_clip, interpolate, rasterize, triangle_ids
from facerig_jax.raster.visibility import visible
from facerig_jax.weights import init_params

# What a function may need beside its inputs and outputs, bytes; a larger one is compiled but not run.
MAX_TEMPORARY = 10e9
# No more calls once these are used up.
MAX_SECONDS = 20

_WHAT = flags.DEFINE_list("what", ["raster"], "Sections to run, see the list in the error message of a wrong name.")
_REPEATS = flags.DEFINE_integer("repeats", 20, "Calls of each compiled function; the best one counts.", lower_bound=1)


@dataclasses.dataclass(frozen=True)
class Row:
    """One measured function. `reference` is another row's name within the section, or a time in ms, to compare with."""

    name: str
    compile_s: float
    best_ms: float
    reference: str | float | None = None
    temporary_mb: float = 0.0


def measure(name: str, function: Callable, *args, reference: str | float | None = None) -> Row:
    """Compiles a function for these arguments and times it."""
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    compile_s = time.perf_counter() - start
    temporary = compiled.memory_analysis().temp_size_in_bytes
    if temporary > MAX_TEMPORARY:
        return Row(name, compile_s, np.nan, reference, temporary / 1e6)
    jax.block_until_ready(compiled(*args))
    times = []
    while len(times) < _REPEATS.value and sum(times) < MAX_SECONDS:
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        times.append(time.perf_counter() - start)
    return Row(name, compile_s, 1e3 * min(times), reference, temporary / 1e6)


def ellipsoid(n_faces: int, size: int) -> tuple[jax.Array, jax.Array]:
    """A closed head-sized mesh of about n_faces triangles: vertices (P, 3) in the image frame, faces (F, 3)."""
    rings = round((n_faces / 4) ** 0.5)
    polar, azimuth = np.linspace(1e-3, np.pi - 1e-3, rings + 1), np.linspace(0, 2 * np.pi, 2 * rings, endpoint=False)
    t, p = np.meshgrid(polar, azimuth, indexing="ij")
    unit = np.stack([np.sin(t) * np.sin(p), -np.cos(t), np.sin(t) * np.cos(p)], -1).reshape(-1, 3)
    index = np.arange(unit.shape[0]).reshape(rings + 1, 2 * rings)
    a, b, c, d = index[:-1], np.roll(index, -1, 1)[:-1], index[1:], np.roll(index, -1, 1)[1:]
    faces = np.concatenate([np.stack(half, -1).reshape(-1, 3) for half in ((a, c, b), (b, c, d))])
    vertices = unit * np.array([0.35, 0.45, 0.4]) * size + [(size - 1) / 2, (size - 1) / 2, 0]
    return jnp.asarray(vertices, jnp.float32), jnp.asarray(faces, jnp.int32)


def why_not(rasterizer: str) -> str:
    """Why a rasterizer backend does not run here, in its own words; empty when it does."""
    vertices, faces = jax.ShapeDtypeStruct((3, 4), jnp.float32), jax.ShapeDtypeStruct((1, 3), jnp.int32)
    try:
        jax.eval_shape(functools.partial(rasterize, height=8, width=8, rasterizer=rasterizer), vertices, faces)
    except (ImportError, RuntimeError) as error:
        return str(error)
    return ""


def raster() -> Iterator[Row | str]:
    """Rasterizer, its gradient, visibility and normals; references are the prototype's times on two CPU cores.

    Then the other rasterizer backends, against the same work by the portable one.
    """
    size = 256
    others = {name: why_not(name) for name in RASTERIZERS if name not in ("auto", "jax")}
    yield from (f"{name} left out: {reason}" for name, reason in others.items() if reason)
    for label, n_faces, prototype_ms in (("14k", 14_000, 2.7), ("70k", 70_000, 6.4)):
        vertices, faces = ellipsoid(n_faces, size)
        views = jnp.stack([vertices + shift for shift in range(4)])
        colours = jnp.abs(vertices) / size

        def ids(views, faces, cull="none", rasterizer="jax"):
            return triangle_ids(image_to_clip(views, size, size), faces, size, size, cull, rasterizer)

        def fragments(vertices, faces, rasterizer="jax"):
            return rasterize(image_to_clip(vertices, size, size), faces, size, size, rasterizer=rasterizer)

        def loss(vertices, colours, faces, fragments=fragments, rasterizer="jax"):
            return jnp.sum(interpolate(colours, fragments(vertices, faces, rasterizer), faces) ** 2)

        gradient = jax.grad(loss, (0, 1))

        def gradients_mapped(views, colours, faces, gradient=gradient):
            return jax.lax.map(lambda view: gradient(view, colours, faces), views)

        def normal_tangents(vertices, faces):
            tangents = jnp.broadcast_to(vertices, (100, *vertices.shape))
            return jax.vmap(lambda t: jax.jvp(lambda v: vertex_normals(v, faces), (vertices,), (t,))[1])(tangents)

        def culled(views, faces, ids=ids):
            return ids(views, faces, "back")

        one = f"ids, {label}, 1 image"
        gradients = jax.vmap(gradient, (0, None, None))
        yield measure(one, ids, views[:1], faces, reference=prototype_ms)
        yield measure(f"ids, {label}, 1 image, back faces culled", culled, views[:1], faces, reference=one)
        four = f"ids, {label}, 4 images"
        yield measure(four, ids, views, faces, reference=one)
        yield measure(f"fragments, {label}, 1 image", fragments, vertices, faces, reference=one)
        yield measure(f"picture, {label}, 1 image", loss, vertices, colours, faces, reference=one)
        slope = f"gradient, {label}, 1 image"
        yield measure(slope, gradient, vertices, colours, faces, reference=one)
        yield measure(f"gradient, {label}, 4 images, vmap", gradients, views, colours, faces, reference=one)
        yield measure(f"gradient, {label}, 4 images, lax.map", gradients_mapped, views, colours, faces, reference=one)
        yield measure(f"visible, {label}, 4 views", visible, views, faces, reference=one)
        normals = f"normals, {label}"
        yield measure(normals, vertex_normals, vertices, faces, reference=one)
        yield measure(f"normals, {label}, 100 tangents", normal_tangents, vertices, faces, reference=normals)
        work = {one: (ids, views[:1], faces), four: (ids, views, faces), slope: (gradient, vertices, colours, faces)}
        for backend in (name for name, reason in others.items() if not reason):
            for name, (function, *args) in work.items():
                by_backend = functools.partial(function, rasterizer=backend)
                yield measure(f"{name}, {backend}", by_backend, *args, reference=name)


def presets() -> Iterator[Row | str]:
    """The published method, 4 views on the embedded head: `base` against `paper`."""
    yield measure("paper", *learned_fit("paper"))
    yield measure("base", *learned_fit("base"), reference="paper")


def learned_fit(preset: str, views: int = 4):
    """The published method as a function, and its inputs: untrained weights, the embedded head, views of noise."""
    config = PRESETS[preset]
    pose = None if config.networks.pose_blocks else jnp.zeros((views, 6))

    def forward(params, head, observed):
        return solve_stages(params, head, observed, EnergyWeights(), config, pose=pose)

    head = jax.tree.map(jnp.asarray, load_head())
    return forward, init_params(jax.random.key(0), config), head, noise_views(config, head, views)


def noise_views(config: InorigConfig, head, count: int) -> Observed:
    """Views of noise, with landmarks at random: the work does not depend on what is seen."""
    size, rng = config.networks.image_size, np.random.default_rng(0)
    photo = jnp.asarray(rng.uniform(size=(count, size, size, 3)), jnp.float32)
    weight = jnp.broadcast_to(landmark_weights(head, config), (count, len(landmark_weights(head, config))))
    return Observed(
        photo=photo,
        colour=jnp.concatenate([photo, jnp.ones_like(photo[..., :1])], -1),
        landmarks=jnp.asarray(rng.uniform(0.2 * size, 0.8 * size, (*weight.shape, 2)), jnp.float32),
        weight=weight,
        view_mask=jnp.ones(count),
    )


def training() -> Iterator[Row | str]:
    """An update of `base` on 8 synthetic subjects of 4 photos, and drawing them; then the share of drawing."""
    config = runpy.run_path("experiments/configs/base.py")["config"]()
    config = dataclasses.replace(config, batch=8 * jax.device_count(), microbatch=8 if accelerated() else 1)
    source, _ = make_sources(dataclasses.replace(config, validation=0), load_head())
    mesh, count = make_mesh(), source(0).images.shape[0]
    teacher = make_teacher(load_head(), config.model)
    examples, _ = make_examples(config, teacher, source, None)
    teacher = jax.device_put(teacher, replicated(mesh))
    start = time.perf_counter()
    batch = jax.block_until_ready(make_batch(examples, config, 0, mesh))
    yield f"drawing compiles in about {time.perf_counter() - start:.0f} s"
    drawing = min(_seconds(lambda step=step: make_batch(examples, config, step, mesh)) for step in range(1, 4))
    weights = jax.device_put(jax.tree.map(jnp.float32, config.losses), replicated(mesh))
    for stages in (1, config.model.stages):
        state, update = init_state(config, mesh), make_update(config, stages, mesh)
        start = time.perf_counter()
        temporary = update.lower(state, teacher, batch, weights).compile().memory_analysis().temp_size_in_bytes
        compile_s, seconds = time.perf_counter() - start, []
        for _ in range(4):
            start = time.perf_counter()
            state, _ = jax.block_until_ready(update(state, teacher, batch, weights))
            seconds.append(time.perf_counter() - start)
        taken = min(seconds[1:])
        yield Row(
            f"update, {config.batch} x {count} photos, {stages} stages", compile_s, 1e3 * taken, None, temporary / 1e6
        )
        rate, share = config.batch / (drawing + taken), drawing / (drawing + taken)
        yield f"  {rate:.2f} subjects/s, {rate * count:.2f} photos/s; drawing is {100 * share:.0f} % of it"
    yield Row(f"drawing, {config.batch} x {count} photos", 0.0, 1e3 * drawing)
    if not accelerated():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        yield f"largest memory of this process: {peak:.2f} GB, compiling included"


def accelerated() -> bool:
    """Whether the default device is a GPU or TPU."""
    return jax.default_backend() != "cpu"


def _seconds(call: Callable) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


SECTIONS: dict[str, Callable[[], Iterator[Row | str]]] = {
    "raster": raster,
    "presets": presets,
    "training": training,
}


def report(section: str) -> None:
    """Runs a section and prints its rows as they come."""
    print(f"\n{section} on {jax.devices()[0].device_kind}, jax {jax.__version__}, best of {_REPEATS.value}")
    print(f"{'':44}{'compile s':>10}{'best ms':>10}{'temp MB':>9}  ratio")
    seen: dict[str, float] = {}
    for row in SECTIONS[section]():
        if isinstance(row, str):
            print(row)
            continue
        seen[row.name] = row.best_ms
        ratio = ""
        if row.reference is not None:
            base = seen[row.reference] if isinstance(row.reference, str) else row.reference
            named = row.reference if isinstance(row.reference, str) else f"{row.reference} ms, the design's figure"
            ratio = f"{row.best_ms / base:.2f} x {named}"
        print(f"{row.name:44}{row.compile_s:10.2f}{row.best_ms:10.2f}{row.temporary_mb:9.0f}  {ratio}", flush=True)


def main() -> None:
    """Runs the sections asked for."""
    unknown = [name for name in _WHAT.value if name not in SECTIONS]
    if unknown:
        raise cli.UserError(f"--what: {unknown[0]!r} is not one of {', '.join(SECTIONS)}.")
    for name in _WHAT.value:
        report(name)


if __name__ == "__main__":
    cli.run(main, keep_programs=False)

"""The package keeps its shape: layers, optional dependencies at one door each, documented doors, small assets."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import facerig_jax

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "facerig_jax"
MODULES = sorted(PACKAGE.rglob("*.py"))
# Run where the package is, so their packages have doors too; experiments/build/ has an extra of its own.
HARNESSES = sorted(path for name in ("evaluation", "training") for path in (ROOT / "experiments" / name).rglob("*.py"))
# A module imports only from parts of its own or an earlier line.
LAYERS = (
    ("platform", "types", "checks", "config", "numerics", "pytrees", "programs"),
    ("io",),
    ("geometry",),
    ("raster",),
    ("head",),
    ("detect",),
    ("networks",),
    ("rig",),
    ("fit",),
    ("inorig",),
    ("weights",),
    ("api",),
    ("texture",),
    ("export",),
    ("report",),
    ("data",),
    ("synthetic",),
    ("evaluate",),
    ("register",),
    ("__init__",),
)
# The files of package, evaluation and training that import a package besides ALWAYS when they run: as few as sensible.
DOORS = {
    "PIL": {"data/decode.py", "report/pictures.py"},
    "imageio_ffmpeg": {"data/video.py"},
    "pygltflib": {"export/glb.py"},
    "igl": {"geometry/surface_distance.py"},
    "warp": {"raster/warp_backend.py"},
    "nvdiffrast": {"raster/nvdiffrast_backend.py"},
    "torch": {"raster/nvdiffrast_backend.py"},
    "optax": {"training/train_step.py", "evaluation/adam.py"},
    "orbax": {"training/checkpoints.py"},
    "etils": {"io/files.py"},
    "tensorboard": {"training/workdir.py"},
    "imageio": {"data/decode.py", "io/files.py"},
    "matplotlib": {"evaluation/plots.py"},
    "rich": set(),
    "scipy": {f"register/{name}.py" for name in ("detail", "fit", "modes", "register", "scan")}
    | {"evaluate/scan_protocols.py", "evaluation/scanner.py"},
    "skimage": set(),
    "trimesh": set(),
}
ALWAYS = {"jax", "jaxlib", "flax", "numpy", "absl"}


def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports when it runs: anywhere in it, `optional_import` included."""
    names, tree = set(), ast.parse(path.read_text())
    annotations = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in set(ast.walk(tree)) - annotations:
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("optional_import"):
            names |= {ast.literal_eval(node.args[0])} if isinstance(node.args[0], ast.Constant) else set()
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            base = ".".join([*package, *([node.module] if node.module else [])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_from_parts_above_it(path):
    level = {name: i for i, names in enumerate(LAYERS) for name in names}
    assert part(path) in level, f"{part(path)} is not in LAYERS"
    used = {name.split(".")[1] for name in imported(path) if name.startswith("facerig_jax.")}
    upwards = sorted(name for name in used if level.get(name, 0) > level[part(path)])
    assert not upwards, f"{path.name} imports {upwards}"
    assert not any(name.split(".")[0] == "experiments" for name in imported(path)), f"{path.name} imports experiments"


def third_party(path: Path) -> set[str]:
    roots = {name.split(".")[0] for name in imported(path)}
    return roots - set(sys.stdlib_module_names) - ALWAYS - {"facerig_jax", "experiments"}


def test_every_package_is_imported_through_its_named_doors_only():
    users = {}
    for folder, paths in ((PACKAGE, MODULES), (ROOT / "experiments", HARNESSES)):
        for path in paths:
            for name in third_party(path):
                users.setdefault(name, set()).add(str(path.relative_to(folder)))
    assert set(users) <= set(DOORS), users
    for name, files in users.items():
        assert files <= DOORS[name], f"{name} is imported by {sorted(files - DOORS[name])} too"


# scipy, rich and optax come with jax and flax; everything else that the extras add is missing.
BLOCKED = ("PIL", "matplotlib", "pygltflib", "trimesh", "skimage", "igl", "imageio_ffmpeg", "tflite", "ai_edge_litert")
BLOCKED += ("warp", "nvdiffrast", "torch")

WITHOUT_EXTRAS = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked by this test", name=name)

sys.meta_path.insert(0, Missing())
import facerig_jax, facerig_jax.export, facerig_jax.synthetic.subject
fit = facerig_jax.export.__all__ and facerig_jax.fit_rig.__name__
params, head = facerig_jax.load()
print(fit, len(head.mean), sorted(set(sys.modules) & set({BLOCKED!r})))
"""


def test_the_package_imports_and_loads_with_the_required_dependencies_alone():
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[0] == "fit_rig"
    assert run.stdout.strip().endswith("[]")


SOURCES = sorted(path for folder in ("facerig_jax", "experiments", "tests") for path in (ROOT / folder).rglob("*.py"))
# inorig/torch_pickle.py takes `genops` from pickletools, which splits a stream into opcodes and runs none.
PICKLE = ("allow_pickle=" + "True", "import pick" + "le", "from pick" + "le import", "import _pick" + "le")
FORBIDDEN = ("/work" + "/", "shared" + "/", "/tmp" + "/", *PICKLE)


@pytest.mark.parametrize("text", FORBIDDEN)
def test_no_source_reads_this_machine_or_a_pickle(text):
    assert not [str(path) for path in SOURCES if text in path.read_text()]


def public_functions():
    for name in facerig_jax.__all__:
        thing = getattr(facerig_jax, name)
        if inspect.isfunction(thing) or hasattr(thing, "__wrapped__"):
            yield name, inspect.unwrap(thing)


@pytest.mark.parametrize(("name", "function"), list(public_functions()))
def test_public_functions_say_what_they_take_and_return(name, function):
    text = inspect.getdoc(function) or ""
    assert len(text.splitlines()[0]) > 10, name
    if inspect.signature(function).parameters:
        assert "Args:" in text, name
    if inspect.signature(function).return_annotation not in (None, "None"):
        assert "Returns:" in text, name


def test_shipped_assets_are_small():
    size = sum(path.stat().st_size for path in PACKAGE.rglob("assets/*") if path.is_file())
    assert 0 < size < 25e6


def test_tests_share_helpers_and_not_each_other():
    tests = ROOT / "tests"
    users = [path.name for path in tests.rglob("*.py") if any(name.startswith("test_") for name in imported(path))]
    assert not users, f"{users} import from test modules; what tests share lies in tests/helpers"

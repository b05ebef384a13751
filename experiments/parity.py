"""Is the published method what the published code computes? Every array of a golden file, compared in float64.

    python -m experiments.parity --recipe=tests/data/recipe --golden=tests/data/golden_v2.npz --views=2 --seed=3

The weights, face model and inputs come from DIR/recipe.py, the `paper` preset runs on them, and each array's largest
relative error is printed: |a - b| / max|b|, or |a - b| where max|b| < 1e-12. The goldens were made with every vertex
taken as visible, so that rule alone is replaced; everything else is what `fit_rig` runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
from absl import flags

from experiments import cli
from experiments.goldens import compare, compute, load_recipe, make_problem, stages_behind
from facerig_jax.io.arrays import read_arrays

_RECIPE = flags.DEFINE_string("recipe", None, "Folder of recipe.py and state_dict.txt.")
_GOLDEN = flags.DEFINE_string("golden", None, "The .npz to compare with; any subset of the arrays.")
_VIEWS = flags.DEFINE_integer("views", 2, "Views of the golden's inputs.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 3, "Seed of the golden's inputs.")
_TOLERANCE = flags.DEFINE_float("tolerance", 1e-4, "Largest relative error that passes.")


def main() -> None:
    """Computes, compares, prints; raises where the worst error is over the tolerance."""
    for flag, wanted in ((_RECIPE, "a folder with recipe.py"), (_GOLDEN, "an .npz file")):
        path = Path(flag.value or "")
        if not ((path / "recipe.py").is_file() if flag is _RECIPE else path.is_file()):
            raise cli.UserError(f"--{flag.name}: {wanted} is needed, got {flag.value!r}.")
    golden = read_arrays(_GOLDEN.value)
    if not golden:
        raise cli.UserError(f"--golden: {_GOLDEN.value} holds no arrays.")
    recipe = load_recipe(_RECIPE.value)
    with jax.enable_x64(True):
        ours = compute(*make_problem(recipe, _VIEWS.value, _SEED.value), stages=stages_behind(golden))
        errors = compare(golden, ours, recipe.face_model()["uv"])
    for name, error in errors.items():
        print(f"{error:9.2e}  {name}")
    name = max(errors, key=lambda name: errors[name])
    print(f"parity: worst {errors[name]:.2e} at {name}", flush=True)
    if not errors[name] <= _TOLERANCE.value:
        raise cli.UserError(f"{errors[name]:.2e} at {name} is over --tolerance={_TOLERANCE.value:g}.")


if __name__ == "__main__":
    sys.exit(cli.run(main))

"""The networks of a learned rig as the 'neural/...' arrays of rig.npz; `rig_file` documents them."""

from __future__ import annotations

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from facerig_jax.io.arrays import check_arrays, require_arrays
from facerig_jax.types import NeuralRig, RigWeights

SHAPES = {"neural/first": ("N", "K"), "neural/second": ("N", "N"), "neural/uv": ("P", 2)}
SETTINGS = {"neural/named_codes": "b", "neural/expression_gain": "f", "neural/linear_colour": "b"}
# The last layers of a map: name -> kernel of a convolution (rows, columns, channels in and out).
LAYERS = {"block/conv1/kernel": (3, 3, "n", "n"), "block/conv2/kernel": (3, 3, "n", "n"), "out/kernel": (1, 1, "n", 3)}


def neural_arrays(path, neural: NeuralRig, n_vertices: int) -> dict[str, np.ndarray]:
    """Name -> array of everything that a learned rig has beyond a linear one.

    Raises:
      ValueError: arrays of the wrong shape, or not finite.
    """
    weights = neural.weights
    values = {"neural/first": weights.first, "neural/second": weights.second, "neural/uv": neural.uv}
    maps = dict(zip(_map_names(len(weights.texels)), weights.texels, strict=True))
    outputs = dict(zip(maps, neural.outputs, strict=True))
    if weights.albedo_texels is not None:
        assert neural.albedo_output is not None, "one comes with the other"
        maps["albedo"], outputs["albedo"] = weights.albedo_texels, neural.albedo_output
    for name, texels in maps.items():
        values[f"neural/{name}/texels"] = texels
        values |= {f"neural/{name}/{layer}": kernel for layer, kernel in flatten_dict(outputs[name], sep="/").items()}
    arrays = {name: np.asarray(value, np.float32) for name, value in values.items()}
    _check(path, arrays, {"P": n_vertices}, tuple(maps))
    return arrays | {
        "neural/named_codes": np.asarray(neural.named_codes, bool),
        "neural/expression_gain": np.asarray(neural.expression_gain, np.float64),
        "neural/linear_colour": np.asarray(neural.linear_colour, bool),
    }


def read_neural(path, arrays: dict, n_vertices: int) -> NeuralRig:
    """The learned part of a rig; the arrays of one file, `arrays`, stay as they are.

    Raises:
      ValueError: a missing array, a wrong shape or a value that is not finite.
    """
    given = {name.split("/")[1] for name in arrays if name.startswith("neural/") and name.count("/") > 1}
    stages = _map_names(len(given - {"albedo"}))
    names = stages + (("albedo",) if "albedo" in given else ())
    require_arrays(path, arrays, (*SHAPES, *SETTINGS))
    values = {name: array.astype(np.float32) if array.dtype.kind in "fiu" else array for name, array in arrays.items()}
    _check(path, values, {"P": n_vertices}, names)
    for name, kind in SETTINGS.items():
        if arrays[name].shape != () or arrays[name].dtype.kind != kind or not np.isfinite(arrays[name]):
            what = "yes or no (a bool)" if kind == "b" else "one finite number"
            raise ValueError(f"{path}: {name} should be {what}, got {arrays[name]!r}.")
    texels = {name: values[f"neural/{name}/texels"] for name in names}
    layers = {name: {layer: values[f"neural/{name}/{layer}"] for layer in LAYERS} for name in names}
    outputs = {name: unflatten_dict(flat, sep="/") for name, flat in layers.items()}
    first, second = values["neural/first"], values["neural/second"]
    return NeuralRig(
        weights=RigWeights(first, second, tuple(texels[name] for name in stages), texels.get("albedo")),
        outputs=tuple(outputs[name] for name in stages),
        albedo_output=outputs.get("albedo"),
        uv=values["neural/uv"],
        named_codes=bool(arrays["neural/named_codes"]),
        expression_gain=float(arrays["neural/expression_gain"]),
        linear_colour=bool(arrays["neural/linear_colour"]),
    )


def _map_names(count: int) -> tuple[str, ...]:
    """Names of the displacement maps, coarse to fine: the first stage has none."""
    return tuple(f"stage{number + 1}" for number in range(count))


def _check(path, arrays, sizes, maps) -> None:
    """Shapes of all arrays; each map has its own side S, its own width n, and texels of m (K + n) numbers."""
    sizes = check_arrays(path, arrays, SHAPES, sizes=sizes)
    for name in maps:
        shapes = {f"neural/{name}/{layer}": pattern for layer, pattern in LAYERS.items()}
        require_arrays(path, arrays, (f"neural/{name}/texels", *shapes))
        width = check_arrays(path, arrays, shapes)["n"] + sizes["K"]
        found = check_arrays(path, arrays, {f"neural/{name}/texels": ("S", "S", "m (K + n)")})["m (K + n)"]
        if found % width:
            raise ValueError(f"{path}: neural/{name}/texels has {found} numbers a texel, no multiple of {width}.")
        extra = {other for other in arrays if other.startswith(f"neural/{name}/")} - {*shapes, f"neural/{name}/texels"}
        if extra:
            raise ValueError(f"{path}: {', '.join(sorted(extra))}: no such array in this schema.")

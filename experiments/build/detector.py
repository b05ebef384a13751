"""Converts MediaPipe's face detector and face-landmark nets (.tflite, Apache-2.0) to the .npz that `detect` loads.

    pip download --no-deps --only-binary=:all: --python-version 311 --platform manylinux_2_28_x86_64 mediapipe==0.10.21
    python -m experiments.build.detector --wheel=mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl

The nets are read as graphs: from each output back to the input, so that every weight gets its name from its role, and
anything but the expected chain of layers is refused. `--golden` also runs the originals in the TFLite runtime
(ai-edge-litert) and stores inputs and outputs for tests/test_detect.py.
"""

import hashlib
import pathlib
import zipfile

import numpy as np
from absl import app, flags

from experiments.build.tflite_graph import Graph
from facerig_jax.detect import attention

FILES = {
    "detector": "mediapipe/modules/face_detection/face_detection_short_range.tflite",
    "landmarks": "mediapipe/modules/face_landmark/face_landmark.tflite",
    "attention": "mediapipe/modules/face_landmark/face_landmark_with_attention.tflite",
}
WHEEL_SHA256 = "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3"

_WHEEL = flags.DEFINE_string("wheel", None, "mediapipe 0.10.21 wheel.", required=True)
_OUT = flags.DEFINE_string("out", "facerig_jax/detect/assets", "Folder to write mediapipe_v1.npz and _v2.npz into.")
_GOLDEN = flags.DEFINE_string("golden", None, "Also write the TFLite runtime's inputs and outputs to this file.")


def read_models(wheel) -> dict[str, bytes]:
    """The .tflite files of the wheel, after its hash was checked."""
    wheel = pathlib.Path(wheel)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise ValueError(f"{wheel}: sha256 is {digest}, expected {WHEEL_SHA256} (mediapipe 0.10.21, cp311 manylinux).")
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(path) for name, path in FILES.items()}


def convert_detector(graph: Graph) -> dict:
    """Weights of BlazeFace under the names `nets.detector_net` uses."""
    params, taps = {}, {}
    for output, name in zip(graph.outputs, ("boxes", "scores"), strict=True):
        for part, cells in zip(graph.expect(output, "CONCATENATION"), (16, 8), strict=True):
            params[f"{name}{cells}"], taps[cells] = graph.conv(graph.expect(part, "RESHAPE")[0])
    head, start = graph.chain(taps[8], taps[16])
    trunk, start = graph.chain(start)
    return {"stem": graph.stem(start), **_numbered(trunk + head), **params}


def convert_landmarks(graph: Graph) -> dict:
    """Weights of the face-mesh net under the names `nets.landmark_net` uses."""
    branches, chains = {}, {}
    for output, name in zip(graph.outputs, ("landmarks", "presence"), strict=True):
        branches[name], chains[name], start = graph.branch(output)
    shared = count_shared(*chains.values())
    for name, blocks in chains.items():
        branches[name] |= _numbered(blocks[shared:])
    return {"stem": graph.stem(start), **_numbered(chains["landmarks"][:shared]), **branches}


def convert_attention(graph: Graph) -> dict:
    """Weights of the face-mesh net with attention under the names `attention.attention_net` uses."""
    mesh, lips, right_eye, left_eye, right_iris, left_iris, presence = graph.outputs
    mesh = graph.expect(mesh, "STRIDED_SLICE")[0]
    trunk, blocks, start = graph.branch(mesh)
    trunk["mesh"] = trunk.pop("head")
    trunk["presence"], read = graph.conv(presence)
    if read != graph.conv(mesh)[1]:
        raise ValueError("mesh and presence do not read the same features.")
    return {
        **{"stem": graph.stem(start), **_numbered(blocks), **trunk},
        "lips": convert_region(graph, "lips", {"points": lips}, mesh),
        "right_eye": convert_region(graph, "right_eye", {"points": right_eye, "iris": right_iris}, mesh),
        "left_eye": convert_region(graph, "left_eye", {"points": left_eye, "iris": left_iris}, mesh),
    }


def convert_region(graph: Graph, name: str, outputs: dict[str, int], mesh: int) -> dict:
    """Weights of the nets that look at one region again; outputs: branch -> tensor; mesh: the tensor they start at."""
    params, chains = {}, []
    for branch, output in outputs.items():
        points, matrix = graph.expect(graph.expect(output, "RESHAPE")[0], "TransformLandmarks")
        params[branch], blocks, start = graph.branch(graph.expect(points, "RESHAPE")[0])
        expect_window(graph, name, start, matrix, mesh)
        params[branch] |= _numbered(blocks[len(attention.REGION_STRIDES) :])
        chains.append(blocks[: len(attention.REGION_STRIDES)])
    if count_shared(chains[0], chains[-1]) != len(attention.REGION_STRIDES):
        raise ValueError(f"{name}: its branches do not share their first blocks.")
    return params | _numbered(chains[0])


def expect_window(graph: Graph, name: str, cut_out: int, matrix: int, mesh: int) -> None:
    """Refuses a region's window unless its operators are set as `attention.region_window` and `cut_out` have it.

    cut_out: the tensor cut out of the features; matrix: what takes the region's points back to the crop.
    """
    features, window = graph.expect(cut_out, "TransformTensorBilinear")
    window_again, stretch = graph.expect(matrix, "MUL")
    points, quarter = graph.expect(graph.expect(window, "Landmarks2TransformMatrix")[0], "MUL")
    size = {"output_height": attention.REGION_SIZE, "output_width": attention.REGION_SIZE}
    margin = {"scale_x": attention.REGION_MARGIN, "scale_y": attention.REGION_MARGIN}
    left, right = attention.LEVEL[name]
    turn = {"left_rotation_idx": left, "right_rotation_idx": right, "target_rotation_radians": 0.0}
    checks = {
        "its window": graph.options[window] == size | margin | turn | {"subset_idxs": list(attention.REGIONS[name])},
        "what is cut out": window_again == window and graph.options[cut_out] == size,
        "where it is cut out": len(graph.chain(features)[0]) == attention.TAP,
        "the points it starts from": graph.expect(points, "RESHAPE")[0] == mesh and graph.weight(quarter) == 0.25,
        "the way back": np.array_equal(graph.weight(stretch)[0, :2], [[1, 1, 4, 4]] * 2),
    }
    wrong = [what for what, right in checks.items() if not right]
    if wrong:
        raise ValueError(f"{name}: {' and '.join(wrong)} not as facerig_jax/detect/attention.py has it.")


def count_shared(first: list[dict], second: list[dict]) -> int:
    """With how many blocks of the same weights two chains begin."""
    pairs = zip(first, second, strict=False)
    return sum(np.array_equal(a["pointwise"]["kernel"], b["pointwise"]["kernel"]) for a, b in pairs)


def _numbered(blocks):
    return {f"block{i:02d}": layer for i, layer in enumerate(blocks)}


def flatten(tree: dict, prefix: str = "") -> dict[str, np.ndarray]:
    """{"a": {"b": x}} -> {"a/b": x}."""
    flat = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}/") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def run_original(model: bytes, image: np.ndarray) -> list[np.ndarray]:
    """Outputs of the .tflite model in the TFLite runtime for one (H, W, 3) float input."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.float32(image)[None])
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"])[0] for detail in interpreter.get_output_details()]


def golden(models: dict[str, bytes]) -> dict[str, np.ndarray]:
    """Inputs (uint8) and the TFLite runtime's outputs, on NASA's public-domain portrait and its mirror image."""
    from skimage.data import astronaut
    from skimage.transform import resize

    photo = astronaut() / 255.0
    inputs = {"detector": resize(photo, (128, 128), anti_aliasing=True), "landmarks": photo[4:196, 128:320]}
    out = {name: np.round(255 * image).astype(np.uint8) for name, image in inputs.items()}
    boxes, scores = zip(
        *(run_original(models["detector"], x / 127.5 - 1.0) for x in _mirrored(out["detector"])), strict=True
    )
    points, logits = zip(
        *(run_original(models["landmarks"], x / 255.0) for x in _mirrored(out["landmarks"])), strict=True
    )
    return {
        "detector_input": out["detector"],
        "detector_regressors": np.stack(boxes),
        "detector_logits": np.stack(scores)[..., 0],
        "landmark_input": out["landmarks"],
        "landmark_points": np.stack(points).reshape(2, 468, 3),
        "landmark_logits": np.stack(logits).reshape(2),
    }


def _mirrored(image):
    return image, image[:, ::-1]


def main(_):
    """Entry point."""
    models = read_models(_WHEEL.value)
    graphs = {name: Graph(model) for name, model in models.items()}
    detector = convert_detector(graphs["detector"])
    weights = {
        "mediapipe_v1": {"detector": detector, "landmarks": convert_landmarks(graphs["landmarks"])},
        "mediapipe_v2": {"detector": detector, "landmarks": convert_attention(graphs["attention"])},
    }
    for name, params in weights.items():
        path = pathlib.Path(_OUT.value) / f"{name}.npz"
        np.savez_compressed(path, **flatten(params))
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    if _GOLDEN.value:
        np.savez_compressed(_GOLDEN.value, **golden(models))
        print(f"{_GOLDEN.value}: {pathlib.Path(_GOLDEN.value).stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    app.run(main)

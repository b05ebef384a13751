"""Converts MediaPipe's face detector and face-landmark net (.tflite, Apache-2.0) to the .npz that `detect` loads.

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

FILES = {
    "detector": "mediapipe/modules/face_detection/face_detection_short_range.tflite",
    "landmarks": "mediapipe/modules/face_landmark/face_landmark.tflite",
}
WHEEL_SHA256 = "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3"

_WHEEL = flags.DEFINE_string("wheel", None, "mediapipe 0.10.21 wheel.", required=True)
_OUT = flags.DEFINE_string("out", "facerig_jax/detect/assets/mediapipe_v1.npz", "File to write.")
_GOLDEN = flags.DEFINE_string("golden", None, "Also write the TFLite runtime's inputs and outputs to this file.")


def read_models(wheel) -> dict[str, bytes]:
    """The two .tflite files of the wheel, after its hash was checked."""
    wheel = pathlib.Path(wheel)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise ValueError(f"{wheel}: sha256 is {digest}, expected {WHEEL_SHA256} (mediapipe 0.10.21, cp311 manylinux).")
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(path) for name, path in FILES.items()}


class Graph:
    """A .tflite model as two tables: which operator makes a tensor, and the constant tensors' values."""

    def __init__(self, model: bytes):
        import tflite

        root = tflite.Model.GetRootAs(model, 0)
        graph = root.Subgraphs(0)
        codes = {v: k for k, v in vars(tflite.BuiltinOperator).items() if isinstance(v, int)}
        dtypes = {tflite.TensorType.FLOAT16: np.float16, tflite.TensorType.INT32: np.int32}
        self.outputs = [int(i) for i in graph.OutputsAsNumpy()]
        self.made_by, self.constants = {}, {}
        for i in range(graph.TensorsLength()):
            tensor = graph.Tensors(i)
            buffer = root.Buffers(tensor.Buffer())
            if buffer.DataLength():
                values = np.frombuffer(buffer.DataAsNumpy().tobytes(), dtypes[tensor.Type()])
                self.constants[i] = values.reshape(tensor.ShapeAsNumpy())
        for i in range(graph.OperatorsLength()):
            operator = graph.Operators(i)
            code = root.OperatorCodes(operator.OpcodeIndex())
            kind = codes[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            inputs, outputs = operator.InputsAsNumpy(), operator.OutputsAsNumpy()
            self.made_by[int(outputs[0])] = (kind, [int(k) for k in inputs])

    def weight(self, tensor: int) -> np.ndarray:
        """A weight as stored (float16); the runtime widens it through a DEQUANTIZE operator."""
        if tensor not in self.constants:
            tensor = self.expect(tensor, "DEQUANTIZE")[0]
        return self.constants[tensor]

    def expect(self, tensor: int, *kinds: str) -> list[int]:
        """Inputs of the operator that makes `tensor`, which must be of one of the given kinds."""
        kind, inputs = self.made_by[tensor]
        if kind not in kinds:
            raise ValueError(f"tensor {tensor} is made by {kind}, expected {' or '.join(kinds)}.")
        return inputs

    def conv(self, tensor: int) -> tuple[dict, int]:
        """(layer, input) of a convolution; kernel as HWIO, or IO for 1 x 1."""
        x, kernel, bias = self.expect(tensor, "CONV_2D")
        kernel = self.weight(kernel).transpose(1, 2, 3, 0)
        return {"kernel": kernel[0, 0] if kernel.shape[:2] == (1, 1) else kernel, "bias": self.weight(bias)}, x

    def activation(self, tensor: int) -> tuple[dict, int]:
        """(slopes or nothing, input) of a PReLU or ReLU."""
        inputs = self.expect(tensor, "PRELU", "RELU")
        return ({"slope": self.weight(inputs[1])[0, 0]} if len(inputs) == 2 else {}), inputs[0]

    def block(self, tensor: int) -> tuple[dict, int]:
        """(layer, input) of a BlazeBlock."""
        layer, total = self.activation(tensor)
        shortcut, residual = self.expect(total, "ADD")
        pointwise, y = self.conv(residual)
        x, kernel, bias = self.expect(y, "DEPTHWISE_CONV_2D")
        while shortcut != x:
            shortcut = self.expect(shortcut, "PAD", "MAX_POOL_2D")[0]
        depthwise = {"kernel": self.weight(kernel)[0], "bias": self.weight(bias)}
        return {"depthwise": depthwise, "pointwise": pointwise, **layer}, x

    def chain(self, tensor: int, stop: int | None = None) -> tuple[list[dict], int]:
        """(blocks from first to last, where they start), walking back until `stop` or a tensor no block makes."""
        blocks = []
        while tensor != stop and self.made_by[self.activation(tensor)[1]][0] == "ADD":
            layer, tensor = self.block(tensor)
            blocks.insert(0, layer)
        return blocks, tensor

    def stem(self, tensor: int) -> dict:
        """The first convolution with its activation."""
        slope, y = self.activation(tensor)
        layer, x = self.conv(y)
        if x in self.made_by:
            raise ValueError("the stem does not read the input.")
        return {**layer, **slope}


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
        head, y = graph.conv(output)
        last, y = graph.block(y)
        slope, y = graph.activation(y)
        reduce, y = graph.conv(y)
        branches[name] = {"reduce": {**reduce, **slope}, "last_block": last, "head": head}
        chains[name], start = graph.chain(y)
    pairs = zip(*([block["pointwise"]["kernel"] for block in chain] for chain in chains.values()), strict=False)
    shared = sum(np.array_equal(a, b) for a, b in pairs)
    for name, blocks in chains.items():
        branches[name] |= _numbered(blocks[shared:])
    return {"stem": graph.stem(start), **_numbered(chains["landmarks"][:shared]), **branches}


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
    params = {
        "detector": convert_detector(Graph(models["detector"])),
        "landmarks": convert_landmarks(Graph(models["landmarks"])),
    }
    np.savez_compressed(_OUT.value, **flatten(params))
    print(f"{_OUT.value}: {pathlib.Path(_OUT.value).stat().st_size / 1e6:.2f} MB")
    if _GOLDEN.value:
        np.savez_compressed(_GOLDEN.value, **golden(models))
        print(f"{_GOLDEN.value}: {pathlib.Path(_GOLDEN.value).stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    app.run(main)

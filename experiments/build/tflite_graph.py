"""A .tflite model read as a graph, from its outputs back to its input."""

import numpy as np


class Graph:
    """A .tflite model as tables: which operator makes a tensor, custom ones' options, the constant tensors' values."""

    def __init__(self, model: bytes):
        import tflite
        from flatbuffers import flexbuffers

        root = tflite.Model.GetRootAs(model, 0)
        graph = root.Subgraphs(0)
        codes = {v: k for k, v in vars(tflite.BuiltinOperator).items() if isinstance(v, int)}
        dtypes = {tflite.TensorType.FLOAT16: np.float16, tflite.TensorType.INT32: np.int32}
        self.outputs = [int(i) for i in graph.OutputsAsNumpy()]
        self.made_by, self.options, self.constants = {}, {}, {}
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
            inputs, output = operator.InputsAsNumpy(), int(operator.OutputsAsNumpy()[0])
            if kind == "CUSTOM":
                kind = code.CustomCode().decode()
                if operator.CustomOptionsLength():
                    self.options[output] = flexbuffers.Loads(operator.CustomOptionsAsNumpy().tobytes())
            self.made_by[output] = (kind, [int(k) for k in inputs])

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
        while tensor != stop and self.is_block(tensor):
            layer, tensor = self.block(tensor)
            blocks.insert(0, layer)
        return blocks, tensor

    def is_block(self, tensor: int) -> bool:
        """Whether a BlazeBlock makes this tensor."""
        kind, inputs = self.made_by[tensor]
        return kind in ("PRELU", "RELU") and self.made_by[inputs[0]][0] == "ADD"

    def branch(self, tensor: int) -> tuple[dict, list[dict], int]:
        """(head with what reduces the channels before it, blocks before those, where they start) of a branch."""
        head, y = self.conv(tensor)
        last, y = self.block(y)
        slope, y = self.activation(y)
        reduce, y = self.conv(y)
        return {"reduce": {**reduce, **slope}, "last_block": last, "head": head}, *self.chain(y)

    def stem(self, tensor: int) -> dict:
        """The first convolution with its activation."""
        slope, y = self.activation(tensor)
        layer, x = self.conv(y)
        if x in self.made_by:
            raise ValueError("the stem does not read the input.")
        return {**layer, **slope}

"""Small ONNX models for tests, with seeded weights and names of the test's choice."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]


class ModelBuilder:
    """Collects nodes and weights; every name begins with `prefix`, so that two exports can differ in all."""

    def __init__(self, *, seed: int, prefix: str = "") -> None:
        self._rng = np.random.default_rng(seed)
        self._prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, *shape: int, scale: float = 0.3) -> str:
        """A random weight."""
        return self.constant(name, (scale * self._rng.standard_normal(shape)).astype(np.float32))

    def constant(self, name: str, value: Array) -> str:
        self.weights.append(numpy_helper.from_array(value, self._prefix + name))
        return self._prefix + name

    def node(self, op: str, *inputs: str, name: str, domain: str = "", **attrs: Any) -> str:
        """Add an operator of one output; returns the output's name."""
        output = f"{self._prefix}{name}_out"
        node = helper.make_node(
            op, list(inputs), [output], name=self._prefix + name, domain=domain or None, **attrs
        )
        self.nodes.append(node)
        return output

    def conv_bn(self, x: str, name: str, in_channels: int, out_channels: int) -> str:
        """A 3x3 convolution and its batch norm."""
        weight = self.weight(f"{name}_w", out_channels, in_channels, 3, 3)
        return self.norm(self.node("Conv", x, weight, name=name, pads=[1, 1, 1, 1]), name, out_channels)

    def norm(self, x: str, name: str, channels: int) -> str:
        """A batch norm."""
        scale, bias, mean = (self.weight(f"{name}_{k}", channels) for k in ("scale", "bias", "mean"))
        variance = self.constant(f"{name}_var", self._rng.uniform(0.5, 2.0, channels).astype(np.float32))
        return self.node("BatchNormalization", x, scale, bias, mean, variance, name=f"{name}_bn")

    def save(
        self, path: Path, *, inputs: Mapping[str, tuple[Any, list[Any]]], outputs: Mapping[str, str]
    ) -> Path:
        """Write the file. `inputs`: name -> (element type, shape); `outputs`: public -> internal name."""
        for public, internal in outputs.items():
            name = self._prefix + public
            self.nodes.append(helper.make_node("Identity", [internal], [public], name=name))
        graph = helper.make_graph(
            self.nodes,
            "test",
            [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.weights,
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.acme", 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
        return path


def residual_net(path: Path, *, seed: int = 0, prefix: str = "", batch: int | str = 1) -> Path:
    """Convolutions with batch norms, a residual addition, a concatenation, a dense layer and a softmax."""
    b = ModelBuilder(seed=seed, prefix=prefix)
    x = b.node("Relu", b.conv_bn("image", "stem", 3, 8), name="stem_relu")
    y = b.node("Relu", b.conv_bn(x, "block1", 8, 8), name="block1_relu")
    y = b.conv_bn(y, "block2", 8, 8)
    y = b.node("Relu", b.node("Add", y, x, name="residual"), name="residual_relu")
    y = b.node("Mul", y, b.weight("gain"), name="gain_mul")
    z = b.node("Relu", b.conv_bn(y, "block3", 8, 8), name="block3_relu")
    y = b.node("Concat", y, z, name="concat", axis=1)
    y = b.node("Flatten", b.node("GlobalAveragePool", y, name="pool"), name="flatten")
    y = b.node("Gemm", y, b.weight("fc_w", 10, 16), b.weight("fc_b", 10), name="fc", transB=1)
    y = b.node("Softmax", y, name="softmax", axis=1)
    return b.save(
        path, inputs={"image": (TensorProto.FLOAT, [batch, 3, 12, 12])}, outputs={"probabilities": y}
    )


def dense_net(path: Path, *, seed: int = 0, prefix: str = "", hidden: int = 32) -> Path:
    """Two dense layers: the smallest model with packable weights."""
    b = ModelBuilder(seed=seed, prefix=prefix)
    y = b.node("Gemm", "x", b.weight("w1", hidden, 16), b.weight("b1", hidden), name="fc1", transB=1)
    y = b.node("Relu", y, name="relu")
    y = b.node("Gemm", y, b.weight("w2", 16, hidden), b.weight("b2", 16), name="fc2", transB=1)
    return b.save(path, inputs={"x": (TensorProto.FLOAT, [4, 16])}, outputs={"y": y})


def densely_connected_net(path: Path, *, num_layers: int = 6) -> Path:
    """Each layer reads, normed, what all layers before it have written."""
    b = ModelBuilder(seed=3)
    known, channels = b.node("Conv", "image", b.weight("stem", 16, 3, 1, 1), name="stem_conv"), 16
    for n in range(num_layers):
        y = b.node("Relu", b.norm(known, f"norm{n}", channels), name=f"relu{n}")
        y = b.node("Conv", y, b.weight(f"w{n}", 16, channels, 1, 1), name=f"conv{n}")
        known, channels = b.node("Concat", known, y, name=f"concat{n}", axis=1), channels + 16
    y = b.node("GlobalAveragePool", b.norm(known, "last", channels), name="pool")
    return b.save(path, inputs={"image": (TensorProto.FLOAT, [1, 3, 9, 9])}, outputs={"y": y})


def embedding_net(path: Path, *, seed: int = 0) -> Path:
    """Rows of a table picked by integer indices; two inputs, two outputs, and names that TVM would change."""
    b = ModelBuilder(seed=seed)
    rows = b.node("Gather", b.weight("table", 20, 8), "0.ids", name="gather")
    y = b.node("MatMul", rows, b.weight("w", 8, 4), name="matmul")
    scaled, total = b.node("Mul", y, "in/scale", name="mul"), b.node("ReduceSum", y, name="sum")
    return b.save(
        path,
        inputs={"0.ids": (TensorProto.INT64, [2, 5]), "in/scale": (TensorProto.FLOAT, [1])},
        outputs={"scaled/out": scaled, "total": total},
    )


def local_function_net(path: Path) -> Path:
    """A function of the model's own, called twice, before and after a group norm."""
    b = ModelBuilder(seed=4)
    y = b.node("Gated", "x", name="first", domain="local")
    y = b.node("InstanceNormalization", y, b.weight("s", 8), b.weight("b", 8), name="norm")
    y = b.node("Gated", y, name="second", domain="local")
    b.save(path, inputs={"x": (TensorProto.FLOAT, [1, 8, 6, 6])}, outputs={"y": y})
    model = onnx.load(path)
    body = [helper.make_node("Sigmoid", ["v"], ["gate"]), helper.make_node("Mul", ["v", "gate"], ["gated"])]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("local", "Gated", ["v"], ["gated"], body, opsets))
    model.opset_import.append(helper.make_opsetid("local", 1))
    onnx.save(model, path)
    return path


def unsupported_net(path: Path) -> Path:
    """An operator that nobody knows."""
    b = ModelBuilder(seed=0)
    y = b.node("Frobnicate", b.node("Relu", "x", name="relu"), name="the_culprit", domain="com.acme")
    return b.save(path, inputs={"x": (TensorProto.FLOAT, [2, 4])}, outputs={"y": y})


def foreign_domain_net(path: Path) -> Path:
    """An operator that TVM can convert but ONNX Runtime does not find, because of its domain."""
    b = ModelBuilder(seed=0)
    y = b.node("MatMul", "x", b.weight("w", 4, 3), name="matmul")
    y = b.node("Relu", y, name="relu", domain="com.acme")
    return b.save(path, inputs={"x": (TensorProto.FLOAT, [2, 4])}, outputs={"y": y})


def data_dependent_net(path: Path) -> Path:
    """The shape of its output depends on the values of its input."""
    b = ModelBuilder(seed=0)
    y = b.node("Cast", b.node("NonZero", "x", name="find"), name="cast", to=TensorProto.FLOAT)
    return b.save(path, inputs={"x": (TensorProto.FLOAT, [2, 4])}, outputs={"y": y})


def run_onnxruntime(path: Path, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The reference outputs by name."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))

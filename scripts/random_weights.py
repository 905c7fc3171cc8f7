"""Give a model of the onnx package's "light" set weights worth comparing: `random_weights.py NAME OUT SEED`.

Those files ship with constant weights, so that their outputs are constant too and every wrong kernel would
pass. NAME is squeezenet, resnet50, ...
"""

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

# Position among BatchNormalization's inputs -> the range of its values: activations keep their size.
_BATCH_NORM_RANGES = {1: (0.5, 0.8), 2: (-0.1, 0.1), 3: (-0.1, 0.1), 4: (0.5, 1.5)}
_DENSE = ("Gemm", "MatMul")


def light_model(name: str) -> Path:
    """A model that ships inside the onnx package."""
    return Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"


def randomise_weights(source: Path, target: Path, *, seed: int) -> None:
    """Replace every constant weight by random ones, scaled so that no layer saturates."""
    model = onnx.load(source)
    rng = np.random.default_rng(seed)
    arrays = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    roles = {name: (node, i) for node in model.graph.node for i, name in enumerate(node.input)}
    for node in model.graph.node:
        if node.op_type == "Unsqueeze":  # what it shapes is for the operator behind it
            roles[node.input[0]] = roles[node.output[0]]
    last_dense = [node for node in model.graph.node if node.op_type in _DENSE][-1:]
    nodes, weights = [], []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            nodes.append(node)
            continue
        (name,) = node.output
        shape = tuple(int(extent) for extent in arrays[node.input[0]])
        user, position = roles[name]
        weight = _weight(shape, user, position, rng, is_last=user in last_dense)
        weights.append(numpy_helper.from_array(weight, name))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(weights)
    model.ir_version = max(8, model.ir_version)  # from here on, initialisers need not be inputs as well
    onnx.save(model, target)


def _weight(
    shape: tuple[int, ...], user: onnx.NodeProto, position: int, rng: np.random.Generator, *, is_last: bool
) -> npt.NDArray[np.float32]:
    if user.op_type == "BatchNormalization":
        return rng.uniform(*_BATCH_NORM_RANGES[position], shape).astype(np.float32)
    if user.op_type == "Mul":  # the scale of the batch norm before it, written out
        return rng.uniform(1.2, 1.8, shape).astype(np.float32)
    if len(shape) < 2:
        return rng.uniform(-0.1, 0.1, shape).astype(np.float32)
    scale = 0.1 if is_last else np.sqrt(2.0)  # the last layer feeds a softmax
    fan_in = shape[1] if user.op_type in _DENSE else np.prod(shape[1:])
    return (rng.standard_normal(shape) * scale / np.sqrt(fan_in)).astype(np.float32)


if __name__ == "__main__":
    model_name, output, model_seed = sys.argv[1:]
    randomise_weights(light_model(model_name), Path(output), seed=int(model_seed))

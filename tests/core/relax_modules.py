"""Small Relax modules: made, looked into, run."""

from collections.abc import Callable, Sequence

import numpy as np
import tvm
from tvm import relax


def variables(*shapes: Sequence[int]) -> list[relax.Var]:
    """float32 parameters x0, x1 ..."""
    return [relax.Var(f"x{i}", relax.TensorType(shape, "float32")) for i, shape in enumerate(shapes)]


def module(
    inputs: list[relax.Var], compute: Callable[[relax.BlockBuilder], relax.Expr], **attrs: object
) -> tvm.IRModule:
    """A module whose main function returns what `compute` emits."""
    builder = relax.BlockBuilder()
    with builder.function("main", inputs, attrs=attrs):
        with builder.dataflow():
            output = builder.emit_output(compute(builder))
        builder.emit_func_output(output)
    return builder.get()


def ops(mod: tvm.IRModule) -> list[str]:
    """The operators that the main function calls, in order."""
    bindings = [binding for block in mod["main"].body.blocks for binding in block.bindings]
    calls = [binding.value for binding in bindings if isinstance(binding.value, relax.Call)]
    return [call.op.name.removeprefix("relax.") for call in calls]


def run(mod: tvm.IRModule, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """What the main function returns, a single tensor."""
    machine = relax.VirtualMachine(relax.build(mod, target="llvm"), tvm.cpu())
    return machine["main"](*map(tvm.runtime.tensor, arrays)).numpy()

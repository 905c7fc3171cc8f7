"""Does this TVM work at all? Run in a child: `python -m tunewright.core.tvm_adapter.selftest`.

TVM and tvm-ffi share a binary interface that nothing guards at run time: a wrong pair crashes the process
when a module becomes JSON. So this builds, serialises and runs one small kernel, and prints what it found
as one line of JSON.
"""

import json
import sys

import numpy as np
import tvm
from tvm import te
from tvm.target import Target
from tvm.target.codegen import (
    llvm_get_cpu_features,
    llvm_get_system_cpu,
    llvm_get_system_triple,
    llvm_version_major,
)


def main() -> int:
    """Print the result of the self-test; exit code 1 says that the kernel computed wrong numbers."""
    mcpu = str(llvm_get_system_cpu())
    target = Target({"kind": "llvm", "mcpu": mcpu})
    max_error = _matmul_error(target)
    report = {
        "tvm": str(tvm.__version__),
        "llvm": int(llvm_version_major()),
        "mcpu": mcpu,
        "triple": str(llvm_get_system_triple()),
        "features": sorted(str(name) for name in llvm_get_cpu_features(target)),
        "default_num_threads": int(tvm.get_global_func("runtime.NumThreads")()),
        "max_error": max_error,
    }
    print(json.dumps(report))
    return 0 if max_error < 1e-5 else 1


def _matmul_error(target: Target) -> float:
    """Largest difference of a 4x4 matrix product from NumPy's, through build and a JSON round trip."""
    lhs, rhs = te.placeholder((4, 4), "float32", "lhs"), te.placeholder((4, 4), "float32", "rhs")
    axis = te.reduce_axis((0, 4), "axis")
    product = te.compute((4, 4), lambda i, j: te.sum(lhs[i, axis] * rhs[axis, j], axis=axis), "product")
    module = tvm.IRModule({"main": te.create_prim_func([lhs, rhs, product])})
    kernel = tvm.tirx.build(tvm.ir.load_json(tvm.ir.save_json(module)), target=target)
    left = np.arange(16, dtype=np.float32).reshape(4, 4)
    right = np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4)
    output = tvm.runtime.tensor(np.full((4, 4), np.nan, dtype=np.float32))
    kernel["main"](tvm.runtime.tensor(left), tvm.runtime.tensor(right), output)
    error = float(np.max(np.abs(output.numpy() - left @ right)))
    return error if np.isfinite(error) else float("1e30")


if __name__ == "__main__":
    sys.exit(main())

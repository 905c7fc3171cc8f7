"""Machine code of kernels: the same for candidates that are timed as for models that are deployed."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import tvm
from tvm.target import Target
from tvm.tirx import PrimFunc

from tunewright.core.types import TargetSpec

# LLVM's instruction scheduler keeps a dependence graph whose cost is quadratic in the memory accesses of a
# basic block: for unrolled code most of the time of a build. Smaller windows than its 1000 and 500 made
# builds 35 % cheaper for a matrix product and 11 % for a convolution; few candidates' code changes by it.
_OPTIONS = ["-dag-maps-huge-region:uint=200", "-dag-maps-reduction-size:uint=100"]
_PASS_CONFIG = {
    # LLVM finds common subexpressions again: TVM's pass takes 5 to 15 % of a build, and what it hoists out of
    # loops has slowed depthwise kernels down.
    "tirx.disable_cse_tir": True,
    # A dozen checks per argument in the wrapper that Python calls: 20 to 35 ms of a build, for calls that
    # are ours alone.
    "tirx.disable_assert": True,
}


def codegen_target(spec: TargetSpec) -> Target:
    """The target to generate machine code for; everything else takes `target.tvm_target`."""
    return Target({**spec.to_dict(), "cl-opt": _OPTIONS})


def codegen_passes() -> AbstractContextManager[Any]:
    """A context in which TVM lowers kernels as it does for candidates."""
    context: AbstractContextManager[Any] = tvm.transform.PassContext(config=_PASS_CONFIG)
    return context


def generate_code(functions: Mapping[str, PrimFunc], target: TargetSpec, *, is_run_once: bool = False) -> Any:
    """Compile scheduled functions into a TVM module that exports them by these names.

    Args:
        is_run_once: compile in the shortest time, as for what packs a kernel's weights.

    Raises:
        RuntimeError: TVM or LLVM refused a function.
    """
    named = {name: function.with_attr("global_symbol", name) for name, function in functions.items()}
    attrs = Target({**target.to_dict(), "opt-level": 0}) if is_run_once else codegen_target(target)
    with codegen_passes():
        return tvm.tirx.build(tvm.IRModule(named), target=attrs)

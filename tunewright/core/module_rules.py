"""What a computation from elsewhere may hold: arithmetic, and nothing that reaches out of its kernel."""

import json
from typing import Any

from tunewright.core.errors import TunewrightError

# Functions of the mathematical library and of the type system; "prim." holds conditions and the like.
_PURE_OPS = frozenset(
    "tirx." + name
    for name in (
        "acos acosh asin asinh atan atan2 atanh copysign cos cosh ctpop erf exp exp10 exp2 fabs floor fma "
        "fmod hypot isfinite isinf isnan ldexp likely log log10 log1p log2 nearbyint nextafter popcount pow "
        "q_multiply_shift q_multiply_shift_per_axis reinterpret round rsqrt sigmoid sin sinh sqrt tan tanh "
        "trunc"
    ).split()
)
# A pragma can have the code generator read a file of LLVM code and link it.
_FORBIDDEN_PREFIX = "pragma_"


class UntrustedModuleError(TunewrightError):
    """A module holds what no computation needs."""


def check_module(mod_json: str) -> None:
    """Check a module in TVM's JSON, before TVM sees it.

    Raises:
        UntrustedModuleError: it is no graph, calls anything but pure arithmetic, or has a pragma.
    """
    try:
        nodes = json.loads(mod_json)["nodes"]
        for node in nodes:
            _check_node(node["type"], node.get("data"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise UntrustedModuleError("the module is no graph of TVM") from exc


def _check_node(kind: str, data: Any) -> None:
    if kind == "ir.Op" and not (data in _PURE_OPS or str(data).startswith("prim.")):
        raise UntrustedModuleError(f"the module calls {str(data)[:80]}, which is not pure arithmetic")
    if kind == "ffi.String" and str(data).startswith(_FORBIDDEN_PREFIX):
        raise UntrustedModuleError(f"the module has the pragma {str(data)[:80]}")

"""What TVM's fusion may not join: a number for each channel, and the images that are scaled by it.

A squeeze-and-excitation gate, or the mean of a normalisation, is computed once; fused with what it scales, it
is computed for every pixel, and all of that by the one thread that the few channels are shared out to.
"""

import math

import tvm
from tvm import relax

from tunewright.core.tvm_adapter.graph_rewrites import bindings, static_shape

OUT_ELEMENTWISE_FUSIBLE, OPAQUE = 4, 8
"""The patterns of a function that elementwise ones may be fused to, and of one that is fused with nothing."""

# Of an image. To start the threads once more, for two small kernels, costs 2 to 5 us on a Zen 5: below, gates
# with a hard sigmoid were slower apart (14 x 14 x 672), those with exp as fast.
_LEAST_ELEMENTS = 150_000
# Of an image to its channels' numbers.
_LEAST_GROWTH = 16
_CALL_TIR = tvm.ir.Op.get("relax.call_tir")


def keep_channels_apart(mod: tvm.IRModule, function: str) -> tvm.IRModule:
    """The module, whose operators are functions of TIR already, with what computes such numbers marked."""
    makers: dict[relax.Var, relax.Call] = {}
    for binding in bindings(mod[function]):
        call = binding.value
        if not isinstance(call, relax.Call) or call.op != _CALL_TIR:
            continue
        for value in call.args[1].fields:
            maker = makers.get(value) if isinstance(value, relax.Var) else None
            if maker is not None and _scales(maker, call):
                mod[maker.args[0]] = mod[maker.args[0]].with_attr("op_pattern", OPAQUE)
        makers[binding.var] = call
    return mod


def _scales(maker: relax.Call, call: relax.Call) -> bool:
    """Whether a call makes a number for each index of the last axis of what another call computes."""
    small, large = static_shape(maker.ty), static_shape(call.ty)
    if not small or not large or len(small) != len(large):
        return False
    is_of_channels = small[-1] == large[-1] > 1 and all(
        a in (1, b) for a, b in zip(small, large, strict=True)
    )
    is_large = math.prod(large) >= max(_LEAST_ELEMENTS, _LEAST_GROWTH * math.prod(small))
    return is_of_channels and is_large

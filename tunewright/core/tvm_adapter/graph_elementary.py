"""Functions of single elements in what vectors have instructions for.

TVM's functions are calls of the C library for each element: 2 to 9 ns each, where vectors take 0.1 to 0.2.
Its library of polynomials has exp, tanh and erf (a few units in the last place); its FastMathTransform would
put them in, but fails at a call that is no operator.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
import tvm
from tvm import relax, te, tirx, topi
from tvm.ir.expr import GenericConst
from tvm.relax.expr_functor import PyExprMutator, mutator

from tunewright.core.tvm_adapter.expressions import (
    LOG_2_HIGH,
    LOG_2_LOW,
    MANTISSA_BITS,
    float32,
    named,
    polynomial,
)
from tunewright.core.tvm_adapter.graph_fusion import OPAQUE
from tunewright.core.tvm_adapter.graph_rewrites import rewritten, weight_values

# More products than three round more often than a polynomial.
_MAX_EXPONENT = 4
_LOG = tvm.ir.Op.get("relax.log")
_POWER = tvm.ir.Op.get("relax.power")
_SIGMOID = tvm.ir.Op.get("relax.sigmoid")
_SOFTMAX = tvm.ir.Op.get("relax.nn.softmax")
_POLYNOMIALS = {
    tvm.ir.Op.get("relax.erf"): topi.fast_erf,
    tvm.ir.Op.get("relax.exp"): topi.fast_exp,
    tvm.ir.Op.get("relax.tanh"): topi.fast_tanh,
}

_SMALLEST_NORMAL = 2.0**-126
_MANTISSA_MASK = (1 << MANTISSA_BITS) - 1
_SQRT_HALF_BITS, _NAN_BITS, _MINUS_INFINITY_BITS = 0x3F3504F3, 0x7FC00000, 0xFF800000
# What follows 2 s in the series of log((1 + s) / (1 - s)) = 2 (s + s^3 / 3 + s^5 / 5 ...): |s| is at most
# 0.172, so that the first term left out is 2e-9 of the sum.
_LOG_TERMS = (2 / 3, 2 / 5, 2 / 7, 2 / 9)


def taken_apart(mod: tvm.IRModule, params: Sequence[npt.NDArray[Any]], names: Sequence[str]) -> tvm.IRModule:
    """The module with simpler operators for each float32 sigmoid, and each power by a quarter up to 4.

    Results differ by some units in the last place; and the root of an infinite negative number, of which
    `pow` makes infinity, is NaN, as of any other negative one.

    Args:
        params, names: the weights of the main function; exponents may be among them.
    """
    return rewritten(_Elementary(mod, weight_values(mod, params, names)), mod)


def in_vectors(mod: tvm.IRModule) -> tvm.IRModule:
    """The module with each float32 exp, erf, tanh, log and softmax as polynomials.

    They are functions of TIR then: no pass sees any more what they are.
    """
    return rewritten(_Polynomials(mod), mod)


@mutator
class _Elementary(PyExprMutator):  # type: ignore[misc]  # TVM has no types
    def __init__(self, mod: tvm.IRModule, weights: Mapping[relax.Var, npt.NDArray[Any]]) -> None:
        super().__init__(mod)
        self._weights = weights

    def visit_call_(self, call: relax.Call) -> Any:
        call = self.builder_.normalize(self.visit_expr_post_order(call))
        if call.op == _SIGMOID and _is_float32(call):
            return self._sigmoid(call.args[0])
        if call.op == _POWER and _is_float32(call):
            base, exponent = call.args
            quarters = self._quarters(exponent)
            # An exponent of many axes may give the power more axes than its base has.
            if quarters is not None and base.ty.ndim == call.ty.ndim:
                return self._power(base, quarters)
        return call

    def _sigmoid(self, value: relax.Expr) -> relax.Expr:
        """1 / (1 + exp(-x))"""
        power = self.builder_.emit(relax.op.exp(self.builder_.emit(relax.op.negative(value))))
        return self._inverse(self.builder_.emit(relax.op.add(power, relax.const(1.0, "float32"))))

    def _quarters(self, exponent: relax.Expr) -> int | None:
        """Four times the one exponent of all elements, where that is a whole number that pays."""
        value = exponent.value.numpy() if isinstance(exponent, GenericConst) else self._weights.get(exponent)
        if value is None or value.size != 1:
            return None
        quarters = 4.0 * float(value.item())
        is_handled = quarters.is_integer() and 0 < abs(quarters) <= 4 * _MAX_EXPONENT
        return int(quarters) if is_handled else None

    def _power(self, base: relax.Expr, quarters: int) -> relax.Expr:
        """x^(i + j/2 + k/4), the whole part by squaring."""
        emit = self.builder_.emit
        whole, rest = divmod(abs(quarters), 4)
        factors = []
        square = base
        while whole:
            if whole % 2:
                factors.append(square)
            whole //= 2
            if whole:
                square = emit(relax.op.multiply(square, square))
        if rest:
            root = emit(relax.op.sqrt(base))
            if rest // 2:
                factors.append(root)
            if rest % 2:
                factors.append(emit(relax.op.sqrt(root)))
        product = factors[0]
        for factor in factors[1:]:
            product = emit(relax.op.multiply(product, factor))
        return product if quarters > 0 else self._inverse(product)

    def _inverse(self, value: relax.Expr) -> relax.Expr:
        return relax.op.divide(relax.const(1.0, "float32"), value)


@mutator
class _Polynomials(PyExprMutator):  # type: ignore[misc]  # TVM has no types
    def visit_call_(self, call: relax.Call) -> Any:
        call = self.builder_.normalize(self.visit_expr_post_order(call))
        if not _is_float32(call):
            return call
        if call.op == _LOG:
            return self.builder_.call_te(
                lambda x: te.compute(x.shape, lambda *index: _log(x[index]), name="fast_log"),
                call.args[0],
                primfunc_name_hint="fast_log",
                # Fused, it would be written out wherever the next function mentions its argument: a dozen
                # times in a tanh.
                primfunc_attrs={"op_pattern": OPAQUE},
            )
        if call.op == _SOFTMAX:
            return self.builder_.call_te(topi.nn.fast_softmax, call.args[0], int(call.attrs.axis))
        function = _POLYNOMIALS.get(call.op)
        return call if function is None else self.builder_.call_te(function, call.args[0])


def _log(x: Any) -> Any:
    """log x = e log 2 + log m, where x = 2^e m and m is between the roots of 1/2 and of 2.

    With s = (m - 1) / (m + 1), log m = log((1 + s) / (1 - s)): the series of the inverse hyperbolic tangent.
    """

    def of_bits(value: Any, is_small: Any, bits: Any) -> Any:
        exponent = (bits >> MANTISSA_BITS) - tirx.Select(is_small, _int(MANTISSA_BITS), _int(0))
        excess = tirx.reinterpret("float32", (bits & _MANTISSA_MASK) + _SQRT_HALF_BITS) - float32(1.0)
        result = named(exponent.astype("float32"), lambda e: named(excess, lambda f: _log_of_parts(e, f)))
        result = tirx.Select(value <= tirx.max_value("float32"), result, value)  # infinity and NaN stay
        result = tirx.Select(value < float32(0.0), _special(_NAN_BITS), result)
        return tirx.Select(value.equal(float32(0.0)), _special(_MINUS_INFINITY_BITS), result)

    def of_value(value: Any) -> Any:
        is_small = value < float32(_SMALLEST_NORMAL)
        normal = tirx.Select(is_small, value * float32(2.0**MANTISSA_BITS), value)
        bits = tirx.reinterpret("int32", normal) - _SQRT_HALF_BITS
        return named(bits, lambda known: of_bits(value, is_small, known), dtype="int32")

    return named(x, of_value)


def _log_of_parts(exponent: Any, excess: Any) -> Any:
    """exponent * log 2 + log(1 + excess)"""

    def of_s(s: Any) -> Any:
        square = s * s
        # 2 s + s^3 (...) = excess - s (excess - s^2 (...)): the first term, the largest, is exact.
        log_mantissa = excess - s * (excess - square * polynomial(square, _LOG_TERMS))
        return exponent * float32(LOG_2_HIGH) + (log_mantissa + exponent * float32(LOG_2_LOW))

    return named(excess / (excess + float32(2.0)), of_s)


def _special(bits: int) -> Any:
    """A number that JSON has not, and so no task."""
    return tirx.reinterpret("float32", tirx.const(bits - (1 << 32) if bits >> 31 else bits, "int32"))


def _int(value: int) -> Any:
    return tirx.const(value, "int32")


def _is_float32(call: relax.Call) -> bool:
    return isinstance(call.ty, relax.TensorType) and str(call.ty.dtype) == "float32"

"""Joined tensors whose parts are read where they are: by products, and by what copies its input anyway.

A product of joined channels sums over one part after the other; it takes as long as over a copy, and the copy
is not made. Winograd's convolutions pad their input, and take it from the parts instead. A copy that somebody
else reads too is made all the same, so then everybody reads that. Pooling does not mix channels, so parts are
pooled before they are joined where that helps.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import tvm
from tvm import relax, te
from tvm.relax.expr_functor import PyExprMutator, mutator

from tunewright.core.tile_rules import fullest_vector
from tunewright.core.tvm_adapter.contraction import is_tileable
from tunewright.core.tvm_adapter.expressions import joined
from tunewright.core.tvm_adapter.graph_fusion import OUT_ELEMENTWISE_FUSIBLE
from tunewright.core.tvm_adapter.graph_rewrites import (
    bindings,
    joined_axis,
    readers_of,
    rewritten,
    static_shape,
)
from tunewright.core.tvm_adapter.graph_winograd import emit_winograd, is_faster_by_winograd
from tunewright.core.tvm_adapter.target import vector_lanes
from tunewright.core.types import JOINED, TargetSpec

_CONCAT, _CONVOLUTION, _MATMUL = (
    tvm.ir.Op.get(f"relax.{name}") for name in ("concat", "nn.conv2d", "matmul")
)
_POOLS = [tvm.ir.Op.get(f"relax.nn.{name}_pool2d") for name in ("max", "avg")]
# Each has a loop of its own, with an unrolled body.
_MOST_PARTS = 4
# A part has whole vectors, and whole groups of unrolled steps.
_MULTIPLE = 8
_IMAGE_RANK = 4

Parts = Mapping[relax.Var, Sequence[relax.Expr]]
Readers = Mapping[relax.Var, Sequence[relax.Binding]]


def read_in_place(mod: tvm.IRModule, target: TargetSpec) -> tvm.IRModule:
    """The module, its images in NHWC, without the joined tensors whose readers can do with the parts."""
    lanes = vector_lanes(target)
    main = mod["main"]
    calls = {one.var: one.value for one in bindings(main) if isinstance(one.value, relax.Call)}
    readers = readers_of(main)
    parts: dict[relax.Var, Sequence[relax.Expr]] = {}
    pooled: dict[relax.Var, Sequence[relax.Expr]] = {}
    for var, call in calls.items():
        found = _parts(call, calls, readers) if isinstance(var, relax.DataflowVar) else ()
        if found and all(_reads_parts(reader.value, var, lanes) for reader in readers.get(var, ())):
            (parts if call.op == _CONCAT else pooled)[var] = found
    if not parts and not pooled:
        return mod
    return relax.transform.DeadCodeElimination()(rewritten(_InPlace(mod, parts, pooled), mod))


def _parts(call: relax.Call, calls: Mapping[relax.Var, relax.Call], readers: Readers) -> Sequence[relax.Expr]:
    """What a call joins, or what is joined and then only pooled by it; empty where that has no such parts."""
    if call.op in _POOLS and call.attrs.layout == call.attrs.out_layout == "NHWC":
        (image,) = call.args
        is_only_reader = isinstance(image, relax.DataflowVar) and len(readers[image]) == 1
        source = calls.get(image) if is_only_reader else None
        return () if source is None or source.op != _CONCAT else _parts(source, calls, readers)
    if call.op != _CONCAT or not isinstance(call.args[0], relax.Tuple):
        return ()
    fields = list(call.args[0].fields)
    shapes = [static_shape(field.ty) for field in fields]
    is_image = all(shape is not None and len(shape) == _IMAGE_RANK for shape in shapes)
    if not is_image or joined_axis(call) != _IMAGE_RANK - 1 or len(fields) > _MOST_PARTS:
        return ()
    has_whole_vectors = all(shape[-1] % _MULTIPLE == 0 for shape in shapes)  # type: ignore[index]
    return fields if has_whole_vectors and str(call.ty.dtype) == "float32" else ()


def _reads_parts(reader: relax.Expr, image: relax.Var, lanes: int) -> bool:
    """Whether a call can read the parts of its first operand, and has no other use for it.

    Not a product whose axes must be padded, which TVM refuses then.
    """
    if not isinstance(reader, relax.Call) or reader.op not in (_MATMUL, _CONVOLUTION):
        return False
    data, weight = reader.args
    if not image.same_as(data) or image.same_as(weight) or str(reader.ty.dtype) != "float32":
        return False
    if reader.op == _CONVOLUTION:
        return is_faster_by_winograd(reader)
    *_, rows, columns, _ = static_shape(data.ty)  # type: ignore[misc]
    shape = static_shape(weight.ty) or ()
    has_tiles = is_tileable(rows) or is_tileable(columns)
    return len(shape) == 2 and fullest_vector(shape[1], lanes) == lanes and has_tiles


@mutator
class _InPlace(PyExprMutator):  # type: ignore[misc]  # TVM has no types
    """Replaces readers of `parts`, and of pools with parts of their own, which are pooled one by one."""

    def __init__(self, mod: tvm.IRModule, parts: Parts, pooled: Parts) -> None:
        super().__init__(mod)
        self._parts = dict(parts)
        self._pooled = pooled

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        if binding.var in self._pooled:
            pool = binding.value
            self._parts[binding.var] = [
                self.builder_.emit(relax.Call(pool.op, [self.visit_expr(part)], pool.attrs))
                for part in self._pooled[binding.var]
            ]
        super().visit_var_binding_(binding)

    def visit_call_(self, call: relax.Call) -> Any:
        image = call.args[0] if call.args else None
        if not isinstance(image, relax.Var) or image not in self._parts or call.op in _POOLS:
            return self.visit_expr_post_order(call)
        parts = [self.visit_expr(part) for part in self._parts[image]]
        weight = self.visit_expr(call.args[1])
        if call.op == _CONVOLUTION:
            return emit_winograd(self.builder_, call, parts, weight)
        return self.builder_.emit_te(
            _product,
            parts,
            weight,
            primfunc_name_hint=f"{JOINED}matmul",
            primfunc_attrs={"op_pattern": OUT_ELEMENTWISE_FUSIBLE},
        )


def _product(parts: Sequence[Any], weight: Any) -> Any:
    """Of images that are joined along their channels, and (channels, columns)."""
    channels, columns = weight.shape
    step = te.reduce_axis((0, channels), name="channel")
    image = joined(parts)
    return te.compute(
        (*parts[0].shape[:-1], columns),
        lambda *index: te.sum(image(*index[:-1], step) * weight[step, index[-1]], axis=step),
        name="products",
    )

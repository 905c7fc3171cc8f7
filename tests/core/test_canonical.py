"""A workload's key depends on the computation alone."""

import pytest

pytestmark = pytest.mark.tvm

from tests.core import kernels  # noqa: E402
from tunewright.core.tvm_adapter.canonical import canonical_workload, load_module  # noqa: E402


def test_names_do_not_change_the_workload() -> None:
    one = canonical_workload(kernels.matmul_relu(prefix="x").func, name="one")
    other = canonical_workload(kernels.matmul_relu(prefix="another_name_").func, name="other")
    assert one.key == other.key
    assert one.mod_json == other.mod_json


def test_attributes_of_history_do_not_change_the_workload() -> None:
    func = kernels.matmul_relu().func
    marked = func.with_attr({"op_pattern": 4, "global_symbol": "fused_dense_7"})
    assert canonical_workload(func, name="a").key == canonical_workload(marked, name="a").key


def test_shape_and_free_layout_change_the_workload() -> None:
    base = kernels.matmul_relu().func
    keys = {
        canonical_workload(func, name="w").key
        for func in (base, kernels.matmul_relu(m=49).func, base.without_attr("layout_free_buffers"))
    }
    assert len(keys) == 3


def test_canonical_form_is_a_fixed_point() -> None:
    workload = canonical_workload(kernels.conv2d_bias().func, name="conv")
    again = canonical_workload(load_module(workload.mod_json)["main"], name="conv")
    assert again == workload
    assert again.mod_json == workload.mod_json


def test_workload_knows_its_arguments_and_work() -> None:
    workload = canonical_workload(kernels.matmul_relu(m=4, n=5, k=6).func, name="mm")
    assert [arg.shape for arg in workload.args] == [(4, 6), (6, 5), (4, 5)]
    assert workload.arg_bytes == 4 * (24 + 30 + 20)
    assert workload.flop == 2 * 4 * 5 * 6 + 4 * 5  # a multiplication and an addition count one each


def test_symbolic_shape_is_refused() -> None:
    from tvm import te, tirx

    n = tirx.Var("n", "int32")
    x = te.placeholder((n,), name="x")
    func = te.create_prim_func([x, te.compute((n,), lambda i: x[i] + te.const(1.0, "float32"))])
    with pytest.raises(ValueError, match="symbolic"):
        canonical_workload(func, name="dynamic")

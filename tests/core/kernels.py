"""Small TIR functions with a NumPy truth each, for the tests of everything that schedules kernels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import te, tirx
from tvm.topi import nn

import tunewright.core.tvm_adapter  # noqa: F401  # hides torch before TVM is imported
from tunewright.core.tvm_adapter.codegen import generate_code
from tunewright.core.tvm_adapter.kernel import build_kernel, split_prepack
from tunewright.core.types import TargetSpec

Arrays = Sequence[np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Kernel:
    """`func`: a PrimFunc; `truth`: its outputs from its inputs, in float64."""

    func: Any
    truth: Callable[[Arrays], list[np.ndarray[Any, Any]]]


def output_of(program: tvm.IRModule, target: TargetSpec, inputs: Arrays) -> np.ndarray[Any, Any]:
    """What a program makes of arguments; an element that it does not write is poison."""
    bound = build_kernel(program, target).bind(inputs)
    bound.poison()
    bound.run()
    return bound.outputs()[0]


def matmul_relu(m: int = 48, n: int = 40, k: int = 32, *, prefix: str = "x") -> Kernel:
    """max(A @ B, 0), with B's layout free to change; all names start with `prefix`."""
    a, b = te.placeholder((m, k), name=f"{prefix}A"), te.placeholder((k, n), name=f"{prefix}B")
    axis = te.reduce_axis((0, k), name=f"{prefix}k")
    c = te.compute((m, n), lambda i, j: te.sum(a[i, axis] * b[axis, j], axis=axis), name=f"{prefix}C")
    d = te.compute((m, n), lambda i, j: te.max(c[i, j], te.const(0.0, "float32")), name=f"{prefix}D")
    func = te.create_prim_func([a, b, d]).with_attr("layout_free_buffers", [1])
    return Kernel(func, lambda x: [np.maximum(x[0].astype(np.float64) @ x[1].astype(np.float64), 0)])


def conv2d_bias(channels: int = 8, size: int = 14, filters: int = 16) -> Kernel:
    """A padded 3 x 3 convolution with bias."""
    data = te.placeholder((1, channels, size, size), name="data")
    weight = te.placeholder((filters, channels, 3, 3), name="weight")
    bias = te.placeholder((1, filters, 1, 1), name="bias")
    conv = nn.conv2d(data, weight, 1, 1, 1, data_layout="NCHW")
    out = te.compute(conv.shape, lambda n, f, y, x: conv[n, f, y, x] + bias[0, f, 0, 0], name="out")

    def truth(inputs: Arrays) -> list[np.ndarray[Any, Any]]:
        image = np.pad(inputs[0][0].astype(np.float64), ((0, 0), (1, 1), (1, 1)))
        result = np.zeros((filters, size, size)) + inputs[2].reshape(-1, 1, 1)
        for dy in range(3):
            for dx in range(3):
                patch = image[:, dy : dy + size, dx : dx + size]
                result += np.einsum("fc,cyx->fyx", inputs[1][:, :, dy, dx].astype(np.float64), patch)
        return [result[None]]

    return Kernel(te.create_prim_func([data, weight, bias, out]), truth)


def conv2d_channels_last(
    channels: int = 6, size: int = 14, filters: int = 24, *, stride: int = 1, groups: int = 1, batch: int = 1
) -> Kernel:
    """A padded 3 x 3 convolution with bias, residual and ReLU, channels last; its weights may be packed."""
    data = te.placeholder((batch, size, size, channels), name="data")
    weight = te.placeholder((3, 3, channels // groups, filters), name="weight")
    bias = te.placeholder((filters,), name="bias")
    conv = nn.conv(data, weight, stride, 1, 1, groups, data_layout="NHWC", kernel_layout="HWIO")
    residual = te.placeholder(conv.shape, name="residual")
    total = te.compute(conv.shape, lambda n, y, x, f: conv[n, y, x, f] + bias[f], name="biased")
    out = nn.relu(te.compute(conv.shape, lambda *i: total(*i) + residual(*i), name="added"))
    func = te.create_prim_func([data, weight, bias, residual, out]).with_attr("layout_free_buffers", [1])

    def truth(inputs: Arrays) -> list[np.ndarray[Any, Any]]:
        images = np.pad(inputs[0].astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
        result = inputs[3].astype(np.float64) + inputs[2]
        extent = result.shape[1]
        per_group, made = channels // groups, filters // groups
        for dy in range(3):
            for dx in range(3):
                patch = images[:, dy : dy + stride * extent : stride, dx : dx + stride * extent : stride]
                for group in range(groups):
                    taken = slice(group * made, (group + 1) * made)
                    part = patch[:, :extent, :extent, group * per_group : (group + 1) * per_group]
                    result[..., taken] += part @ inputs[1][dy, dx, :, taken]
        return [np.maximum(result, 0)]

    return Kernel(func, truth)


def max_pool_channels_last(channels: int = 20, size: int = 13) -> Kernel:
    """A padded 3 x 3 maximum."""
    data = te.placeholder((1, size, size, channels), name="data")
    out = nn.pool2d(data, (3, 3), (2, 2), (1, 1), (1, 1, 1, 1), "max", layout="NHWC")

    def truth(inputs: Arrays) -> list[np.ndarray[Any, Any]]:
        image = np.pad(inputs[0], ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
        windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(1, 2))[:, ::2, ::2]
        return [windows.max(axis=(-2, -1))]

    return Kernel(te.create_prim_func([data, out]), truth)


def batch_matmul(batch: int = 3, m: int = 17, n: int = 24, k: int = 16) -> Kernel:
    """Products of pairs of matrices, neither of them a weight; m is prime."""
    a, b = te.placeholder((batch, m, k), name="a"), te.placeholder((batch, k, n), name="b")
    axis = te.reduce_axis((0, k), name="k")
    c = te.compute((batch, m, n), lambda h, i, j: te.sum(a[h, i, axis] * b[h, axis, j], axis=axis), name="c")
    func = te.create_prim_func([a, b, c])
    return Kernel(func, lambda x: [x[0].astype(np.float64) @ x[1].astype(np.float64)])


def softmax(rows: int = 6, columns: int = 101) -> Kernel:
    """Rows of a prime number of columns have no sketch of ours but TVM's."""
    x = te.placeholder((rows, columns), name="x")

    def truth(inputs: Arrays) -> list[np.ndarray[Any, Any]]:
        shifted = np.exp(inputs[0].astype(np.float64) - inputs[0].max(axis=1, keepdims=True))
        return [shifted / shifted.sum(axis=1, keepdims=True)]

    return Kernel(te.create_prim_func([x, nn.softmax(x, axis=1)]), truth)


def root_mean_square_norm(rows: int = 24, columns: int = 96) -> Kernel:
    """Each row over the root of the mean of its squares; those are a tensor of their own, as in models."""
    x, squares = te.placeholder((rows, columns), name="x"), te.placeholder((rows, columns), name="squares")
    axis = te.reduce_axis((0, columns), name="k")
    total = te.compute((rows, 1), lambda i, j: te.sum(squares[i, axis], axis=axis), name="total")
    scale = te.compute((rows, 1), lambda i, j: te.sqrt(total[i, j] / columns + 1e-6), name="scale")
    out = te.compute((rows, columns), lambda i, j: x[i, j] / scale[i, 0], name="out")

    def truth(inputs: Arrays) -> list[np.ndarray[Any, Any]]:
        mean = np.abs(inputs[1].astype(np.float64).mean(axis=1, keepdims=True) + 1e-6)
        return [inputs[0] / np.sqrt(mean)]

    return Kernel(te.create_prim_func([x, squares, out]), truth)


def two_outputs(size: int = 60) -> Kernel:
    """One kernel that writes x + 1 and 2 x."""
    x = te.placeholder((size,), name="x")
    one = te.compute((size,), lambda i: x[i] + te.const(1.0, "float32"), name="one")
    two = te.compute((size,), lambda i: x[i] * te.const(2.0, "float32"), name="two")
    return Kernel(te.create_prim_func([x, one, two]), lambda a: [a[0] + 1.0, a[0] * 2.0])


def integer_scale(size: int = 33) -> Kernel:
    """int32 x * 3: nothing may be rounded."""
    x = te.placeholder((size,), name="x", dtype="int32")
    out = te.compute((size,), lambda i: x[i] * tirx.const(3, "int32"), name="out")
    return Kernel(te.create_prim_func([x, out]), lambda a: [a[0] * 3])


def scaled_by_scalar(size: int = 40) -> Kernel:
    """x * s, s being a tensor without axes."""
    x, s = te.placeholder((size,), name="x"), te.placeholder((), name="s")
    out = te.compute((size,), lambda i: x[i] * s(), name="out")
    return Kernel(te.create_prim_func([x, s, out]), lambda a: [a[0] * a[1]])


def llvm_ir(scheduled: tvm.IRModule, target: TargetSpec) -> str:
    """What LLVM was left with of a scheduled kernel."""
    library = generate_code({"kernel": split_prepack(scheduled).compute}, target)
    return str(library.inspect_source("ll"))


ALL = {
    "matmul_relu": matmul_relu,
    "conv2d_bias": conv2d_bias,
    "softmax": softmax,
    "two_outputs": two_outputs,
    "integer_scale": integer_scale,
    "scaled_by_scalar": scaled_by_scalar,
}

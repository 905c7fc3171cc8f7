"""Register tiling: every drawn schedule computes what NumPy does, and holds its tile in registers."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tvm")

from tests.core import kernels
from tunewright.core.tile_rules import are_reasonable
from tunewright.core.tvm_adapter.canonical import canonical_workload, load_module
from tunewright.core.tvm_adapter.kernel import build_kernel, replay
from tunewright.core.tvm_adapter.register_tiling import draw_tiles, own_tiles, register_tiling_sketches
from tunewright.core.tvm_adapter.space import TaskSpace
from tunewright.core.tvm_adapter.target import host_target
from tunewright.core.types import TaskKey

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

TARGET = host_target(2)
CASES: dict[str, tuple[Callable[[], kernels.Kernel], int]] = {
    "matmul": (partial(kernels.matmul_relu, 48, 48, 32), 1),
    "matvec": (partial(kernels.matmul_relu, 1, 48, 32), 1),
    "padded_weight": (partial(kernels.matmul_relu, 12, 40, 32), 1),
    "batch_matmul": (kernels.batch_matmul, 2),
    "convolution": (kernels.conv2d_channels_last, 2),
    "images": (partial(kernels.conv2d_channels_last, batch=2), 2),
    "strided": (partial(kernels.conv2d_channels_last, stride=2, filters=16), 2),
    "depthwise": (partial(kernels.conv2d_channels_last, channels=24, groups=24), 1),
    "grouped": (partial(kernels.conv2d_channels_last, channels=6, groups=3), 2),
    "pooling": (kernels.max_pool_channels_last, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_drawn_schedules_are_right(name: str) -> None:
    make, num_sketches = CASES[name]
    kernel = make()
    workload = canonical_workload(kernel.func, name=name)
    assert len(register_tiling_sketches(load_module(workload.mod_json), vector_lanes=16)) == num_sketches
    rng = np.random.default_rng(3)
    inputs = [rng.standard_normal(spec.shape).astype(np.float32) for spec in workload.args]
    (truth,) = kernel.truth(inputs[:-1])
    space = TaskSpace(workload.mod_json, TARGET, TaskKey("t"))
    programs = set()
    for seed in range(6):
        applied = space.sample(seed)
        assert applied is not None
        programs.add(applied.program_key)
        scheduled = replay(workload.mod_json, applied.candidate.trace_json)
        bound = build_kernel(scheduled, TARGET).bind(inputs)
        bound.poison()
        bound.run()
        np.testing.assert_allclose(bound.outputs()[0], truth, rtol=1e-4, atol=1e-4)
    assert len(programs) > 1


def test_accumulators_and_vectors_are_what_was_decided() -> None:
    workload = canonical_workload(kernels.matmul_relu(64, 64, 64).func, name="mm")
    (sketch,) = register_tiling_sketches(load_module(workload.mod_json), vector_lanes=8)
    tiles = list(
        draw_tiles(own_tiles(sketch), np.random.default_rng(1), vector_lanes=8, num_registers=16).values()
    )
    assert [len(tile) for tile in tiles] == [3, 4, 2] and tiles[1][3] == 8
    assert [np.prod(tile) for tile in tiles] == [64, 64, 64]


@pytest.mark.parametrize(
    ("kernel", "tiled"),
    [
        (kernels.batch_matmul(), [False, True]),  # the matrices of a batch share nothing
        (kernels.conv2d_channels_last(batch=3, size=12), [False, True, True]),  # pixels share what images do
        (kernels.conv2d_channels_last(batch=3, size=2), [True, True, True]),  # too few pixels
    ],
)
def test_rows_of_a_tile_are_those_that_share_an_operand(kernel: kernels.Kernel, tiled: list[bool]) -> None:
    workload = canonical_workload(kernel.func, name="k")
    sketch = register_tiling_sketches(load_module(workload.mod_json), vector_lanes=8)[-1]
    rng = np.random.default_rng(0)
    drawn = [
        [
            tile[-1]
            for tile in draw_tiles(own_tiles(sketch), rng, vector_lanes=8, num_registers=16).values()
            if len(tile) == 3
        ]
        for _ in range(50)
    ]
    assert [max(rows) > 1 for rows in zip(*drawn, strict=True)] == tiled


def test_no_structure_for_what_is_no_contraction() -> None:
    others = (
        kernels.softmax(),
        kernels.two_outputs(),
        kernels.integer_scale(),
        kernels.root_mean_square_norm(),
    )
    for kernel in others:
        workload = canonical_workload(kernel.func, name="other")
        assert register_tiling_sketches(load_module(workload.mod_json), vector_lanes=16) == []


@given(
    rows=st.integers(1, 64),
    vectors=st.integers(1, 8),
    steps=st.integers(1, 16),
    lanes=st.integers(1, 16),
    num_registers=st.sampled_from([16, 32]),
)
def test_what_is_reasonable(rows: int, vectors: int, steps: int, lanes: int, num_registers: int) -> None:
    tiles = [[2, 2, rows], [1, 2, vectors, lanes], [5, steps]]
    fits = rows * vectors <= num_registers - 2 and steps <= 8 and rows * vectors * steps <= 512
    extent = 2 * vectors * lanes
    fullest = max(n for n in range(1, 17) if extent % n == 0)
    assert are_reasonable(tiles, vector_lanes=16, num_registers=num_registers) == (fits and lanes == fullest)


def test_draws_are_the_same_again() -> None:
    workload = canonical_workload(kernels.conv2d_channels_last().func, name="conv")
    drawn = [
        [
            list(
                draw_tiles(
                    own_tiles(sketch), np.random.default_rng(7), vector_lanes=16, num_registers=32
                ).values()
            )
            for sketch in register_tiling_sketches(load_module(workload.mod_json), vector_lanes=16)
        ]
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1]

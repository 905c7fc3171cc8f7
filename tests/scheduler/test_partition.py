from pathlib import Path

import pytest

from tests.models import dense_net, embedding_net, residual_net
from tunewright.core.types import TargetSpec, TensorSpec, Workload, WorkloadKey
from tunewright.scheduler.importer import import_model
from tunewright.scheduler.partition import partition, predicted_secs, task_name

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

TARGET = TargetSpec("x86-64-v3", num_threads=1)


def test_weights_and_names_play_no_part_in_tasks(tmp_path: Path) -> None:
    a = residual_net(tmp_path / "a.onnx", seed=1)
    b = residual_net(tmp_path / "b.onnx", seed=2, prefix="other/name::")
    tasks_a, tasks_b = (partition(import_model(path, target=TARGET)).tasks for path in (a, b))
    assert [(task.key, task.weight) for task in tasks_a] == [(task.key, task.weight) for task in tasks_b]
    assert [task.workload.mod_json for task in tasks_a] == [task.workload.mod_json for task in tasks_b]


def test_another_shape_or_target_is_another_task(tmp_path: Path) -> None:
    small = dense_net(tmp_path / "small.onnx", hidden=32)
    large = dense_net(tmp_path / "large.onnx", hidden=48)
    two_threads = TargetSpec(TARGET.mcpu, num_threads=2)
    keys = [
        {task.key for task in partition(import_model(path, target=target)).tasks}
        for path, target in ((small, TARGET), (large, TARGET), (small, two_threads))
    ]
    assert all(len(group) == 2 for group in keys)
    assert len(set.union(*keys)) == 6


def test_every_call_has_a_task_and_shares_add_up(tmp_path: Path) -> None:
    parts = partition(import_model(residual_net(tmp_path / "m.onnx"), target=TARGET))
    assert not parts.untunable
    assert set(parts.functions.values()) == {task.key for task in parts.tasks}
    assert sum(task.weight for task in parts.tasks) == 9
    assert sum(parts.share(task) for task in parts.tasks) == pytest.approx(1.0)
    shares = [parts.share(task) for task in parts.tasks]
    assert shares == sorted(shares, reverse=True)


def test_channels_are_last_from_the_first_convolution_to_the_last(tmp_path: Path) -> None:
    """One transpose of the image; none of 1 x 1 images, of weights, or between the operators."""
    parts = partition(import_model(residual_net(tmp_path / "m.onnx"), target=TARGET))
    names = [task.workload.name for task in parts.tasks]
    assert [name for name in names if "transpose" in name] == ["transpose 3x12x12 -> 12x12x3"]
    assert not any("reshape" in name for name in names)


def test_flop_and_bytes_of_a_convolution(tmp_path: Path) -> None:
    parts = partition(import_model(residual_net(tmp_path / "m.onnx"), target=TARGET))
    task = next(t for t in parts.tasks if t.workload.name.startswith("conv2d_add_relu 12x12x8"))
    assert task.weight == 2
    assert task.workload.name == "conv2d_add_relu 12x12x8 * 3x3x8x8 -> 12x12x8"
    outputs = 8 * 12 * 12
    # A multiplication and an addition per tap, a bias, and the comparison of the ReLU.
    assert task.workload.flop == outputs * (2 * 8 * 3 * 3 + 2)
    assert task.workload.arg_bytes == 4 * (outputs + 8 * 8 * 3 * 3 + 8 + outputs)
    assert predicted_secs(task) > 0


def test_integer_indices_make_tasks_too(tmp_path: Path) -> None:
    parts = partition(import_model(embedding_net(tmp_path / "m.onnx"), target=TARGET))
    take = next(task for task in parts.tasks if task.workload.name.startswith("take"))
    assert [arg.dtype for arg in take.workload.args] == ["float32", "int64", "float32"]


@pytest.mark.parametrize(
    ("name", "shapes", "shown"),
    [
        ("matmul", [(128, 768), (768, 64), (128, 64)], "128x768 * 768x64 -> 128x64"),
        (
            "joined_matmul_add",
            [(1, 55, 55, 64), (1, 55, 55, 32), (96, 16), (1, 1, 1, 16), (1, 55, 55, 16)],
            "55x55x64 + 55x55x32 * 96x16 -> 55x55x16",
        ),
        (
            "joined_winograd_conv2d",
            [(1, 8, 8, 16), (1, 8, 8, 16), (1, 8, 8, 8), (4, 4, 40, 24), (1, 8, 8, 24)],
            "8x8x16 + 8x8x16 + 8x8x8 * 4x4x40x24 -> 8x8x24",
        ),
        (  # scores of an attention layer, and a bias for each pair
            "matmul_add",
            [(1, 4, 64, 32), (1, 4, 64, 32), (64, 64), (1, 4, 64, 64)],
            "4x64x32 * 4x64x32 -> 4x64x64",
        ),
        ("concatenate", [(1, 8, 8, 4), (1, 8, 8, 4), (1, 8, 8, 8)], "8x8x4 * 8x8x4 -> 8x8x8"),
        ("full", [(3,)], "3 -> 3"),
    ],
)
def test_names_show_operands_and_the_parts_of_joined_ones(
    name: str, shapes: list[tuple[int, ...]], shown: str
) -> None:
    args = tuple(TensorSpec(shape, "float32") for shape in shapes)
    assert task_name(Workload(name, WorkloadKey("1-0"), "", args, 0.0)) == f"{name} {shown}"

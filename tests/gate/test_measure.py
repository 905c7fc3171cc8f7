import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from tests.gate.fakes import FakeTimer, pair
from tests.models import dense_net
from tests.scheduler.in_process import replay
from tests.workers.workloads import default_trace_json, matmul_task
from tunewright.core.errors import ConfigError
from tunewright.core.types import Candidate, Origin
from tunewright.gate.measure import (
    KernelPair,
    LocalTimer,
    ModelPair,
    measure_alike,
    measure_pairs,
)
from tunewright.gate.model_timer import SideProblem
from tunewright.gate.statistics import GateRule, Verdict, judge
from tunewright.scheduler.manifest import read_manifest

RULE = GateRule()
PLAIN_LOOPS = '[[["EnterPostproc",[],[],[]]],[]]'


def test_each_verdict_from_pairs_and_no_more_of_them_than_needed() -> None:
    names = ["same", "slower", "faster", "fading", "broken", "noisy"]
    timer = FakeTimer(
        {"slower": 0.08, "faster": -0.08, "fading": 0.08},
        broken=frozenset(["broken"]),
        fades=frozenset(["fading"]),
    )
    quiet = timer.time_pairs

    def time_pairs(one, *, num_pairs, rng):  # type: ignore[no-untyped-def]
        timer.cv = 0.08 if one.name == "noisy" else 0.005
        return quiet(one, num_pairs=num_pairs, rng=rng)

    timer.time_pairs = time_pairs  # type: ignore[method-assign]
    rules = {name: RULE for name in names}
    steps: list[str] = []
    found = measure_pairs(
        [pair(name) for name in names], timer, rules, rng=np.random.default_rng(0), on_progress=steps.append
    )
    assert found.problems == {"broken": "head: broken crashed"}
    verdicts = {name: one.verdict for name, one in judge(found.times, rules).items()}
    assert verdicts == {
        "same": Verdict.SAME,
        "slower": Verdict.REGRESSED,
        "faster": Verdict.IMPROVED,
        "fading": Verdict.INCONCLUSIVE,
        "noisy": Verdict.INCONCLUSIVE,
    }
    num_pairs = Counter[str]()
    for name, number in timer.log:
        num_pairs[name] += number
    assert num_pairs == {"same": 15, "slower": 30, "faster": 30, "fading": 30, "noisy": 80}
    assert steps[0].startswith("look 1, group 1 of 5, 1 of 6: ")
    assert any(step.startswith("confirming: look 1") for step in steps)


def test_groups_of_items_take_turns() -> None:
    timer = FakeTimer({})
    names = ["a", "b", "c"]
    measure_pairs(
        [pair(name) for name in names], timer, dict.fromkeys(names, RULE), rng=np.random.default_rng(1)
    )
    order = [name for name, _ in timer.log]
    for start in (0, 3, 6):
        assert sorted(order[start : start + 3]) == names
    assert len({tuple(order[start : start + 3]) for start in (0, 3, 6)}) > 1


def test_alike_pairs_are_measured_as_often_as_experiments_are_wanted() -> None:
    timer = FakeTimer({}, broken=frozenset(["b"]))
    found = measure_alike(
        [pair("a"), pair("b")], timer, RULE, num_experiments=4, rng=np.random.default_rng(0)
    )
    assert [len(group.base_secs) for group in found.times["a"].first] == [3] * 20
    assert list(found.problems) == ["b"] and list(found.times) == ["a"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small model and the same with much more to do."""
    from tunewright.core.tvm_adapter.target import host_target
    from tunewright.scheduler.importer import import_model
    from tunewright.scheduler.kernel_choice import Variant
    from tunewright.scheduler.stitch import CompileOptions, compile_model

    folder = tmp_path_factory.mktemp("models")
    found = {}
    for name, hidden in (("small", 32), ("large", 32768)):
        path = dense_net(folder / f"{name}.onnx", hidden=hidden)
        model = import_model(path, target=host_target(num_threads=1))
        compile_model(model, folder / name, log=None, replay=replay, options=CompileOptions(Variant.DEFAULT))
        found[name] = folder / name
    return found


@pytest.mark.tvm
@pytest.mark.slow
def test_compiled_models_are_timed_in_pairs(models: dict[str, Path]) -> None:
    with LocalTimer(sample_secs=0.001) as timer:
        group = timer.time_pairs(
            ModelPair("m", models["small"], models["large"]), num_pairs=4, rng=np.random.default_rng(0)
        )
        assert len(group.base_secs) == len(group.head_secs) == 4
    assert median(group.head_secs) > 2 * median(group.base_secs)


@pytest.mark.tvm
@pytest.mark.slow
def test_sides_with_other_numbers_of_threads_are_no_pair(models: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "two"
    shutil.copytree(models["small"], other)
    manifest = read_manifest(other)
    replace(manifest, target=replace(manifest.target, num_threads=2)).write(other)
    with (
        LocalTimer(sample_secs=0.001) as timer,
        pytest.raises(ConfigError, match=r"small was compiled for 1 threads, .*two for 2: compile both"),
    ):
        timer.time_pairs(ModelPair("m", models["small"], other), num_pairs=1, rng=np.random.default_rng(0))


@pytest.mark.tvm
@pytest.mark.slow
def test_a_damaged_side_is_a_problem_of_its_item(models: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(models["small"], broken)
    (broken / "lib.so").write_bytes(b"no library")
    with LocalTimer(sample_secs=0.001) as timer, pytest.raises(SideProblem, match=r"head .*damaged"):
        timer.time_pairs(ModelPair("m", models["small"], broken), num_pairs=1, rng=np.random.default_rng(0))


@pytest.mark.tvm
@pytest.mark.slow
def test_schedules_of_a_task_are_timed_in_pairs_and_judged() -> None:
    task = matmul_task()
    good = Candidate(task.key, default_trace_json(task), Origin.SEED)
    plain = Candidate(task.key, PLAIN_LOOPS, Origin.REPLAY)
    broken = Candidate(task.key, '[[["NoSuchInstruction",[],[],[]]],[]]', Origin.REPLAY)
    rule = replace(RULE, looks=(9, 12), max_group_pairs=3)
    pairs = [KernelPair("worse", task, good, plain), KernelPair("broken", task, good, broken)]
    rules = {one.name: rule for one in pairs}
    with LocalTimer(sample_secs=0.0005) as timer:
        found = measure_pairs(pairs, timer, rules, rng=np.random.default_rng(0))
    assert found.problems["broken"].startswith("head: replay: ")
    judged = judge(found.times, rules)["worse"]
    assert judged.verdict is Verdict.REGRESSED and judged.ratio > 1.5

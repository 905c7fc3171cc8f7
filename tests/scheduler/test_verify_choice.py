"""Which records are verified: from a log's successes, without a log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest

from tunewright.core.errors import ConfigError
from tunewright.core.types import MachineInfo, TargetSpec, TaskKey
from tunewright.scheduler import verify_choice
from tunewright.scheduler.verify_choice import Chosen, Plan, Selection, batches, choose, why_not_here
from tunewright.tuning_logs import StoredSuccess

MACHINE = MachineInfo("CPU", 4, False, "", "", "0.27", "0.1", "22")


@dataclass(frozen=True)
class Task:
    task_key: TaskKey
    name: str
    target: TargetSpec


@dataclass(frozen=True)
class Catalogue:
    by_task: Mapping[TaskKey, Sequence[StoredSuccess]]

    def successes(self, task_key: TaskKey, *, machine: MachineInfo) -> Sequence[StoredSuccess]:
        assert machine == MACHINE
        return self.by_task[task_key]


def task(name: str, num_threads: int = 2, mcpu: str = "skylake") -> Task:
    return Task(TaskKey(name), name, TargetSpec(mcpu, num_threads))


def stored(record_id: int, marks: str = "v") -> StoredSuccess:
    """Verified, Duplicate, in Quarantine, may Return, Checked; its time is its number."""
    return StoredSuccess(
        record_id=record_id,
        secs=float(record_id),
        is_verified="v" in marks,
        is_duplicate="d" in marks,
        is_in_quarantine="q" in marks,
        may_return="r" in marks,
        is_checked="c" in marks,
    )


def plan(known: Mapping[Task, Sequence[StoredSuccess]], selection: Selection) -> Plan:
    catalogue = Catalogue({one.task_key: some for one, some in known.items()})
    return choose(catalogue, list(known), selection, machine=MACHINE, why_not=lambda target: None)


def ids(found: Plan) -> list[int]:
    return [one.record_id for one in found.chosen]


def test_the_best_of_each_task_and_no_unverified_one() -> None:
    known = {
        task("a"): [stored(1, ""), stored(2, "vq"), stored(3), stored(4)],
        task("b"): [stored(5)],
        task("c"): [],
    }
    assert ids(plan(known, Selection())) == [3, 5]
    # First the best of all, then the second ones.
    assert ids(plan(known, Selection(2))) == [3, 5, 4]


def test_what_this_software_knows_is_left_out_unless_it_is_asked_again() -> None:
    known = {task("a"): [stored(1, "vc"), stored(2)], task("b"): [stored(3, "vqrc"), stored(4, "vc")]}
    assert plan(known, Selection()) == Plan([], [], num_known=2)
    assert ids(plan(known, Selection(2))) == [2]
    assert ids(plan(known, Selection(again=True))) == [1, 3, 4]


def test_a_quarantine_that_this_software_may_lift_is_looked_at_before_the_best() -> None:
    known = {task("a"): [stored(1, "vqr"), stored(2, "vqrc"), stored(3, "vq"), stored(4), stored(5, "vqr")]}
    assert ids(plan(known, Selection())) == [1, 4]


def test_unverified_ones_fastest_first_and_no_duplicates() -> None:
    known = {
        task("a"): [stored(1), stored(2, ""), stored(3, "d"), stored(4, ""), stored(5, "q")],
        task("b"): [stored(6, ""), stored(7, "c")],
    }
    found = plan(known, Selection(only_unverified=True))
    assert (ids(found), found.num_known) == ([2, 6, 4], 1)
    assert not any(one.is_trusted for one in found.chosen)
    assert ids(plan(known, Selection(1, only_unverified=True))) == [2, 6]


def test_a_sample_is_a_share_of_all_records_by_its_seed() -> None:
    tasks = [task(name) for name in "abcd"]
    known = {
        one: [stored(100 * number + i, "v" if i % 2 else "") for i in range(100)]
        for number, one in enumerate(tasks)
    }

    def sampled(seed: int, *, ratio: float = 0.05) -> set[int]:
        return set(ids(plan(known, Selection(sample_ratio=ratio, seed=seed))))

    assert len(sampled(0)) == 20
    assert sampled(0) == sampled(0) != sampled(1)
    assert sampled(0) < sampled(0, ratio=0.5)
    assert len({number // 100 for number in sampled(0)}) > 1
    assert len(sampled(0, ratio=1.0)) == 400
    assert len(sampled(0, ratio=1e-6)) == 1


def test_verdicts_do_not_make_it_another_sample() -> None:
    selection = Selection(sample_ratio=0.3, seed=7)
    one = task("a")
    before = ids(plan({one: [stored(n) for n in range(50)]}, selection))
    done, wrong, *left = before
    after = [stored(n, {done: "vc", wrong: "vq"}.get(n, "v")) for n in range(50)]
    found = plan({one: after}, selection)
    assert (ids(found), found.num_known) == (left, 1)


def test_targets_of_other_machines_are_skipped_with_a_reason() -> None:
    here, there, also = task("a"), task("b", mcpu="znver9"), task("c", mcpu="znver9")
    catalogue = Catalogue({here.task_key: [stored(1)]})
    found = choose(
        catalogue,
        [here, there, also],
        Selection(),
        machine=MACHINE,
        why_not=lambda target: None if target.mcpu == "skylake" else "no such CPU",
    )
    assert ids(found) == [1]
    [skipped] = found.skipped
    assert (skipped.target.mcpu, skipped.num_tasks, skipped.reason) == ("znver9", 2, "no such CPU")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sample_ratio": 0.0}, "more than 0 and at most 100 %"),
        ({"sample_ratio": 1.01}, "more than 0 and at most 100 %"),
        ({"sample_ratio": 0.1, "num_best": 2}, "leave out -k"),
        ({"sample_ratio": 0.1, "only_unverified": True}, "leave out -k"),
    ],
)
def test_what_does_not_go_together(arguments: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Selection(**arguments)  # type: ignore[arg-type]


def chosen(*numbers_by_task: tuple[Task, int]) -> list[Chosen]:
    """So many of each task, by rank."""
    found = [Chosen(i, one, 1.0, i, True) for one, count in numbers_by_task for i in range(count)]
    return sorted(found, key=lambda one: (one.task.target.num_threads, one.rank))


def test_a_batch_is_small_and_of_one_thread_count() -> None:
    a, b, c = task("a"), task("b"), task("c", num_threads=3)
    parts = batches(chosen((a, 3), (b, 2), (c, 1)), 4, keeps_tasks=False)
    assert [[one.task.name for one in part] for part in parts] == [["a", "b", "a", "b"], ["a"], ["c"]]
    assert batches([], 4, keeps_tasks=False) == []


def test_a_batch_keeps_a_task_together() -> None:
    a, b, c, d = task("a"), task("b"), task("c"), task("d", num_threads=1)
    parts = batches(chosen((a, 3), (b, 2), (c, 5), (d, 1)), 4, keeps_tasks=True)
    names = ["".join(one.task.name for one in part) for part in parts]
    assert names == ["d", "aaa", "bb", "cccc", "c"]


@pytest.mark.tvm
def test_what_this_machine_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from tunewright.core.tvm_adapter.target import host_target

    assert why_not_here(host_target(num_threads=1)) is None
    assert "may use" in (why_not_here(host_target(num_threads=4096)) or "")
    assert "LLVM knows no such CPU" in (why_not_here(TargetSpec("no-such-cpu", 1)) or "")
    assert "LLVM knows no such CPU" in (why_not_here(TargetSpec("sm_90", 1, kind="cuda")) or "")
    monkeypatch.setattr(verify_choice, "missing_features", lambda required: ("avx9",))
    assert why_not_here(host_target(num_threads=1)) == "this machine lacks avx9"

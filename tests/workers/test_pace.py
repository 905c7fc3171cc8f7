"""When a batch stops building on the CPUs that time."""

from tunewright.core.types import TaskKey
from tunewright.workers.pace import Pace

A, B = TaskKey("a"), TaskKey("b")


def _pace() -> Pace:
    pace = Pace()
    for secs in (0.3, 0.4, 9.0):
        pace.add_build(A, secs)
    for secs in (0.1, 0.1, 5.0):
        pace.add_run(A, secs)
    return pace


def test_it_is_time_when_the_rest_is_built_before_all_is_timed() -> None:
    # 16 x 0.1 s of timing; k x 0.4 s of building, on two CPUs.
    for num_waiting, expected in ((8, True), (9, False), (0, True)):
        assert _pace().is_time([A] * num_waiting, [A] * 16, num_cpus=2) is expected


def test_with_one_cpu_for_builds_fewer_may_wait() -> None:
    assert _pace().is_time([A] * 4, [A] * 16, num_cpus=1)
    assert not _pace().is_time([A] * 5, [A] * 16, num_cpus=1)


def test_all_is_built_first_where_nothing_is_known_or_no_cpu_is_left() -> None:
    assert not Pace().is_time([A], [A] * 16, num_cpus=2)
    assert not _pace().is_time([B], [A, B], num_cpus=2)
    assert not _pace().is_time([A], [A] * 16, num_cpus=0)
    assert Pace().is_time([], [A] * 16, num_cpus=0)


def test_what_is_long_ago_is_forgotten() -> None:
    pace = _pace()
    for _ in range(32):
        pace.add_build(A, 10.0)
    assert not pace.is_time([A], [A] * 16, num_cpus=2)

"""Threads and CPUs of this process: set, asserted, observed."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_TASKS = Path("/proc/self/task")
_REST_POLL_SECS = 0.0005
# TVM's idle workers spin 100 ms by default, on the CPUs of the candidate that is timed next. This is 1 ms:
# still far longer than the gap between the calls of a sample.
_SPIN_COUNT = "3000"


def set_kernel_threads(num_threads: int, cpus: Sequence[int]) -> None:
    """Make the next kernels use this many threads on these CPUs; call it before the first parallel kernel.

    TVM makes its thread pool at the first parallel call and takes the caller's affinity for all of it, as
    TVM_BIND_THREADS=0 in the zygote's environment asks.
    """
    os.environ["TVM_NUM_THREADS"] = str(num_threads)
    os.environ["TVM_THREAD_POOL_SPIN_COUNT"] = _SPIN_COUNT
    os.sched_setaffinity(0, cpus)


def thread_problem(num_threads: int, cpus: Sequence[int]) -> str | None:
    """What is wrong with this process's threads after a kernel has run, or None.

    A kernel without parallel loops never makes TVM's pool, so one thread is right as well.
    """
    thread_ids = [int(entry.name) for entry in _TASKS.iterdir()]
    if len(thread_ids) not in (1, num_threads):
        return f"the kernel ran with {len(thread_ids)} threads, asked were {num_threads}"
    for thread_id in thread_ids:
        affinity = os.sched_getaffinity(thread_id)
        if not affinity <= set(cpus):
            return f"a kernel thread may run on CPUs {sorted(affinity)}, asked were {sorted(cpus)}"
    return None


def pin_threads(cpus: Sequence[int]) -> None:
    """Give each thread of this process a CPU of its own, if there is one for each.

    Linux wakes a thread where it ran last: two that once met on a CPU stay there for many short kernels,
    which then take twice as long. Call it when TVM's threads exist: new ones inherit the caller's CPU.
    """
    thread_ids = sorted(int(entry.name) for entry in _TASKS.iterdir())
    if len(thread_ids) != len(cpus) or len(thread_ids) == 1:
        return
    for thread_id, cpu in zip(thread_ids, cpus, strict=True):
        os.sched_setaffinity(thread_id, {cpu})


def wait_until_at_rest(limit_secs: float, clock: Callable[[], float] = time.monotonic) -> None:
    """Return when no other thread of this process runs, or after `limit_secs`.

    TVM's workers spin after a kernel, which would disturb the candidate that is timed next.
    """
    own = os.getpid()
    others = [entry / "stat" for entry in _TASKS.iterdir() if entry.name != str(own)]
    deadline = clock() + limit_secs
    while clock() < deadline and any(_is_running(stat) for stat in others):
        time.sleep(_REST_POLL_SECS)


def cpu_ticks(cpus: Sequence[int]) -> tuple[int, int]:
    """(stolen by the hypervisor, total) clock ticks of these CPUs since boot."""
    stolen = total = 0
    wanted = {f"cpu{cpu}" for cpu in cpus}
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        name, *ticks = line.split()
        if name in wanted:
            # user nice system idle iowait irq softirq steal; guest times are contained in user and nice.
            values = [int(tick) for tick in ticks[:8]]
            stolen += values[7] if len(values) > 7 else 0
            total += sum(values)
    return stolen, total


def _is_running(stat: Path) -> bool:
    # "<id> (<name>) <state> ...": the name may hold spaces and brackets.
    try:
        return stat.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0] == "R"
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return False

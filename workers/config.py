"""Where measuring happens on one machine, and what it may take."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from tunewright.core.errors import EnvironmentProblem
from tunewright.workers.pool import PRODUCTION_JOBS

_HELD_CHILD_BYTES = 96 << 20
_MAX_HELD = 256


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """CPUs for timing (one per kernel thread) and for building; they may overlap, being used in turns.

    `max_held` children wait, built, for their turn to be timed. `jobs_module` names the zygote's job
    handlers. `drops_duplicates`: of candidates with the same machine code one runs. `adapts_build_limit`:
    builds are cut by what the task's builds take. `watches_reference`: a fixed kernel is timed around each
    batch, and contenders again when it has moved. `overlaps_builds`: a batch's last builds run on the CPUs
    that do not time while its first candidates are timed.
    """

    timing_cpus: tuple[int, ...]
    build_cpus: tuple[int, ...]
    max_held: int = 32
    jobs_module: str = PRODUCTION_JOBS
    drops_duplicates: bool = True
    adapts_build_limit: bool = True
    watches_reference: bool = True
    overlaps_builds: bool = True

    def __post_init__(self) -> None:
        if not self.timing_cpus or not self.build_cpus or self.max_held < 1:
            raise ValueError("timing_cpus and build_cpus need one CPU each and max_held at least 1")

    @classmethod
    def for_threads(cls, num_threads: int, *, cpus: Sequence[int] | None = None) -> Self:
        """Time on the last `num_threads` of this process's CPUs, build on all.

        The last, because the first serve most interrupts.

        Raises:
            EnvironmentProblem: there are fewer CPUs than kernel threads.
        """
        usable = tuple(sorted(os.sched_getaffinity(0) if cpus is None else cpus))
        if len(usable) < num_threads:
            raise EnvironmentProblem(
                f"no core left for timing: the target runs kernels on {num_threads} threads, but this "
                f"process may use {len(usable)} CPUs; ask for at most {len(usable)} threads"
            )
        held = max(len(usable), min(_MAX_HELD, available_memory_bytes() // 2 // _HELD_CHILD_BYTES))
        return cls(timing_cpus=usable[len(usable) - num_threads :], build_cpus=usable, max_held=held)


def available_memory_bytes() -> int:
    """What the kernel says can be used without swapping."""
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2

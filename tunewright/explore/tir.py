"""What TVM makes of a schedule: the scheduled function as TVMScript, to be read and compared.

Schedules are applied in children: those of a log may come from anywhere, so they are checked first and
applied in a sandbox, and TVM is never loaded here.
"""

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from tunewright.core.module_rules import UntrustedModuleError, check_module
from tunewright.core.text import printable
from tunewright.explore.html import Html, details, diff_html, lines_html, paragraph, side_by_side
from tunewright.explore.trial_view import Trial

_WIDE = re.compile(r"T\.int64\((-?\d+)\)")


@dataclass(frozen=True, slots=True)
class ScheduledTir:
    """A function after its schedule, and whose it is; `problem` says why there is none, else it is "".

    In `text`, constants of 64 bits are plain numbers: TVMScript writes `T.int64(8)` for each 8.
    """

    name: str
    text: str = field(repr=False)
    problem: str = ""

    @classmethod
    def of_script(cls, name: str, script: str) -> "ScheduledTir":
        """Args: script: TVMScript, as a module's `script()` gives it."""
        return cls(name, _WIDE.sub(r"\1", script))

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def __str__(self) -> str:
        return printable(self.text or f"# {self.problem}")

    def _repr_html_(self) -> Html:
        content = paragraph(self.problem) if self.problem else lines_html(self.lines)
        return details(f"TIR of {self.name}", content, is_open=True)


def scheduled_tir(trials: Sequence[Trial]) -> list[ScheduledTir]:
    """One for each trial, in their order.

    Raises:
        EnvironmentProblem: no child can be started here, or none can be sandboxed.
    """
    from tunewright.workers.pool import Pool
    from tunewright.workers.process_space import ReplayFailure, replay_all

    found: dict[int, ScheduledTir] = {}
    names = [f"record {trial.record_id}" for trial in trials]
    for place, trial in enumerate(trials):
        try:
            check_module(trial.task.workload.mod_json)
        except UntrustedModuleError as exc:
            found[place] = ScheduledTir(names[place], "", str(exc))
    pairs = {
        place: (trial.task.workload.mod_json, trial.trace_json)
        for place, trial in enumerate(trials)
        if place not in found
    }
    if pairs:
        with Pool(sorted(os.sched_getaffinity(0))[: len(pairs)]) as pool:
            answers = replay_all(pool, list(pairs.values()), is_trusted=False, as_script=True)
        for place, answer in zip(pairs, answers, strict=True):
            if isinstance(answer, ReplayFailure):
                found[place] = ScheduledTir(names[place], "", answer.message)
            else:
                found[place] = ScheduledTir.of_script(names[place], answer)
    return [found[place] for place in range(len(trials))]


def tir_diff(before: ScheduledTir, after: ScheduledTir) -> list[str]:
    """A unified diff of both functions; empty where they are the same."""
    for one in (before, after):
        if one.problem:
            return [f"# no TIR of {one.name}: {one.problem}"]
    return list(difflib.unified_diff(before.lines, after.lines, before.name, after.name, lineterm=""))


def tir_diff_html(before: ScheduledTir, after: ScheduledTir, *, is_open: bool = False) -> Html:
    """What changed, folded away unless `is_open`, and both functions side by side, folded away."""
    columns = [paragraph(one.problem) if one.problem else lines_html(one.lines) for one in (before, after)]
    lines = diff_html(tir_diff(before, after) or ["the same program"])
    changed = details("What changed in TIR", lines, is_open=is_open)
    sides = side_by_side([before.name, after.name], columns)
    return Html(changed + details("TIR side by side", sides))

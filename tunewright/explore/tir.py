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
from tunewright.explore.html import Html, details, diff_html, lines_html, paragraph, shown, side_by_side
from tunewright.explore.trial_view import Trial

_WIDE = re.compile(r"T\.int64\((-?\d+)\)")


@dataclass(frozen=True, slots=True)
class ScheduledTir:
    """The function of one record after its schedule; `problem` says why there is none, else it is "".

    In `text`, constants of 64 bits are plain numbers: TVMScript writes `T.int64(8)` for each 8.
    """

    record_id: int
    text: str = field(repr=False)
    problem: str = ""

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def __str__(self) -> str:
        return shown(self.text or f"# {self.problem}")

    def _repr_html_(self) -> Html:
        title = f"TIR of record {self.record_id}"
        content = paragraph(self.problem) if self.problem else lines_html(self.lines)
        return details(title, content, is_open=True)


def scheduled_tir(trials: Sequence[Trial]) -> list[ScheduledTir]:
    """One for each trial, in their order.

    Raises:
        EnvironmentProblem: no child can be started here, or none can be sandboxed.
    """
    from tunewright.workers.pool import Pool
    from tunewright.workers.process_space import ReplayFailure, replay_all

    problems = {}
    for place, trial in enumerate(trials):
        try:
            check_module(trial.task.workload.mod_json)
        except UntrustedModuleError as exc:
            problems[place] = str(exc)
    pairs = {
        place: (trial.task.workload.mod_json, trial.trace_json)
        for place, trial in enumerate(trials)
        if place not in problems
    }
    texts = {}
    if pairs:
        with Pool(sorted(os.sched_getaffinity(0))[: len(pairs)]) as pool:
            answers = replay_all(pool, list(pairs.values()), is_trusted=False, as_script=True)
        for place, answer in zip(pairs, answers, strict=True):
            if isinstance(answer, ReplayFailure):
                problems[place] = answer.message
            else:
                texts[place] = _WIDE.sub(r"\1", answer)
    return [
        ScheduledTir(trial.record_id, texts.get(place, ""), problems.get(place, ""))
        for place, trial in enumerate(trials)
    ]


def tir_diff(before: ScheduledTir, after: ScheduledTir) -> list[str]:
    """A unified diff of both functions; empty where they are the same."""
    for one in (before, after):
        if one.problem:
            return [f"# no TIR of record {one.record_id}: {one.problem}"]
    first, second = (f"record {one.record_id}" for one in (before, after))
    return list(difflib.unified_diff(before.lines, after.lines, first, second, lineterm=""))


def tir_diff_html(before: ScheduledTir, after: ScheduledTir) -> Html:
    """The diff, and both functions side by side, folded away."""
    titles = [f"record {one.record_id}" for one in (before, after)]
    columns = [paragraph(one.problem) if one.problem else lines_html(one.lines) for one in (before, after)]
    changed = details("What changed in TIR", diff_html(tir_diff(before, after) or ["the same program"]))
    return Html(changed + details("TIR side by side", side_by_side(titles, columns)))

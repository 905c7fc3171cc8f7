"""A task's design space, worked through in children: traces are native code to apply, and slow.

Satisfies the search's design-space protocol.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from tunewright.core.errors import UntrustedTraceError
from tunewright.core.keys import digest
from tunewright.core.text import shortened
from tunewright.core.trace_rules import check_trace
from tunewright.core.types import (
    AppliedCandidate,
    Candidate,
    Draft,
    FailureKind,
    TuningTask,
    Workload,
    WorkloadKey,
)
from tunewright.workers.codec import applied_from_dict, args_from_dict, draft_to_dict, task_to_dict
from tunewright.workers.frames import Message
from tunewright.workers.pool import Pool
from tunewright.workers.streaming import Answer, Crew, PieceFailure, StreamSpec

_logger = logging.getLogger(__name__)

# A convolution's candidate takes 25 ms; the first of a child also makes the space (5-40 ms).
_ITEM_LIMIT_SECS = 5.0
# TVM's rules need minutes for a space whose blocks inline into one enormous expression: after so many points
# that did not come in time, and none that did, the rest would only wait as long.
_MIN_POINTS_IN_TIME = 4
_MEMORY_BYTES = 4 << 30


class ProcessSpace:
    """Samples, realises and applies candidates of one task on all CPUs; a crew may serve many spaces.

    Deterministic: attempt i of a call depends on the call's arguments and i only. A space whose first points
    all take too long is given up: from then on it is empty.
    """

    def __init__(self, task: TuningTask, crew: Crew) -> None:
        self._task = task
        self._crew = crew
        self._is_in_time: bool | None = None  # None: not known yet

    def sample(self, n: int, seed: int) -> list[AppliedCandidate]:
        """The legal ones of `n` random candidates."""
        items = [{"op": "sample", "seed": _attempt_seed(seed, i)} for i in range(n)]
        return [applied for applied in self._expand(items) if applied is not None]

    def realise(self, drafts: Sequence[Draft]) -> list[AppliedCandidate | None]:
        """Each draft applied, or None where it is illegal."""
        parents = list(dict.fromkeys(draft.parent.trace_json for draft in drafts))
        position = {trace: index for index, trace in enumerate(parents)}
        items = [
            {"op": "realise", "parent": position[draft.parent.trace_json], **draft_to_dict(draft)}
            for draft in drafts
        ]
        return self._expand(items, parents)

    def apply(self, candidates: Sequence[Candidate]) -> list[AppliedCandidate | None]:
        """Each candidate applied, or None where its trace does not apply; candidates keep their origin."""
        items = [{"op": "apply", "trace": c.trace_json, "origin": c.origin} for c in candidates]
        applied = self._expand(items)
        return [
            None if found is None else AppliedCandidate(candidate, found.features, found.program_key)
            for candidate, found in zip(candidates, applied, strict=True)
        ]

    def _expand(self, items: Sequence[Message], parents: Sequence[str] = ()) -> list[AppliedCandidate | None]:
        return [
            None
            if answer is None or isinstance(answer, PieceFailure)
            else applied_from_dict(answer, self._task.key)
            for answer in self._answers(items, parents)
        ]

    def _answers(self, items: Sequence[Message], parents: Sequence[str]) -> list[Answer]:
        common = {
            "task": task_to_dict(self._task),
            "task_key": self._task.key,
            "parents": list(parents),
        }
        first: list[Answer] = []
        if items and self._is_in_time is None:
            first = self._crew.answers(items[:_MIN_POINTS_IN_TIME], common)
            if not all(map(_is_late, first)):
                self._is_in_time = True
            elif len(first) == _MIN_POINTS_IN_TIME:
                self._is_in_time = False
                _logger.warning(
                    "no point of the design space of %s came within %g s; its default schedule stays",
                    shortened(self._task.workload.name),
                    _ITEM_LIMIT_SECS,
                )
        rest = items[len(first) :]
        if self._is_in_time is False or not rest:
            return [*first, *[None] * len(rest)]
        return [*first, *self._crew.answers(rest, common)]


def _is_late(answer: Answer) -> bool:
    return isinstance(answer, PieceFailure) and answer.kind is FailureKind.RUN_TIMEOUT


def design_spaces(pool: Pool) -> Callable[[TuningTask], ProcessSpace]:
    """What makes the design space of a task; all of them are explored by the same children."""
    crew = Crew(pool, StreamSpec("expand", _ITEM_LIMIT_SECS, _MEMORY_BYTES))
    return lambda task: ProcessSpace(task, crew)


@dataclass(frozen=True, slots=True)
class ReplayFailure:
    """A trace that does not apply to its workload, or that took its process down."""

    kind: FailureKind
    message: str


def replay_all(
    pool: Pool, traces: Sequence[tuple[str, str]], *, is_trusted: bool = True, as_script: bool = False
) -> list[str | ReplayFailure]:
    """Apply traces in children.

    Args:
        traces: (module JSON of a workload, trace JSON) each. The modules are always our own: TVM builds
            whatever object a module's text names.
        is_trusted: that the traces are our own too. Others are checked first, and applied in a sandbox.
        as_script: that people read it: TVMScript in place of TVM's JSON.

    Returns:
        The scheduled module, weight-packing blocks still inside, or why there is none.
    """
    refusals = {} if is_trusted else _refusals(trace_json for _, trace_json in traces)
    items = [
        {"mod_json": mod_json, "trace": trace_json, "as_script": as_script}
        for number, (mod_json, trace_json) in enumerate(traces)
        if number not in refusals
    ]
    answers: Iterator[Answer] = iter(())
    if items:
        spec = StreamSpec("replay", _ITEM_LIMIT_SECS, _MEMORY_BYTES, is_sandboxed=not is_trusted)
        with Crew(pool, spec) as crew:
            answers = iter(crew.answers(items, {}))
    return [refusals.get(number) or _replayed(next(answers)) for number in range(len(traces))]


def _refusals(traces: Iterable[str]) -> dict[int, ReplayFailure]:
    """Why traces may not be applied, by their numbers."""
    refusals = {}
    for number, trace_json in enumerate(traces):
        try:
            check_trace(trace_json)
        except UntrustedTraceError as exc:
            refusals[number] = ReplayFailure(FailureKind.REPLAY, f"the trace is refused: {exc}")
    return refusals


def _replayed(answer: Answer) -> str | ReplayFailure:
    match answer:
        case PieceFailure(kind=kind, message=message):
            return ReplayFailure(kind, message)
        case {"module": str(module)}:
            return module
        case {"kind": FailureKind.OOM | FailureKind.REPLAY as kind, "message": str(message)}:
            return ReplayFailure(FailureKind(kind), message)
    return ReplayFailure(FailureKind.REPLAY, "the child that applied the trace did not answer in its terms")


def canonical_workloads(pool: Pool, modules: Sequence[tuple[str, str]]) -> list[Workload | ReplayFailure]:
    """The workloads of modules from elsewhere, loaded in sandboxed children.

    Args:
        modules: (module as TVM's JSON, name for people) each.

    Returns:
        Each as `canonical_workload` makes it, or why it is none.
    """
    if not modules:
        return []
    items = [{"mod_json": mod_json, "name": name} for mod_json, name in modules]
    with Crew(pool, StreamSpec("workload", _ITEM_LIMIT_SECS, _MEMORY_BYTES, is_sandboxed=True)) as crew:
        return [_recognised(answer) for answer in crew.answers(items, {})]


def _recognised(answer: Message | PieceFailure) -> Workload | ReplayFailure:
    if isinstance(answer, PieceFailure):
        return ReplayFailure(answer.kind, answer.message)
    if "kind" in answer:
        return ReplayFailure(FailureKind(answer["kind"]), str(answer["message"]))
    return Workload(
        name=str(answer["name"]),
        key=WorkloadKey(answer["key"]),
        mod_json=str(answer["mod_json"]),
        args=args_from_dict(answer),
        flop=float(answer["flop"]),
    )


def _attempt_seed(seed: int, attempt: int) -> int:
    """A positive 31-bit seed; attempts of one call and equal attempts of different calls are unrelated."""
    return int(digest(str(seed), str(attempt))[:8], 16) % (2**31 - 2) + 1

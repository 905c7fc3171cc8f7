"""Take modules and traces of TVM's own database over, in children: parsing and replaying are native code."""

from collections.abc import Sequence
from dataclasses import dataclass

from tunewright.core.closeable import Closeable
from tunewright.core.types import TensorSpec, Workload, WorkloadKey
from tunewright.workers.frames import Message
from tunewright.workers.pool import Pool
from tunewright.workers.streaming import Answer, Crew, PieceFailure, StreamSpec

# The longest replay of a convolution takes 0.1 s; the first of a child also loads the workload.
_ITEM_LIMIT_SECS = 10.0
_MEMORY_BYTES = 4 << 30
# Modules and traces go to children in messages, tens of kilobytes each.
_ITEMS_PER_CALL = 1024


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something was not taken over: one of few reasons, and what is special here."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class AdoptedWorkload:
    """The canonical workload of a module; `structural_hash` is TVM's of the module itself, in [0, 2^64)."""

    workload: Workload
    structural_hash: int


@dataclass(frozen=True, slots=True)
class ForeignTrace:
    """A trace of the workload `workload_index` (of the call); `args_json` is "" where it is not stated."""

    workload_index: int
    trace_json: str
    args_json: str = ""


@dataclass(frozen=True, slots=True)
class ScheduledKernel:
    """A module's structural hash, and the arguments' types and shapes once a trace has been applied."""

    structural_hash: int
    args_json: str


class Exchange(Closeable):
    """Children that know both forms. One call at a time; a crash costs only what crashed."""

    def __init__(self, pool: Pool) -> None:
        self._crew = Crew(pool, StreamSpec("exchange", _ITEM_LIMIT_SECS, _MEMORY_BYTES, is_sandboxed=True))

    def close(self) -> None:
        """End the children."""
        self._crew.close()

    def adopt_workloads(self, modules: Sequence[str]) -> list[AdoptedWorkload | Refusal]:
        """The canonical workloads of modules (TVM's JSON), in their order."""
        items = [{"op": "adopt_workload", "module": module} for module in modules]
        return [
            answer if isinstance(answer, Refusal) else _adopted(answer) for answer in self._answers(items, {})
        ]

    def adopt_traces(
        self, traces: Sequence[ForeignTrace], modules: Sequence[tuple[str, str]]
    ) -> list[str | Refusal]:
        """Traces rewritten for the canonical modules of their workloads, as canonical JSON.

        Each is believed only where it gives structurally the same program on both modules.

        Args:
            modules: (the original, the canonical module) of each workload.
        """
        items: list[Message] = [
            {"op": "adopt_trace", "workload": t.workload_index, "trace": t.trace_json, "args": t.args_json}
            for t in traces
        ]
        answers = self._answers(items, {"modules": [list(pair) for pair in modules]})
        return [answer if isinstance(answer, Refusal) else str(answer["trace"]) for answer in answers]

    def describe(self, traces: Sequence[tuple[str, str]]) -> list[ScheduledKernel | Refusal]:
        """What TVM's database states of (module, trace) pairs, or why a trace does not replay."""
        answers = self._answers(
            [{"op": "describe", "module": module, "trace": trace} for module, trace in traces], {}
        )
        return [
            answer
            if isinstance(answer, Refusal)
            else ScheduledKernel(int(answer["hash"]), str(answer["args"]))
            for answer in answers
        ]

    def _answers(self, items: Sequence[Message], common: Message) -> list[Message | Refusal]:
        answers: list[Answer] = []
        for first in range(0, len(items), _ITEMS_PER_CALL):
            answers += self._crew.answers(items[first : first + _ITEMS_PER_CALL], common)
        return [_refused(answer) for answer in answers]


def _refused(answer: Answer) -> Message | Refusal:
    if isinstance(answer, PieceFailure):
        return Refusal(f"ended its process ({answer.kind})", answer.message)
    if "refused" in answer:
        return Refusal(str(answer["refused"]), str(answer["detail"]))
    message: Message = answer
    return message


def _adopted(answer: Message) -> AdoptedWorkload:
    return AdoptedWorkload(
        Workload(
            name=answer["name"],
            key=WorkloadKey(answer["key"]),
            mod_json=answer["module"],
            args=tuple(TensorSpec(tuple(shape), dtype) for shape, dtype in answer["args"]),
            flop=float(answer["flop"]),
        ),
        structural_hash=int(answer["hash"]),
    )

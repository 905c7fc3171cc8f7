"""Trials like real ones, as many as one asks for: same seed, same trials.

A synthetic task is a real one with a longer axis. A synthetic trial is a real trial of it with other samples,
other tile factors, so that no two candidates of a task are equal, and features mixed from two real trials.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from log_load.source import SourceTask
from tunewright.core.keys import canonical_json, digest
from tunewright.core.types import (
    Candidate,
    CandidateKey,
    FloatArray,
    MeasureResult,
    MeasureSuccess,
    RecordedTrial,
    SessionInfo,
    TensorSpec,
    TuningRecord,
    TuningTask,
    WorkloadKey,
)

Trial = tuple[TuningRecord, FloatArray | None]

# A task's trials come in runs, as those of a session come in batches. The trials of a run have one sketch,
# and three index maps among five: in real logs about every second trial of a task has one of its own.
RUN_LENGTH = 5
_MAP_OF_TRIAL = (0, 0, 1, 1, 2)
_MAP_EXTENT = re.compile(r'(?<=\\"type\\":\\"int\\",\\"data\\":)\d+')
_MARKED = re.compile(r"#\d+")
# What a factor becomes: one with as many digits.
_LIKE = (
    (1, 2, 3, 4, 6, 7, 8),
    (12, 14, 16, 24, 28, 32, 48, 56, 64, 96),
    (112, 128, 192, 224, 256, 384, 512, 768),
    (1024, 1152, 1536, 2048, 3072, 4096),
)
_START = datetime(2026, 1, 1, tzinfo=UTC)
_SIGMA = 0.5  # of the logarithm of a trial's time: about what trials of one real task spread


@dataclass(frozen=True, slots=True)
class _Text:
    """A text with numbers in it that become others. `slots`: of each number, `digits`: of each slot."""

    parts: tuple[str, ...]
    slots: tuple[int, ...]
    digits: tuple[int, ...]

    @classmethod
    def split(cls, text: str, numbers: re.Pattern[str], *, are_linked: bool) -> "_Text":
        """Equal numbers stay equal where they `are_linked`."""
        values = [match.group().lstrip("#") for match in numbers.finditer(text)]
        names = values if are_linked else [str(index) for index in range(len(values))]
        lengths = dict(zip(names, map(len, values), strict=True))
        slot_of = {name: slot for slot, name in enumerate(lengths)}
        return cls(
            parts=tuple(numbers.split(text)),
            slots=tuple(slot_of[name] for name in names),
            digits=tuple(min(length, len(_LIKE)) for length in lengths.values()),
        )

    def numbers(self, draws: Sequence[int]) -> list[str]:
        """A number for each slot, chosen by the draws in their order, which begin again at their end."""
        likes = [_LIKE[digits - 1] for digits in self.digits]
        return [str(like[draws[slot % len(draws)] % len(like)]) for slot, like in enumerate(likes)]

    def filled(self, numbers: Sequence[str]) -> str:
        pieces = [self.parts[0]]
        for slot, part in zip(self.slots, self.parts[1:], strict=True):
            pieces += (numbers[slot], part)
        return "".join(pieces)


@dataclass(frozen=True, slots=True)
class _Trace:
    """A real trace in two halves: instructions, with the extents of index maps; decisions, with factors."""

    instructions: _Text
    decisions: _Text

    @classmethod
    def split(cls, trace_json: str) -> "_Trace":
        decisions = json.loads(trace_json)[1]
        instructions = trace_json.removesuffix(f"{canonical_json(decisions)}]")
        marked = [f"[{index},{_marked(decision)}]" for index, decision in decisions]
        if not any("#" in decision for decision in marked):
            marked.append("[0,[#0]]")  # or its trials would be one candidate
        return cls(
            _Text.split(instructions, _MAP_EXTENT, are_linked=True),
            _Text.split(f"[{','.join(marked)}]]", _MARKED, are_linked=False),
        )


def _marked(decision: object) -> str:
    if isinstance(decision, list):
        return f"[{','.join(f'#{factor}' for factor in decision)}]"
    return canonical_json(decision)


class _Template:
    """A real task, taken apart once."""

    def __init__(self, source: SourceTask) -> None:
        self.traces = [_Trace.split(trial.record.candidate.trace_json) for trial in source.trials]
        self.trials = source.trials
        self.with_features = [trial.features for trial in source.trials if trial.features is not None]


class Synthesis:
    """Tasks, their sessions (one for each model), and endless streams of trials."""

    def __init__(
        self, source: Sequence[SourceTask], *, num_tasks: int, tasks_per_model: int, seed: int
    ) -> None:
        templates = [_Template(task) for task in source]
        self.tasks = [_variant(source[n % len(source)].task, n // len(source)) for n in range(num_tasks)]
        self.models = [
            self.tasks[first : first + tasks_per_model] for first in range(0, num_tasks, tasks_per_model)
        ]
        self._template_of = {task.key: templates[n % len(source)] for n, task in enumerate(self.tasks)}
        self._seed = seed

    def session(self, model: int, *, name: str = "model") -> SessionInfo:
        """The session in which all tasks of a model are tuned; another name is another session."""
        tasks = self.models[model]
        record = self._template_of[tasks[0].key].trials[0].record
        return SessionInfo(
            session_id=digest(name, str(model))[:16],
            model_name=f"{name}-{model}.onnx",
            target=tasks[0].target,
            strategy=record.strategy,
            seed=self._seed,
            machine=record.machine,
            task_weights={task.key: 1 for task in tasks},
            created_at=_START,
        )

    def sessions(self) -> list[SessionInfo]:
        return [self.session(model) for model in range(len(self.models))]

    def trials(self) -> Iterator[Trial]:
        """Trials of all tasks: each task has its next run once in each round, in a random order."""
        session_ids = [session.session_id for session in self.sessions()]
        tasks = [
            (task, session_id)
            for model, session_id in zip(self.models, session_ids, strict=True)
            for task in model
        ]
        return self._trials(tasks, np.random.default_rng([self._seed, 0]))

    def trials_of_session(self, session: SessionInfo, *, stream: int) -> Iterator[Trial]:
        """Trials of one session's tasks; each `stream` (1, 2, ...) has its own."""
        tasks = [(task, session.session_id) for task in self.tasks if task.key in session.task_weights]
        return self._trials(tasks, np.random.default_rng([self._seed, stream]))

    def _trials(self, tasks: Sequence[tuple[TuningTask, str]], rng: np.random.Generator) -> Iterator[Trial]:
        keys = [task.key for task, _ in tasks]
        parents: list[CandidateKey | None] = [None] * len(tasks)
        first_index = 0
        while True:
            for place in rng.permutation(len(tasks)).tolist():
                template = self._template_of[keys[place]]
                draws = rng.integers(0, 1 << 30, size=(RUN_LENGTH, 16)).tolist()
                factors = np.exp(_SIGMA * rng.standard_normal(RUN_LENGTH)).tolist()
                trace = template.traces[draws[0][0] % len(template.traces)]
                maps = [trace.instructions.filled(trace.instructions.numbers(draws[n])) for n in range(3)]
                for n in range(RUN_LENGTH):
                    index = first_index + n
                    numbers = trace.decisions.numbers(draws[n][1:])
                    numbers[-1] = str(index)
                    real = template.trials[draws[n][1] % len(template.trials)]
                    candidate = Candidate(
                        keys[place],
                        maps[_MAP_OF_TRIAL[n]] + trace.decisions.filled(numbers),
                        real.record.candidate.origin,
                        None if real.record.candidate.parent_key is None else parents[place],
                    )
                    if n == 0:
                        parents[place] = candidate.key
                    yield (
                        _record(real.record, tasks[place][1], index, candidate, factors[n], draws[n]),
                        _features(real, template.with_features, draws[n]),
                    )
            first_index += RUN_LENGTH


def _variant(task: TuningTask, number: int) -> TuningTask:
    """The task with its longest axis longer by a number, wherever its extent stands in the module."""
    workload = task.workload
    extent = max((extent for arg in workload.args for extent in arg.shape), default=1)
    longer = extent + number
    mod_json = workload.mod_json.replace(f'"type":"int","data":{extent}}}', f'"type":"int","data":{longer}}}')
    args = tuple(
        TensorSpec(tuple(longer if size == extent else size for size in arg.shape), arg.dtype)
        for arg in workload.args
    )
    return dataclasses.replace(
        task,
        workload=dataclasses.replace(
            workload,
            name=workload.name.replace(str(extent), str(longer)),
            key=WorkloadKey(digest(mod_json, str(number))),
            mod_json=mod_json,
            args=args,
            flop=workload.flop * longer / extent,
        ),
    )


def _record(
    real: TuningRecord, session_id: str, index: int, candidate: Candidate, factor: float, draws: Sequence[int]
) -> TuningRecord:
    return TuningRecord(
        session_id=session_id,
        trial_index=index,
        candidate=candidate,
        result=_result(real.result, factor, draws),
        evaluator=real.evaluator,
        machine=real.machine,
        strategy=real.strategy,
        seed=real.seed,
        finished_at=_START + timedelta(microseconds=500_000 * index + draws[2] % 500_000),
        code_version=real.code_version,
        model_id=real.model_id,
        predicted_score=None if real.predicted_score is None else draws[3] / (1 << 30),
        schema_version=real.schema_version,
    )


def _result(real: MeasureResult, factor: float, draws: Sequence[int]) -> MeasureResult:
    run_secs = tuple([secs * factor for secs in real.run_secs])
    object_key = f"{draws[4] << 32 | draws[5]:016x}"
    if isinstance(real, MeasureSuccess):
        return MeasureSuccess(
            run_secs,
            build_secs=real.build_secs * factor,
            wall_secs=real.wall_secs * factor,
            is_verified=real.is_verified,
            steal_ratio=real.steal_ratio,
            object_key=object_key,
            is_duplicate=real.is_duplicate,
            yardstick_secs=real.yardstick_secs,
            is_noisy=real.is_noisy,
        )
    return dataclasses.replace(
        real, run_secs=run_secs, wall_secs=real.wall_secs * factor, object_key=object_key
    )


def _features(real: RecordedTrial, others: Sequence[FloatArray], draws: Sequence[int]) -> FloatArray | None:
    """The first columns of one real trial's, the others of another's."""
    if real.features is None:
        return None
    other = others[draws[6] % len(others)]
    if other.shape != real.features.shape:
        return real.features
    column = draws[7] % real.features.shape[1]
    return np.concatenate((real.features[:, :column], other[:, column:]), axis=1)

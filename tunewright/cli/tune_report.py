"""What a tuning session brought: where the gain came from, where the time went, before and after."""

import json
from collections.abc import Iterator

from tunewright.core.units import format_duration, format_ms
from tunewright.scheduler.events import SessionFinished, TaskStatus, TimeSplit
from tunewright.scheduler.model_bench import BenchReport

_MAX_TASKS_SHOWN = 8
_MIN_SHARE_SHOWN = 0.001


def lines(finished: SessionFinished, report: BenchReport) -> Iterator[str]:
    """The whole report, line by line."""
    yield ""
    yield f"Finished: {finished.reason}. {finished.num_new_trials} new trials, {_failed(finished)} failed."
    yield from _gains(finished)
    yield from _split(finished.split, finished.num_new_trials)
    if finished.model_accuracy is not None:
        yield (
            f"Of two trials that it chose, the cost model knew the faster one before, in "
            f"{finished.model_accuracy:.0%} of cases (50% is chance)."
        )
    yield from _latencies(report)


def to_json(report: BenchReport) -> str:
    """The measured latencies as one JSON line, like the session's events."""
    return json.dumps(
        {
            "event": "Compared",
            "latencies": [
                {
                    "label": result.label,
                    "median_secs": result.median_secs,
                    "turn_secs": result.turn_secs,
                    "max_rel_error": result.max_rel_error,
                    "agrees": result.agrees,
                    "problem": result.problem,
                }
                for result in report.results
            ],
        }
    )


def _failed(finished: SessionFinished) -> int:
    return sum(task.num_failures for task in finished.status.tasks)


def _gains(finished: SessionFinished) -> Iterator[str]:
    """The tasks that saved most of the model's time against our default schedules."""
    gains = {task.key: _gain_secs(task) for task in finished.status.tasks}
    total = sum(gains.values())
    if total <= 0:
        return
    yield f"Where the gain of {format_ms(total)} per run came from:"
    tasks = sorted(finished.status.tasks, key=lambda task: -gains[task.key])
    for task in tasks[:_MAX_TASKS_SHOWN]:
        if gains[task.key] < _MIN_SHARE_SHOWN * total:
            break
        before, after = format_ms(task.default_secs), format_ms(task.best_secs)
        yield f"  {gains[task.key] / total:6.1%}  {task.name}  {before} -> {after}  x{task.weight}"
    rest = sum(gains[task.key] for task in tasks[_MAX_TASKS_SHOWN:])
    if rest > 0:
        yield f"  {rest / total:6.1%}  {len(tasks) - _MAX_TASKS_SHOWN} other tasks"


def _gain_secs(task: TaskStatus) -> float:
    if task.default_secs is None or task.best_secs is None:
        return 0.0
    return task.weight * max(0.0, task.default_secs - task.best_secs)


def _split(split: TimeSplit, num_trials: int) -> Iterator[str]:
    if num_trials == 0:
        return
    parts = {
        "building": split.build_secs,
        "running": split.run_secs,
        "search": split.search_secs,
        "cost model": split.model_secs,
        "log": split.log_secs,
        "other": split.other_secs,
    }
    shares = ", ".join(f"{name} {secs / split.total_secs:.1%}" for name, secs in parts.items())
    rate = num_trials / split.total_secs
    yield f"{rate:.1f} trials per second over {format_duration(split.total_secs)}: {shares}."


def _latencies(report: BenchReport) -> Iterator[str]:
    yield "Latency of the whole model, measured interleaved:"
    ratios = {speedup.against: speedup for speedup in report.speedups}
    for result in report.results:
        if result.problem:
            yield f"  {result.label:18} dropped out: {result.problem}"
            continue
        line = f"  {result.label:18} {format_ms(result.median_secs):>10}"
        if result.label in ratios:
            speedup = ratios[result.label]
            line += f"   tuned is {speedup.ratio:.2f}x as fast ({speedup.low:.2f} to {speedup.high:.2f})"
        if result.agrees is not None:
            verdict = "agree" if result.agrees else "DO NOT AGREE"
            line += f"   outputs {verdict} with {report.reference}'s ({result.max_rel_error:.1e})"
        yield line

"""One static page on one tuning session, or on all of a log: the pictures, and tables beside them."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from tunewright.core.keys import short_key
from tunewright.core.task_shares import task_places
from tunewright.core.types import FailureKind, MeasureFailure
from tunewright.core.units import format_duration, format_ms
from tunewright.plots import report_html
from tunewright.plots.axes import inline_svg, offscreen_axes, shorten
from tunewright.plots.curve import tuning_curve
from tunewright.plots.gains import gain_height_inches, where_the_gain_came_from
from tunewright.plots.log_data import HAS_RECORD, STATES, ModelCoverage
from tunewright.plots.machine import ROOFLINE_INCHES, roofline
from tunewright.plots.model import cost_model
from tunewright.plots.outcomes import trial_outcomes
from tunewright.plots.overview import HISTORY_INCHES, coverage, coverage_height_inches, history
from tunewright.plots.reading import (
    SessionData,
    read_coverage,
    read_history,
    read_roofline,
    read_session,
)
from tunewright.plots.tasks import breakdown_height_inches, task_breakdown

if TYPE_CHECKING:
    from tunewright.tuning_logs import SessionSummary, TuningLog

_SHOWN_SESSION_CHARS = 12
_MAX_MESSAGE_CHARS = 240
_MAX_NAME_CHARS = 100


def session_report(log: "TuningLog", summary: "SessionSummary", *, made: str) -> str:
    """All there is to see of one session, which may still be running.

    Args:
        made: when and with what, for the reader.
    """
    data = read_session(log, summary)
    title = f"Tuning of {summary.model_name}"
    figures = _Figures()
    return report_html.page(
        title,
        [
            report_html.heading(1, title),
            report_html.facts([*_session_facts(data), f"session {summary.session_id}", log.place, made]),
            report_html.paragraph(_result_text(data, read_coverage(log, [summary]))),
            report_html.pictures(list(_session_pictures(log, data, figures))),
            report_html.heading(2, "Tasks"),
            _task_table(data),
            report_html.heading(2, "Failed and pruned trials"),
            _failure_table(log, data),
        ],
    )


def log_report(log: "TuningLog", *, made: str) -> str:
    """Every session of the log, the newest first, and what the log covers."""
    sessions = log.sessions()[::-1]
    figures = _Figures()
    models = read_coverage(log, sessions[::-1])
    parts = [
        report_html.heading(1, "Tuning log"),
        report_html.facts([log.place, _count(len(sessions), "session"), _count(len(models), "model"), made]),
        report_html.heading(2, "Sessions"),
        _session_table(sessions),
        report_html.heading(2, "Coverage"),
        report_html.pictures(
            [
                figures.draw(
                    "Coverage.",
                    "How much of each model's predicted time is in tasks with a verified record.",
                    lambda ax: coverage(models, ax=ax),
                    height_inches=coverage_height_inches(len(models)),
                )
            ]
        ),
        _coverage_table(models),
        report_html.heading(2, "Failed and pruned trials"),
        _all_failures_table(log),
    ]
    for summary in sessions:
        data = read_session(log, summary)
        parts += [
            report_html.heading(2, summary.model_name, anchor=_anchor(summary)),
            report_html.facts([*_session_facts(data), f"session {summary.session_id}"]),
            report_html.paragraph(_result_text(data, read_coverage(log, [summary]))),
            report_html.pictures([figures.curve(data), figures.gains(data)]),
            _task_table(data),
        ]
    return report_html.page("Tuning log", parts)


@dataclass(slots=True)
class _Figures:
    """Draws the pictures of one page, each with ids of its own."""

    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def draw(
        self, title: str, caption: str, draw: Callable[[Axes], Axes], *, height_inches: float = 4.2
    ) -> str:
        """A figure, or one sentence on why there is none."""
        try:
            ax = draw(offscreen_axes(height_inches=height_inches))
        except ValueError as error:
            return report_html.picture("", title, f"{str(error)[:1].upper()}{str(error)[1:]}.")
        return report_html.picture(inline_svg(ax, prefix=f"f{next(self._numbers)}-"), title, caption)

    def curve(self, data: SessionData) -> str:
        label = f"{data.summary.strategy}, seed {data.summary.seed}"
        return self.draw(
            "Tuning curve.",
            "The estimated latency of the model, from the best verified record of each task so far.",
            lambda ax: tuning_curve({label: [data.best_so_far()]}, ax=ax),
        )

    def gains(self, data: SessionData) -> str:
        gains = data.gains_by_task()
        return self.draw(
            "Where the gain came from.",
            "The tasks that tuning took time off, from the default schedules to the best records.",
            lambda ax: where_the_gain_came_from(gains, ax=ax),
            height_inches=gain_height_inches(len(gains.steps)),
        )


def _session_pictures(log: "TuningLog", data: SessionData, figures: _Figures) -> Iterator[str]:
    label = f"{data.summary.strategy}, seed {data.summary.seed}"
    shares, origins, quality = data.shares(), data.gains_by_origin(), data.model_quality()
    yield figures.curve(data)
    yield figures.draw(
        "Tuning curve by the clock.",
        "The same against wall time, without the pauses of a session that was interrupted.",
        lambda ax: tuning_curve({label: [data.best_so_far()]}, x="wall_seconds", ax=ax),
    )
    yield figures.draw(
        "Before and after.",
        "What each task costs a run of the model, with the default schedule and with the best record.",
        lambda ax: task_breakdown(shares, ax=ax),
        height_inches=breakdown_height_inches(len(shares)),
    )
    yield figures.gains(data)
    yield figures.draw(
        "Whose gain it was.",
        "The same by where the candidates came from that were best for a while.",
        lambda ax: where_the_gain_came_from(origins, ax=ax),
        height_inches=gain_height_inches(len(origins.steps)),
    )
    yield figures.draw(
        "What came of the trials.",
        "Timed only: not fast enough to be verified. Pruned: stopped after one sample.",
        lambda ax: trial_outcomes(data.outcomes(), ax=ax),
    )
    yield figures.draw(
        "The cost model over time.",
        "How the scores agree with what was then measured, in batches that the model itself chose.",
        lambda ax: cost_model(quality, ax=ax),
    )
    yield figures.draw(
        "Predicted and measured place.",
        "A model that ranks well darkens the diagonal.",
        lambda ax: cost_model(quality, show="places", ax=ax),
    )
    yield figures.draw(
        "Against the machine's limits.",
        "The best records under what the machine can compute and move at most.",
        lambda ax: roofline(read_roofline(log, data), ax=ax),
        height_inches=ROOFLINE_INCHES,
    )
    yield figures.draw(
        "Records by date.",
        "When the records of the session's tasks were found, over all sessions of the machine.",
        lambda ax: history(read_history(log, data), ax=ax),
        height_inches=HISTORY_INCHES,
    )


def _session_facts(data: SessionData) -> list[str]:
    summary = data.summary
    return [
        f"{summary.strategy}, seed {summary.seed}",
        f"{summary.target.mcpu}, {_count(summary.target.num_threads, 'thread')}",
        f"machine {summary.machine_fingerprint}",
        f"begun {summary.created_at:%Y-%m-%d %H:%M} UTC",
        f"{_count(len(data.trials), 'trial')} in {format_duration(summary.elapsed_secs)}",
    ]


def _result_text(data: SessionData, models: Sequence[ModelCoverage]) -> str:
    """What came out, in a sentence or two."""
    [model] = models
    covered = (
        f"{100 * model.shares[HAS_RECORD]:.1f} % of the predicted time of its "
        f"{_count(model.num_tasks, 'task')} has a verified record."
    )
    gains = data.gains_by_task()
    if not gains.before_secs:
        return f"No task has a verified time yet. {covered}"
    ratio, num_timed = gains.before_secs / gains.after_secs, len(data.shares())
    return (
        f"{format_ms(gains.before_secs)} with default schedules, {format_ms(gains.after_secs)} with the best "
        f"records: {ratio:.3g} times as fast, estimated from the {num_timed} of "
        f"{_count(len(data.weights), 'task')} that have a time. {covered}"
    )


def _task_table(data: SessionData) -> str:
    """The costliest first, those without a time last."""
    places = task_places(data.trials, data.weights)
    failure = data.trials.failure
    pruned = tuple(FailureKind).index(FailureKind.PRUNED)
    num_trials = dict(zip(data.weights, np.bincount(places, minlength=len(data.weights)), strict=True))
    has_failed = (failure >= 0) & (failure != pruned)
    num_failed = np.bincount(places[has_failed], minlength=len(data.weights))
    failed = dict(zip(data.weights, num_failed, strict=True))
    shares = data.shares_by_task()
    costs = {task_key: share.weight * share.before_secs for task_key, share in shares.items()}
    rows = []
    for task in sorted(data.tasks, key=lambda task: -costs.get(task.task_key, 0.0)):
        share = shares.get(task.task_key)
        rows.append(
            (
                short_key(task.task_key),
                shorten(task.name, _MAX_NAME_CHARS),
                str(data.weights[task.task_key]),
                f"{num_trials[task.task_key]:,}",
                f"{failed[task.task_key]:,}",
                "-" if share is None else format_ms(share.before_secs),
                "-" if share is None else format_ms(share.after_secs),
                "-" if share is None else f"{share.before_secs / share.after_secs:.3g}×",
                "-" if share is None else f"{task.flop / share.after_secs / 1e9:.1f}",
            )
        )
    heads = ("task", "workload", "*calls", "*trials", "*failed", "*default", "*best", "*gain", "*GFLOP/s")
    return report_html.table(heads, rows) if rows else report_html.paragraph("The session has no task.")


def _failure_table(log: "TuningLog", data: SessionData) -> str:
    """Each kind with one of its messages, the newest."""
    failures = data.trials.failure
    counts: Counter[FailureKind] = Counter()
    messages: dict[FailureKind, str] = {}
    for code, kind in enumerate(FailureKind):
        (of_kind,) = np.nonzero(failures == code)
        if len(of_kind):
            counts[kind] = len(of_kind)
            newest = log.record(int(data.trials.record_id[of_kind[-1]])).record.result
            messages[kind] = newest.message if isinstance(newest, MeasureFailure) else ""
    if not counts:
        return report_html.paragraph(f"None of {_count(len(data.trials), 'trial')} failed.")
    rows = [
        (
            kind.value,
            f"{number:,}",
            f"{100 * number / len(data.trials):.1f} %",
            shorten(messages[kind], _MAX_MESSAGE_CHARS),
        )
        for kind, number in counts.most_common()
    ]
    return report_html.table(("kind", "*trials", "*share", "last message"), rows)


def _all_failures_table(log: "TuningLog") -> str:
    num_trials = sum(task.num_trials for task in log.tasks())
    rows = [
        (kind.value, f"{number:,}", f"{100 * number / num_trials:.1f} %")
        for kind, number in log.failure_counts().items()
    ]
    if not rows:
        return report_html.paragraph(f"None of {_count(num_trials, 'trial')} failed.")
    return report_html.table(("kind", "*trials", "*share"), rows)


def _session_table(sessions: "Sequence[SessionSummary]") -> str:
    if not sessions:
        return report_html.paragraph("The log has no session yet.")
    rows = [
        (
            summary.session_id[:_SHOWN_SESSION_CHARS],
            summary.model_name,
            f"{summary.target.mcpu}/{summary.target.num_threads}",
            summary.strategy,
            str(summary.seed),
            summary.machine_fingerprint[:8],
            f"{summary.created_at:%Y-%m-%d %H:%M}",
            f"{summary.num_tasks:,}",
            f"{summary.num_trials:,}",
            format_duration(summary.elapsed_secs),
        )
        for summary in sessions
    ]
    heads = ("session", "model", "CPU/threads", "strategy", "*seed", "machine", "begun (UTC)")
    return report_html.table(
        (*heads, "*tasks", "*trials", "*tuned for"), rows, links=[_anchor(summary) for summary in sessions]
    )


def _coverage_table(models: Sequence[ModelCoverage]) -> str:
    rows = [
        (model.name, f"{model.num_tasks:,}", *(f"{100 * model.shares[state]:.1f} %" for state in STATES))
        for model in models
    ]
    return report_html.table(("model", "*tasks", *(f"*{state}" for state in STATES)), rows) if rows else ""


def _anchor(summary: "SessionSummary") -> str:
    return f"session-{summary.session_id}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

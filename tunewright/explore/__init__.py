"""The tuning log in notebooks and scripts: `open_log`; schedules in words (floor 4).

The only place that imports pandas, and only when a data frame is asked for.
"""

from tunewright.explore.comparison import ModelComparison, RecordComparison, SessionComparison
from tunewright.explore.coverage_view import Coverage
from tunewright.explore.gate_results import GateResults, read_gate_results
from tunewright.explore.opened_log import OpenLog, open_log
from tunewright.explore.schedule_words import (
    ScheduleChange,
    ScheduleFact,
    schedule_changes,
    schedule_diff,
    schedule_facts,
    schedule_words,
)
from tunewright.explore.session_view import Session
from tunewright.explore.tir import ScheduledTir, tir_diff, tir_diff_html
from tunewright.explore.trial_view import Trial

__all__ = [
    "Coverage",
    "GateResults",
    "ModelComparison",
    "OpenLog",
    "RecordComparison",
    "ScheduleChange",
    "ScheduleFact",
    "ScheduledTir",
    "Session",
    "SessionComparison",
    "Trial",
    "open_log",
    "read_gate_results",
    "schedule_changes",
    "schedule_diff",
    "schedule_facts",
    "schedule_words",
    "tir_diff",
    "tir_diff_html",
]

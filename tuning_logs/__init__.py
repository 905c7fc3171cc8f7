"""The memory: every trial, task, session and cost model in one SQL log (`TuningLog`).

Acknowledged means committed, inserts are idempotent, rows never leave this package.
"""

from tunewright.tuning_logs.log import TuningLog
from tunewright.tuning_logs.summaries import Race, RankedTrial, SessionState, SessionSummary, TaskSummary

__all__ = ["Race", "RankedTrial", "SessionState", "SessionSummary", "TaskSummary", "TuningLog"]

"""The memory: every trial, task, session and cost model in one SQL log (`TuningLog`).

Acknowledged means committed, inserts are idempotent, rows never leave this package.
"""

from tunewright.tuning_logs.log import TuningLog
from tunewright.tuning_logs.matching import Match, MatchPolicy
from tunewright.tuning_logs.schema import schema_revisions
from tunewright.tuning_logs.summaries import (
    LogStats,
    Race,
    RankedTrial,
    SessionState,
    SessionSummary,
    StoredCandidate,
    StoredSuccess,
    TaskSummary,
    Verification,
)

__all__ = [
    "LogStats",
    "Match",
    "MatchPolicy",
    "Race",
    "RankedTrial",
    "SessionState",
    "SessionSummary",
    "StoredCandidate",
    "StoredSuccess",
    "TaskSummary",
    "TuningLog",
    "Verification",
    "schema_revisions",
]

"""The tuning log in notebooks and scripts: `open_log`; schedules in words (floor 4).

The only place that imports pandas, and only when a data frame is asked for.
"""

from tunewright.explore.opened_log import OpenLog, open_log
from tunewright.explore.schedule_words import (
    ScheduleChange,
    ScheduleFact,
    schedule_changes,
    schedule_diff,
    schedule_facts,
    schedule_words,
)

__all__ = [
    "OpenLog",
    "ScheduleChange",
    "ScheduleFact",
    "open_log",
    "schedule_changes",
    "schedule_diff",
    "schedule_facts",
    "schedule_words",
]

"""The tuning log in notebooks and scripts: `open_log` (floor 4).

The only place that imports pandas, and only when a data frame is asked for.
"""

from tunewright.explore.opened_log import OpenLog, open_log

__all__ = ["OpenLog", "open_log"]

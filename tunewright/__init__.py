"""Tunewright: an ML-guided auto-scheduler and autotuning service over Apache TVM."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunewright.explore import open_log as open_log
    from tunewright.scheduler.bundle import load as load
    from tunewright.tuning_logs import TuningLog as TuningLog

__version__ = "0.1.0"
__all__ = ["TuningLog", "__version__", "load", "open_log"]


def __getattr__(name: str) -> Any:
    # Imported on first use: the command line must answer at once, and workers need none of it.
    if name == "load":
        from tunewright.scheduler.bundle import load

        return load
    if name == "open_log":
        from tunewright.explore import open_log

        return open_log
    if name == "TuningLog":
        from tunewright.tuning_logs import TuningLog

        return TuningLog
    raise AttributeError(f"module 'tunewright' has no attribute {name!r}")

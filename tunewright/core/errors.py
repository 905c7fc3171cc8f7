"""Errors, grouped by what the person or program that catches them should do.

A candidate that fails is data (`tunewright.core.types.MeasureFailure`), never one of these.
Every message states the fact, the value, and what to do next.
"""


class TunewrightError(Exception):
    """Root of all errors that Tunewright raises on purpose."""


class ConfigError(TunewrightError, ValueError):
    """Wrong usage or bad input; the user fixes it. The command line exits with 2."""


class ModelImportError(ConfigError):
    """A model file cannot be read or contains what cannot be imported."""


class EnvironmentProblem(TunewrightError, RuntimeError):
    """The machine or its installation cannot do what was asked. The command line exits with 3."""


class RetryableError(TunewrightError):
    """The same call may succeed later."""


class WorkerUnavailableError(RetryableError, RuntimeError):
    """No measurement worker answers."""


class StoreError(TunewrightError, RuntimeError):
    """The tuning log cannot be opened, read or written. The command line exits with 3."""


class StoreBusyError(StoreError, RetryableError):
    """Another process holds the tuning log's write lock."""


class SchemaVersionError(StoreError):
    """The tuning log was written by another schema version than this program's."""


class RecordNotFoundError(StoreError, KeyError):
    """No record has the key that was asked for."""

    def __str__(self) -> str:
        # KeyError would print the repr of the message.
        return str(self.args[0]) if self.args else ""


class ModelError(TunewrightError):
    """A cost model cannot be used as asked."""


class ModelNotFittedError(ModelError, RuntimeError):
    """Predictions were asked of a cost model that has seen no data."""


class FeatureVersionMismatchError(ModelError, ValueError):
    """A cost model was trained on another feature version."""


class UntrustedTraceError(TunewrightError):
    """A schedule's trace from outside asks for what no tuner's schedule needs, or is no trace.

    The caller leaves the record out, keeps the message, and never hands the trace to TVM.
    """


class CoverageError(TunewrightError):
    """`--strict`: a task of the model has no usable record. The command line exits with 1."""


class InternalError(TunewrightError):
    """A bug of ours. Never caught on purpose."""

"""A tuning log as a database that TVM's own passes ask for schedules.

    mod = passes_up_to_fusion(mod)                   # as when it was tuned, else no workload is known
    with tvm_database(log, target):
        mod = relax.transform.MetaScheduleApplyDatabase()(mod)
    mod = relax.transform.SplitLayoutRewritePreproc()(mod)
    mod = relax.transform.LiftTransformParams()(mod)
    mod = relax.transform.FoldConstant()(mod)        # only where weights are constants of the module

A schedule may pack weights into another layout. `AttachAttrLayoutFreeBuffers`, after `FuseTIR`, says which
weights are free to be packed and is part of the workload: without it, no schedule of a kernel with weights is
found. The packing then stands inside the scheduled kernel, which computes the right result but packs at each
call: the passes after it split the packing off and lift it out of the main function. Where weights are
inputs, `main_transform_params` then packs them once, and `main` takes what that returns.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.database import Database, TuningRecord
from tvm.target import Target
from tvm.tirx import PrimFunc
from tvm_ffi import structural_equal

from tunewright.core.tvm_adapter.canonical import canonical_workload, load_module
from tunewright.core.tvm_adapter.target import tvm_target
from tunewright.core.tvm_adapter.traces import ReplayError, replay_trace
from tunewright.core.types import RecordedTrial, TargetSpec, TaskKey, TuningTask, Workload, WorkloadKey

logger = logging.getLogger(__name__)

# How many records of a task are tried before it counts as unknown, as when a model is compiled.
_NUM_RECORDS_TRIED = 3
# What a target may have beside a `TargetSpec` without the kernels being others.
_INERT_ATTRS = ("host", "keys", "tag")


class RankedSchedule(Protocol):
    """A verified success of the log; `secs` per call is what it is ranked by."""

    @property
    def trial(self) -> RecordedTrial: ...

    @property
    def secs(self) -> float: ...


class ScheduleLog(Protocol):
    """What is read of the tuning log; `workload` raises a KeyError for one that it does not have."""

    def best(self, task_key: TaskKey, *, k: int = 1) -> Sequence[RankedSchedule]: ...

    def workload(self, key: WorkloadKey) -> Workload: ...


@contextmanager
def tvm_database(log: ScheduleLog, target: TargetSpec) -> Iterator[Database]:
    """Make the log TVM's current database, and `target` its current target, in this thread.

    A query finds the fastest verified record of exactly its workload and this target that replays. A query
    for another target, inside a `with Target(...)` of the caller, finds nothing. Make TVM's pass inside the
    context: it takes the target that is current then.
    """
    database = _LogDatabase(log, target)
    with tvm_target(target), database:
        yield database


@derived_object
class _LogDatabase(ms.database.PyDatabase):  # type: ignore[misc]
    """TVM asks `query_tuning_record` alone; this database cannot be written to."""

    def __init__(self, log: ScheduleLog, target: TargetSpec) -> None:
        super().__init__()
        self.log = log
        self.target = target

    def query_tuning_record(
        self, mod: tvm.IRModule, target: Target, workload_name: str | None = None
    ) -> TuningRecord | None:
        """The best record for a module of one function, or None."""
        func = mod["main"]
        if not _is_for(target, self.target) or not isinstance(func, PrimFunc):
            return None
        try:
            workload = canonical_workload(func, name=str(workload_name))
        except (ValueError, RuntimeError):  # symbolic shapes, opaque calls: nobody has tuned this
            return None
        task = TuningTask(workload, self.target)
        records = self.log.best(task.key, k=_NUM_RECORDS_TRIED)
        if not records:
            return None
        stored = load_module(self.log.workload(workload.key).mod_json)
        if not structural_equal(stored, load_module(workload.mod_json)):
            logger.warning("the log's workload %s is not the module of that key; ignored", workload.key)
            return None
        return _first_that_replays(records, _with_attrs_of(stored, func), target)


def _first_that_replays(
    records: Sequence[RankedSchedule], mod: tvm.IRModule, target: Target
) -> TuningRecord | None:
    for record in records:
        try:
            schedule = replay_trace(mod, record.trial.record.candidate.trace_json)
        except ReplayError as exc:
            logger.warning("record %s is not used: %s", record.trial.record_id, exc)
            continue
        # TVM applies the trace to the module of the record, whose names it knows.
        return TuningRecord(schedule.trace, ms.database.Workload(mod), [record.secs], target, None)
    return None


def _is_for(target: Target, spec: TargetSpec) -> bool:
    attrs = {str(key): value for key, value in target.export().items() if key not in _INERT_ATTRS}
    if "mattr" in attrs:
        attrs["mattr"] = sorted(map(str, attrs["mattr"]))
    return attrs == spec.to_dict()


def _with_attrs_of(mod: tvm.IRModule, func: PrimFunc) -> tvm.IRModule:
    """The stored module with the attributes of what was asked for: else TVM takes it for another workload."""
    stored = mod["main"]
    for attr in list(stored.attrs.keys()):
        stored = stored.without_attr(attr)
    return tvm.IRModule({"main": stored.with_attr(dict(func.attrs or {}))})


__all__ = ["ScheduleLog", "tvm_database"]

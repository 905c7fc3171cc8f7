"""Ask a child what this machine can do at most."""

from datetime import UTC, datetime

from tunewright.core.errors import EnvironmentProblem
from tunewright.core.types import MachinePeak, TargetSpec
from tunewright.workers.codec import target_to_dict
from tunewright.workers.config import WorkerConfig
from tunewright.workers.conversation import Conversation
from tunewright.workers.events import JobMessage, JobSpec
from tunewright.workers.local import LocalMeasurer

_LIMIT_SECS = 300.0
_MEMORY_BYTES = 8 << 30


def measure_peak(target: TargetSpec) -> MachinePeak:
    """Measure the peak of this machine for kernels of a target; some 10 seconds.

    Raises:
        EnvironmentProblem: no child can be started here, there are too few CPUs, or the kernels fail.
    """
    config = WorkerConfig.for_threads(target.num_threads)
    payload = {"target": target_to_dict(target), "cpus": config.timing_cpus}
    with LocalMeasurer(config) as measurer, Conversation(measurer.pool) as jobs:
        machine = measurer.machine
        spec = JobSpec("peak", payload, config.timing_cpus, _LIMIT_SECS, _MEMORY_BYTES)
        event = jobs.next_of((jobs.start(spec),))
    match event:
        case JobMessage(message={"event": "peak", "flop_per_sec": flop_per_sec, "bandwidths": bandwidths}):
            return MachinePeak(
                machine,
                target,
                float(flop_per_sec),
                tuple((int(size), float(rate)) for size, rate in bandwidths),
                datetime.now(UTC),
            )
        case JobMessage(message={"event": "failed", "message": text}):
            raise EnvironmentProblem(f"this machine's peak cannot be measured: {text}")
    raise EnvironmentProblem(f"this machine's peak cannot be measured: its process ended ({event})")

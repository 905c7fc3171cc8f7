"""The jobs that production children do. Imported by the zygote: this is where it loads TVM."""

from collections.abc import Sequence
from dataclasses import asdict

from tunewright.core.tvm_adapter.canonical import canonical_workload, load_module
from tunewright.core.tvm_adapter.kernel import build_kernel, reference_program, replay, unscheduled
from tunewright.core.tvm_adapter.space import TaskSpace
from tunewright.core.tvm_adapter.target import host_target, machine_info
from tunewright.core.tvm_adapter.traces import ReplayError
from tunewright.core.tvm_adapter.x86_intrinsics import register_intrinsics
from tunewright.core.types import AppliedCandidate, Candidate, FailureKind, Origin, TaskKey
from tunewright.workers.candidate_job import HeldKernel, time_build
from tunewright.workers.child import JobHandlers, describe, is_memory_error, serve_items
from tunewright.workers.codec import applied_to_dict, args_from_dict, draft_from_dict, target_from_dict
from tunewright.workers.exchange_job import serve_exchange
from tunewright.workers.frames import Channel, Message
from tunewright.workers.inputs import InputSet, make_inputs
from tunewright.workers.peak_job import measure_peak
from tunewright.workers.reference import save_outputs
from tunewright.workers.yardstick_job import build_yardstick, yardstick_workload


def handlers() -> JobHandlers:
    """Name of a job -> what does it."""
    register_intrinsics()
    # The first build of a process takes 20 ms more than the next ones: no child is the first.
    build_kernel(unscheduled(yardstick_workload().mod_json), host_target(num_threads=1))
    return {
        "candidate": _candidate,
        "exchange": serve_exchange,
        "expand": _expand,
        "machine": _machine,
        "peak": _peak,
        "reference": _reference,
        "replay": _replay,
        "workload": _workload,
        "yardstick": _yardstick,
    }


def _candidate(channel: Channel, payload: Message) -> None:
    """Build, say so, wait; then do what the supervisor says until it closes the channel."""
    mod_json, trace_json = payload["task"]["mod_json"], payload["trace"]
    held = time_build(payload, lambda: replay(mod_json, trace_json))
    channel.send({"event": "built", "build_secs": held.build_secs, "object_key": held.object_key})
    serve_held(channel, held)


def serve_held(channel: Channel, held: HeldKernel) -> None:
    """Answer "time", "verify", "prepare" and "sample" until the supervisor closes the channel."""
    while (command := channel.receive()) is not None:
        match command["op"]:
            case "time":
                channel.send(held.time(command))
            case "prepare":
                channel.send(held.prepare(command))
            case "sample":
                channel.send(held.sample())
            case "verify":
                channel.send(held.verify(command["reference"]))
            case "exit":
                return


def _reference(channel: Channel, payload: Message) -> None:
    """Store the right outputs on every input set."""
    task = payload["task"]
    target = target_from_dict(task["target"])
    kernel = build_kernel(reference_program(task["mod_json"]), target)
    outputs = {}
    for input_set in InputSet:
        bound = kernel.bind(make_inputs(args_from_dict(task), input_set, payload["input_seed"]))
        bound.poison()
        bound.run()
        outputs[input_set] = bound.outputs()
        channel.send({"event": "item", "more": True})
    save_outputs(payload["path"], outputs)
    channel.send({"event": "done"})


def _yardstick(channel: Channel, payload: Message) -> None:
    """Build and hold a kernel that is always the same."""
    held = build_yardstick(target_from_dict(payload["target"]), int(payload["input_seed"]))
    channel.send({"event": "built"})
    serve_held(channel, held)


def _expand(channel: Channel, payload: Message) -> None:
    """Sample, realise or apply candidates; the space of the last task is kept."""
    spaces: dict[TaskKey, TaskSpace] = {}

    def expand(call: Message, item: Message) -> Message | None:
        task, task_key = call["task"], TaskKey(call["task_key"])
        if task_key not in spaces:
            spaces.clear()
            spaces[task_key] = TaskSpace(task["mod_json"], target_from_dict(task["target"]), task_key)
        applied = _applied(spaces[task_key], task_key, call["parents"], item)
        return None if applied is None else applied_to_dict(applied)

    serve_items(channel, payload, expand)


def _applied(
    space: TaskSpace, task_key: TaskKey, parents: Sequence[str], item: Message
) -> AppliedCandidate | None:
    match item["op"]:
        case "sample":
            return space.sample(item["seed"])
        case "realise":
            parent = Candidate(task_key, parents[item["parent"]], Origin.REPLAY)
            return space.realise(draft_from_dict(item, parent))
        case _:
            try:
                return space.apply(item["trace"], Origin(item["origin"]))
            except ReplayError:
                return None


def _replay(channel: Channel, payload: Message) -> None:
    """Apply traces to their workloads; the scheduled modules go back as TVM's JSON, or as TVMScript."""
    import tvm

    def answer(_call: Message, item: Message) -> Message:
        try:
            scheduled = replay(item["mod_json"], item["trace"])
            return {"module": scheduled.script() if item["as_script"] else tvm.ir.save_json(scheduled)}
        except (ReplayError, RuntimeError, LookupError, MemoryError) as exc:
            kind = FailureKind.OOM if is_memory_error(exc) else FailureKind.REPLAY
            text = str(exc) if isinstance(exc, ReplayError) else describe(exc)
            return {"kind": kind, "message": text}

    serve_items(channel, payload, answer)


def _workload(channel: Channel, payload: Message) -> None:
    """Load modules from elsewhere; what their canonical workloads are."""

    def answer(_call: Message, item: Message) -> Message:
        try:
            workload = canonical_workload(load_module(item["mod_json"])["main"], name=item["name"])
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, MemoryError) as exc:
            kind = FailureKind.OOM if is_memory_error(exc) else FailureKind.INVALID
            return {"kind": kind, "message": describe(exc)}
        return {
            "name": workload.name,
            "key": workload.key,
            "mod_json": workload.mod_json,
            "args": [[list(spec.shape), spec.dtype] for spec in workload.args],
            "flop": workload.flop,
        }

    serve_items(channel, payload, answer)


def _peak(channel: Channel, payload: Message) -> None:
    """Measure what this machine can do at most."""
    channel.send({"event": "peak", **measure_peak(target_from_dict(payload["target"]), payload["cpus"])})


def _machine(channel: Channel, payload: Message) -> None:
    channel.send({"event": "machine", **asdict(machine_info())})

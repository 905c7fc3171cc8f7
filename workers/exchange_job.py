"""What a child answers `workers.exchange`."""

from typing import Any

from tunewright.core.tvm_adapter.exchange import (
    AdoptionError,
    TraceAdopter,
    adopt_workload,
    args_json,
    module_hash,
)
from tunewright.core.tvm_adapter.kernel import replay
from tunewright.core.tvm_adapter.traces import ReplayError
from tunewright.workers.child import describe, serve_items
from tunewright.workers.frames import Channel, Message


def serve_exchange(channel: Channel, payload: Message) -> None:
    """Answer items until the channel is closed; what is no workload or trace is an answer too."""
    adopters: dict[str, TraceAdopter] = {}

    def answer(call: Message, item: Message) -> Message:
        try:
            return _answer(call, item, adopters)
        except AdoptionError as exc:
            return {"refused": str(exc), "detail": exc.detail}
        except ReplayError as exc:
            return {"refused": "does not replay on its workload", "detail": str(exc)}
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as exc:
            return {"refused": "cannot be read by TVM", "detail": describe(exc)}

    serve_items(channel, payload, answer)


def _answer(call: Message, item: Message, adopters: dict[str, TraceAdopter]) -> dict[str, Any]:
    match item["op"]:
        case "adopt_workload":
            workload = adopt_workload(item["module"])
            return {
                "name": workload.name,
                "key": workload.key,
                "module": workload.mod_json,
                "args": [[list(spec.shape), spec.dtype] for spec in workload.args],
                "flop": workload.flop,
                "hash": str(module_hash(item["module"])),
            }
        case "adopt_trace":
            original, canonical = call["modules"][item["workload"]]
            if original not in adopters:
                adopters.clear()
                adopters[original] = TraceAdopter(original, canonical)
            return {"trace": adopters[original].adopt(item["trace"], item["args"])}
        case _:
            args = args_json(replay(item["module"], item["trace"]))
            return {"hash": str(module_hash(item["module"])), "args": args}

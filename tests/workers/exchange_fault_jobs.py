"""The exchange without TVM: a trace that is the name of a fault commits it."""

from echo_jobs import FAULTS  # beside this file, which is on the zygote's path

from tunewright.workers.child import JobHandlers, serve_items
from tunewright.workers.frames import Channel, Message


def handlers() -> JobHandlers:
    """The one job."""
    return {"exchange": _exchange}


def _exchange(channel: Channel, payload: Message) -> None:
    def answer(call: Message, item: Message) -> Message:
        if item["trace"] in FAULTS:
            FAULTS[item["trace"]]()
        return {"trace": f"{item['trace']} on {call['modules'][item['workload']][1]}"}

    serve_items(channel, payload, answer)

"""A compiled model in a child of the gate: loaded, then timed on command. Imported by the zygote."""

import numpy as np

from tunewright.scheduler.bench_child import Feed, time_calls
from tunewright.scheduler.bundle import LoadedModel, load
from tunewright.scheduler.model_bench import make_input
from tunewright.workers.child import JobHandlers
from tunewright.workers.frames import Channel, Message
from tunewright.workers.threads import set_kernel_threads, wait_until_at_rest

JOBS_MODULE = f"{__name__}:handlers"
_REST_LIMIT_SECS = 0.5
_NUM_FIRST_CALLS = 2


def handlers() -> JobHandlers:
    """Name of a job -> what does it."""
    # Here and not in every child: importing TVM takes a second or two.
    import tunewright.core.tvm_adapter.graph_runtime  # noqa: F401

    return {"model": _serve_model}


def _serve_model(channel: Channel, payload: Message) -> None:
    """Load, run, say what a call takes; then time as many calls as are asked for."""
    set_kernel_threads(int(payload["num_threads"]), payload["cpus"])
    model = load(payload["path"])
    rng = np.random.default_rng(int(payload["seed"]))
    feed = {name: make_input(spec, rng) for name, spec in model.inputs.items()}
    model.run_named(feed)
    channel.send({"event": "loaded", "secs": _time(model, feed, _NUM_FIRST_CALLS)})
    while (command := channel.receive()) is not None and command["op"] == "time":
        channel.send({"event": "timed", "secs": _time(model, feed, int(command["num_calls"]))})


def _time(model: LoadedModel, feed: Feed, num_calls: int) -> float:
    secs = time_calls(model.run_named, feed, num_calls)
    wait_until_at_rest(_REST_LIMIT_SECS)
    return secs

"""Measure on a Ray cluster: one supervisor actor per node, which starts that node's zygote.

Ray places and finds supervisors, nothing more: no state of ours lives in actors or in its object store.
Actors have many threads, so they never fork; their zygote is a process of its own, with its own settings
for threads, as Ray would make OMP_NUM_THREADS the number of CPUs of the actor.
"""

import logging
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tunewright.core.closeable import Closeable
from tunewright.core.errors import EnvironmentProblem, WorkerUnavailableError
from tunewright.core.types import FailureKind, MachineInfo, MeasureFailure, MeasureInput, MeasureResult
from tunewright.workers.config import WorkerConfig
from tunewright.workers.dispatch import Assign, Command, DispatchState, Finished, GiveUp, NodeLost
from tunewright.workers.local import LocalMeasurer, MeasurerStats
from tunewright.workers.pool import Pool

_logger = logging.getLogger(__name__)

_START_LIMIT_SECS = 120.0
_CLOSE_LIMIT_SECS = 10.0
_CONNECT_LIMIT_SECS = 5.0


class NodeSupervisor:
    """The actor: a `LocalMeasurer` on its node."""

    def __init__(self, num_threads: int, jobs_module: str | None) -> None:
        config = WorkerConfig.for_threads(num_threads)
        if jobs_module is not None:
            config = replace(config, jobs_module=jobs_module)
        self._measurer = LocalMeasurer(config)

    def machine(self) -> MachineInfo:
        return self._measurer.machine

    def measure(self, inputs: list[MeasureInput]) -> tuple[list[MeasureResult], MeasurerStats]:
        return self._measurer.measure(inputs), self._measurer.stats

    def race(self, inputs: list[MeasureInput], rounds: int) -> tuple[list[MeasureResult], MeasurerStats]:
        return self._measurer.race(inputs, rounds=rounds), self._measurer.stats

    def close(self) -> None:
        self._measurer.close()


class RayMeasurer(Closeable):
    """Splits batches over the nodes of a cluster of equal machines.

    Args:
        address: "local" starts a cluster on this machine, "auto" joins the one that runs here, or
            "host:port". Where this process has already joined a cluster, that one is used.
        num_threads: the target's kernel threads.

    Raises:
        EnvironmentProblem: no cluster answers, a node gives no supervisor, or its machines differ.
    """

    def __init__(self, address: str, *, num_threads: int, jobs_module: str | None = None) -> None:
        import ray

        self._ray: Any = ray
        self._num_threads = num_threads
        self._jobs_module = jobs_module
        self._pool: Pool | None = None
        self._owns_cluster = not ray.is_initialized()
        if self._owns_cluster:
            _join(ray, address)
        self._actors: dict[str, Any] = {}
        self._node_stats: dict[str, MeasurerStats] = {}
        self._lost_stats = MeasurerStats()
        try:
            self.machine = self._start_supervisors()
        except BaseException:
            self.close()
            raise

    @property
    def pool(self) -> Pool:
        """A pool on this machine for design spaces, made at the first use."""
        if self._pool is None:
            config = WorkerConfig.for_threads(1)
            self._pool = Pool(config.build_cpus, jobs_module=self._jobs_module or config.jobs_module)
        return self._pool

    @property
    def stats(self) -> MeasurerStats:
        """Sums over the nodes, so seconds of nodes that worked side by side add up."""
        return sum(self._node_stats.values(), self._lost_stats)

    def measure(self, inputs: Sequence[MeasureInput]) -> list[MeasureResult]:
        """Measure; one result per input, in their order.

        Raises:
            EnvironmentProblem: a node cannot run children.
            WorkerUnavailableError: no node is left.
        """
        return self._dispatch(inputs, rounds=None)

    def race(self, inputs: Sequence[MeasureInput], *, rounds: int) -> list[MeasureResult]:
        """Time all inputs side by side, on one node; see `LocalMeasurer.race`.

        Raises:
            EnvironmentProblem: a node cannot run children.
            WorkerUnavailableError: no node is left.
        """
        return self._dispatch(inputs, rounds=rounds)

    def close(self) -> None:
        """End the supervisors, and the cluster if it was started here."""
        if self._pool is not None:
            self._pool.close()
        actors, self._actors = list(self._actors.values()), {}
        if self._ray.is_initialized():
            self._ray.wait(
                [actor.close.remote() for actor in actors], num_returns=len(actors), timeout=_CLOSE_LIMIT_SECS
            ) if actors else None
            for actor in actors:
                self._ray.kill(actor)
            if self._owns_cluster:
                self._ray.shutdown()

    def _dispatch(self, inputs: Sequence[MeasureInput], *, rounds: int | None) -> list[MeasureResult]:
        if not self._actors:
            raise WorkerUnavailableError(
                "no node of the Ray cluster has a supervisor left; see `ray status`, then start again"
            )
        results: dict[int, MeasureResult] = {}
        state = DispatchState(list(self._actors))
        running: dict[Any, Assign] = {}
        commands = state.begin(len(inputs), is_divisible=rounds is None)
        self._execute(commands, inputs, rounds, running, results)
        while not state.is_done:
            (reference, *_), _ = self._ray.wait(list(running), num_returns=1)
            assignment = running.pop(reference)
            commands = state.handle(self._collect(reference, assignment, results))
            self._execute(commands, inputs, rounds, running, results)
        return [results[index] for index in range(len(inputs))]

    def _execute(
        self,
        commands: Sequence[Command],
        inputs: Sequence[MeasureInput],
        rounds: int | None,
        running: dict[Any, Assign],
        results: dict[int, MeasureResult],
    ) -> None:
        for command in commands:
            chosen = [inputs[index] for index in command.part.indices]
            match command:
                case Assign(node=node):
                    actor = self._actors[node]
                    reference = (
                        actor.measure.remote(chosen) if rounds is None else actor.race.remote(chosen, rounds)
                    )
                    running[reference] = command
                case GiveUp(part=part):
                    message = "the supervisor of the node died while this candidate was measured"
                    for index in part.indices:
                        results[index] = MeasureFailure(FailureKind.WORKER_LOST, message, 0.0)

    def _collect(self, reference: Any, assignment: Assign, results: dict[int, MeasureResult]) -> Any:
        """Take an answer; the event that it is for the dispatch."""
        node, part = assignment.node, assignment.part
        try:
            answers, stats = self._ray.get(reference)
        except self._ray.exceptions.RayActorError as exc:
            _logger.warning("the supervisor on node %s died, starting another one: %s", node, exc)
            self._lost_stats += self._node_stats.pop(node, MeasurerStats())
            return NodeLost(node, is_back=self._respawn(node))
        except self._ray.exceptions.RayTaskError as exc:
            raise _cause(exc) from exc
        self._node_stats[node] = stats
        results.update(zip(part.indices, answers, strict=True))
        return Finished(node)

    # Supervisors.

    def _start_supervisors(self) -> MachineInfo:
        nodes = [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        if not nodes:
            raise EnvironmentProblem("the Ray cluster has no node with CPUs; start workers with `ray start`")
        for node in nodes:
            self._actors[node["NodeID"]] = self._spawn(node["NodeID"])
        return one_kind([self._ask_machine(node_id) for node_id in self._actors])

    def _spawn(self, node_id: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node = next(node for node in self._ray.nodes() if node["NodeID"] == node_id)
        # All CPUs of the node, so that Ray places nothing else where candidates are timed.
        options = self._ray.remote(NodeSupervisor).options(
            num_cpus=node["Resources"]["CPU"],
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
            max_restarts=0,
        )
        return options.remote(self._num_threads, self._jobs_module)

    def _ask_machine(self, node_id: str) -> MachineInfo:
        exceptions = self._ray.exceptions
        try:
            machine: MachineInfo = self._ray.get(
                self._actors[node_id].machine.remote(), timeout=_START_LIMIT_SECS
            )
        except exceptions.GetTimeoutError as exc:
            raise EnvironmentProblem(
                f"node {node_id} started no supervisor within {_START_LIMIT_SECS:g} s; tuning needs all its "
                "CPUs, see `ray status` for what holds them"
            ) from exc
        except exceptions.RayTaskError as exc:
            raise _cause(exc) from exc
        except exceptions.RayActorError as exc:
            raise EnvironmentProblem(f"the supervisor on node {node_id} died at once: {exc}") from exc
        return machine

    def _respawn(self, node_id: str) -> bool:
        if not any(node["NodeID"] == node_id and node["Alive"] for node in self._ray.nodes()):
            del self._actors[node_id]
            return False
        try:
            self._actors[node_id] = self._spawn(node_id)
            machine = self._ask_machine(node_id)
        except EnvironmentProblem as exc:
            _logger.warning("no new supervisor on node %s: %s", node_id, exc)
            del self._actors[node_id]
            return False
        return machine.fingerprint == self.machine.fingerprint


def one_kind(machines: Sequence[MachineInfo]) -> MachineInfo:
    """The machine that all of these are.

    Raises:
        EnvironmentProblem: they differ in what makes times comparable.
    """
    if len({machine.fingerprint for machine in machines}) > 1:
        listed = "; ".join(f"{machine.cpu_model} with {machine.num_cpus} CPUs" for machine in machines)
        raise EnvironmentProblem(
            f"the nodes of the Ray cluster are different machines ({listed}), so their times do not "
            "compare; tune on nodes of one kind"
        )
    return machines[0]


def _join(ray: Any, address: str) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options["include_dashboard"] = False
    try:
        _check_reachable(address)
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as exc:
        raise EnvironmentProblem(
            f"no Ray cluster at {address!r}: {exc}; start one with `ray start --head`, or use --cluster local"
        ) from exc


def _check_reachable(address: str) -> None:
    """Try to connect: Ray itself tries for minutes.

    Raises:
        OSError: nothing listens at the address.
    """
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator:
        socket.create_connection((host, int(port)), timeout=_CONNECT_LIMIT_SECS).close()


def _cause(exc: Any) -> BaseException:
    """The exception that was raised in the actor."""
    cause: BaseException = exc.cause
    return cause

"""Which node measures what: pure decisions, so that losses can be tested as sequences of events."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

_MAX_ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class Part:
    """Inputs that one node measures together; `attempt` is 1 or 2."""

    indices: tuple[int, ...]
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Finished:
    """A node has answered."""

    node: str


@dataclass(frozen=True, slots=True)
class NodeLost:
    """A node's supervisor died; `is_back` if another one runs there now."""

    node: str
    is_back: bool


@dataclass(frozen=True, slots=True)
class Assign:
    """Have a node measure a part."""

    node: str
    part: Part


@dataclass(frozen=True, slots=True)
class GiveUp:
    """A part is lost for good: its inputs fail as WORKER_LOST."""

    part: Part


Event = Finished | NodeLost
Command = Assign | GiveUp


class DispatchState:
    """Every part is assigned, finished or given up exactly once per attempt."""

    def __init__(self, nodes: Sequence[str]) -> None:
        self._idle = deque(nodes)
        self._busy: dict[str, Part] = {}
        self._waiting: deque[Part] = deque()
        self._is_divisible = True

    @property
    def is_done(self) -> bool:
        return not self._busy and not self._waiting

    def begin(self, num_inputs: int, *, is_divisible: bool = True) -> list[Command]:
        """Split a batch evenly over the nodes, or give it to one node if it must stay together."""
        self._is_divisible = is_divisible
        count = min(num_inputs, len(self._idle) if is_divisible else 1)
        self._waiting.extend(
            Part(tuple(range(num_inputs * k // count, num_inputs * (k + 1) // count))) for k in range(count)
        )
        return self._assign()

    def handle(self, event: Event) -> list[Command]:
        """What to do after an event; events of nodes that have nothing to do mean nothing."""
        part = self._busy.pop(event.node, None)
        if part is None:
            return []
        commands: list[Command] = []
        if isinstance(event, NodeLost):
            if part.attempt < _MAX_ATTEMPTS:
                self._waiting.extend(self._retries(part))
            else:
                commands.append(GiveUp(part))
        if isinstance(event, Finished) or event.is_back:
            self._idle.append(event.node)
        return commands + self._assign()

    def _retries(self, part: Part) -> list[Part]:
        """One by one, so that a candidate which takes its node down does not take others with it."""
        groups = [(index,) for index in part.indices] if self._is_divisible else [part.indices]
        return [Part(group, part.attempt + 1) for group in groups]

    def _assign(self) -> list[Command]:
        commands: list[Command] = []
        while self._waiting and self._idle:
            node, part = self._idle.popleft(), self._waiting.popleft()
            self._busy[node] = part
            commands.append(Assign(node, part))
        if not self._busy:  # no node is left
            commands += [GiveUp(part) for part in self._waiting]
            self._waiting.clear()
        return commands

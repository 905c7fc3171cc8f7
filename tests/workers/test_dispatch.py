"""Dispatch over nodes as sequences of events: lost workers, lost nodes, late answers."""

from hypothesis import given
from hypothesis import strategies as st

from tunewright.workers.dispatch import Assign, Command, DispatchState, Finished, GiveUp, NodeLost, Part


def _parts(commands: list[Command]) -> list[tuple[int, ...]]:
    return [command.part.indices for command in commands]


def test_a_batch_is_split_evenly_and_in_order() -> None:
    commands = DispatchState(["a", "b", "c"]).begin(8)
    assert _parts(commands) == [(0, 1), (2, 3, 4), (5, 6, 7)]
    assert [command.node for command in commands if isinstance(command, Assign)] == ["a", "b", "c"]


def test_fewer_inputs_than_nodes_and_single_part() -> None:
    assert _parts(DispatchState(["a", "b"]).begin(1)) == [(0,)]
    assert _parts(DispatchState(["a", "b"]).begin(3, is_divisible=False)) == [(0, 1, 2)]
    state = DispatchState(["a"])
    assert state.begin(0) == [] and state.is_done


def test_a_lost_part_goes_to_the_next_free_node_once() -> None:
    state = DispatchState(["a", "b"])
    state.begin(2)
    assert state.handle(NodeLost("a", is_back=False)) == []
    retry = Part((0,), attempt=2)
    assert state.handle(Finished("b")) == [Assign("b", retry)]
    assert state.handle(NodeLost("b", is_back=True)) == [GiveUp(retry)]
    assert state.is_done


def test_a_part_is_tried_again_one_by_one_unless_it_must_stay_together() -> None:
    divisible, together = DispatchState(["a"]), DispatchState(["a"])
    divisible.begin(3)
    together.begin(3, is_divisible=False)
    assert divisible.handle(NodeLost("a", is_back=True)) == [Assign("a", Part((0,), attempt=2))]
    assert divisible.handle(NodeLost("a", is_back=True)) == [
        GiveUp(Part((0,), attempt=2)),
        Assign("a", Part((1,), attempt=2)),
    ]
    assert together.handle(NodeLost("a", is_back=True)) == [Assign("a", Part((0, 1, 2), attempt=2))]


def test_without_nodes_everything_is_given_up() -> None:
    state = DispatchState(["a"])
    state.begin(3, is_divisible=False)
    assert state.handle(NodeLost("a", is_back=False)) == [GiveUp(Part((0, 1, 2), attempt=2))]
    assert state.is_done


def test_late_and_repeated_events_mean_nothing() -> None:
    state = DispatchState(["a", "b"])
    state.begin(1)
    assert state.handle(Finished("b")) == []
    assert state.handle(Finished("a")) == []
    assert state.handle(NodeLost("a", is_back=True)) == []
    assert state.is_done


@given(
    num_inputs=st.integers(0, 20),
    nodes=st.integers(1, 4),
    outcomes=st.lists(st.sampled_from(["ok", "back", "gone"]), min_size=60, max_size=60),
)
def test_every_input_ends_exactly_once(num_inputs: int, nodes: int, outcomes: list[str]) -> None:
    state = DispatchState([f"n{i}" for i in range(nodes)])
    ended: list[int] = []
    queue = state.begin(num_inputs)
    script = iter(outcomes)
    while queue:
        command = queue.pop(0)
        if isinstance(command, GiveUp):
            ended += command.part.indices
            continue
        outcome = next(script)
        if outcome == "ok":
            ended += command.part.indices
            queue += state.handle(Finished(command.node))
        else:
            queue += state.handle(NodeLost(command.node, is_back=outcome == "back"))
    assert sorted(ended) == list(range(num_inputs))
    assert state.is_done

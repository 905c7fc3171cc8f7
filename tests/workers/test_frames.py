"""Messages survive any cutting into packets; rubbish is refused."""

import itertools
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.workers.frames import BufferedChannel, Channel, Decoder, FrameError, encode

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
_MESSAGES = st.lists(st.dictionaries(st.text(max_size=5), _VALUES, max_size=3), max_size=4)


@given(messages=_MESSAGES, cuts=st.lists(st.integers(0, 200), max_size=6))
def test_any_cutting_gives_the_same_messages(messages: list[dict[str, object]], cuts: list[int]) -> None:
    data = b"".join(encode(message) for message in messages)
    decoder = Decoder()
    received = []
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        received += decoder.feed(data[start:end])
    assert received == messages


@pytest.mark.parametrize("data", [b"\xff" * 8, b"\x00\x00\x00\x02{]", b"\x00\x00\x00\x02[]"])
def test_rubbish_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        Decoder().feed(data)


def test_a_peer_that_does_not_read_never_blocks_the_supervisor() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        buffered = BufferedChannel(ours)
        big = {"text": "x" * (4 << 20)}
        buffered.queue(big)
        buffered.flush()
        assert buffered.wants_write
        theirs.settimeout(10.0)
        decoder = Decoder()
        received: list[dict[str, object]] = []
        while not received:
            received = decoder.feed(theirs.recv(1 << 18))
            buffered.flush()
        assert received == [big]
        assert not buffered.wants_write
        Channel(theirs).send({"answer": 1})
        assert buffered.receive() == ([{"answer": 1}], False)
        theirs.close()
        assert buffered.receive() == ([], True)
        buffered.close()

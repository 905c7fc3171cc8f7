"""Length-prefixed JSON messages over a stream socket.

The child of a job talks with blocking calls, the supervisor with buffers that it fills and empties when its
selector says so: a child that stops reading never blocks the supervisor.
"""

import json
import socket
import struct
from typing import Any

Message = dict[str, Any]

_HEADER = struct.Struct(">I")
MAX_FRAME_BYTES = 1 << 30
_CHUNK_BYTES = 1 << 18


class FrameError(Exception):
    """What the peer sent is not a message: it died in the middle of one, or wrote rubbish."""


def encode(message: Message) -> bytes:
    """The bytes of one message.

    Raises:
        FrameError: longer than `MAX_FRAME_BYTES`.
    """
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"a message of {len(body)} bytes is too long, at most {MAX_FRAME_BYTES} are allowed")
    return _HEADER.pack(len(body)) + body


class Decoder:
    """Collects bytes and cuts them into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Add received bytes; return the messages that are complete now.

        Raises:
            FrameError: a message is no JSON object or its length is impossible.
        """
        self._buffer += data
        messages = []
        while len(self._buffer) >= _HEADER.size:
            (length,) = _HEADER.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise FrameError(f"a message announces {length} bytes, at most {MAX_FRAME_BYTES} are allowed")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                break
            messages.append(_parse(bytes(self._buffer[_HEADER.size : end])))
            del self._buffer[:end]
        return messages


class Channel:
    """The child's blocking end."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.setblocking(True)
        self._decoder = Decoder()
        self._ready: list[Message] = []

    def send(self, message: Message) -> None:
        """Send one message; OSError if the supervisor is gone."""
        self._sock.sendall(encode(message))

    def receive(self) -> Message | None:
        """The next message, or None when the supervisor has closed its end."""
        while not self._ready:
            data = self._sock.recv(_CHUNK_BYTES)
            if not data:
                return None
            self._ready = self._decoder.feed(data)
        return self._ready.pop(0)


class BufferedChannel:
    """The supervisor's end, never blocking."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.setblocking(False)
        self._decoder = Decoder()
        self._outbox = bytearray()

    @property
    def wants_write(self) -> bool:
        return bool(self._outbox)

    def queue(self, message: Message) -> None:
        """Append a message to what waits to be written."""
        self._outbox += encode(message)

    def flush(self) -> None:
        """Write as much as the socket takes now; what a dead child will not read is dropped."""
        while self._outbox:
            try:
                sent = self.sock.send(self._outbox[:_CHUNK_BYTES])
            except BlockingIOError:
                return
            except OSError:
                self._outbox.clear()
                return
            del self._outbox[:sent]

    def receive(self) -> tuple[list[Message], bool]:
        """Messages that have arrived, and whether the channel is at its end.

        Raises:
            FrameError: see `Decoder.feed`.
        """
        messages: list[Message] = []
        while True:
            try:
                data = self.sock.recv(_CHUNK_BYTES)
            except BlockingIOError:
                return messages, False
            except OSError:
                return messages, True
            if not data:
                return messages, True
            messages += self._decoder.feed(data)

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()


def _parse(body: bytes) -> Message:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise FrameError(f"a message is not JSON: {exc}") from exc
    if not isinstance(message, dict):
        raise FrameError(f"a message is a {type(message).__name__}, expected an object")
    return message

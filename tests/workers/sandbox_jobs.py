"""Jobs that try what a sandbox forbids, and a replay with a door for faults; a zygote loads it by name."""

import ctypes
import errno
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from echo_jobs import FAULTS  # beside this file, which is on the zygote's path

from tunewright.workers.child import JobHandlers, serve_items
from tunewright.workers.frames import Channel, Message
from tunewright.workers.sandbox import enter_sandbox


def attempt_handlers() -> JobHandlers:
    """Only "attempt", without TVM."""
    return {"attempt": _attempt}


def handlers() -> JobHandlers:
    """The production handlers; a module "fault:NAME" commits that fault, "say:JSON" is the answer itself."""
    from tunewright.workers import jobs

    production = jobs.handlers()

    def answer(_call: Message, item: Message) -> object:
        verb, _, rest = item["mod_json"].partition(":")
        if verb == "fault":
            FAULTS[rest]()
        if verb == "say":
            return json.loads(rest)
        kept = _Kept()
        production["replay"](kept, {"items": [item]})
        return kept.value

    return {**production, "replay": lambda channel, payload: serve_items(channel, payload, answer)}


class _Kept(Channel):
    """Keeps the one answer of a job."""

    def __init__(self) -> None:
        self.value: object = None

    def send(self, message: Message) -> None:
        self.value = message["value"]

    def receive(self) -> Message | None:
        return None


def _attempt(channel: Channel, payload: Message) -> None:
    serve_items(channel, payload, lambda _call, item: attempt(item["what"], item["path"]))


def attempt(what: str, path: str) -> str:
    """What came of it: "done", or the error with which the kernel refused it."""
    try:
        ATTEMPTS[what](path)
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]
    except RuntimeError as exc:
        return str(exc)
    return "done"


def _fork(_path: str) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _thread(_path: str) -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()


def _connect(path: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", 9))  # sends nothing: needs a route only


def _call(name: str, *arguments: int) -> Callable[[str], None]:
    def call(_path: str) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if getattr(libc, name)(*arguments) == -1:
            raise OSError(ctypes.get_errno(), name)

    return call


ATTEMPTS: dict[str, Callable[[str], object]] = {
    "socket": lambda _: socket.socket(socket.AF_INET).close(),
    "unix socket": lambda _: socket.socket(socket.AF_UNIX).close(),
    "connect": _connect,
    "write": lambda path: Path(path, "new").write_text("text"),
    "append": lambda path: Path(path, "old").open("a").write("text"),
    "delete": lambda path: Path(path, "old").unlink(),
    "rename": lambda path: Path(path, "old").rename(Path(path, "older")),
    "make a folder": lambda path: Path(path, "folder").mkdir(),
    "change rights": lambda path: Path(path, "old").chmod(0o777),
    "truncate": lambda path: os.truncate(Path(path, "old"), 0),
    "open memory": lambda _: Path("/proc/self/mem").open("r+b").close(),
    "signal the zygote": lambda _: os.kill(os.getppid(), 0),
    "fork": _fork,
    "thread": _thread,
    "exec": lambda _: os.execv("/bin/true", ["true"]),
    "spawn": lambda _: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0),
    "user namespace": _call("unshare", 0x10000000),
    "be traced": _call("ptrace", 0, 0, 0, 0),
    "read": lambda path: Path(path, "old").read_text(),
    "use memory": lambda _: bytearray(64 << 20),
}


def main() -> None:
    """Enter a sandbox, as user ARGV[2] or as this one, then try ARGV[3:] with the folder ARGV[1]."""
    path, user, *whats = sys.argv[1:]
    if user:
        os.setgroups([])
        os.setresgid(int(user), int(user), int(user))
        os.setresuid(int(user), int(user), int(user))
    print(",".join(enter_sandbox()))
    for what in whats:
        print(attempt(what, path))


if __name__ == "__main__":
    main()

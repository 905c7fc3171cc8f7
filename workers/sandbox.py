"""What a child gives up before it works on data from outside: files, network, other processes, programs.

    python -m tunewright.workers.sandbox        prints the layers that hold here, one per line, to a pipe

Native code that reads hostile data may be taken over. In a sandbox it can still read what this user may read,
use memory and time up to its limits, and answer whatever it likes on the socket that it holds; and no more.
So an answer is as trustworthy as the data were. The layers overlap, for no machine is sure to have them all.
"""

import ctypes
import os
import platform
import resource
from enum import StrEnum

from tunewright.core.errors import EnvironmentProblem

_CPU_SECS = 600  # of all that one child does; each item's own limit is the supervisor's

_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_CAPABILITY_VERSION = 0x20080522


class Layer(StrEnum):
    """One thing that stops a sandboxed child."""

    LIMITS = "limits"  # no file longer than nothing, no core dump, no more processes (root: does not count)
    PRIVILEGES = "privileges"  # no capabilities, and none from set-uid programs
    NETWORK = "network"  # a network of its own with nothing in it
    CALLS = "calls"  # the kernel refuses what `_DENIED` names, and opening files to write


def enter_sandbox() -> tuple[Layer, ...]:
    """Put this process, which must have one thread, into a sandbox for good; returns what is in force.

    It can start no thread either: TVM needs none to apply a schedule.

    Raises:
        EnvironmentProblem: neither is the network gone nor are system calls refused.
    """
    has_own_network = _leave_network()  # first: it may take the capabilities that go next
    _limit()
    has_no_privileges = _give_up_privileges()
    held = {
        Layer.LIMITS: True,
        Layer.PRIVILEGES: has_no_privileges,
        Layer.NETWORK: has_own_network,
        Layer.CALLS: has_no_privileges and _refuse_calls(),
    }
    if not held[Layer.NETWORK] and not held[Layer.CALLS]:
        raise EnvironmentProblem(
            "this machine's kernel has neither user namespaces nor seccomp filters to offer, so data from "
            "outside cannot be worked on safely; `tunewright doctor` says what is missing"
        )
    return tuple(layer for layer, holds in held.items() if holds)


def _limit() -> None:
    for limit, value in (
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, _CPU_SECS),
    ):
        hard = resource.getrlimit(limit)[1]
        capped = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (capped, capped))
    # Without a file size, the kernel would still pipe a core dump to a handler.
    _prctl(_PR_SET_DUMPABLE, 0)


def _leave_network() -> bool:
    """Enter a network without interfaces: in a user namespace that anybody may make, or as root without."""
    libc = ctypes.CDLL(None)
    return any(libc.unshare(flags) == 0 for flags in (_CLONE_NEWUSER | _CLONE_NEWNET, _CLONE_NEWNET))


def _give_up_privileges() -> bool:
    class Header(ctypes.Structure):
        _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))

    none = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: lower halves, upper halves
    dropped = ctypes.CDLL(None).capset(ctypes.byref(Header(_CAPABILITY_VERSION, 0)), none) == 0
    return _prctl(_PR_SET_NO_NEW_PRIVS, 1) and dropped


def _prctl(option: int, value: int, pointer: object = None) -> bool:
    zero = ctypes.c_ulong(0)
    address = zero if pointer is None else pointer
    return bool(ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), address, zero, zero) == 0)


# ---- system calls

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column in `_DENIED`, and what the kernel calls the architecture."""

_DENIED: dict[str, tuple[int | None, int | None]] = {
    # programs, processes, threads
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    "clone": (56, 220),
    "clone3": (435, 435),
    # the network, and Unix sockets besides the one that it has
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    # other processes of this user
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    # files: `open` and `openat` are refused by what they are to open for
    "openat2": (437, 437),
    "open_by_handle_at": (304, 265),
    "creat": (85, None),
    "truncate": (76, 45),
    "ftruncate": (77, 46),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rmdir": (84, None),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    # parts of the kernel that need not meet hostile code; what takes a capability is refused without this
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
}
"""Numbers of system calls on x86_64 and aarch64, which has no old ones."""

_OPEN = {"x86_64": ((2, 1), (257, 2)), "aarch64": ((56, 2),)}
"""Numbers of `open` and `openat`, and which argument says what for."""
_TGKILL = {"x86_64": 234, "aarch64": 131}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_FOREIGN_CALL = 0x40000000  # on x86_64: one of the x32 kind, which has other numbers

# Instructions of the kernel's packet filters, and where `struct seccomp_data` holds what they load.
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1  # with EPERM


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def _refuse_calls() -> bool:
    """Have the kernel refuse what only an attacker would call, with EPERM."""
    machine = platform.machine()
    if machine not in _MACHINES:
        return False
    code = _filter(machine, os.getpid())
    instructions = (_Instruction * len(code))(*(_Instruction(*step) for step in code))
    program = _Program(len(code), ctypes.cast(instructions, ctypes.POINTER(_Instruction)))
    return _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program))


def _filter(machine: str, pid: int) -> list[tuple[int, int, int, int]]:
    """The filter's instructions: code, how many to skip if true and if not, value."""
    column, architecture = _MACHINES[machine]
    refuse, allow = (_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, architecture),
        refuse,
        (_LOAD, 0, 0, _NUMBER),
        (_IF_AT_LEAST, 0, 1, _FOREIGN_CALL),
        refuse,
    ]
    for call in _DENIED.values():
        if (number := call[column]) is not None:
            code += [(_IF_EQUAL, 0, 1, number), refuse]
    for number, argument in _OPEN[machine]:
        is_for_writing = (_IF_ANY_BIT, 0, 1, _WRITING)
        code += [(_IF_EQUAL, 0, 4, number), _load_argument(argument), is_for_writing, refuse, allow]
    # `abort` signals itself by it.
    is_own = (_IF_EQUAL, 1, 0, pid)
    code += [(_IF_EQUAL, 0, 4, _TGKILL[machine]), _load_argument(0), is_own, refuse, allow]
    return [*code, allow]


def _load_argument(index: int) -> tuple[int, int, int, int]:
    """Of its 64 bits the lower half: all that the kernel reads of flags and process ids."""
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * index)


def main() -> None:
    """Print the layers that hold here."""
    print("\n".join(enter_sandbox()))


if __name__ == "__main__":
    main()

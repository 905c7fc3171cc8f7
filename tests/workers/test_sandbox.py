"""What a sandboxed child can still do: apply traces, and hardly anything else."""

import json
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.processes import left_processes
from tests.workers.workloads import default_trace_json, matmul_task
from tunewright.core.types import FailureKind
from tunewright.workers import Pool, ReplayFailure, replay_all, sandbox
from tunewright.workers.events import JobExit, JobMessage, JobSpec
from tunewright.workers.frames import Decoder, FrameError
from tunewright.workers.pool import new_mailbox
from tunewright.workers.sandbox import Layer
from tunewright.workers.streaming import Answer, Crew, PieceFailure, StreamSpec

pytestmark = pytest.mark.slow

FORBIDDEN = (
    *("socket", "unix socket", "connect"),
    *("write", "append", "delete", "rename", "make a folder", "change rights", "truncate", "open memory"),
    *("signal the zygote", "fork", "spawn", "user namespace", "be traced"),
)
HARMLESS = ("read", "use memory")
JOBS_FILE = Path(__file__).parent / "sandbox_jobs.py"


@pytest.fixture(scope="module")
def attempts(mark: str) -> Iterator[Pool]:
    with Pool(sorted(os.sched_getaffinity(0))[:1], jobs_module="sandbox_jobs:attempt_handlers") as pool:
        yield pool
    assert left_processes(mark) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "old").write_text("before")
    return tmp_path


def tried(pool: Pool, folder: Path, whats: tuple[str, ...], *, is_sandboxed: bool) -> dict[str, Answer]:
    """What a child answers that tries these."""
    spec = StreamSpec("attempt", 5.0, 1 << 30, is_sandboxed=is_sandboxed)
    with Crew(pool, spec) as crew:
        items = [{"what": what, "path": str(folder)} for what in whats]
        return dict(zip(whats, crew.answers(items, {}), strict=True))


def in_process(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Code in a process of its own, which it may ruin."""
    command = [sys.executable, "-c", f"import sandbox_jobs\nfrom tunewright.workers import sandbox\n{code}"]
    path = os.pathsep.join([str(JOBS_FILE.parent), *sys.path])
    return subprocess.run(
        [*command, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_sandboxed_child_is_refused_all_but_reading_and_memory(attempts: Pool, folder: Path) -> None:
    answers = tried(attempts, folder, (*FORBIDDEN, *HARMLESS), is_sandboxed=True)
    assert answers == {**dict.fromkeys(FORBIDDEN, "EPERM"), **dict.fromkeys(HARMLESS, "done")}
    (answer,) = tried(attempts, folder, ("exec",), is_sandboxed=True).values()
    assert answer == "EPERM"
    (answer,) = tried(attempts, folder, ("thread",), is_sandboxed=True).values()
    assert answer == "can't start new thread"
    assert [path.name for path in folder.iterdir()] == ["old"]
    assert (folder / "old").read_text() == "before"


def test_every_other_child_may_do_it(attempts: Pool, folder: Path) -> None:
    harmless_here = tuple(what for what in FORBIDDEN if what not in ("user namespace", "rename", "delete"))
    answers = tried(attempts, folder, (*harmless_here, "thread", "delete"), is_sandboxed=False)
    assert set(answers.values()) == {"done"}
    (answer,) = tried(attempts, folder, ("exec",), is_sandboxed=False).values()
    assert isinstance(answer, PieceFailure) and "exit code 0" in answer.message


def test_a_sandboxed_child_dies_with_its_zygote_and_by_its_own_abort(attempts: Pool, folder: Path) -> None:
    mailbox = new_mailbox()
    items = [{"what": "read", "path": str(folder)}]
    spec = JobSpec("attempt", {"items": items}, attempts.cpus, 60.0, 1 << 30, is_sandboxed=True)
    attempts.start(spec, mailbox)
    assert isinstance(attempts.wait(mailbox), JobMessage)  # it is in its sandbox, and waits
    zygote_pid = attempts.zygote_pid
    assert zygote_pid is not None
    os.kill(zygote_pid, signal.SIGKILL)
    assert isinstance(attempts.wait(mailbox), JobExit)  # the fixture looks for survivors
    ended = in_process("import os; sandbox.enter_sandbox(); os.abort()")
    assert ended.returncode == -signal.SIGABRT


@pytest.mark.parametrize("user", ["", "65534"])
def test_layers_are_those_that_hold_for_root_and_for_others(user: str, folder: Path) -> None:
    if user and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    folder.chmod(0o777)
    ended = in_process("sandbox_jobs.main()", str(folder), user, "fork", "connect", "make a folder")
    assert ended.returncode == 0, ended.stderr
    layers, *answers = ended.stdout.splitlines()
    assert Layer.LIMITS in layers.split(",") and {Layer.NETWORK, Layer.CALLS} & set(layers.split(","))
    if Layer.CALLS in layers.split(","):
        assert answers == ["EPERM"] * 3


# Each layer alone, so that no other one hides that it does not work.


def test_the_limits_alone_stop_files_core_dumps_and_endless_work(folder: Path) -> None:
    code = """
import resource, sys
sandbox._limit()
print(sandbox_jobs.attempt("write", sys.argv[1]))
for limit in (resource.RLIMIT_CORE, resource.RLIMIT_NPROC, resource.RLIMIT_CPU):
    print(*resource.getrlimit(limit))
print(sandbox._prctl(3, 0))  # PR_GET_DUMPABLE returns 0
"""
    ended = in_process(code, str(folder))
    assert ended.stdout.splitlines() == ["EFBIG", "0 0", "0 0", "600 600", "True"], ended.stderr


def test_the_network_alone_is_empty(folder: Path) -> None:
    code = """
import sys
print(sandbox_jobs.attempt("connect", ""))
print(sandbox._leave_network())
print(sandbox_jobs.attempt("connect", ""), sandbox_jobs.attempt("fork", ""))
"""
    before, has_left, after = in_process(code).stdout.splitlines()
    if has_left == "False":
        pytest.skip("this kernel lets nobody make a network namespace")
    assert (before, after) == ("done", "ENETUNREACH done")


def test_the_privileges_alone_are_gone() -> None:
    code = """
print(sandbox._give_up_privileges())
print(open("/proc/self/status").read())
"""
    ended = in_process(code)
    assert ended.stdout.startswith("True\n")
    assert re.findall(r"(?:CapPrm|CapEff|CapInh):\t(\w+)", ended.stdout) == ["0" * 16] * 3
    assert "NoNewPrivs:\t1" in ended.stdout


def test_the_calls_alone_are_refused(folder: Path) -> None:
    code = """
import sys
print(sandbox._give_up_privileges() and sandbox._refuse_calls())
for what in sys.argv[2:]:
    print(sandbox_jobs.attempt(what, sys.argv[1]))
"""
    whats = [what for what in FORBIDDEN if what != "user namespace"]
    holds, *answers = in_process(code, str(folder), *whats, "exec", *HARMLESS).stdout.splitlines()
    if holds == "False":
        pytest.skip(f"no seccomp filters here, or no numbers of system calls of {platform.machine()}")
    assert answers == ["EPERM"] * (len(whats) + 1) + ["done"] * len(HARMLESS)


def test_without_network_and_calls_there_is_no_sandbox() -> None:
    code = """
sandbox._leave_network = sandbox._refuse_calls = lambda: False
sandbox.enter_sandbox()
"""
    ended = in_process(code)
    assert ended.returncode == 1 and "EnvironmentProblem: this machine's kernel has neither" in ended.stderr


@pytest.mark.parametrize(
    ("column", "path"),
    [
        (0, Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")),
        (1, Path("/usr/include/asm-generic/unistd.h")),  # the numbers of aarch64
    ],
)
def test_numbers_of_system_calls_are_those_of_the_kernels_headers(column: int, path: Path) -> None:
    if not path.is_file():
        pytest.skip(f"{path} is not installed")
    numbers = dict(re.findall(r"#define\s+__NR(?:3264)?_(\w+)\s+(\d+)", path.read_text()))
    known = {name: call[column] for name, call in sandbox._DENIED.items() if name in numbers}
    assert known == {name: int(numbers[name]) for name in known}
    left_out = {name for name, call in sandbox._DENIED.items() if name not in numbers and call[column]}
    assert left_out <= {"fchmodat2"}  # younger than many headers


# Replays.


@pytest.fixture(scope="module")
def pool(mark: str) -> Iterator[Pool]:
    with Pool(sorted(os.sched_getaffinity(0))[:1], jobs_module="sandbox_jobs:handlers") as pool:
        yield pool
    assert left_processes(mark) == []


@pytest.mark.tvm
def test_a_trace_from_outside_gives_the_same_module_as_one_of_ours(pool: Pool) -> None:
    task = matmul_task(32)
    trace = default_trace_json(task)
    pairs = [(task.workload.mod_json, trace)] * 2
    (ours, *_) = replay_all(pool, pairs)
    assert isinstance(ours, str) and "nodes" in json.loads(ours)
    assert replay_all(pool, pairs, is_trusted=False) == [ours, ours]


@pytest.mark.tvm
def test_a_crash_costs_only_its_own_trace(pool: Pool) -> None:
    task = matmul_task(32)
    trace = default_trace_json(task)
    good = (task.workload.mod_json, trace)
    replayed = replay_all(pool, [good, ("fault:segfault", trace), good], is_trusted=False)
    assert isinstance(replayed[0], str) and replayed[2] == replayed[0]
    assert isinstance(replayed[1], ReplayFailure)
    assert replayed[1].kind is FailureKind.RUN and "SIGSEGV" in replayed[1].message


def test_what_a_child_that_was_taken_over_may_say_is_no_other_error(pool: Pool) -> None:
    pairs = [(f"say:{answer}", "[[], []]") for answer in ('{"kind": "evil"}', "[]", "null", '{"module": 1}')]
    for failure in replay_all(pool, pairs, is_trusted=False):
        assert isinstance(failure, ReplayFailure) and failure.kind is FailureKind.REPLAY
    with pytest.raises(FrameError):
        Decoder().feed((100_000).to_bytes(4, "big") + b"[" * 100_000)


@pytest.mark.tvm
def test_a_trace_that_names_foreign_code_is_refused_before_any_child_has_it(pool: Pool) -> None:
    task = matmul_task(32)
    instructions, decisions = json.loads(default_trace_json(task))
    block = instructions[0][3][0]
    instructions.append(["Annotate", [block, '"/tmp/evil.ll"'], ["pragma_import_llvm"], []])
    pair = (task.workload.mod_json, json.dumps([instructions, decisions]))
    (ours,) = replay_all(pool, [pair])
    assert isinstance(ours, str) and "pragma_import_llvm" in ours
    with Pool(sorted(os.sched_getaffinity(0))[:1], jobs_module="no_such_module:handlers") as unused:
        (theirs,) = replay_all(unused, [pair], is_trusted=False)
        assert unused.zygote_pid is None
    assert isinstance(theirs, ReplayFailure) and theirs.kind is FailureKind.REPLAY
    assert re.search(r"instruction \d+ \(Annotate\).*pragma_import_llvm", theirs.message)


@pytest.mark.tvm
def test_refused_and_good_traces_keep_their_places(pool: Pool) -> None:
    task = matmul_task(32)
    good, bad = default_trace_json(task), "[[], [[99, 1]]]"
    pairs = [(task.workload.mod_json, trace) for trace in (bad, good, "NaN", good, bad)]
    replayed = replay_all(pool, pairs, is_trusted=False)
    assert [isinstance(answer, ReplayFailure) for answer in replayed] == [True, False, True, False, True]
    assert replayed[1] == replayed[3]

"""What `tunewright doctor` looks at: checks that change nothing and answer in plain words."""

import importlib.metadata
import json
import os
import platform
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tunewright.core.errors import ConfigError, StoreBusyError, StoreError

TVM_PAIR = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1"}
TVM_CURE = "pip install " + " ".join(f"{name}=={version}" for name, version in TVM_PAIR.items())
SELF_TEST = (sys.executable, "-m", "tunewright.core.tvm_adapter.selftest")
RAY_TEST = (sys.executable, "-c", "import ray; print(ray.__version__)")
SANDBOX_TEST = (sys.executable, "-m", "tunewright.workers.sandbox")
CHILD_TIMEOUT_SECS = 30.0
LOG_TIMEOUT_SECS = 0.5
# What `tunewright.workers.sandbox` calls its layers.
SANDBOX_LAYERS = ("limits", "privileges", "network", "calls")
SANDBOX_CURE = "use a kernel with seccomp filters on x86_64 or aarch64, or replay only your own records"

GIB = 1 << 30
MIN_MEMORY_BYTES, MIN_DISK_BYTES, FULL_DISK_BYTES = 2 * GIB, 1 * GIB, GIB // 64
# Above these shares of the CPUs' time, repeated measurements of one kernel differ by more than a few percent.
MAX_STEAL_RATIO, MAX_BUSY_RATIO, MAX_STALL_RATIO = 0.02, 0.15, 0.05

# Vector extensions that LLVM emits on its own (AMX needs explicit intrinsics), as LLVM names them but without
# dashes, and those that /proc/cpuinfo spells differently.
_VECTOR_FEATURES = frozenset(
    "avx avx2 fma f16c gfni vaes vpclmulqdq avxvnni avx512f avx512bw avx512cd avx512dq avx512vl avx512vnni "
    "avx512ifma avx512vbmi avx512vbmi2 avx512bitalg avx512vpopcntdq avx512bf16 avx512fp16 "
    "neon dotprod fullfp16 i8mm sve sve2".split()
)
_CPUINFO_SPELLINGS = {
    "neon": "asimd",
    "dotprod": "asimddp",
    "fullfp16": "asimdhp",
}
_NOTABLE = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512vnni": "AVX-512 VNNI",
    "avxvnni": "AVX-VNNI",
    "avx512bf16": "AVX-512 BF16",
    "amxtile": "AMX",
    "neon": "NEON",
    "dotprod": "dot product",
    "sve": "SVE",
    "i8mm": "I8MM",
}


class Status(StrEnum):
    """`FAIL` means that nothing can be tuned before it is cured."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `cure` says what to do, and is empty where there is nothing to."""

    check: str
    status: Status
    message: str
    cure: str = ""


@dataclass(frozen=True, slots=True)
class ChildResult:
    """What a child process left: its exit status (None: it was killed after the time-out) and its output."""

    returncode: int | None
    stdout: str
    stderr: str

    @property
    def death(self) -> str:
        """How it ended, in words."""
        if self.returncode is None:
            return "did not end in time and was killed"
        if self.returncode < 0:
            return f"crashed with {signal.Signals(-self.returncode).name}"
        last_line = (self.stderr.strip().splitlines() or ["no message"])[-1]
        return f"ended with exit code {self.returncode} ({last_line[:200]})"


def start_child(command: Sequence[str]) -> subprocess.Popen[str]:
    """Start a command whose death, of whatever kind, leaves this process as it is."""
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )


def end_child(child: subprocess.Popen[str], *, timeout_secs: float = CHILD_TIMEOUT_SECS) -> ChildResult:
    """Wait for a child; kill it when its time is up."""
    try:
        stdout, stderr = child.communicate(timeout=timeout_secs)
    except subprocess.TimeoutExpired:
        child.kill()
        stdout, stderr = child.communicate()
        return ChildResult(None, stdout, stderr)
    return ChildResult(child.returncode, stdout, stderr)


# ---- the compiler


def check_tvm(self_test: ChildResult, *, cpuinfo: str, environ: Mapping[str, str]) -> list[Finding]:
    """The compiler pair, the CPU that code is generated for, and TVM's threads, from the child's report."""
    installed = {name: _version(name) for name in TVM_PAIR}
    pair = f"TVM {installed['apache-tvm']} with tvm-ffi {installed['apache-tvm-ffi']}"
    if self_test.returncode != 0:
        message = f"{pair}: the self-test (build, JSON, run) {self_test.death}"
        return [Finding("compiler", Status.FAIL, message, TVM_CURE)]
    report = json.loads(self_test.stdout)
    found = f"{pair} builds and runs a kernel; LLVM {report['llvm']}"
    if installed != TVM_PAIR:
        found += ", but this is not the pair that Tunewright was tested with"
        compiler = Finding("compiler", Status.WARN, found, TVM_CURE)
    else:
        compiler = Finding("compiler", Status.OK, found)
    return [
        compiler,
        check_cpu_features(report["mcpu"], report["features"], cpuinfo),
        check_threads(report["default_num_threads"], os.cpu_count() or 1, environ),
    ]


def check_cpu_features(mcpu: str, llvm_features: Iterable[str], cpuinfo: str) -> Finding:
    """Does this machine have what the CPU name implies? A hypervisor may hide what LLVM then uses."""
    implied = {_plain(name): name for name in llvm_features}
    present = _cpuinfo_features(cpuinfo)
    notable = [label for name, label in _NOTABLE.items() if name in implied and _spelling(name) in present]
    missing = sorted(
        name
        for plain, name in implied.items()
        if plain in _VECTOR_FEATURES and _spelling(plain) not in present
    )
    model = _cpuinfo_field(cpuinfo, "model name") or platform.machine()
    message = f"{model}: code is generated for {mcpu}" + (f" ({', '.join(notable)})" if notable else "")
    if missing:
        without = ",".join(f"-{name}" for name in missing)
        cure = f"tune with --target 'llvm -mcpu={mcpu} -mattr={without}'"
        message += f", which implies {', '.join(missing)}: this machine lacks it, kernels may crash (SIGILL)"
        return Finding("cpu", Status.WARN, message, cure)
    if "amxtile" in implied and "amxtile" not in present:
        message += "; its AMX is hidden from this machine, and not used"
    return Finding("cpu", Status.OK, message)


def check_threads(tvm_default: int, num_cpus: int, environ: Mapping[str, str]) -> Finding:
    """TVM alone takes half the CPUs. Tunewright always says how many; who runs the model must know."""
    names = ("TVM_NUM_THREADS", "OMP_NUM_THREADS")
    seen = ", ".join(f"{name}={environ[name]}" for name in names if environ.get(name))
    message = f"TVM alone would use {tvm_default} of {num_cpus} CPUs ({seen or 'nothing is set'}); "
    message += "Tunewright sets threads and affinity for each measurement"
    return Finding("threads", Status.OK, message)


def _plain(name: str) -> str:
    return name.replace("-", "").replace("_", "").replace(".", "")


def _spelling(plain: str) -> str:
    return _CPUINFO_SPELLINGS.get(plain, plain)


def _cpuinfo_field(cpuinfo: str, *names: str) -> str:
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in names:
            return value.strip()
    return ""


def _cpuinfo_features(cpuinfo: str) -> frozenset[str]:
    return frozenset(map(_plain, _cpuinfo_field(cpuinfo, "flags", "Features").split()))


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


# ---- the machine


@dataclass(frozen=True, slots=True)
class CpuSample:
    """Counters since the start: ticks of some CPUs, microseconds in which some program waited for a CPU."""

    busy: int
    steal: int
    total: int
    stalled_usecs: int
    taken_at: float


def sample_cpus(cpus: Iterable[int]) -> CpuSample:
    """Read the counters of these CPUs. The machine's pressure counts all of them."""
    wanted = {f"cpu{cpu}" for cpu in cpus}
    busy = steal = total = 0
    for line in read_text("/proc/stat").splitlines():
        name, *fields = line.split()
        if name in wanted:
            # user nice system idle iowait irq softirq steal (guest is part of user)
            ticks = [int(field) for field in fields[:8]]
            busy += sum(ticks) - ticks[3] - ticks[4] - ticks[7]
            steal += ticks[7]
            total += sum(ticks)
    pressure = read_text("/proc/pressure/cpu").partition("\n")[0].rpartition("total=")[2]
    return CpuSample(busy, steal, total, int(pressure or 0), time.monotonic())


def check_load(before: CpuSample, after: CpuSample) -> Finding:
    """Who else uses the CPUs: other programs, or other guests of the same host (steal)."""
    ticks = max(after.total - before.total, 1)
    busy_ratio = (after.busy - before.busy) / ticks
    steal_ratio = (after.steal - before.steal) / ticks
    elapsed_usecs = max((after.taken_at - before.taken_at) * 1e6, 1.0)
    stall_ratio = (after.stalled_usecs - before.stalled_usecs) / elapsed_usecs
    message = (
        f"other programs use {busy_ratio:.0%} of the CPU time, other virtual machines take {steal_ratio:.0%} "
        f"(steal), programs wait for a CPU {stall_ratio:.0%} of the time"
    )
    if steal_ratio > MAX_STEAL_RATIO:
        cure = "times will vary: use a machine with CPUs of its own, or a longer budget"
        return Finding("load", Status.WARN, message, cure)
    if busy_ratio > MAX_BUSY_RATIO or stall_ratio > MAX_STALL_RATIO:
        return Finding("load", Status.WARN, message, "times will vary: stop other programs while tuning")
    return Finding("load", Status.OK, message)


def check_cpus(num_cpus: int, num_available: int, *, quota_cpus: float | None, smt: str) -> Finding:
    """How many CPUs this process may use. `smt`: text of /sys/devices/system/cpu/smt/active, or ""."""
    hyper_threads = {"1": "hyper-threads are on", "0": "hyper-threads are off"}.get(smt, "SMT is unknown")
    message = f"{num_available} of {num_cpus} CPUs may be used; {hyper_threads}"
    if quota_cpus is not None and quota_cpus < num_available:
        message += f"; a quota allows {quota_cpus:g} CPUs of time"
        cure = "a quota stops kernels in the middle of a measurement: give the container whole CPUs (cpuset)"
        return Finding("cpus", Status.WARN, message, cure)
    if num_available < 2:
        cure = "search and builds have to share the only CPU with the measurements: allow two or more"
        return Finding("cpus", Status.WARN, message, cure)
    return Finding("cpus", Status.OK, message)


def cpu_quota(cpu_max: str) -> float | None:
    """CPUs' worth of time that a control group's `cpu.max` allows, None where it sets no limit."""
    limit, _, period = cpu_max.partition(" ")
    return int(limit) / int(period) if limit.isdigit() and period.isdigit() else None


def check_governor(governor: str) -> Finding:
    """The frequency governor; a virtual machine shows none."""
    if governor in ("powersave", "ondemand", "conservative"):
        cure = "cpupower frequency-set -g performance"
        return Finding("governor", Status.WARN, f"the frequency governor is {governor}: times drift", cure)
    return Finding("governor", Status.OK, f"the frequency governor is {governor or 'not visible'}")


def check_memory(available_bytes: int) -> Finding:
    """Each build and each measurement is a process of its own, of 0.3 to 1 GB."""
    message = f"{available_bytes / GIB:.1f} GiB of memory are free"
    if available_bytes < MIN_MEMORY_BYTES:
        cure = f"close programs: {MIN_MEMORY_BYTES // GIB} GiB are needed"
        return Finding("memory", Status.WARN, message, cure)
    return Finding("memory", Status.OK, message)


def check_disk(what: str, folder: Path) -> Finding:
    """Space and the right to write in the first existing parent of `folder`."""
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    free_bytes = shutil.disk_usage(existing).free
    message = f"{free_bytes / GIB:.1f} GiB are free in {existing} ({what})"
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding("disk", Status.FAIL, f"{existing} ({what}) cannot be written", "choose another folder")
    if free_bytes < MIN_DISK_BYTES:
        cure = f"free some space: {MIN_DISK_BYTES // GIB} GiB are enough"
        return Finding("disk", Status.FAIL if free_bytes < FULL_DISK_BYTES else Status.WARN, message, cure)
    return Finding("disk", Status.OK, message)


# ---- Ray, the sandbox and the log


def check_ray(import_test: ChildResult, environ: Mapping[str, str], home: Path) -> Finding:
    """Is Ray there for `--cluster`, and how will it authenticate? The token itself is never read."""
    if import_test.returncode != 0:
        message = f"Ray cannot be imported ({import_test.death}): --cluster does not work, local tuning does"
        return Finding("ray", Status.WARN, message, "pip install ray")
    mode = environ.get("RAY_AUTH_MODE", "")
    token_path = Path(environ.get("RAY_AUTH_TOKEN_PATH", "") or home / ".ray" / "auth_token")
    message = f"Ray {import_test.stdout.strip()}; "
    if mode == "disabled":
        return Finding("ray", Status.OK, message + "token authentication is disabled (RAY_AUTH_MODE)")
    if environ.get("RAY_AUTH_TOKEN"):
        return Finding("ray", Status.OK, message + "authenticates with the token of RAY_AUTH_TOKEN")
    if token_path.is_file():
        return Finding("ray", Status.OK, message + f"authenticates with the token in {token_path}")
    existing = next(path for path in token_path.parents if path.is_dir())
    if os.access(existing, os.W_OK):
        return Finding("ray", Status.OK, message + f"a local cluster will make its token in {token_path}")
    message += f"no token, and {token_path} cannot be written"
    return Finding("ray", Status.WARN, message, "set RAY_AUTH_TOKEN_PATH to a file that can be written")


def check_sandbox(sandbox_test: ChildResult) -> Finding:
    """Which layers stop a child that replays records from outside."""
    layers = sandbox_test.stdout.split()
    if sandbox_test.returncode != 0:
        message = f"records from outside cannot be replayed: the sandbox's test {sandbox_test.death}"
        return Finding("sandbox", Status.WARN, message, SANDBOX_CURE)
    message = f"records from outside are replayed within {', '.join(layers)}"
    missing = [layer for layer in SANDBOX_LAYERS if layer not in layers]
    if missing:
        message += f"; missing here: {', '.join(missing)}"
    # Refused calls are enough alone; without them, a child that was taken over could delete files.
    if "calls" in missing:
        return Finding("sandbox", Status.WARN, message, SANDBOX_CURE)
    return Finding("sandbox", Status.OK, message)


def check_log(url: str) -> list[Finding]:
    """Can the log be opened, at which schema, and is its SQLite safe? Makes and changes nothing."""
    # SQLAlchemy takes 0.3 s to import, which `--help` need not pay for.
    from tunewright.tuning_logs.engine import journal_mode, make_engine
    from tunewright.tuning_logs.place import Place
    from tunewright.tuning_logs.schema import HEAD_REVISION, current_revision
    from tunewright.tuning_logs.store_errors import store_errors

    try:
        place = Place.from_url(url)
    except ConfigError as error:
        return [Finding("log", Status.FAIL, str(error))]
    if place.server is not None:
        return [_check_server(url, str(place))]
    mode = journal_mode(sqlite3.sqlite_version_info)
    sqlite = f"SQLite {sqlite3.sqlite_version} in journal mode {mode}"
    if mode != "WAL":
        sqlite += " (its WAL mode can lose pages and is not used)"
    if place.path is None:
        return [Finding("log", Status.OK, f"in memory, lost at the end; {sqlite}")]
    disk = check_disk("tuning log", place.path.parent)
    if not place.path.exists():
        return [Finding("log", Status.OK, f"{place.path} will be made by the first session; {sqlite}"), disk]
    engine = make_engine(place, read_only=True, busy_timeout_secs=LOG_TIMEOUT_SECS)
    try:
        with store_errors(place, busy_timeout_secs=LOG_TIMEOUT_SECS), engine.begin() as connection:
            revision = current_revision(connection)
    except StoreBusyError as error:
        return [Finding("log", Status.WARN, str(error)), disk]
    except StoreError as error:
        return [Finding("log", Status.FAIL, str(error)), disk]
    finally:
        engine.dispose()
    return [schema_finding(place.path, revision, HEAD_REVISION, sqlite), disk]


def _check_server(url: str, place: str) -> Finding:
    from tunewright.tuning_logs import schema_revisions

    try:
        revision, head = schema_revisions(url, busy_timeout_secs=LOG_TIMEOUT_SECS)
    except (ConfigError, StoreError) as error:
        return Finding("log", Status.FAIL, str(error))
    if revision is None:
        return Finding("log", Status.OK, f"{place} holds no tuning log yet: the first session makes it")
    if revision > head:
        message = f"{place} was written by a newer Tunewright (schema {revision}, this one knows {head})"
        return Finding("log", Status.FAIL, message, "upgrade Tunewright, or name another log with --log")
    return Finding("log", Status.OK, f"{place} at schema {revision}")


def schema_finding(path: Path, revision: str | None, head: str, sqlite: str) -> Finding:
    """What this program can do with a log of schema `revision` (None: a database without a log)."""
    if revision is not None and revision > head:
        message = f"{path} was written by a newer Tunewright (schema {revision}, this one knows {head})"
        return Finding("log", Status.FAIL, message, "upgrade Tunewright, or name another log with --log")
    if not os.access(path, os.W_OK):
        message = f"{path} cannot be written: what it holds can be used, nothing can be added"
        return Finding("log", Status.FAIL, message, "make it writable, or name another log with --log")
    if revision is None:
        return Finding("log", Status.OK, f"{path} holds no tuning log yet; {sqlite}")
    upgrade = "" if revision == head else f" (the next session upgrades it to {head} and keeps a copy)"
    return Finding("log", Status.OK, f"{path} at schema {revision}{upgrade}; {sqlite}")


# ---- all of it


def diagnose(
    log_url: str,
    *,
    environ: Mapping[str, str],
    self_test: Sequence[str] = SELF_TEST,
    sample_secs: float = 0.7,
) -> list[Finding]:
    """Every finding about this machine; takes `sample_secs`, then two or three seconds for the children."""
    import psutil

    cpus = os.sched_getaffinity(0)
    before = sample_cpus(cpus)
    time.sleep(sample_secs)
    load = check_load(before, sample_cpus(cpus))
    compiler, ray, sandbox = start_child(self_test), start_child(RAY_TEST), start_child(SANDBOX_TEST)
    storage = [*check_log(log_url), check_disk("temporary files", Path(tempfile.gettempdir()))]
    return [
        *check_tvm(end_child(compiler), cpuinfo=read_text("/proc/cpuinfo"), environ=environ),
        check_cpus(
            os.cpu_count() or 1,
            len(cpus),
            quota_cpus=cpu_quota(read_text("/sys/fs/cgroup/cpu.max")),
            smt=read_text("/sys/devices/system/cpu/smt/active"),
        ),
        load,
        check_governor(read_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        check_memory(psutil.virtual_memory().available),
        check_ray(end_child(ray), environ, Path.home()),
        check_sandbox(end_child(sandbox)),
        *storage,
    ]


def read_text(path: str) -> str:
    """The text of a file of /proc or /sys, "" where this kernel has none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""

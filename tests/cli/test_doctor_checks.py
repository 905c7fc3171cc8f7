"""Each check of `doctor` on machines that are described by the texts of their /proc, and on this one."""

import os
import sqlite3
import sys
import time
from pathlib import Path

import pytest

from tunewright.cli.doctor_checks import (
    SANDBOX_LAYERS,
    SANDBOX_TEST,
    TVM_CURE,
    TVM_PAIR,
    ChildResult,
    CpuSample,
    Finding,
    Status,
    check_cpu_features,
    check_cpus,
    check_disk,
    check_governor,
    check_load,
    check_log,
    check_memory,
    check_ray,
    check_sandbox,
    check_threads,
    check_tvm,
    cpu_quota,
    end_child,
    sample_cpus,
    schema_finding,
    start_child,
)
from tunewright.tuning_logs import TuningLog
from tunewright.tuning_logs.schema import HEAD_REVISION
from tunewright.workers.sandbox import Layer

XEON = "model name\t: Intel Xeon\nflags\t\t: fpu sse4_2 fma avx avx2 f16c avx512f avx512_vnni avx_vnni\n"
XEON_FEATURES = ["sse4.2", "fma", "avx", "avx2", "f16c", "avx512f", "avx512vnni", "avxvnni", "64bit"]
SEGFAULT = "import ctypes; ctypes.string_at(0)"


def child(code: str, *, timeout_secs: float = 30.0) -> Finding:
    """What the compiler check says of a self-test that runs this code."""
    result = end_child(start_child([sys.executable, "-c", code]), timeout_secs=timeout_secs)
    (finding,) = check_tvm(result, cpuinfo=XEON, environ={})
    return finding


def test_a_self_test_that_segfaults_is_one_line_with_the_cure() -> None:
    finding = child(SEGFAULT)
    assert finding.status is Status.FAIL
    assert "crashed with SIGSEGV" in finding.message
    assert finding.cure == TVM_CURE
    assert "apache-tvm-ffi==0.1.14.post1" in TVM_CURE


def test_a_self_test_that_cannot_import_tvm_says_so() -> None:
    finding = child("raise ImportError('undefined symbol: TVMFFIFoo')")
    assert finding.status is Status.FAIL
    assert "undefined symbol: TVMFFIFoo" in finding.message


def test_a_self_test_that_hangs_is_killed() -> None:
    finding = child("import time; time.sleep(600)", timeout_secs=0.3)
    assert finding.status is Status.FAIL
    assert "was killed" in finding.message


def test_the_pair_is_the_one_that_is_required() -> None:
    pyproject = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    for name, version in TVM_PAIR.items():
        assert f'"{name}=={version}"' in pyproject


def test_a_cpu_with_all_that_its_name_implies_is_ok() -> None:
    finding = check_cpu_features("cascadelake", XEON_FEATURES, XEON)
    assert finding.status is Status.OK
    assert "AVX-512 VNNI" in finding.message


def test_a_vector_extension_hidden_by_the_hypervisor_is_named_with_the_target_to_use() -> None:
    hidden = XEON.replace(" avx512f avx512_vnni", "")
    finding = check_cpu_features("cascadelake", XEON_FEATURES, hidden)
    assert finding.status is Status.WARN
    assert finding.cure.endswith("-mcpu=cascadelake -mattr=-avx512f,-avx512vnni'")


def test_hidden_amx_is_mentioned_but_harmless() -> None:
    finding = check_cpu_features("emeraldrapids", [*XEON_FEATURES, "amx-tile"], XEON)
    assert finding.status is Status.OK
    assert "AMX is hidden" in finding.message


def test_arm_spells_its_features_differently() -> None:
    cpuinfo = "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp sve i8mm\n"
    finding = check_cpu_features("neoverse-v1", ["neon", "dotprod", "sve", "i8mm", "fullfp16"], cpuinfo)
    assert finding.status is Status.OK
    assert "NEON, dot product, SVE, I8MM" in finding.message


def test_threads_name_what_the_environment_says() -> None:
    finding = check_threads(2, 4, {"OMP_NUM_THREADS": "1", "TVM_NUM_THREADS": ""})
    assert "2 of 4 CPUs (OMP_NUM_THREADS=1)" in finding.message


@pytest.mark.parametrize(
    ("busy", "steal", "stalled_usecs", "status"),
    [(5, 0, 0, Status.OK), (50, 0, 0, Status.WARN), (0, 10, 0, Status.WARN), (0, 0, 200_000, Status.WARN)],
)
def test_load_is_the_difference_of_two_samples(
    busy: int, steal: int, stalled_usecs: int, status: Status
) -> None:
    before = CpuSample(busy=1000, steal=500, total=10_000, stalled_usecs=7, taken_at=10.0)
    after = CpuSample(1000 + busy, 500 + steal, 10_100, 7 + stalled_usecs, taken_at=11.0)
    finding = check_load(before, after)
    assert finding.status is status
    assert f"{busy}% of the CPU time" in finding.message
    assert f"take {steal}%" in finding.message


def test_counters_of_this_machine_grow_while_it_works() -> None:
    cpus = os.sched_getaffinity(0)
    before = sample_cpus(cpus)
    started = time.process_time()
    while time.process_time() - started < 0.1:
        pass
    after = sample_cpus(cpus)
    assert after.total > before.total > 0
    assert after.busy > before.busy
    assert after.taken_at > before.taken_at


def test_cpus_quota_and_single_cpu() -> None:
    assert check_cpus(8, 4, quota_cpus=None, smt="1").status is Status.OK
    assert "4 of 8" in check_cpus(8, 4, quota_cpus=None, smt="1").message
    assert check_cpus(8, 8, quota_cpus=1.5, smt="0").status is Status.WARN
    assert check_cpus(8, 1, quota_cpus=None, smt="").status is Status.WARN
    assert cpu_quota("150000 100000") == 1.5
    assert cpu_quota("max 100000") is None
    assert cpu_quota("") is None


def test_memory_and_governor() -> None:
    assert check_memory(8 << 30).status is Status.OK
    assert check_memory(1 << 30).status is Status.WARN
    assert check_governor("powersave").status is Status.WARN
    assert "not visible" in check_governor("").message


def test_disk_looks_at_the_first_folder_that_exists(tmp_path: Path) -> None:
    finding = check_disk("tuning log", tmp_path / "not" / "yet")
    assert str(tmp_path) in finding.message
    assert "not/yet" not in finding.message


def test_a_full_disk_fails() -> None:
    # /proc reports no free space, as a full disk does.
    finding = check_disk("tuning log", Path("/proc"))
    assert finding.status is Status.FAIL


def test_ray_tells_where_its_token_comes_from_and_never_the_token(tmp_path: Path) -> None:
    imported = end_child(start_child([sys.executable, "-c", "print('2.60.0')"]))
    secret = tmp_path / ".ray" / "auth_token"
    secret.parent.mkdir()
    secret.write_text("top-secret")
    from_file = check_ray(imported, {}, tmp_path)
    assert str(secret) in from_file.message
    from_variable = check_ray(imported, {"RAY_AUTH_TOKEN": "top-secret"}, tmp_path)
    assert "RAY_AUTH_TOKEN" in from_variable.message
    assert "top-secret" not in from_file.message + from_variable.message
    assert "disabled" in check_ray(imported, {"RAY_AUTH_MODE": "disabled"}, tmp_path).message
    broken = end_child(start_child([sys.executable, "-c", "import no_such_ray"]))
    assert check_ray(broken, {}, tmp_path).status is Status.WARN


def test_the_sandbox_says_which_layers_hold() -> None:
    all_of_them = check_sandbox(ChildResult(0, "limits\nprivileges\nnetwork\ncalls\n", ""))
    assert (all_of_them.status, all_of_them.cure) == (Status.OK, "")
    assert "within limits, privileges, network, calls" in all_of_them.message
    in_a_container = check_sandbox(ChildResult(0, "limits\nprivileges\ncalls\n", ""))
    assert in_a_container.status is Status.OK and "missing here: network" in in_a_container.message
    without_calls = check_sandbox(ChildResult(0, "limits\nprivileges\nnetwork\n", ""))
    assert without_calls.status is Status.WARN and "seccomp" in without_calls.cure
    nothing = check_sandbox(ChildResult(1, "", "tunewright.core.errors.EnvironmentProblem: no sandbox\n"))
    assert nothing.status is Status.WARN and "EnvironmentProblem: no sandbox" in nothing.message


@pytest.mark.slow
def test_the_sandbox_is_tried_on_this_machine() -> None:
    result = end_child(start_child(SANDBOX_TEST))
    assert result.returncode == 0, result.stderr
    assert set(result.stdout.split()) <= set(SANDBOX_LAYERS) == {layer.value for layer in Layer}


def test_a_log_that_is_not_there_yet_is_fine_and_is_not_made(tmp_path: Path) -> None:
    log, disk = check_log(f"sqlite:///{tmp_path}/logs/tuning.db")
    assert (log.status, disk.check) == (Status.OK, "disk")
    assert "made by the first session" in log.message
    assert sqlite3.sqlite_version in log.message
    assert not list(tmp_path.iterdir())


def test_a_log_says_its_schema_and_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "tuning.db"
    TuningLog.open(f"sqlite:///{path}").close()
    content = path.read_bytes()
    log = check_log(f"sqlite:///{path}")[0]
    assert log.status is Status.OK
    assert f"at schema {HEAD_REVISION}" in log.message
    assert path.read_bytes() == content


def test_a_file_that_is_no_log_fails_with_a_cure(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database " * 100)
    log = check_log(f"sqlite:///{path}")[0]
    assert log.status is Status.FAIL
    assert "not an SQLite database" in log.message
    assert check_log("nonsense")[0].status is Status.FAIL


def test_a_log_in_use_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "tuning.db"
    TuningLog.open(f"sqlite:///{path}").close()
    with sqlite3.connect(path, isolation_level=None) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        log = check_log(f"sqlite:///{path}")[0]
    writer.close()
    assert log.status is Status.WARN
    assert "locked" in log.message


def test_schemas_of_other_versions(tmp_path: Path) -> None:
    path = tmp_path / "tuning.db"
    path.touch()
    newer = schema_finding(path, "0007", "0002", "SQLite")
    assert newer.status is Status.FAIL
    assert "newer Tunewright (schema 0007" in newer.message
    older = schema_finding(path, "0001", "0002", "SQLite")
    assert older.status is Status.OK
    assert "upgrades it to 0002" in older.message
    assert "no tuning log yet" in schema_finding(path, None, "0002", "SQLite").message

"""`tunewright gate` with nothing made up: real kernels and models, to every verdict and status."""

import json
import os
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.gate.compiled import DEFAULT, PLAIN, PLAIN_AGAIN, compiled_net, make_log, trace_of
from tests.gate.junit_rules import junit_problems
from tests.gate.repository import Repository
from tests.workers.workloads import matmul_task
from tunewright.cli.app import main
from tunewright.gate.results import RunKind, read_run, write_run
from tunewright.scheduler.manifest import LIBRARY_FILE, read_manifest

pytestmark = [pytest.mark.tvm, pytest.mark.slow]

# What a first look needs at least, and more for a moment in which the machine is disturbed.
LOOKS = "looks = [9, 15, 30, 50]"
# Samples this short are noisy, and plain loops take several times as long as the default schedule.
QUICK = f'{LOOKS}\nsample_ms = 1\nmin_effect = "50%"\nmin_cost = 0\n'


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "160")
    for name in ("TUNEWRIGHT_LOG", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled_net(tmp_path_factory.mktemp("net"), "net")


def gate(*args: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["gate", *map(str, args)])
    return int(caught.value.code or 0)


def write_suite(*entries: str, settings: str = QUICK) -> None:
    Path("gate.toml").write_text("\n".join([settings, *entries]))


def kernels(base: str, head: str, name: str = "kernels") -> str:
    return f'[[kernels]]\nname = "{name}"\nbase = "{base}"\nhead = "{head}"\n'


def model(base: Path, head: Path, name: str) -> str:
    return f'[[model]]\nname = "{name}"\nbase = "{base}"\nhead = "{head}"\n'


def verdicts(path: str) -> Mapping[str, str]:
    return {one["name"]: one["verdict"] for one in json.loads(Path(path).read_text())["results"]}


def logs_of(base: Mapping[int, str], head: Mapping[int, str]) -> tuple[str, str]:
    """Logs with a champion for each size of a square product, by its kind of schedule."""
    for name, champions in (("base.db", base), ("head.db", head)):
        make_log(
            Path(name), *((matmul_task(n), trace_of(matmul_task(n), kind)) for n, kind in champions.items())
        )
    return "base.db", "head.db"


def test_a_regression_and_every_other_verdict_beside_it_is_status_1(net: Path) -> None:
    base, head = logs_of({64: DEFAULT, 48: PLAIN, 32: PLAIN}, {64: PLAIN, 48: DEFAULT, 24: DEFAULT})
    make_log(Path("again.db"), (matmul_task(40), trace_of(matmul_task(40), PLAIN)))
    make_log(Path("plain.db"), (matmul_task(40), trace_of(matmul_task(40), PLAIN_AGAIN)))
    truncated = damaged(net, Path("truncated"), lambda library: library[:1000])
    write_suite(
        kernels(base, head), kernels("again.db", "plain.db", "alike"), model(net, truncated, "damaged")
    )
    assert gate("run", "--suite", "gate.toml", "--json", "r.json", "--junit", "r.xml") == 1
    assert verdicts("r.json") == {
        "damaged": "error",
        "kernels: matmul64": "regressed",
        "kernels: matmul48": "improved",
        "kernels: matmul24": "missing",
        "kernels: matmul32": "missing",
        "alike: matmul40": "same",
    }
    assert junit_problems(Path("r.xml").read_text()) == []
    (suite,) = ElementTree.parse("r.xml").getroot()
    assert [suite.get(kind) for kind in ("tests", "failures", "errors", "skipped")] == ["6", "1", "1", "2"]


def test_faster_and_as_fast_as_before_are_status_0() -> None:
    base, head = logs_of({48: PLAIN, 40: PLAIN}, {48: DEFAULT, 40: PLAIN_AGAIN})
    write_suite(kernels(base, head))
    assert gate("run", "--suite", "gate.toml", "--json", "r.json") == 0
    assert verdicts("r.json") == {"matmul48": "improved", "matmul40": "same"}


def test_mistakes_are_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    write_suite(kernels("none.db", "none.db"))
    assert gate("run", "--suite", "gate.toml") == 2
    write_suite(settings='min_effect = "much"')
    assert gate("run", "--suite", "gate.toml") == 2
    assert "min_effect is 'much'" in capsys.readouterr().err


def test_what_does_not_run_here_is_status_3(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A truncated library, code for another CPU, and a calibration of another machine."""
    truncated = damaged(net, Path("truncated"), lambda library: library[:1000])
    foreign = Path("foreign")
    shutil.copytree(net, foreign)
    manifest = read_manifest(foreign)
    features = (*manifest.cpu_features, "avx9000")
    replace(manifest, target=replace(manifest.target, mcpu="later"), cpu_features=features).write(foreign)
    # Other bytes, so that it is timed.
    (foreign / LIBRARY_FILE).write_bytes((net / LIBRARY_FILE).read_bytes() + b"\0")
    write_suite(model(net, truncated, "truncated"), model(foreign, net, "foreign"))
    assert gate("run", "--suite", "gate.toml", "--json", "r.json") == 3
    assert verdicts("r.json") == {"truncated": "error", "foreign": "error"}
    out = capsys.readouterr().out
    assert "head (truncated): " in out
    assert "base (foreign): " in out and "this CPU lacks avx9000" in out

    base, head = logs_of({64: DEFAULT}, {64: PLAIN})
    write_suite(kernels(base, head))
    assert gate("calibrate", "--suite", "gate.toml", "--experiments", "1", "-o", "noise.json") == 0
    calibrated = read_run(Path("noise.json"), kind=RunKind.CALIBRATION)
    machine = replace(calibrated.machine, cpu_model="Another CPU")
    write_run(replace(calibrated, machine=machine), Path("noise.json"))
    write_suite(kernels(base, head), settings=f'{QUICK}calibration = "noise.json"')
    assert gate("run", "--suite", "gate.toml") == 3
    assert "was measured on Another CPU" in capsys.readouterr().err


def test_pairs_that_cannot_decide_are_status_4() -> None:
    """The least p-value of nine pairs is 1 in 512: at this alpha they say nothing, however far apart."""
    base, head = logs_of({64: DEFAULT}, {64: PLAIN})
    undecidable = QUICK.replace(LOOKS, "looks = [9]\nalpha = 0.0001")
    write_suite(kernels(base, head), settings=undecidable)
    assert gate("run", "--suite", "gate.toml", "--json", "r.json") == 4
    assert verdicts("r.json") == {"matmul64": "inconclusive"}
    fields = json.loads(Path("r.json").read_text())
    fields["run"]["inconclusive_fails"] = False
    Path("r.json").write_text(json.dumps(fields))
    assert gate("report", "r.json") == 0


def test_nothing_in_common_is_status_5_and_the_same_on_both_sides_is_not_timed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    base, head = logs_of({64: DEFAULT}, {32: DEFAULT})
    assert gate("compare", base, head, "--json", "r.json") == 5
    assert set(verdicts("r.json").values()) == {"missing"}
    assert gate("compare", base, head, "--task", "conv*") == 5
    assert "nothing was compared" in capsys.readouterr().out
    assert gate("compare", base, base) == 0
    assert "nothing was timed: both sides are the same" in capsys.readouterr().out
    assert gate("compare", base, "none.db") == 2


def test_files_of_other_versions_are_status_6(capsys: pytest.CaptureFixture[str]) -> None:
    base, head = logs_of({64: DEFAULT}, {64: PLAIN})
    with sqlite3.connect(head) as connection:
        connection.execute("UPDATE tw_alembic_version SET version_num = '0999'")
    connection.close()
    assert gate("compare", base, head) == 6
    assert "written by a newer" in capsys.readouterr().err
    Path("r.json").write_text('{"schema": "tunewright-gate/99"}')
    assert gate("report", "r.json") == 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_is_ended_while_base_is_built_leaves_nothing(number: int, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "project")
    here = "$TUNEWRIGHT_GATE_SUITE"
    build = f"echo $PWD > {here}/base; test $PWD = {here} || exec tail -f /dev/null"
    suite = repository.folder / "gate.toml"
    suite.write_text(f"build = '{build}'\n[[model]]\nhead = 'net'")
    repository.commit()
    os.mkfifo(repository.folder / "base")
    reading = os.open(repository.folder / "base", os.O_RDWR)  # its own writer, so that others come and go
    command = [
        *(sys.executable, "-m", "tunewright", "gate", "run"),
        "--suite",
        str(suite),
        "--baseline",
        "HEAD",
    ]
    child = subprocess.Popen(command, stderr=subprocess.PIPE)
    places = b""
    while places.count(b"\n") < 2:
        assert select.select([reading], [], [], 120)[0]
        places += os.read(reading, 4096)
    os.close(reading)
    checkout = Path(places.decode().splitlines()[1])
    assert checkout.is_dir() and repository.num_worktrees == 2
    child.send_signal(number)
    child.communicate(timeout=60)
    assert child.returncode not in range(7)
    assert not checkout.exists() and repository.num_worktrees == 1


def damaged(folder: Path, copy: Path, change: Callable[[bytes], bytes]) -> Path:
    shutil.copytree(folder, copy)
    library = copy / LIBRARY_FILE
    library.write_bytes(change(library.read_bytes()))
    return copy

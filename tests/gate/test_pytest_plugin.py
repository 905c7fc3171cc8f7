"""The fixture `gate`, in suites as a team would write them."""

import importlib.metadata
import json
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests.gate.compiled import DEFAULT, PLAIN, PLAIN_AGAIN, compiled_net, make_log, trace_of
from tests.gate.fakes import FakeTimer
from tests.gate.manifests import make_folder
from tests.gate.repository import Repository
from tests.workers.workloads import matmul_task
from tunewright.cli.app import main
from tunewright.gate import measure
from tunewright.gate.results import RunKind, read_run, results_of

pytest_plugins = ["pytester"]
pytestmark = [pytest.mark.tvm, pytest.mark.slow]

PLUGIN = "tunewright.gate.pytest_plugin"
EFFECTS = {"same": 0.0, "slower": 0.1, "faster": -0.1}
QUICK = 'looks = [9, 15, 30, 50]\nsample_ms = 1\nmin_effect = "50%"\n'


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("TUNEWRIGHT_LOG", raising=False)
    # A run in this process forgets the modules that it was the first to import; TVM cannot be imported twice.
    import tunewright.core.tvm_adapter
    import tunewright.gate.checks  # noqa: F401

    # Wide enough for whole lines of the short summary.
    monkeypatch.setenv("COLUMNS", "400")


class Machine(FakeTimer):
    """Knows items by the names of their heads."""

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def time_pairs(self, pair, *, num_pairs, rng):  # type: ignore[no-untyped-def]
        return super().time_pairs(
            measure.ModelPair(pair.head.name, pair.base, pair.head), num_pairs=num_pairs, rng=rng
        )


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(EFFECTS)
    monkeypatch.setattr(measure, "LocalTimer", lambda sample_secs: machine)
    return machine


def plugin_options() -> list[str]:
    """Where Tunewright is installed, pytest knows the plugin."""
    points = importlib.metadata.entry_points(group="pytest11")
    return [] if any(point.value == PLUGIN for point in points) else ["-p", PLUGIN]


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess(*plugin_options(), *args)


def folders(names: Sequence[str]) -> None:
    for name in names:
        for side in ("base", "head"):
            make_folder(Path(side, name), library=side.encode())


THREE = """
    import pytest

    @pytest.mark.parametrize("name", ["same", "slower", "faster"])
    def test_speed(gate, name):
        report = gate.check(base=f"base/{name}", head=f"head/{name}")
        assert report.rows[0].result.judgement.ratio < 1.05

    def test_other():
        pass
"""


def test_what_is_slower_fails_and_says_how_much_and_how_sure(
    pytester: pytest.Pytester, machine: Machine
) -> None:
    folders(list(EFFECTS))
    pytester.makepyfile(THREE)
    result = run(pytester, "--gate-json", "gate.json")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.re_match_lines_random(
        [
            r"FAILED .*::test_speed\[slower\] - Failed: slower: head is slower: \+10\.\d % "
            r"\(\+\d\.\d to \+1\d\.\d\), \+\d+\.\d % in a second round; 15 pairs, "
            r"p = \S+ where 0\.0033 counts; ",
            r"same +[+-]0\.\d % .*\[same\]: same  a slowdown of \+\d\.\d % would have been found",
            r"improved +-(9|10)\.\d % ",
            r"1 regressed, 1 improved, 1 same",
            r"where nothing is slower, a session reports a regression at most 0.01 of the time "
            r"\(0.0033 for each of its 3 tests\)",
        ]
    )
    # The test's own line is shown, and none of ours.
    result.stdout.fnmatch_lines([">*report = gate.check(base=*"])
    result.stdout.no_fnmatch_line("*pytest_plugin.py:*")


def test_the_file_of_a_session_can_be_judged_again_and_accepted(
    pytester: pytest.Pytester, machine: Machine
) -> None:
    folders(list(EFFECTS))
    pytester.makepyfile(THREE)
    run(pytester, "--gate-json", "gate.json").assert_outcomes(passed=3, failed=1)
    read = read_run(Path("gate.json"), kind=RunKind.GATE)
    assert read.rule.alpha == pytest.approx(0.01 / 3)
    assert [one.verdict for one in results_of(read)] == ["same", "regressed", "improved"]
    name = read.items[1].name
    assert name.endswith("::test_speed[slower]: slower")

    def gate(*args: str) -> int:
        with pytest.raises(SystemExit) as caught:
            main(["gate", *args])
        return int(caught.value.code or 0)

    day = date.today() + timedelta(days=30)
    assert gate("report", "gate.json") == 1
    assert gate("accept", "gate.json", name, "--reason", "safer", "--until", f"{day}") == 0
    assert gate("report", "gate.json") == 0
    result = run(pytester)
    result.assert_outcomes(passed=3, failed=1)  # by the test's own assertion
    result.stdout.fnmatch_lines([f"*accepted until {day}: safer*"])


@pytest.mark.parametrize(("policy", "outcome"), [("fail", "failed"), ("pass", "skipped")])
def test_what_cannot_be_told_fails_or_is_skipped(
    pytester: pytest.Pytester, machine: Machine, policy: str, outcome: str
) -> None:
    folders(["same"])
    machine.cv = 0.1
    Path("gate.toml").write_text(f'inconclusive = "{policy}"')
    pytester.makepyfile("def test_one(gate): gate.check(base='base/same', head='head/same')")
    result = run(pytester, "-rs", "--gate-suite", "gate.toml")
    result.assert_outcomes(**{outcome: 1})
    result.stdout.fnmatch_lines(["*inconclusive: *too noisy for the number of pairs; * pairs might do*"])


def test_no_verdict_is_no_pass(pytester: pytest.Pytester, machine: Machine) -> None:
    folders(["same", "odd"])
    machine.broken = frozenset(["odd"])
    pytester.makepyfile(
        """
        def test_crash(gate): gate.check(base="base/odd", head="head/odd")
        def test_no_folder(gate): gate.check(base="base/none", head="head/same")
        def test_no_base(gate): gate.check(head="head/same")
        def test_no_number(gate): gate.check(base="base/same", head="head/same", min_effect="lots")
        def test_twice(gate):
            gate.check(base="base/same", head="head/same")
            gate.check(base="base/same", head="head/same")
        """
    )
    result = run(pytester, "--gate-json", "gate.json")
    result.assert_outcomes(failed=5)
    verdicts = [one.verdict for one in results_of(read_run(Path("gate.json"), kind=RunKind.GATE))]
    assert verdicts == ["error", "error", "error", "error", "same"]
    result.stdout.fnmatch_lines_random(
        [
            "*::test_crash - *NoVerdictError: odd: error: head: odd crashed",
            "*::test_no_folder - *NoVerdictError: *none is no compiled model*",
            "*::test_no_base - *NoVerdictError: *--gate-baseline)",
            "*::test_no_number - *NoVerdictError: min_effect is 'lots'*",
            "*::test_twice - *a test makes one check*",
        ]
    )


def test_a_baseline_is_the_base_of_checks_that_name_none(pytester: pytest.Pytester, machine: Machine) -> None:
    folders(["same"])
    pytester.makepyfile("def test_one(gate): gate.check(head='head/same')")
    run(pytester, "--gate-baseline", "base").assert_outcomes(passed=1)
    # A revision's own files make it.
    repository = Repository(pytester.path)
    make_folder(Path("source"), library=b"old")
    settings = "[tool.pytest.ini_options]\n[tool.tunewright.gate]\n"
    pytester.makepyprojecttoml(f'{settings}build = "mkdir head && cp -r source head/same"')
    Path(".gitignore").write_text("head\nbase\n")
    repository.commit()
    result = run(pytester, "--gate-baseline", "HEAD", "--gate-json", "gate.json")
    result.assert_outcomes(passed=1)
    assert repository.num_worktrees == 1
    (item,) = read_run(Path("gate.json"), kind=RunKind.GATE).items
    assert item.base is not None and item.base.source == "same of HEAD"
    run(pytester, "--gate-baseline", "nothing").assert_outcomes(errors=1)


def test_markers_choose_and_only_chosen_tests_share_the_error_rate(
    pytester: pytest.Pytester, machine: Machine
) -> None:
    folders(list(EFFECTS))
    pytester.makepyfile(THREE)
    run(pytester, "-m", "not gate", "--strict-markers").assert_outcomes(passed=1, deselected=3)
    result = run(pytester, "-m", "gate", "-k", "slower")
    result.assert_outcomes(failed=1, deselected=3)
    result.stdout.fnmatch_lines(["*where 0.01 counts*", "*at most 0.01 of the time"])
    result.stdout.no_fnmatch_line("*for each of its*")


def test_who_asks_late_or_beside_others_is_refused(
    pytester: pytest.Pytester, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders(["same"])
    late = "def test_late(request): request.getfixturevalue('gate')"
    pytester.makepyfile(
        test_late=late, test_one="def test_one(gate): gate.check(base='base/same', head='head/same')"
    )
    result = run(pytester)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*::test_late - *name it among the test's arguments*"])
    # As pytest-xdist marks the configuration of a worker.
    pytester.makeconftest("def pytest_configure(config): config.workerinput = {'workerid': 'gw0'}")
    result = run(pytester, "test_one.py")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*a worker of xdist cannot time*"])


def test_settings_that_cannot_be_read_are_errors(pytester: pytest.Pytester, machine: Machine) -> None:
    folders(["same"])
    pytester.makepyprojecttoml("[tool.pytest.ini_options]\n[tool.tunewright.gate]\nalfa = 1")
    pytester.makepyfile(
        """
        def test_one(gate): gate.check(base='base/same', head='head/same')
        def test_two(gate): gate.check(base='base/same', head='head/same')
        """
    )
    result = run(pytester, "--gate-json", "gate.json")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*::test_two - *alfa is not known*"])
    assert not Path("gate.json").exists()


def test_a_file_that_cannot_be_written_is_no_success(pytester: pytest.Pytester, machine: Machine) -> None:
    folders(["same"])
    pytester.makepyfile("def test_one(gate): gate.check(base='base/same', head='head/same')")
    result = run(pytester, "--gate-json", "base")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(["ERROR: *base cannot be written*", "*1 passed*"])


def test_real_kernels_of_a_slower_schedule_fail_a_real_suite(pytester: pytest.Pytester) -> None:
    task, other = matmul_task(), matmul_task(40)
    only = matmul_task(24)
    make_log(
        Path("good.db"),
        *((task, trace_of(task, DEFAULT)), (other, trace_of(other, PLAIN)), (only, trace_of(only, PLAIN))),
    )
    make_log(Path("bad.db"), (task, trace_of(task, PLAIN)), (other, trace_of(other, PLAIN_AGAIN)))
    pytester.makepyprojecttoml(f"[tool.pytest.ini_options]\n[tool.tunewright.gate]\n{QUICK}")
    pytester.makepyfile(
        """
        def test_slower(gate): gate.check(base="good.db", head="bad.db", tasks=["*64"])
        def test_missing(gate): gate.check(base="good.db", head="bad.db", tasks=["*24"])
        def test_none(gate): gate.check(base="good.db", head="bad.db", tasks=["conv*"])
        def test_the_same(gate): gate.check(base="good.db", head="bad.db", tasks=["matmul40"])
        """
    )
    result = pytester.runpytest_subprocess(*plugin_options(), "--junitxml", "r.xml", "-W", "error")
    result.assert_outcomes(passed=1, failed=3)
    result.stdout.fnmatch_lines(
        [
            "FAILED *::test_slower - Failed: matmul64: head is slower: *schedule changed*",
            "FAILED *::test_missing - *NoVerdictError: matmul24: missing: head has no such task",
            "FAILED *::test_none - *NoVerdictError: nothing was compared: *",
        ]
    )
    assert 'name="gate" value="test_real' in Path("r.xml").read_text()


def test_real_models_that_a_fixture_compiled(pytester: pytest.Pytester) -> None:
    for name, hidden in (("small", 32), ("large", 16384)):
        compiled_net(pytester.path, name, hidden=hidden)
    Path("gate.toml").write_text(QUICK)
    pytester.makepyfile(
        """
        from pathlib import Path
        import pytest

        @pytest.fixture(scope="session")
        def head(): return Path("large").absolute()

        def test_net(gate, head): gate.check(base="small", head=head)
        """
    )
    result = pytester.runpytest_subprocess(*plugin_options(), "--gate-suite", "gate.toml")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*::test_net - Failed: large: head is slower: +*"])


def test_starting_pytest_imports_nothing_heavy(pytester: pytest.Pytester) -> None:
    code = f"import json, sys, {PLUGIN}; print(json.dumps(sorted(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    modules = set(json.loads(found.stdout))
    assert not modules & {"numpy", "scipy", "tvm", "onnx", "typer", "sqlalchemy"}
    ours = {name for name in modules if name.startswith("tunewright")}
    assert ours == {"tunewright", "tunewright.gate", PLUGIN}


def test_the_installed_package_says_where_the_plugin_is() -> None:
    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pytest11"] == {"tunewright": PLUGIN}

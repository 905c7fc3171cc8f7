"""pytest: the fixture `gate`, with which a test fails where head is slower than base.

pytest loads this module at every start, in projects that have no such test too: nothing heavy is imported
before a test asks for the fixture.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tunewright.core.errors import TunewrightError
    from tunewright.gate.checks import CheckSession
    from tunewright.gate.report import Report

_FIXTURE = "gate"
# The tests that may compare; their session, which the first one makes; why its file is not written.
_TESTS = pytest.StashKey[frozenset[str]]()
_SESSION = pytest.StashKey["CheckSession | TunewrightError"]()
_UNWRITTEN = pytest.StashKey[str]()


class Gate:
    """What the fixture `gate` gives a test."""

    def __init__(self, session: "CheckSession", request: pytest.FixtureRequest) -> None:
        self._session = session
        self._node = request.node
        self._has_checked = False

    def check(
        self,
        *,
        head: str | Path,
        base: str | Path | None = None,
        min_effect: str | float | None = None,
        log: str | Path | None = None,
        tasks: Sequence[str] = (),
    ) -> "Report":
        """Fail the test if head is slower than base; skip or fail it if that cannot be told.

        Args:
            head: a compiled model's directory, a lock file or a tuning log; seen from pytest's root.
            base: the same of the other side; None: what `--gate-baseline` says.
            min_effect: the smallest change that counts, 0.02 or "2%"; None: the suite's.
            log: where the schedules of lock files are.
            tasks: patterns of kernels' names; all, if empty.

        Returns: the measured changes, where nothing regressed.

        Raises:
            NoVerdictError: a side is missing, cannot be read or run, or is made for another CPU.
        """
        __tracebackhide__ = True
        from tunewright.core.errors import TunewrightError
        from tunewright.gate.checks import Failed, NoVerdictError, Sides, Undecided

        if self._has_checked:
            raise pytest.UsageError(
                "a test makes one check, which has its share of the error rate; write a test for each, "
                "with pytest.mark.parametrize"
            )
        self._has_checked = True
        try:
            found = self._session.check(self._node.nodeid, Sides(head, base, min_effect, log, tasks))
        except TunewrightError as exc:
            # From here, so that pytest shows the line of the test.
            raise NoVerdictError(str(exc)) from None
        self._node.user_properties += found.properties
        match found.outcome:
            case Failed(message=message):
                pytest.fail(message)
            case Undecided(message=message):
                pytest.skip(message)
        return found.report


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gate", "performance gate (tunewright)")
    group.addoption("--gate-json", metavar="FILE", help="Write all that the gate's tests measured.")
    group.addoption(
        "--gate-suite",
        metavar="FILE",
        help="TOML with the gate's settings; else [tool.tunewright.gate] of pyproject.toml in pytest's root.",
    )
    group.addoption(
        "--gate-baseline", metavar="NAME|DIR|FILE|REVISION", help="The base of all checks that name none."
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "gate: compares the speed of compiled code; tests with the fixture `gate` have it"
    )


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _compares(item):
            item.add_marker(_FIXTURE)


def pytest_collection_finish(session: pytest.Session) -> None:
    session.config.stash[_TESTS] = frozenset(item.nodeid for item in session.items if _compares(item))


@pytest.fixture
def gate(request: pytest.FixtureRequest) -> Gate:
    """Compare the speed of compiled models or kernels: `gate.check(base=..., head=...)`."""
    config = request.config
    tests = config.stash[_TESTS]
    if hasattr(config, "workerinput"):
        raise pytest.UsageError(
            "a worker of xdist cannot time: what runs beside it disturbs it; run them with -n 0 -m gate"
        )
    if request.node.nodeid not in tests:
        raise pytest.UsageError(
            "the fixture gate was asked for while the test ran; name it among the test's arguments: "
            "the error rate is shared among all tests that have it"
        )
    if _SESSION not in config.stash:
        config.stash[_SESSION] = _session(config, len(tests))
    session = config.stash[_SESSION]
    if isinstance(session, Exception):
        raise session
    return Gate(session, request)


def _session(config: pytest.Config, num_tests: int) -> "CheckSession | TunewrightError":
    """An error is kept for all tests: what was built for nothing is not built again."""
    from tunewright.core.errors import TunewrightError
    from tunewright.gate.checks import CheckSession

    suite: str | None = config.getoption("--gate-suite")
    try:
        session = CheckSession(
            config.rootpath,
            suite=Path(config.invocation_params.dir, suite) if suite else None,
            baseline=config.getoption("--gate-baseline"),
            num_tests=num_tests,
        )
    except TunewrightError as exc:
        return exc
    config.add_cleanup(session.close)
    return session


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Summaries come after this; that a file cannot be written is said there."""
    stash = session.config.stash
    path: str | None = session.config.getoption("--gate-json")
    found = stash.get(_SESSION, None)
    if not path or found is None or isinstance(found, Exception):
        return
    from tunewright.core.errors import TunewrightError

    try:
        found.write(Path(session.config.invocation_params.dir, path))
    except TunewrightError as exc:
        stash[_UNWRITTEN] = str(exc)
        session.exitstatus = pytest.ExitCode.USAGE_ERROR


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    session = config.stash.get(_SESSION, None)
    if session is None or isinstance(session, Exception):
        return
    terminalreporter.write_sep("-", "performance gate")
    for line in session.summary():
        terminalreporter.write_line(line)
    if problem := config.stash.get(_UNWRITTEN, ""):
        terminalreporter.write_line(f"ERROR: {problem}", red=True)


def _compares(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and _FIXTURE in item.fixturenames

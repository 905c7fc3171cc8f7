"""The comparisons of a session of tests, one by one: each is a run of the gate with its share of `alpha`."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tunewright.core.closeable import Closeable
from tunewright.core.errors import TunewrightError
from tunewright.gate import measure
from tunewright.gate.baselines import named_base, opened_baseline
from tunewright.gate.report import Outcome, Report, Row, change_text, percent, summary
from tunewright.gate.results import GateRun, ItemRun, RunKind, write_run
from tunewright.gate.runs import (
    Clock,
    Conditions,
    conditions_of,
    make_run,
    measure_items,
    one_line,
    report_of,
)
from tunewright.gate.sides import GateItem, suite_items
from tunewright.gate.statistics import Verdict
from tunewright.gate.suite import (
    ACCEPTED_FILE,
    LEAST_EFFECT_RATIO,
    PYPROJECT,
    KernelsEntry,
    ModelEntry,
    Suite,
    has_suite,
    parse_ratio,
    place_of,
    read_suite,
)

_SEED = 0


class NoVerdictError(TunewrightError):
    """A side of a check is missing or does not run: nobody knows whether head is slower."""


@dataclass(frozen=True, slots=True)
class Sides:
    """What a test asks for, as the fixture's `check` describes it."""

    head: str | Path
    base: str | Path | None = None
    min_effect: str | float | None = None
    log: str | Path | None = None
    tasks: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The test does not pass."""

    message: str


@dataclass(frozen=True, slots=True)
class Undecided:
    """It cannot be told, and the suite says that this is no failure."""

    message: str


@dataclass(frozen=True, slots=True)
class Check:
    """What a check found; `outcome` None: the test passes. `properties`: names and texts, for reports."""

    report: Report
    outcome: Failed | Undecided | None
    properties: tuple[tuple[str, str], ...]


class CheckSession(Closeable):
    """All checks of a session of `num_tests` tests, each of which makes one.

    A check's `alpha` is the suite's divided by `num_tests`, however the others end (Bonferroni); within a
    check, kernels are corrected for as in any run of the gate.

    Args:
        root: relative paths are seen from here; its `pyproject.toml` has the settings where `suite` is None.
        baseline: the base of checks that name none.

    Raises:
        ConfigError: the suite or its calibration cannot be read.
        EnvironmentProblem: the calibration is of other hardware.
    """

    def __init__(self, root: Path, *, suite: Path | None, baseline: str | None, num_tests: int) -> None:
        self._root = root
        self._num_tests = num_tests
        place = suite or root / PYPROJECT
        has_settings = suite is not None or has_suite(place)
        self._suite = read_suite(place) if has_settings else Suite(accepted=root / ACCEPTED_FILE, folder=root)
        found = conditions_of(self._suite)
        rule = replace(found.rule, alpha=self._suite.alpha / num_tests)
        self._conditions = Conditions(found.machine, rule, found.is_calibrated)
        self._rng = np.random.default_rng(_SEED)
        self._clock = Clock()
        self._items: dict[str, tuple[ItemRun, ...]] = {}
        self._stack = ExitStack()
        self._base_of = self._stack.enter_context(opened_baseline(self._suite, baseline))
        self._timer = self._stack.enter_context(measure.LocalTimer(sample_secs=self._suite.sample_secs))

    def close(self) -> None:
        self._stack.close()

    def check(self, test: str, sides: Sides) -> Check:
        """Measure both sides now, and say what comes of it.

        Raises:
            ConfigError: a side cannot be read, or there is no base.
            NoVerdictError: a side cannot be run, or kernels are missing on one.
            EnvironmentProblem: a side was made for another CPU.
        """
        clock = Clock()
        try:
            measured = self._measured(test, sides)
        except TunewrightError as exc:
            effect = self._suite.min_effect_ratio
            failed = ItemRun(test, None, None, 0, effect, None, Verdict.ERROR, one_line(str(exc)))
            self._items[test] = (replace(failed, family=test),)
            raise
        self._items[test] = tuple(replace(item, family=test) for item in measured)
        report = self._report(self._items[test], clock)
        return Check(report, _outcome(report), tuple(_properties(report)))

    def _measured(self, test: str, sides: Sides) -> tuple[ItemRun, ...]:
        base_of = self._base_of if sides.base is None else named_base
        items = [_renamed(item, test) for item in suite_items(self._suite_of(sides), base_of)]
        return measure_items(items, self._timer, self._conditions.rule, rng=self._rng)

    def write(self, path: Path) -> None:
        """Write all checks as one run, which `tunewright gate report` and `accept` read.

        Raises:
            ConfigError: the file cannot be written.
        """
        write_run(self._session_report().run, path)

    def summary(self) -> Iterator[str]:
        """Lines for people: every comparison, and how often the session may be wrong."""
        report = self._session_report()
        for row in report.rows:
            yield f"{row.verdict:<12} {change_text(row.result) or '-':>26}  {row.name}  {row.note}".rstrip()
        yield from summary(report)
        alpha, tests = self._suite.alpha, self._num_tests
        share = f" ({self._conditions.rule.alpha:.2g} for each of its {tests} tests)" if tests > 1 else ""
        yield f"where nothing is slower, a session reports a regression at most {alpha:g} of the time{share}"

    def _session_report(self) -> Report:
        return self._report([item for items in self._items.values() for item in items], self._clock)

    def _report(self, items: Sequence[ItemRun], clock: Clock) -> Report:
        run: GateRun = make_run(RunKind.GATE, self._suite, self._conditions, tuple(items), clock, seed=_SEED)
        return report_of(run, self._suite.accepted)

    def _suite_of(self, sides: Sides) -> Suite:
        effect = self._suite.min_effect_ratio
        if sides.min_effect is not None:
            effect = parse_ratio(sides.min_effect, "min_effect", least=LEAST_EFFECT_RATIO)
        base, head, log = (
            None if side is None else place_of(str(side), self._root)
            for side in (sides.base, sides.head, sides.log)
        )
        assert head is not None
        name = Path(head).name
        if Path(head).is_dir():
            return Suite(models=(ModelEntry(name, Path(base) if base else None, Path(head), effect),))
        return Suite(kernels=(KernelsEntry(name, base, head, log, tuple(sides.tasks), effect),))


def _renamed(item: GateItem, test: str) -> GateItem:
    name = f"{test}: {item.name}"
    return replace(item, name=name, pair=replace(item.pair, name=name) if item.pair is not None else None)


def _outcome(report: Report) -> Failed | Undecided | None:
    """Raises: NoVerdictError: something was not compared."""
    slower = [row for row in report.rows if row.fails and row.verdict is Verdict.REGRESSED]
    if slower:
        return Failed("\n".join(_slower_text(row, report.run.rule.alpha) for row in slower))
    absent = [row for row in report.rows if row.verdict in (Verdict.ERROR, Verdict.MISSING)]
    if absent or report.outcome is Outcome.NOTHING_COMPARED:
        texts = [f"{_label(row)}: {row.verdict}: {row.note}" for row in absent]
        raise NoVerdictError(
            "\n".join(texts) or "nothing was compared: the sides hold no kernel that was asked for"
        )
    unclear = [row for row in report.rows if row.verdict is Verdict.INCONCLUSIVE]
    if unclear:
        text = "\n".join(
            f"{_label(row)}: inconclusive: {change_text(row.result)}: {row.note}" for row in unclear
        )
        return Failed(text) if report.outcome is Outcome.INCONCLUSIVE else Undecided(text)
    return None


def _label(row: Row) -> str:
    """The name, where it is known which test it is."""
    return row.name.removeprefix(f"{row.result.item.family}: ")


def _slower_text(row: Row, alpha: float) -> str:
    """How much, and how sure."""
    found = row.result.judgement
    assert found is not None, "a regression was measured"
    again = f", {percent(found.confirm_ratio)} in a second round" if found.confirm_ratio else ""
    return (
        f"{_label(row)}: head is slower: {change_text(row.result)}{again}; {found.num_pairs} pairs, "
        f"p = {found.p_value:.2g} where {alpha:.2g} counts; {row.note}"
    )


def _properties(report: Report) -> Iterator[tuple[str, str]]:
    for row in report.rows:
        yield "gate", ": ".join(filter(None, (row.name, row.verdict, change_text(row.result))))

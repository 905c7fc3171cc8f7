"""One run of the gate on this machine: under which conditions, and everything that was found."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import platformdirs

import tunewright
from tunewright.core.text import printable
from tunewright.core.types import MachineInfo
from tunewright.gate.accepted import read_accepted
from tunewright.gate.measure import Measured, PairTimer, Progress, measure_alike, measure_pairs
from tunewright.gate.report import Report, make_report
from tunewright.gate.results import GateRun, ItemRun, RunKind, noise_floor_ratio, read_run
from tunewright.gate.sides import GateItem
from tunewright.gate.statistics import GateRule, Verdict
from tunewright.gate.suite import Suite

# A verdict's reason is one line of a table.
_MAX_REASON_CHARS = 1000


@dataclass(frozen=True, slots=True)
class Conditions:
    """The machine and the rule of a run; without a calibration, the rule has no noise floor."""

    machine: MachineInfo
    rule: GateRule
    is_calibrated: bool


@dataclass(frozen=True, slots=True)
class Clock:
    """When a run began."""

    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    _started_secs: float = field(default_factory=time.monotonic)

    @property
    def wall_secs(self) -> float:
        return time.monotonic() - self._started_secs


def conditions_of(suite: Suite) -> Conditions:
    """This machine, and the rule with its noise floor: of the file that the suite names, else its own.

    Raises:
        ConfigError: the calibration that the suite names cannot be read.
        EnvironmentProblem: it was measured on other hardware.
    """
    machine = _machine()
    path = suite.calibration or calibration_path(machine)
    is_calibrated = suite.calibration is not None or path.exists()
    floor_ratio = 0.0
    if is_calibrated:
        floor_ratio = noise_floor_ratio(read_run(path, kind=RunKind.CALIBRATION, machine=machine))
    rule = GateRule(noise_floor_ratio=floor_ratio, alpha=suite.alpha, looks=suite.looks)
    return Conditions(machine, rule, is_calibrated)


def calibration_path(machine: MachineInfo) -> Path:
    """Where the gate looks for the noise of such a machine."""
    return platformdirs.user_data_path("tunewright") / f"gate-noise-{machine.fingerprint}.json"


def measure_items(
    items: Sequence[GateItem],
    timer: PairTimer,
    rule: GateRule,
    *,
    rng: np.random.Generator,
    on_progress: Progress = lambda _: None,
) -> tuple[ItemRun, ...]:
    """Time what can be timed until the rule, with each item's own effect, has seen enough."""
    pairs = [item.pair for item in items if item.pair is not None]
    rules = {item.name: replace(rule, min_effect_ratio=item.min_effect_ratio) for item in items}
    found = measure_pairs(pairs, timer, rules, rng=rng, on_progress=on_progress)
    return tuple(_item_run(item, found) for item in items)


def run_gate(
    suite: Suite,
    items: Sequence[GateItem],
    timer: PairTimer,
    conditions: Conditions,
    *,
    seed: int,
    on_progress: Progress = lambda _: None,
) -> GateRun:
    """Measure all items of a suite."""
    clock = Clock()
    rng = np.random.default_rng(seed)
    measured = measure_items(items, timer, conditions.rule, rng=rng, on_progress=on_progress)
    return make_run(RunKind.GATE, suite, conditions, measured, clock, seed=seed)


def run_calibration(
    suite: Suite,
    items: Sequence[GateItem],
    timer: PairTimer,
    *,
    num_experiments: int,
    seed: int,
    on_progress: Progress = lambda _: None,
) -> GateRun:
    """Measure items whose sides are alike, `num_experiments` times each, for this machine's noise."""
    clock = Clock()
    conditions = Conditions(_machine(), GateRule(alpha=suite.alpha, looks=suite.looks), False)
    found = measure_alike(
        [item.pair for item in items if item.pair is not None],
        timer,
        conditions.rule,
        num_experiments=num_experiments,
        rng=np.random.default_rng(seed),
        on_progress=on_progress,
    )
    measured = tuple(_item_run(item, found) for item in items)
    return make_run(RunKind.CALIBRATION, suite, conditions, measured, clock, seed=seed)


def make_run(
    kind: RunKind,
    suite: Suite,
    conditions: Conditions,
    items: tuple[ItemRun, ...],
    clock: Clock,
    *,
    seed: int,
) -> GateRun:
    """What was measured, with all that it takes to judge it again."""
    return GateRun(
        kind=kind,
        created_at=clock.began,
        wall_secs=clock.wall_secs,
        machine=conditions.machine,
        tunewright_version=tunewright.__version__,
        seed=seed,
        rule=conditions.rule,
        min_cost_ratio=suite.min_cost_ratio,
        inconclusive_fails=suite.inconclusive_fails,
        items=items,
    )


def report_of(run: GateRun, accepted: Path) -> Report:
    """The report of today, with what the file accepts."""
    return make_report(run, read_accepted(accepted), today=today())


def today() -> date:
    """In UTC, as all dates of the gate."""
    return datetime.now(UTC).date()


def _machine() -> MachineInfo:
    # An earlier run is judged again without TVM.
    from tunewright.core.tvm_adapter.target import machine_info

    return machine_info()


def _item_run(item: GateItem, found: Measured) -> ItemRun:
    problem = found.problems.get(item.name)
    return ItemRun(
        name=item.name,
        base=item.base,
        head=item.head,
        weight=item.weight,
        min_effect_ratio=item.min_effect_ratio,
        times=found.times.get(item.name),
        verdict=Verdict.ERROR if problem is not None else item.verdict,
        reason=one_line(problem or item.reason),
    )


def one_line(text: str) -> str:
    """A reason as a file holds it; nothing of it can take over a terminal."""
    return printable(" ".join(text.split()))[:_MAX_REASON_CHARS]

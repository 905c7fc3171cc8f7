import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from tests.gate.fakes import HERE, FakeTimer, pair
from tunewright.core.errors import ConfigError, EnvironmentProblem
from tunewright.gate.measure import measure_alike, measure_pairs
from tunewright.gate.results import (
    GateRun,
    ItemRun,
    ResultsVersionError,
    RunKind,
    SideFacts,
    noise_floor_ratio,
    read_run,
    results_of,
    write_run,
)
from tunewright.gate.statistics import GateRule, Verdict

RULE = GateRule()
SIDE = SideFacts("a.lock", "0" * 64, "trial 7", "0.27.0", "22", "0.1.0")


def gate_run(effects: dict[str, float], weights: dict[str, int] | None = None) -> GateRun:
    """The gate's verdicts are those of the effects, clearly; "gone" is missing in head."""
    rules = dict.fromkeys(effects, RULE)
    found = measure_pairs(
        [pair(name) for name in effects], FakeTimer(effects, cv=0.003), rules, rng=np.random.default_rng(0)
    )
    items = tuple(
        ItemRun(name, SIDE, SIDE, (weights or {}).get(name, 0), 0.02, found.times[name]) for name in effects
    )
    gone = ItemRun("gone", SIDE, None, 1, 0.02, None, Verdict.MISSING, "head has no such task")
    return _run(RunKind.GATE, (*items, gone))


def _run(kind: RunKind, items: tuple[ItemRun, ...]) -> GateRun:
    moment = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
    return GateRun(kind, moment, 12.5, HERE, "0.1.0", 0, RULE, 0.001, True, items)


def test_a_run_comes_back_as_it_was_and_is_judged_the_same(tmp_path: Path) -> None:
    run = gate_run({"a": 0.0, "b": 0.1})
    path = tmp_path / "deep" / "run.json"
    write_run(run, path)
    back = read_run(path, kind=RunKind.GATE, machine=HERE)
    assert back == run
    results = results_of(back)
    assert [(one.item.name, one.verdict) for one in results] == [
        ("a", Verdict.SAME),
        ("b", Verdict.REGRESSED),
        ("gone", Verdict.MISSING),
    ]
    written = json.loads(path.read_text())
    assert written["schema"] == "tunewright-gate/1"
    assert [one["verdict"] for one in written["results"]] == ["same", "regressed", "missing"]
    assert written["results"][1]["judgement"]["ratio"] == results[1].judgement.ratio  # type: ignore[union-attr]
    assert written["run"]["machine"]["cpu_model"] == "This CPU"


def test_what_a_kernel_costs_is_weighted_by_its_share() -> None:
    run = gate_run({"a": 0.0, "b": 0.1}, {"a": 3, "b": 1})
    results = {one.item.name: one for one in results_of(run)}
    assert results["a"].share == pytest.approx(0.75, abs=0.01)
    assert results["b"].cost_ratio == pytest.approx(0.25 * 0.1, abs=0.003)
    (model, _) = results_of(gate_run({"m": 0.1}))
    assert model.share is None and model.cost_ratio is None


def test_families_are_judged_beside_each_other(tmp_path: Path) -> None:
    """A p-value that is small enough alone is not among many."""
    names = [f"k{number}" for number in range(60)]
    rules = dict.fromkeys(names, RULE)
    times = measure_pairs(
        [pair(name) for name in names],
        FakeTimer({"k0": 0.05}, cv=0.005),
        rules,
        rng=np.random.default_rng(0),
    ).times
    items = tuple(ItemRun(name, SIDE, SIDE, 1, 0.02, times[name], family=name) for name in names)
    rule = replace(RULE, alpha=2e-4)  # 15 pairs have no p-value below 3e-5
    apart = results_of(replace(_run(RunKind.GATE, items), rule=rule))
    together = results_of(replace(_run(RunKind.GATE, items), rule=rule, items=_without_families(items)))
    assert (apart[0].verdict, together[0].verdict) == (Verdict.REGRESSED, Verdict.INCONCLUSIVE)
    assert apart[0].share == 1.0 and together[0].share == pytest.approx(1 / 60, rel=0.1)

    # Files of the first programs have none.
    path = tmp_path / "run.json"
    write_run(_run(RunKind.GATE, _without_families(items)), path)
    fields = json.loads(path.read_text())
    for item in fields["run"]["items"]:
        del item["family"]
    path.write_text(json.dumps(fields))
    assert read_run(path, kind=RunKind.GATE).items == _without_families(items)


def _without_families(items: tuple[ItemRun, ...]) -> tuple[ItemRun, ...]:
    return tuple(replace(item, family="") for item in items)


@pytest.mark.parametrize(
    ("content", "error", "text"),
    [
        (None, ConfigError, "cannot be read"),
        ("{", ConfigError, "is no JSON"),
        ("[]", ConfigError, "holds no results"),
        ('{"schema": "tunewright-gate/2", "run": {}}', ResultsVersionError, "tunewright-gate/2"),
        ('{"schema": "tunewright-gate/1"}', ConfigError, "is damaged"),
        ('{"schema": "tunewright-gate/1", "run": {"kind": "gate"}}', ConfigError, "other fields"),
    ],
)
def test_what_is_no_file_of_results_is_refused(
    content: str | None, error: type[Exception], text: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(error, match=text):
        read_run(path, kind=RunKind.GATE)


def test_damaged_times_other_hardware_and_the_other_kind_are_refused(tmp_path: Path) -> None:
    run = gate_run({"a": 0.0})
    path = tmp_path / "run.json"
    write_run(run, path)
    with pytest.raises(EnvironmentProblem, match=r"on This CPU \(4 CPUs\), this machine is This CPU \(8"):
        read_run(path, kind=RunKind.GATE, machine=replace(HERE, num_cpus=8))
    # Other software on the same hardware is a cause, and no obstacle.
    assert read_run(path, kind=RunKind.GATE, machine=replace(HERE, tvm_version="0.28")) == run
    with pytest.raises(ConfigError, match="holds a gate, expected a calibration"):
        read_run(path, kind=RunKind.CALIBRATION)
    fields = json.loads(path.read_text())
    fields["run"]["items"][0]["times"]["first"][0]["head_secs"][0] = -1.0
    path.write_text(json.dumps(fields))
    with pytest.raises(ConfigError, match=r"damaged.*positive"):
        read_run(path, kind=RunKind.GATE)


def test_the_noise_floor_is_what_most_experiments_stay_below(tmp_path: Path) -> None:
    names = ["a", "b"]
    found = measure_alike(
        [pair(name) for name in names],
        FakeTimer({}, cv=0.04),
        RULE,
        num_experiments=20,
        rng=np.random.default_rng(0),
    )
    items = tuple(ItemRun(name, SIDE, SIDE, 0, 0.02, found.times[name]) for name in names)
    run = _run(RunKind.CALIBRATION, items)
    # The estimate of 15 pairs of so noisy times deviates by 0.04 * sqrt(2) * 1.02 / sqrt(15).
    deviation = 0.04 * math.sqrt(2) * 1.02 / math.sqrt(15)
    assert 1.4 * deviation < noise_floor_ratio(run) < 3 * deviation
    write_run(run, tmp_path / "noise.json")
    assert read_run(tmp_path / "noise.json", kind=RunKind.CALIBRATION) == run
    with pytest.raises(ConfigError, match="no timings"):
        noise_floor_ratio(_run(RunKind.CALIBRATION, ()))

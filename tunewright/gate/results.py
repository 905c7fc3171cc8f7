"""One run of the gate as a file: the machine, the rule, every pair. Verdicts are computed from them again."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Any

from tunewright.core.errors import ConfigError, EnvironmentProblem, TunewrightError
from tunewright.core.files import read_limited
from tunewright.core.types import MachineInfo
from tunewright.gate.statistics import (
    GateRule,
    Judgement,
    PairedTimes,
    PairGroup,
    Verdict,
    estimate,
    judge,
    log_ratios,
)
from tunewright.scheduler.record_json import from_plain, to_plain

RESULTS_SCHEMA = "tunewright-gate/1"
_MAX_FILE_BYTES = 64 << 20


class ResultsVersionError(TunewrightError):
    """A file of results has another schema version than this program reads. The gate exits with 6."""


class RunKind(StrEnum):
    """What a file of results holds."""

    GATE = "gate"
    CALIBRATION = "calibration"


@dataclass(frozen=True, slots=True)
class SideFacts:
    """One side of an item: where it came from, and what may explain a difference. Empty where unknown.

    `schedule`: a key of the candidate, or of those of all a model's kernels; `origin`: as people know it.
    """

    source: str
    schedule: str
    origin: str = ""
    tvm_version: str = ""
    llvm_version: str = ""
    tunewright_version: str = ""


@dataclass(frozen=True, slots=True)
class ItemRun:
    """What was measured of one kernel or model.

    `weight` is the number of calls per run of its model, 0 where it is a whole model. `times` is None where
    there is nothing to judge: `verdict` and `reason` say why then, else they are None and empty.
    `family`: items of one are judged together, those of others beside them; the rule's `alpha` is for each.
    """

    name: str
    base: SideFacts | None
    head: SideFacts | None
    weight: int
    min_effect_ratio: float
    times: PairedTimes | None
    verdict: Verdict | None = None
    reason: str = ""
    family: str = ""


@dataclass(frozen=True, slots=True)
class GateRun:
    """One run; `created_at` is when it began. Of `rule`, each item has an effect of its own.

    `min_cost_ratio`: a regression of a kernel fails the run only if it costs all kernels together that much.
    `inconclusive_fails`: whether those that are inconclusive do.
    """

    kind: RunKind
    created_at: datetime
    wall_secs: float
    machine: MachineInfo
    tunewright_version: str
    seed: int
    rule: GateRule
    min_cost_ratio: float
    inconclusive_fails: bool
    items: tuple[ItemRun, ...]


@dataclass(frozen=True, slots=True)
class ItemResult:
    """An item with its verdict. `judgement` is None where nothing was timed.

    `share`: of the time of its family's timed kernels with their calls per run, in [0, 1]; None of a model.
    """

    item: ItemRun
    verdict: Verdict
    reason: str
    judgement: Judgement | None
    share: float | None

    @property
    def cost_ratio(self) -> float | None:
        """How much longer all kernels together take by this one: 0.01 is 1 %. None of a model."""
        if self.judgement is None or self.share is None:
            return None
        return self.share * (self.judgement.ratio - 1)


def results_of(run: GateRun) -> list[ItemResult]:
    """Judge the items of a run, those of a family together."""
    families: dict[str, list[ItemRun]] = {}
    for item in run.items:
        families.setdefault(item.family, []).append(item)
    judged = {name: _judge_family(items, run.rule) for name, items in families.items()}
    return [judged[item.family][item.name] for item in run.items]


def _judge_family(items: Sequence[ItemRun], rule: GateRule) -> dict[str, ItemResult]:
    timed = {item.name: item.times for item in items if item.times is not None}
    judged = judge(timed, {item.name: item_rule(rule, item) for item in items})
    secs = {
        item.name: item.weight * _median_base_secs(item.times)
        for item in items
        if item.times is not None and item.weight
    }
    total_secs = sum(secs.values())
    results = {}
    for item in items:
        found = judged.get(item.name)
        verdict = found.verdict if found is not None else item.verdict
        if verdict is None:
            raise ValueError(f"{item.name!r} has neither times nor a verdict")
        share = secs[item.name] / total_secs if item.name in secs else None
        reason = found.reason if found else item.reason
        results[item.name] = ItemResult(item, verdict, reason, found, share)
    return results


def item_rule(rule: GateRule, item: ItemRun) -> GateRule:
    """The rule of a run, with the item's own effect."""
    return replace(rule, min_effect_ratio=item.min_effect_ratio)


def noise_floor_ratio(run: GateRun) -> float:
    """What two timings of the same thing differed by at most in 19 of 20 experiments of a calibration.

    Each item is measured as often as its groups make a first look.

    Raises:
        ConfigError: nothing was timed.
    """
    size = len(run.rule.group_sizes(0))
    found = sorted(
        abs(math.log(_ratio(item.times.first[start : start + size], run.rule)))
        for item in run.items
        if item.times is not None
        for start in range(0, len(item.times.first), size)
    )
    if not found:
        raise ConfigError("the calibration has no timings: calibrate with what can be run")
    return math.expm1(found[math.ceil(0.95 * len(found)) - 1])


def write_run(run: GateRun, path: Path) -> None:
    """Write a run; of a gate's run with its verdicts, for other programs.

    Raises:
        ConfigError: the file cannot be written.
    """
    fields: dict[str, Any] = {"schema": RESULTS_SCHEMA, "run": to_plain(run)}
    if run.kind is RunKind.GATE:
        fields["results"] = [_result_fields(result) for result in results_of(run)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(fields, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"{path} cannot be written ({exc.strerror}); give another file") from exc


def read_run(path: Path, *, kind: RunKind, machine: MachineInfo | None = None) -> GateRun:
    """Read a run back.

    Args:
        machine: it must have been measured on such hardware; None: wherever.

    Raises:
        ConfigError: it is missing, damaged, or of the other kind.
        ResultsVersionError: another version of the schema.
        EnvironmentProblem: other hardware measured it.
    """
    content = read_limited(path, _MAX_FILE_BYTES, remedy="give a file of tunewright gate")
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{path} is no JSON ({exc}); {_REMEDY}") from exc
    schema = fields.get("schema") if isinstance(fields, dict) else None
    if schema is None:
        raise ConfigError(f"{path} holds no results of the gate; {_REMEDY}")
    if schema != RESULTS_SCHEMA:
        raise ResultsVersionError(
            f"{path} has schema {schema!r}, this program reads {RESULTS_SCHEMA!r}; {_REMEDY}"
        )
    try:
        for item in fields["run"].get("items", ()):
            item.setdefault("family", "")  # not in the files of the first programs
        run = from_plain(GateRun, fields["run"])
        if run.kind is RunKind.GATE:
            results_of(run)
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise ConfigError(f"{path} is damaged ({type(exc).__name__}: {exc}); {_REMEDY}") from exc
    if run.kind is not kind:
        raise ConfigError(f"{path} holds a {run.kind}, expected a {kind}")
    if machine is not None and machine.fingerprint != run.machine.fingerprint:
        raise EnvironmentProblem(
            f"{path} was measured on {_hardware(run.machine)}, this machine is {_hardware(machine)}: "
            "times of different hardware are never compared; measure it here"
        )
    return run


_REMEDY = "run the gate again"


def _hardware(machine: MachineInfo) -> str:
    smt = ", SMT" if machine.has_smt else ""
    return f"{machine.cpu_model} ({machine.num_cpus} CPUs{smt})"


def _result_fields(result: ItemResult) -> dict[str, Any]:
    judgement = None
    if result.judgement is not None:
        # An interval of too few pairs is infinite, which JSON does not know.
        judgement = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in to_plain(result.judgement).items()
            if name not in ("verdict", "reason")
        }
    return {
        "name": result.item.name,
        "verdict": result.verdict,
        "reason": result.reason,
        "share": result.share,
        "cost_ratio": result.cost_ratio,
        "judgement": judgement,
    }


def _median_base_secs(times: PairedTimes) -> float:
    return median(secs for group in times.first for secs in group.base_secs)


def _ratio(groups: Sequence[PairGroup], rule: GateRule) -> float:
    sizes = [len(group.base_secs) for group in groups]
    found = estimate(log_ratios(groups)[None], sizes, tail_probability=rule.alpha)
    return math.exp(float(found.center[0]))

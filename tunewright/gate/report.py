"""What a run of the gate tells people and other programs: an outcome, sentences, JUnit XML and Markdown."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from enum import IntEnum
from xml.etree import ElementTree

from tunewright.gate.accepted import Accepted
from tunewright.gate.results import GateRun, ItemResult, SideFacts, results_of
from tunewright.gate.statistics import Verdict


class Outcome(IntEnum):
    """Exit statuses of the gate."""

    OK = 0
    REGRESSED = 1
    USAGE = 2
    ENVIRONMENT = 3
    INCONCLUSIVE = 4
    NOTHING_COMPARED = 5
    SCHEMA = 6


@dataclass(frozen=True, slots=True)
class Row:
    """An item as it is shown. `fails`: the gate does not pass because of it; `note`: what else there is."""

    result: ItemResult
    fails: bool
    note: str

    @property
    def name(self) -> str:
        return self.result.item.name

    @property
    def verdict(self) -> Verdict:
        return self.result.verdict


@dataclass(frozen=True, slots=True)
class Report:
    """A run with what was accepted taken off."""

    run: GateRun
    rows: tuple[Row, ...]
    outcome: Outcome


def make_report(run: GateRun, accepted: Sequence[Accepted], *, today: date) -> Report:
    """Judge a run, and say what comes of it."""
    rows = tuple(_row(result, run, accepted, today) for result in results_of(run))
    failing = {row.verdict for row in rows if row.fails}
    compared = (Verdict.REGRESSED, Verdict.IMPROVED, Verdict.SAME, Verdict.INCONCLUSIVE)
    if Verdict.REGRESSED in failing:
        outcome = Outcome.REGRESSED
    elif Verdict.ERROR in failing:
        outcome = Outcome.ENVIRONMENT
    elif not any(row.verdict in compared for row in rows):
        outcome = Outcome.NOTHING_COMPARED
    elif Verdict.INCONCLUSIVE in failing:
        outcome = Outcome.INCONCLUSIVE
    else:
        outcome = Outcome.OK
    return Report(run, rows, outcome)


def _row(result: ItemResult, run: GateRun, accepted: Sequence[Accepted], today: date) -> Row:
    match result.verdict:
        case Verdict.REGRESSED:
            return _regression(result, run, accepted, today)
        case Verdict.IMPROVED:
            return Row(result, False, _cause(result.item.base, result.item.head))
        case Verdict.ERROR:
            return Row(result, True, result.reason)
        case Verdict.INCONCLUSIVE:
            needed = result.judgement.needed_pairs if result.judgement else None
            more = f"; {needed} pairs might do" if needed else ""
            return Row(result, run.inconclusive_fails, result.reason + more)
        case Verdict.SAME if result.judgement is not None and result.judgement.detectable_ratio is not None:
            seen = percent(result.judgement.detectable_ratio)
            return Row(result, False, f"a slowdown of {seen} would have been found")
    return Row(result, False, result.reason)


def _regression(result: ItemResult, run: GateRun, accepted: Sequence[Accepted], today: date) -> Row:
    cause = _cause(result.item.base, result.item.head)
    mine = [one for one in accepted if one.name == result.item.name]
    covering = next((one for one in mine if one.covers(result, today)), None)
    if covering is not None:
        return Row(result, False, f"accepted until {covering.until}: {covering.reason}")
    if mine:
        past = mine[-1].until < today
        why = f"expired on {mine[-1].until}" if past else f"was up to {percent(mine[-1].max_ratio)}"
        return Row(result, True, f"{cause}; its acceptance {why}")
    cost = result.cost_ratio
    if cost is not None and cost < run.min_cost_ratio:
        return Row(result, False, f"{cause}; costs all kernels together {percent(1 + cost)}: does not fail")
    return Row(result, True, cause)


def _cause(base: SideFacts | None, head: SideFacts | None) -> str:
    """What is known to have changed between the sides."""
    if base is None or head is None:
        return ""
    changes = []
    if base.schedule != head.schedule:
        known = base.origin and head.origin and base.origin != head.origin
        changes.append(f"schedule changed ({base.origin} -> {head.origin})" if known else "schedule changed")
    for what, old, new in (
        ("TVM", base.tvm_version, head.tvm_version),
        ("LLVM", base.llvm_version, head.llvm_version),
        ("Tunewright", base.tunewright_version, head.tunewright_version),
    ):
        if old and new and old != new:
            changes.append(f"{what} {old} -> {new}")
    # Versions and recorded schedules are the same: two states of our own code may have one version.
    return ", ".join(changes) or "default schedules, generated code or weights"


def percent(ratio: float) -> str:
    """+4.9 % of 1.049."""
    return f"{100 * (ratio - 1):+.1f} %" if math.isfinite(ratio) else "unknown"


def change_text(result: ItemResult) -> str | None:
    """+4.9 % (+4.1 to +5.6), None where nothing was timed."""
    one = result.judgement
    if one is None:
        return None
    low, high = (f"{100 * (limit - 1):+.1f}" for limit in (one.low_ratio, one.high_ratio))
    is_known = math.isfinite(one.high_ratio) and one.low_ratio > 0
    return f"{percent(one.ratio)} ({low} to {high})" if is_known else percent(one.ratio)


def summary(report: Report) -> Iterator[str]:
    """Sentences: the verdicts, what a green run could have seen, and what it cost."""
    counts = {verdict: sum(row.verdict is verdict for row in report.rows) for verdict in Verdict}
    yield ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count) or "no items"
    timed = [row.result.judgement for row in report.rows if row.result.judgement is not None]
    detectable = [one.detectable_ratio for one in timed if one.detectable_ratio is not None]
    if report.outcome is Outcome.OK and detectable:
        yield f"would have found a slowdown of {percent(max(detectable))} in each, with 95 % power"
    if report.outcome is Outcome.OK and not timed:
        yield "nothing was timed: both sides are the same"
    if report.outcome is Outcome.NOTHING_COMPARED:
        yield "nothing was compared: see why above, or the suite is empty"
    rule = report.run.rule
    floor = f"{100 * rule.noise_floor_ratio:.1f} %" if rule.noise_floor_ratio else "not calibrated"
    groups = [
        group
        for row in report.rows
        if (times := row.result.item.times)
        for group in times.first + times.second
    ]
    num_pairs = sum(len(group.base_secs) for group in groups)
    yield f"{num_pairs} pairs in {report.run.wall_secs:.0f} s; noise floor {floor}"


def to_markdown(report: Report) -> str:
    """A heading, a table with those that fail first, and the summary."""
    titles = {Outcome.OK: "passed", Outcome.REGRESSED: "found a regression"}
    lines = [
        f"### Performance gate {titles.get(report.outcome, 'has no clear answer')}",
        "",
        "| | kernel | verdict | change | note |",
        "|---|---|---|---|---|",
    ]
    for row in sorted(report.rows, key=lambda row: not row.fails):
        mark = "**x**" if row.fails else ""
        cells = (mark, row.name, str(row.verdict), change_text(row.result) or "", row.note)
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    machine = report.run.machine
    lines += ["", *(f"{line}  " for line in summary(report)), f"{machine.cpu_model}, {machine.num_cpus} CPUs"]
    return "\n".join(lines) + "\n"


def to_junit(report: Report) -> str:
    """JUnit XML: what fails is a failure or an error, what was not compared or is accepted is skipped."""
    cases = [_case(row) for row in report.rows]
    counts: dict[str, str] = {
        f"{kind}{'s' if kind != 'skipped' else ''}": str(sum(case.find(kind) is not None for case in cases))
        for kind in ("failure", "error", "skipped")
    }
    suite = ElementTree.Element(
        "testsuite",
        {
            "name": "tunewright gate",
            "tests": str(len(cases)),
            **counts,
            "time": f"{report.run.wall_secs:.3f}",
            "timestamp": report.run.created_at.strftime("%Y-%m-%dT%H:%M:%S"),
            "hostname": _text(report.run.machine.cpu_model),
        },
    )
    suite.extend(cases)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root, " ")
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _case(row: Row) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname="tunewright.gate", name=_text(row.name))
    message = _text(": ".join(filter(None, (change_text(row.result), row.note))))
    match row.verdict:
        case Verdict.REGRESSED if row.fails:
            ElementTree.SubElement(case, "failure", message=message, type="regressed").text = message
        case Verdict.ERROR:
            ElementTree.SubElement(case, "error", message=message, type="error").text = message
        case Verdict.INCONCLUSIVE | Verdict.MISSING | Verdict.REGRESSED:
            ElementTree.SubElement(case, "skipped", message=f"{row.verdict}: {message}")
        case _ if message:
            ElementTree.SubElement(case, "system-out").text = f"{row.verdict}: {message}"
    return case


def _text(text: str) -> str:
    """Without the characters that XML does not know."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)


def _cell(text: str) -> str:
    return re.sub(r"([\\`*_|<\[\]])", r"\\\1", text.replace("\n", " ")) if text != "**x**" else text

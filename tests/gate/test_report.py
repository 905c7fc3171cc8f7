from dataclasses import replace
from datetime import date
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.gate.fakes import FakeTimer, pair
from tests.gate.junit_rules import junit_problems
from tests.gate.test_results import RULE, SIDE, gate_run
from tunewright.gate.accepted import Accepted
from tunewright.gate.measure import measure_pairs
from tunewright.gate.report import Outcome, Report, make_report, summary, to_junit, to_markdown
from tunewright.gate.results import GateRun, ItemRun
from tunewright.gate.statistics import Verdict

TODAY = date(2026, 5, 6)


def report_of(run: GateRun, *accepted: Accepted) -> Report:
    return make_report(run, accepted, today=TODAY)


def noisy_run() -> GateRun:
    found = measure_pairs([pair("n")], FakeTimer({}, cv=0.1), {"n": RULE}, rng=np.random.default_rng(0))
    return replace(gate_run({}), items=(ItemRun("n", SIDE, SIDE, 0, 0.02, found.times["n"]),))


def with_error(run: GateRun) -> GateRun:
    broken = ItemRun("broken <&> \x1b", SIDE, SIDE, 0, 0.02, None, Verdict.ERROR, "head: crashed | `x`")
    return replace(run, items=(*run.items, broken))


def test_each_outcome_means_one_thing() -> None:
    same, slower, noisy = gate_run({"a": 0.0}), gate_run({"a": 0.0, "b": 0.1}), noisy_run()
    assert report_of(same).outcome is Outcome.OK
    assert report_of(gate_run({"a": -0.1})).outcome is Outcome.OK
    assert report_of(slower).outcome is Outcome.REGRESSED
    assert report_of(with_error(same)).outcome is Outcome.ENVIRONMENT
    assert report_of(with_error(slower)).outcome is Outcome.REGRESSED
    assert report_of(noisy).outcome is Outcome.INCONCLUSIVE
    assert report_of(replace(noisy, inconclusive_fails=False)).outcome is Outcome.OK
    assert report_of(gate_run({})).outcome is Outcome.NOTHING_COMPARED
    assert report_of(replace(same, items=())).outcome is Outcome.NOTHING_COMPARED


def test_a_green_run_says_what_it_could_have_seen_and_a_noisy_one_what_it_needs() -> None:
    (line,) = [line for line in summary(report_of(gate_run({"a": 0.0}))) if "would have found" in line]
    assert "+2." in line and "95 % power" in line
    assert "would have been found" in report_of(gate_run({"a": 0.0})).rows[0].note
    (row,) = report_of(noisy_run()).rows
    assert "too noisy" in row.note and "pairs might do" in row.note
    identical = ItemRun("i", SIDE, SIDE, 0, 0.02, None, Verdict.SAME, "not timed")
    untimed = report_of(replace(gate_run({}), items=(identical,)))
    assert untimed.outcome is Outcome.OK
    assert "nothing was timed: both sides are the same" in list(summary(untimed))


def test_what_was_accepted_does_not_fail_until_it_expires_or_grows() -> None:
    run = gate_run({"b": 0.1})
    fine = Accepted("b", 1.12, "needed", date(2026, 5, 6))
    assert report_of(run, fine).outcome is Outcome.OK
    assert report_of(run, fine).rows[0].note == "accepted until 2026-05-06: needed"
    past = replace(fine, until=date(2026, 5, 5))
    assert report_of(run, past).outcome is Outcome.REGRESSED
    assert "expired on 2026-05-05" in report_of(run, past).rows[0].note
    small = replace(fine, max_ratio=1.05)
    assert report_of(run, small).outcome is Outcome.REGRESSED
    assert "was up to +5.0 %" in report_of(run, small).rows[0].note
    assert report_of(run, replace(fine, name="c")).outcome is Outcome.REGRESSED


def test_a_regression_that_costs_nearly_nothing_does_not_fail() -> None:
    run = gate_run({"a": 0.0, "b": 0.1}, {"a": 1000, "b": 1})
    report = report_of(run)
    assert report.outcome is Outcome.OK
    assert report.rows[1].verdict is Verdict.REGRESSED
    assert "costs all kernels together +0.0 %: does not fail" in report.rows[1].note
    assert report_of(replace(run, min_cost_ratio=0.0)).outcome is Outcome.REGRESSED


def test_causes() -> None:
    run = gate_run({"b": 0.1})
    (item, _) = run.items
    other = replace(SIDE, schedule="1" * 64, origin="trial 9", tvm_version="0.28.0")

    def note(head: object) -> str:
        return report_of(replace(run, items=(replace(item, head=head),))).rows[0].note

    assert note(other) == "schedule changed (trial 7 -> trial 9), TVM 0.27.0 -> 0.28.0"
    assert note(SIDE) == "default schedules, generated code or weights"


def test_junit_with_every_verdict_is_what_its_readers_ask_for() -> None:
    run = with_error(gate_run({"a": 0.0, "b": 0.1, "c": -0.1, "d": 0.1}))
    run = replace(run, wall_secs=12345.6789, items=(*run.items, *noisy_run().items))
    report = report_of(run, Accepted("d", 1.2, 'a "reason" of <people>\x07', TODAY))
    assert {row.verdict for row in report.rows} == set(Verdict)
    assert [row.fails for row in report.rows if row.verdict is Verdict.REGRESSED] == [True, False]
    text = to_junit(report)
    assert junit_problems(text) == []
    assert junit_problems(to_junit(report_of(replace(run, items=())))) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (' failures="1"', "", "testsuite has no failures"),
        (' name="b"', ' name="b" outcome="bad"', "testcase has outcome"),
        (' name="b"', "", "testcase has no name"),
        ("<testcase ", "<case ", "not well-formed"),
        ("<failure", "<failures/><failure", "testcase holds failures"),
        ('time="12.500"', 'time="12 s"', "the time of testsuite is 12 s"),
        ("<testcase", "text<testcase", "testsuite has text"),
    ],
)
def test_the_check_of_junit_finds_mistakes(old: str, new: str, problem: str) -> None:
    text = to_junit(report_of(gate_run({"b": 0.1})))
    assert old in text and junit_problems(text) == []
    try:
        found = junit_problems(text.replace(old, new, 1))
    except ElementTree.ParseError:
        found = ["not well-formed"]
    assert problem in found


def test_junit_is_well_formed_and_counts_what_it_holds() -> None:
    run = with_error(gate_run({"a": 0.0, "b": 0.1}))
    root = ElementTree.fromstring(to_junit(report_of(run)))
    (suite,) = root
    cases = {case.get("name"): case for case in suite}
    assert root.tag == "testsuites" and suite.tag == "testsuite"
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors"), suite.get("skipped")) == (
        "4",
        "1",
        "1",
        "1",
    )
    assert suite.get("timestamp") == "2026-05-06T07:08:09"
    assert cases["b"].find("failure") is not None and cases["gone"].find("skipped") is not None
    assert cases["broken <&> ?"].find("error").get("message") == "head: crashed | `x`"  # type: ignore[union-attr]
    for case in suite:
        assert case.get("classname") == "tunewright.gate"
        assert len(case) <= 1  # the schema has one of failure, error and skipped at most


def test_markdown_shows_what_fails_first_and_escapes_names() -> None:
    text = to_markdown(report_of(with_error(gate_run({"a": 0.0, "b": 0.1}))))
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert "found a regression" in text.splitlines()[0]
    assert rows[0].startswith("| **x** | b | regressed | +10.")
    assert r"crashed \| \`x\`" in rows[1] and r"\<&>" in rows[1]
    assert "passed" in to_markdown(report_of(gate_run({"a": 0.0}))).splitlines()[0]
    assert "no clear answer" in to_markdown(report_of(noisy_run())).splitlines()[0]

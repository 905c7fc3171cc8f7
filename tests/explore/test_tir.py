"""The functions that schedules make, applied in sandboxed children."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.explore.html_page import EVIL, assert_harmless
from tests.explore.test_comparison import add
from tests.explore.test_schedule_words import ruled
from tests.plots.tuned_log import CONV
from tests.tuning_logs.log_samples import make_record, make_session
from tests.workers.workloads import default_trace_json, matmul_task
from tunewright.core.log_url import file_url
from tunewright.explore import OpenLog, tir
from tunewright.explore.tir import ScheduledTir, tir_diff, tir_diff_html
from tunewright.tuning_logs import TuningLog

SMALL = ["for i in range(8):", "    a", "    b"]


def scheduled(number: int, lines: list[str], problem: str = "") -> ScheduledTir:
    return ScheduledTir(f"record {number}", "\n".join(lines), problem)


def test_a_diff_names_the_records_and_what_changed() -> None:
    before, after = scheduled(3, SMALL), scheduled(7, [SMALL[0], "    c", SMALL[2]])
    assert tir_diff(before, after) == [
        "--- record 3",
        "+++ record 7",
        "@@ -1,3 +1,3 @@",
        " for i in range(8):",
        "-    a",
        "+    c",
        "     b",
    ]
    assert tir_diff(before, before) == []
    page = assert_harmless(tir_diff_html(before, after))
    assert page.tags.count("details") == 2 and ("open", None) not in page.attributes
    assert "the same program" in assert_harmless(tir_diff_html(before, before)).text


def test_without_tir_there_is_a_reason() -> None:
    before, after = scheduled(3, SMALL), scheduled(7, [], f"\x1b[2J{EVIL}")
    assert tir_diff(before, after) == [f"# no TIR of record 7: \x1b[2J{EVIL}"]
    page = assert_harmless(tir_diff_html(before, after))
    assert page.text.count(EVIL) == 2
    assert "\x1b" not in page.text + str(after)
    assert_harmless(after._repr_html_())


def stored(path: Path, *traces: str, mod_json: str | None = None) -> OpenLog:
    task = matmul_task(32)
    if mod_json is not None:
        task = replace(task, workload=replace(task.workload, mod_json=mod_json))
    log = TuningLog.open(file_url(path))
    log.add_tasks([task])
    log.start_session(make_session(task))
    records = [make_record(task, number) for number in range(len(traces))]
    changed = [
        replace(record, candidate=replace(record.candidate, trace_json=trace))
        for record, trace in zip(records, traces, strict=True)
    ]
    log.append([(record, None) for record in changed])
    return OpenLog(log, place=str(path))


def other_tile(trace_json: str) -> str:
    """The two outermost factors of the first tile exchanged with the others."""
    instructions, decisions = json.loads(trace_json)
    place = next(p for p, (index, _) in enumerate(decisions) if instructions[index][0] == "SamplePerfectTile")
    index, factors = decisions[place]
    decisions[place] = [index, factors[::-1] if factors != factors[::-1] else [factors[0] * 2, 1]]
    return json.dumps([instructions, decisions])


@pytest.mark.tvm
@pytest.mark.slow
def test_the_functions_of_two_records(tmp_path: Path) -> None:
    trace = default_trace_json(matmul_task(32))
    log = stored(tmp_path / "tuning.db", trace, other_tile(trace))
    found = log.compare(1, 2, tir=True)
    assert found.tir is not None
    first, second = found.tir
    assert (first.problem, second.problem) == ("", "")
    assert "@T.prim_func" in first.text and "T.vectorized(" in first.text and "T.int64(" not in first.text
    assert {line[0] for line in tir_diff(first, second)} == {"-", "+", "@", " "}
    page = assert_harmless(found._repr_html_())
    assert "What changed in TIR" in page.text and "TIR side by side" in page.text


@pytest.mark.tvm
@pytest.mark.slow
def test_what_names_foreign_code_never_reaches_tvm(tmp_path: Path) -> None:
    trace = default_trace_json(matmul_task(32))
    instructions, decisions = json.loads(trace)
    block = instructions[0][3][0]
    instructions.append(["Annotate", [block, '"/tmp/evil.ll"'], ["pragma_import_llvm"], []])
    log = stored(tmp_path / "tuning.db", trace, json.dumps([instructions, decisions]))
    found = log.compare(1, 2, tir=True)
    assert found.tir is not None and found.tir[0].problem == ""
    assert "pragma_import_llvm" in found.tir[1].problem
    assert "pragma_import_llvm" in tir_diff(*found.tir)[0]


@pytest.mark.tvm
def test_a_module_that_calls_out_starts_no_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_pool(*_: object) -> None:
        raise AssertionError("a child was started")

    monkeypatch.setattr("tunewright.workers.pool.Pool", no_pool)
    module = json.dumps({"nodes": [{"type": "ir.Op", "data": "tirx.call_extern"}]})
    log = stored(tmp_path / "tuning.db", "[[],[]]", mod_json=module)
    [found] = tir.scheduled_tir([log.trial(1)])
    assert "call_extern" in found.problem


def test_tvm_is_not_loaded_for_words_alone(tmp_path: Path) -> None:
    with TuningLog.open(file_url(tmp_path / "new.db")) as log:
        for tile in ([2, 4], [4, 2]):
            add(OpenLog(log, place="new.db"), CONV, ruled(tile, 0), 0.1)
    script = (
        "import sys, tunewright\n"
        "log = tunewright.open_log(sys.argv[1])\n"
        "log.compare(1, 3)._repr_html_(), log.trial(1)._repr_html_()\n"
        "print(sorted({'tvm', 'tvm_ffi', 'pandas', 'ray'} & sys.modules.keys()))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "new.db")]
    child = subprocess.run(command, capture_output=True, text=True)
    assert child.stdout == "[]\n", child.stderr

"""The gate's runs on real kernels that are kept in the repository, judged again."""

from collections import Counter
from pathlib import Path

import pytest
from gate_runs.experiments import judge_run, read_runs
from gate_trials import report

from tunewright.gate.statistics import Verdict

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"


@pytest.mark.slow
def test_the_report_is_what_the_kept_times_say() -> None:
    runs = read_runs(FOLDER / "gate_trials.jsonl.gz")
    assert report(runs) in (FOLDER / "gate_trials.md").read_text(encoding="utf-8")
    alike = Counter(judge_run(run).verdict for run in runs if not run.key.effect)
    assert alike[Verdict.REGRESSED] <= 0.004 * alike.total()

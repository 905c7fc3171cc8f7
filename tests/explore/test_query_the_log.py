"""Every line of docs/query-the-log.md, run on the sample log."""

import ast
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from tests.explore.sample_log import Sample
from tunewright.explore import OpenLog, RecordComparison, Session, Trial

PAGE = Path(__file__).parents[2] / "docs" / "query-the-log.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), flags=re.S)


def shown_values(source: str) -> list[object]:
    """What the expressions of the top level give, in their order, as a notebook would show them."""
    names: dict[str, object] = {}
    values = []
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Expr):
            values.append(eval(compile(ast.Expression(statement.value), str(PAGE), "eval"), names))
        else:
            exec(compile(ast.Module([statement], []), str(PAGE), "exec"), names)
    opened = names["log"]
    assert isinstance(opened, OpenLog)
    opened.close()
    return values


def test_the_python(
    sample: Sample, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNEWRIGHT_LOG", str(sample.path))
    shown = shown_values("".join(blocks("python")))
    opened, best, _, failures, messages, daily, origins, steps, *objects = shown
    assert list(map(type, objects)) == [Session, Trial, RecordComparison]
    assert repr(opened) == f"OpenLog('{sample.path}', closed)"
    assert "SampleCategorical" in capsys.readouterr().out
    for frame in (best, failures, daily, steps):
        assert isinstance(frame, pd.DataFrame)
    assert isinstance(messages, pd.Series)
    assert isinstance(origins, pd.Series)
    assert best["workload"].tolist() == ["matmul_128", "matmul_64"]
    assert failures["kind"].tolist() == ["pruned", "run"]
    assert messages.to_dict() == {"pruned": "5 x slower", "run": "SIGSEGV é"}
    assert daily["num_trials"].tolist() == [6]
    assert daily["device_secs"].tolist() == [pytest.approx(2.0)]
    assert origins.to_dict() == {"random": 2}
    # The mutation of matmul_64 was faster than the random trial before it.
    assert steps["sum"].to_dict() == {"mutation": 1, "random": 0}


def test_the_sql_agrees_with_the_frames(sample: Sample, log: OpenLog) -> None:
    with closing(sqlite3.connect(f"file:{sample.path}?mode=ro", uri=True)) as connection:
        best, failures = (pd.read_sql_query(query, connection) for query in blocks("sql"))
    expected = log.best().sort_values("best_secs", ascending=False)
    assert best["task_key"].tolist() == expected["task_key"].tolist()
    assert best["name"].tolist() == expected["workload"].tolist()
    assert best["best_secs"].tolist() == expected["best_secs"].tolist()
    assert failures.values.tolist() == log.failures().values.tolist()

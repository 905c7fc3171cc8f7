"""What the gate wrote, read back: the verdicts as they stand there."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.explore.html_page import EVIL, assert_harmless
from tests.gate.test_results import gate_run
from tunewright.core.errors import ConfigError
from tunewright.explore import read_gate_results
from tunewright.gate.results import results_of, write_run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_run(gate_run({"a": 0.0, "b": 0.1}, {"a": 3, "b": 1}), tmp_path / "run.json")
    return tmp_path / "run.json"


def test_the_verdicts_of_the_gate_the_worst_first(path: Path) -> None:
    found = read_gate_results(path)
    expected = {one.item.name: one for one in results_of(gate_run({"a": 0.0, "b": 0.1}, {"a": 3, "b": 1}))}
    assert [(item.name, item.verdict) for item in found.items] == [
        ("b", "regressed"),
        ("gone", "missing"),
        ("a", "same"),
    ]
    for item in found.items:
        judgement = expected[item.name].judgement
        assert item.reason == expected[item.name].reason
        assert item.cost_ratio == expected[item.name].cost_ratio
        if judgement is None:
            assert (item.ratio, item.num_pairs, item.change_text) == (None, 0, "-")
        else:
            assert (item.ratio, item.num_pairs) == (judgement.ratio, judgement.num_pairs)
    assert repr(found) == "<GateResults of run.json: 1 regressed, 1 missing, 1 same>"


def test_as_a_frame_and_as_a_page(path: Path) -> None:
    found = read_gate_results(str(path))
    frame = found.to_frame()
    assert frame["verdict"].tolist() == ["regressed", "missing", "same"]
    assert frame["ratio"][0] == pytest.approx(1.1, abs=0.02)
    assert frame["ratio"].isna().tolist() == [False, True, False]
    page = assert_harmless(found._repr_html_())
    assert [row[:2] for row in page.rows[1:]] == [["b", "regressed"], ["gone", "missing"], ["a", "same"]]
    assert page.rows[1][2].startswith("+")


def rewritten(path: Path, change: Any) -> Path:
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))
    return path


def test_hostile_names(path: Path) -> None:
    def change(fields: Any) -> None:
        for result in fields["results"]:
            result["name"] = result["reason"] = result["verdict"] = f"{EVIL}\x1b[2J\ud800"
        fields["run"]["machine"]["cpu_model"] = fields["run"]["created_at"] = EVIL

    found = read_gate_results(rewritten(path, change))
    page = assert_harmless(found._repr_html_())
    assert page.text.count(EVIL) >= 8
    found._repr_html_().encode("utf-8")
    assert "\x1b" not in repr(found) + page.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda fields: fields.update(schema="tunewright-gate/9"), "has schema 'tunewright-gate/9'"),
        (lambda fields: fields.pop("results"), "holds a calibration"),
        (lambda fields: fields.pop("schema"), "holds no results of the gate"),
        (lambda fields: fields.update(results=[1]), "holds no results of the gate"),
        (lambda fields: fields.update(run=None), "holds no results of the gate"),
    ],
)
def test_what_is_no_run_of_the_gate(path: Path, change: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_gate_results(rewritten(path, change))


def test_a_file_that_is_not_there_or_no_json(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_gate_results(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="holds no results"):
        read_gate_results(tmp_path / "text.json")

from datetime import date
from pathlib import Path

import pytest

from tests.gate.test_results import gate_run
from tunewright.core.errors import ConfigError
from tunewright.gate.accepted import accept, read_accepted
from tunewright.gate.results import ItemResult, results_of

TODAY, LATER = date(2026, 5, 6), date(2026, 6, 1)


def results(**effects: float) -> dict[str, ItemResult]:
    return {one.item.name: one for one in results_of(gate_run(effects))}


def test_what_is_accepted_is_read_back_and_covers_as_much_until_then(tmp_path: Path) -> None:
    path = tmp_path / "accepted.toml"
    assert read_accepted(path) == []
    slower = results(a=0.1)["a"]
    made = accept(slower, path, reason='say "why" — \x7f', until=LATER, today=TODAY)
    assert read_accepted(path) == [made]
    assert made.covers(slower, LATER) and not made.covers(slower, date(2026, 6, 2))
    assert not made.covers(results(a=0.2)["a"], TODAY)
    assert not made.covers(results(b=0.1)["b"], TODAY)


def test_a_new_acceptance_replaces_the_old_and_expired_ones_go(tmp_path: Path) -> None:
    path = tmp_path / "accepted.toml"
    found = results(a=0.1, b=0.1)
    accept(found["a"], path, reason="first", until=TODAY, today=TODAY)
    accept(found["b"], path, reason="other", until=LATER, today=TODAY)
    accept(found["b"], path, reason="second", until=LATER, today=TODAY)
    assert [(one.name, one.reason) for one in read_accepted(path)] == [("a", "first"), ("b", "second")]
    accept(found["b"], path, reason="third", until=LATER, today=LATER)
    assert [(one.name, one.reason) for one in read_accepted(path)] == [("b", "third")]


def test_only_a_regression_with_a_reason_and_a_future_is_accepted(tmp_path: Path) -> None:
    found = results(a=0.1, b=0.0)
    path = tmp_path / "accepted.toml"
    with pytest.raises(ConfigError, match="'b' is same"):
        accept(found["b"], path, reason="x", until=LATER, today=TODAY)
    with pytest.raises(ConfigError, match="reason is empty"):
        accept(found["a"], path, reason=" ", until=LATER, today=TODAY)
    with pytest.raises(ConfigError, match="is over"):
        accept(found["a"], path, reason="x", until=TODAY, today=LATER)
    assert not path.exists()


@pytest.mark.parametrize(
    "text",
    [
        "accepted = 3",
        "[[accepted]]\nname = 'a'",
        "[[accepted]]\nname='a'\nmax_ratio=1.1\nreason='x'\nuntil='no'",
    ],
)
def test_damaged_files_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "accepted.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="is damaged"):
        read_accepted(path)

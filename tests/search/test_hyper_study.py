import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tunewright.core.errors import ConfigError
from tunewright.search.hyper_study import HyperStudy, NumberRange

RANGES = {"depth": NumberRange(1, 10), "rate": NumberRange(0.01, 1.0, is_log=True)}
START = {"depth": 9, "rate": 0.9}


def open_study(path: Path, *, name: str = "s", data: str = "d") -> HyperStudy:
    return HyperStudy.open(path, name, RANGES, start=START, data=data)


def score(values: dict[str, float]) -> float:
    """Best at depth 3, rate 0.1."""
    return -abs(values["depth"] - 3) - abs(values["rate"] - 0.1)


def go_on(study: HyperStudy, num_trials: int) -> list[dict[str, float]]:
    asked = []
    for _ in range(num_trials):
        asked.append(study.ask())
        study.tell(score(asked[-1]))
    return asked


def test_begins_with_what_is_known_and_finds_better(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s.db")
    asked = go_on(study, 40)
    assert asked[0] == START
    assert all(isinstance(one["depth"], int) and 1 <= one["depth"] <= 10 for one in asked)
    best = study.best
    assert best is not None
    assert best.score == max(map(score, asked)) > -1
    assert score(dict(best.values)) == best.score
    assert asked[best.number] == best.values


def test_another_process_goes_on_with_other_draws(tmp_path: Path) -> None:
    first = go_on(open_study(tmp_path / "s.db"), 5)
    again = open_study(tmp_path / "s.db")
    assert again.num_done == 5
    second = go_on(again, 5)
    assert START not in second
    assert not [one for one in second if one in first]
    assert open_study(tmp_path / "s.db").num_done == 10
    assert open_study(tmp_path / "s.db", name="other").num_done == 0


def test_a_trial_without_a_score_is_no_trial(tmp_path: Path) -> None:
    open_study(tmp_path / "s.db").ask()
    again = open_study(tmp_path / "s.db")
    assert again.num_done == 0
    assert again.best is None


def test_scores_of_other_data_are_not_mixed(tmp_path: Path) -> None:
    go_on(open_study(tmp_path / "s.db"), 2)
    with pytest.raises(ConfigError, match=r"study 's' in .* was made with other trials or another metric"):
        open_study(tmp_path / "s.db", data="other")


def test_what_is_worse_than_the_median_is_given_up(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s.db")
    for _ in range(12):
        study.ask()
        assert study.goes_on(0, 0.5)
        assert study.goes_on(1, 0.5)
        study.tell(0.5)
    study.ask()
    assert study.goes_on(0, 0.1)  # one part says little
    assert not study.goes_on(1, 0.1)
    assert study.num_done == 13
    with pytest.raises(ValueError, match="nothing was asked"):
        study.tell(0.1)


def test_files_that_hold_something_else(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("not a database")
    with pytest.raises(ConfigError, match="is no SQLite file"):
        open_study(text)
    assert text.read_text() == "not a database"
    with pytest.raises(ConfigError, match="studies cannot be kept in"):
        open_study(text / "below.db")


def test_a_name_with_odd_characters(tmp_path: Path) -> None:
    path = tmp_path / "a b?c#d%20é" / "s.db"
    go_on(open_study(path), 1)
    assert open_study(path).num_done == 1
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT study_name FROM studies").fetchall() == [("s",)]
    connection.close()


_IN_A_PROCESS_OF_ITS_OWN = """
import logging, pathlib, sys
logger = logging.getLogger("tunewright.somewhere")
from tunewright.search.hyper_study import HyperStudy, NumberRange
path, ranges = pathlib.Path(sys.argv[1]), {"x": NumberRange(0, 9)}
for _ in range(2):
    study = HyperStudy.open(path, "s", ranges, start={"x": 1}, data="d")
    study.ask()
    study.tell(0.5)
print(logger.disabled, logging.getLogger().handlers, study.num_done)
"""


@pytest.mark.slow
def test_logging_of_the_process_stays_as_it_is(tmp_path: Path) -> None:
    """Optuna's migrations configure logging where nobody has, which switches existing loggers off."""
    done = subprocess.run(
        [sys.executable, "-c", _IN_A_PROCESS_OF_ITS_OWN, str(tmp_path / "s.db")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("False [] 2\n", "")

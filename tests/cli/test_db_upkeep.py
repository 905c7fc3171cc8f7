"""`tunewright db stats`, `merge`, `prune`, `backup`, `upgrade`: what they say, and what they leave alone."""

import gzip
import json
from pathlib import Path

import pytest
import typer.testing

from tunewright.cli import db
from tunewright.cli.settings import file_url
from tunewright.core.errors import ConfigError, SchemaVersionError
from tunewright.tuning_logs import TuningLog

GOLDEN_LOG = Path(__file__).parents[1] / "tuning_logs" / "data" / "schema_0001.db.gz"


@pytest.fixture
def old_log(tmp_path: Path) -> Path:
    path = tmp_path / "old.db"
    path.write_bytes(gzip.decompress(GOLDEN_LOG.read_bytes()))
    return path


@pytest.fixture
def log(old_log: Path) -> Path:
    TuningLog.open(file_url(old_log)).close()
    return old_log


def run(log: Path, *args: str) -> typer.testing.Result:
    result = typer.testing.CliRunner().invoke(db.app, [*args, "--log", str(log)])
    if result.exception is not None:
        raise result.exception
    return result


def num_trials(log: Path) -> int:
    with TuningLog.open(file_url(log), read_only=True) as opened:
        return opened.stats().num_trials


def test_upgrade_says_from_where_to_where(old_log: Path) -> None:
    with pytest.raises(SchemaVersionError, match="upgrade it"):
        run(old_log, "stats")
    said = run(old_log, "upgrade").stdout
    assert "it was at 0001; the old one is kept as" in said
    assert old_log.with_name("old.db.schema-0001.bak").exists()
    assert "already" in run(old_log, "upgrade").stdout


def test_stats(log: Path) -> None:
    table = run(log, "stats").stdout
    assert "bytes per trial" in table
    stats = json.loads(run(log, "stats", "-f", "json").stdout)
    assert (stats["num_trials"], stats["num_tasks"], stats["num_quarantined"]) == (7, 3, 1)
    assert stats["failures"] == {"pruned": 1, "run": 1}


def test_merge_tells_what_is_new_and_leaves_the_source_alone(log: Path, tmp_path: Path) -> None:
    target = tmp_path / "team.db"
    before = log.read_bytes()
    assert (
        "7 new trials, 0 known already; 3 new tasks, 2 new sessions" in run(target, "merge", str(log)).stdout
    )
    assert "0 new trials, 7 known already" in run(target, "merge", str(log)).stdout
    assert log.read_bytes() == before
    with pytest.raises(ConfigError, match="is the log itself"):
        run(log, "merge", str(log))
    with pytest.raises(ConfigError, match="there is no tuning log at"):
        run(log, "merge", str(tmp_path / "missing.db"))


def test_prune_does_nothing_before_it_is_told_yes(log: Path) -> None:
    planned = run(log, "prune", "--keep", "1")
    assert "would delete 5 trials" in planned.stdout
    assert "say --yes" in planned.stderr
    assert num_trials(log) == 7
    assert "deleted 5 trials" in run(log, "prune", "--keep", "1", "--yes").stdout
    assert num_trials(log) == 2


def test_backup_is_a_log(log: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    assert "was copied to" in run(log, "backup", str(copy)).stdout
    assert num_trials(copy) == 7
    with pytest.raises(ConfigError, match="exists"):
        run(log, "backup", str(copy))

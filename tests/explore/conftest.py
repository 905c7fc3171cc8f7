"""A log to explore. `log_samples` of the log's own tests becomes importable."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunewright.explore import OpenLog, open_log

sys.path.insert(0, str(Path(__file__).parents[1] / "tuning_logs"))

from tests.explore.sample_log import Sample, make_sample


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """Tests only read it."""
    return make_sample(tmp_path_factory.mktemp("sample") / "tuning.db")


@pytest.fixture
def log(sample: Sample) -> Iterator[OpenLog]:
    with open_log(sample.path) as opened:
        yield opened

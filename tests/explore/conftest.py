"""A log to explore."""

from collections.abc import Iterator

import pytest

from tests.explore.sample_log import Sample, make_sample
from tunewright.explore import OpenLog, open_log


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """Tests only read it."""
    return make_sample(tmp_path_factory.mktemp("sample") / "tuning.db")


@pytest.fixture
def log(sample: Sample) -> Iterator[OpenLog]:
    with open_log(sample.path) as opened:
        yield opened

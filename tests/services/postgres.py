"""A real PostgreSQL in a folder of its own, on loopback and a free port.

Tests that use it have the marker ``integration``; ``tests/install_services.sh`` installs it.
"""

import getpass
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.services.processes import Process, free_ports

_USER = "nfbmr"


@dataclass(frozen=True)
class DatabaseServer:
    """A running PostgreSQL.

    Attributes:
        port: of loopback.
        password: of its only user, ``nfbmr``.
    """

    port: int
    password: str

    def uri(self, database: str, driver: str = "") -> str:
        """The address of a database, with the password.

        Args:
            database: its name.
            driver: what SQLAlchemy reaches it by, as in ``+psycopg2``; PostgreSQL's own programs
                know none.
        """
        return f"postgresql{driver}://{_USER}:{self.password}@127.0.0.1:{self.port}/{database}"


def _programs() -> Path:
    """The folder of the newest installed version's programs."""
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    versions = sorted(found, key=lambda path: [int(n) for n in re.findall(r"\d+", str(path))])
    if versions:
        return versions[-1].parent
    if on_path := shutil.which("initdb"):
        return Path(on_path).parent
    pytest.fail("no PostgreSQL found: run 'make test-integration', which installs it")


@contextmanager
def running_postgres() -> Iterator[DatabaseServer]:
    """PostgreSQL for the length of a block; nothing of it stays."""
    programs = _programs()
    # It refuses to run as root; Debian's package comes with a user for it.
    user = "postgres" if os.geteuid() == 0 else None
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    server = DatabaseServer(free_ports(1)[0], secrets.token_hex(16))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nfbmr-postgres-")))
        password_file = folder / "password"
        password_file.write_text(server.password)
        for path in (folder, password_file):
            shutil.chown(path, user or getpass.getuser())
        data = str(folder / "data")
        initdb = [programs / "initdb", "-D", data, "-U", _USER, "--no-sync", "--auth=scram-sha-256"]
        subprocess.run(
            [*initdb, f"--pwfile={password_file}"],
            check=True,
            capture_output=True,
            env=environment,
            cwd="/",
            user=user,
        )
        command = [str(programs / "postgres"), "-D", data, "-p", str(server.port), "-h"]
        options = ["127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"]
        process = Process([*command, *options], folder / "log", environment, user)
        stack.callback(process.end)
        process.wait_for_port(server.port)
        yield server


def create_database(server: DatabaseServer, name: str) -> str:
    """Make a new database and return its address for SQLAlchemy."""
    subprocess.run(
        [_programs() / "createdb", f"--maintenance-db={server.uri('postgres')}", name],
        check=True,
        capture_output=True,
    )
    return server.uri(name, "+psycopg2")


@pytest.fixture(scope="session")
def postgres() -> Iterator[DatabaseServer]:
    """A PostgreSQL that all tests of a session share."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_uri(postgres: DatabaseServer) -> str:
    """The address of a new, empty database."""
    return create_database(postgres, f"test_{uuid.uuid4().hex}")

"""A real MLflow server on loopback, on whatever database and artifact store a test gives it."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.services.processes import Process, free_ports

CLUSTER = Path(__file__).parents[2] / "cluster"


def settings_of_the_readme(database: str) -> str:
    """``basic_auth.ini`` as the README has it written, with another database of users."""
    (template,) = re.findall(
        r"printf '(\[mlflow\].*)' \"\$PASSWORD\"", (CLUSTER / "README.md").read_text()
    )
    lines = template.split("\\n")
    return "\n".join(
        f"database_uri = {database}" if line.startswith("database_uri") else line for line in lines
    )


@contextmanager
def running_mlflow(
    database: str,
    artifacts: str | None,
    environment: Mapping[str, str],
    port: int | None = None,
    further: Sequence[str] = (),
) -> Iterator[str]:
    """MLflow for the length of a block.

    Args:
        database: its address, with the password.
        artifacts: folder or ``s3://`` prefix whose files it hands out itself; None leaves them to
            the further arguments.
        environment: what it needs besides, for instance the store's credentials.
        port: of loopback; a free one by default.
        further: arguments of ``mlflow server``.

    Yields:
        The server's address.
    """
    port = port or free_ports(1)[0]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nfbmr-mlflow-")))
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        options = ["--port", str(port), "--workers", "1"]
        options += [] if artifacts is None else ["--artifacts-destination", artifacts]
        own = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            # Not on the command line, where everyone on the machine can read it.
            "MLFLOW_BACKEND_STORE_URI": database,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            # Eight more processes, for jobs that nobody here runs.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        process = Process([*command, *options, *further], folder / "log", own | dict(environment))
        stack.callback(process.end)
        process.wait_for_port(port)
        yield f"http://127.0.0.1:{port}"

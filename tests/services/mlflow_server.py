"""A real MLflow server on loopback, on whatever database and artifact store a test gives it."""

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.services.processes import Process, free_ports


@contextmanager
def running_mlflow(
    database: str,
    artifacts: str,
    environment: Mapping[str, str],
    port: int | None = None,
    further: Sequence[str] = (),
) -> Iterator[str]:
    """MLflow for the length of a block, handing artifacts out itself.

    Args:
        database: its address, with the password.
        artifacts: folder or ``s3://`` prefix.
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
        options = ["--port", str(port), "--workers", "1", "--artifacts-destination", artifacts]
        own = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            # Not on the command line, where everyone on the machine can read it.
            "MLFLOW_BACKEND_STORE_URI": database,
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        process = Process([*command, *options, *further], folder / "log", own | dict(environment))
        stack.callback(process.end)
        process.wait_for_port(port)
        yield f"http://127.0.0.1:{port}"

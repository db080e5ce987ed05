"""Processes that tests start: on loopback, with their output kept, ended by their own id."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

START_TIMEOUT_S = 180.0
_END_TIMEOUT_S = 10.0


def free_ports(count: int) -> list[int]:
    """Different ports of loopback on which nobody listens now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Process:
    """One started program; its output goes to a file that an error shows.

    Args:
        command: program and arguments.
        log: file for its output.
        environment: all of its environment.
        user: whose rights it has; this process's own by default.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        user: str | None = None,
    ) -> None:
        self._name = Path(command[0]).name
        self._log = log
        if shutil.which("setpriv"):  # it ends with us, even if we are killed
            command = ["setpriv", "--pdeathsig", "TERM", *command]
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command, stdout=file, stderr=file, env=dict(environment), cwd="/", user=user
            )

    def wait_for_port(self, port: int) -> None:
        """Return when it listens.

        Raises:
            RuntimeError: it ended, or does not listen in time.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", port), timeout=1),
            ):
                return
            time.sleep(0.05)
        said = self._log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{self._name} does not listen on port {port}; it said:\n{said}")

    def end(self) -> None:
        """Ask it to end; insist where it does not."""
        self._process.terminate()
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

"""Drivers of scoring runs that a test can kill.

A driver is a process of its own that runs ``jobs/score.py``. It is forked from a server that has
imported everything, so that a new one costs a second instead of ten.
"""

import contextlib
import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import mlflow.tracking  # noqa: F401  -- imported before the fork, not after it
import torch  # noqa: F401

import jobs.score
from nfbmr.session import _require_token, ray_session

PATIENCE_S = 600.0
_FILE_EVENTS = frozenset(["open", "os.mkdir", "os.remove", "os.rename", "os.rmdir"])
_CONTEXT = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        code: exit code.
        said: on standard output and standard error.
        file_events: files that the driver opened, renamed, removed or made below the watched
            folder.
    """

    code: int
    said: str
    file_events: int


class _FileEvents:
    """Counts what this process does to files below a folder, and can end it there.

    An audit hook sees every such call of Python right before it happens; no code is changed.
    """

    def __init__(self) -> None:
        self.folder, self.fatal, self.count = "", -1, 0
        sys.addaudithook(self._see)

    def watch(self, folder: str, fatal: int) -> None:
        """Start to count anew; at event number ``fatal`` the process is killed."""
        self.folder, self.fatal, self.count = folder, fatal, 0

    def _see(self, event: str, arguments: tuple[object, ...]) -> None:
        if event not in _FILE_EVENTS or not self.folder:
            return
        if str(arguments[0]).startswith(self.folder):
            if self.count == self.fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            self.count += 1


def _serve(orders: Connection, address: str, environment: Mapping[str, str]) -> None:
    """The driver: connected once, it runs one command after the other."""
    os.environ |= dict(environment)
    _require_token()
    events = _FileEvents()
    with ray_session(address):
        orders.send("connected")
        while (order := orders.recv()) is not None:
            argv, folder, fatal = order
            events.watch(folder, fatal)
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                code = jobs.score.main(argv)
            orders.send(Outcome(code, said.getvalue(), events.count))


class Driver:
    """One driver process, connected to a cluster.

    Args:
        address: of the cluster.
        environment: added to this process's.
    """

    def __init__(self, address: str, environment: Mapping[str, str]) -> None:
        _CONTEXT.set_forkserver_preload([__name__])
        self._orders, far = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=_serve, args=(far, address, dict(environment)), daemon=True
        )
        self._process.start()
        far.close()
        self._receive()

    def start(self, argv: Sequence[str], folder: str = "", fatal: int = -1) -> None:
        """Let it run ``jobs/score.py``; at a file event below ``folder`` it is killed."""
        self._orders.send((list(argv), folder, fatal))

    def outcome(self, timeout_s: float = PATIENCE_S) -> Outcome:
        """How the run ended.

        Raises:
            TimeoutError: it did not, which is a hang.
            EOFError: the process was killed.
        """
        found = self._receive(timeout_s)
        assert isinstance(found, Outcome)
        return found

    def _receive(self, timeout_s: float = PATIENCE_S) -> object:
        if not self._orders.poll(timeout_s):
            raise TimeoutError(f"the driver has not answered for {timeout_s:g} s")
        return self._orders.recv()

    def run(self, argv: Sequence[str], folder: str = "") -> Outcome:
        """``start``, then ``outcome``."""
        self.start(argv, folder)
        return self.outcome()

    def ended_within(self, seconds: float) -> bool:
        """Wait for an answer, or for the end of the process."""
        return self._orders.poll(seconds)

    def strike(self) -> None:
        """``kill -9`` and no more: for a thread that must not wait."""
        self._process.kill()

    def kill(self) -> None:
        """``kill -9``."""
        self._process.kill()
        self._process.join()
        self._orders.close()

    def close(self) -> bool:
        """Let it end in order; whether it did."""
        with contextlib.suppress(OSError):
            self._orders.send(None)
        self._process.join(PATIENCE_S)
        ended = self._process.exitcode == 0
        self.kill()
        return ended

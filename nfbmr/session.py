"""The connection to Ray: a local one by default, a cluster where an address says so."""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray._private.ray_logging import stdout_deduplicator
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from nfbmr.errors import ConfigError
from nfbmr.process_memory import KEEP_FREED_MEMORY


@contextmanager
def ray_session(address: str | None = None, num_cpus: int | None = None) -> Iterator[None]:
    """Connect to Ray for the length of a block; reuse a connection that is already there.

    Args:
        address: of a running cluster (``auto``, ``ray://…``, ``host:port``). Without one, and
            without ``RAY_ADDRESS`` in the environment, Ray starts on this machine and ends with
            the block, at loopback's address, with a random token and without dashboard and client.
        num_cpus: cores that a local Ray may use; all by default.

    Raises:
        ConfigError: there is no cluster at the address.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    # Its failures come back as exceptions; a traceback in the log besides would be noise.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    try:
        if address:
            _require_reachable(address)
            ray.init(
                address=address,
                logging_level=logging.ERROR,
                log_to_driver=False,
                runtime_env={"env_vars": KEEP_FREED_MEMORY | _PATIENT},
            )
        else:
            _start_local(num_cpus)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"There is no Ray cluster at {address}: {error}. Start one (ray start --head), correct "
            "--ray-address, or leave it out to use this machine."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_reachable(address: str) -> None:
    """Knock at a cluster's port: Ray itself would try for a minute and then end the process.

    Raises:
        OSError: nobody answers.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_TIMEOUT_S):
            pass


def _start_local(num_cpus: int | None) -> None:
    """Start Ray on this machine: loopback only, without what only a cluster needs."""
    for name, value in (_LOCAL_ENVIRONMENT | KEEP_FREED_MEMORY).items():
        os.environ.setdefault(name, value)
    _require_token()
    # Several small actors per core are meant: no warning about them on our standard output.
    stdout_deduplicator.skip_re = re.compile("PYTHON worker processes have been started")
    with _stderr_held_back():
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
        )


@contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Keep what is written to file descriptor 2 to itself, and show it if the block fails.

    Ray's C++ side announces there that it found ``RAY_BACKEND_LOG_LEVEL``.
    """
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _require_token() -> None:
    """Let Ray answer only those who know a random token.

    Ray's internal ports listen on every interface, whatever address the node is given. Ray reads
    its configuration when it is imported: the two calls make it read again, as Ray's own tests do
    (``ray._private.authentication_test_utils``).
    """
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


_KNOCK_TIMEOUT_S = 10.0
# Two cores that import torch in several processes need more than the default minute, and so does a
# fit whose place on a cluster somebody else has taken.
_PATIENT = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300"}
_LOCAL_ENVIRONMENT = {
    # The page for Prometheus would be open to the whole network; =1 in the environment opens it.
    "RAY_enable_metrics_collection": "0",
    # Ray Train's helpers for draining nodes, dashboards and metrics each cost a process.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    **_PATIENT,
    # Failures come back as exceptions; what Ray's C++ side logs besides is noise to a user.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}

"""The connection to Ray: a local one by default, a cluster where an address says so."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from nfbmr.errors import ConfigError


@contextmanager
def ray_session(address: str | None = None, num_cpus: int | None = None) -> Iterator[None]:
    """Connect to Ray for the length of a block; reuse a connection that is already there.

    Args:
        address: of a running cluster (``auto``, ``ray://…``, ``host:port``). Without one, and
            without ``RAY_ADDRESS`` in the environment, Ray starts on this machine and ends with
            the block; its ports are bound to loopback and there is no dashboard.
        num_cpus: cores that a local Ray may use; all by default.

    Raises:
        ConfigError: there is no cluster at the address.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    try:
        if address:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        else:
            _start_local(num_cpus)
    except (ConnectionError, ValueError) as error:
        raise ConfigError(
            f"There is no Ray cluster at {address}: {error}. Start one (ray start --head), correct "
            "--ray-address, or leave it out to use this machine."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _start_local(num_cpus: int | None) -> None:
    """Start Ray on this machine: loopback only, without what only a cluster needs."""
    for name, value in _LOCAL_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    ray.init(
        address="local",
        num_cpus=num_cpus,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )


_LOCAL_ENVIRONMENT = {
    # Ray Train's helpers for draining nodes, dashboards and metrics each cost a process.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # Two cores that import torch in several processes need more than the default minute.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
    "RAY_AUTH_MODE": "disabled",
}

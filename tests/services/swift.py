"""A real object store that speaks S3: OpenStack Swift with its s3api, on one machine.

Tests that use it have the marker ``integration``; ``tests/install_services.sh`` installs it.
Several processes of Swift, one device, one replica, everything on loopback and free ports.
"""

import getpass
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pytest
import s3fs

from tests.services.processes import START_TIMEOUT_S, Process, free_ports

PROGRAMS = (
    "swift-proxy-server",
    "swift-account-server",
    "swift-container-server",
    "swift-object-server",
    "swift-ring-builder",
    "memcached",
)
_STORAGE = ("account", "container", "object")

_SWIFT_CONF = """
[swift-hash]
swift_hash_path_prefix = tests
swift_hash_path_suffix = tests
"""

_STORAGE_CONF = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
workers = 0
log_level = ERROR

[pipeline:main]
pipeline = {kind}-server

[app:{kind}-server]
use = egg:swift#{kind}

[filter:recon]
recon_cache_path = {folder}/recon
"""

_PROXY_CONF = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {folder}
workers = 0
log_level = ERROR

[pipeline:main]
pipeline = catch_errors proxy-logging cache listing_formats s3api tempauth slo dlo \
versioned_writes proxy-logging proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true

[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin

[filter:s3api]
use = egg:swift#s3api
location = us-east-1

[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{memcached}

[filter:catch_errors]
use = egg:swift#catch_errors
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
"""


@dataclass(frozen=True)
class ObjectStore:
    """A running server.

    Attributes:
        port: of loopback where it speaks S3.
    """

    port: int

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to use it."""
        return store_environment(self.endpoint)


def store_environment(endpoint: str) -> dict[str, str]:
    """What a process needs in its environment to use a Swift behind an address."""
    return {
        "AWS_ACCESS_KEY_ID": "test:tester",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        # Swift 2.30 refuses uploads in signed chunks, the default of newer clients.
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }


def _require_programs() -> None:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.fail(f"{', '.join(missing)} not found: run 'make test-integration', which installs")


def _write_configuration(folder: Path, ports: dict[str, int]) -> None:
    user = getpass.getuser()
    (folder / "devices" / "d1").mkdir(parents=True)
    (folder / "recon").mkdir()
    (folder / "swift.conf").write_text(_SWIFT_CONF)
    for kind in _STORAGE:
        text = _STORAGE_CONF.format(kind=kind, port=ports[kind], user=user, folder=folder)
        (folder / f"{kind}.conf").write_text(text)
        builder = ["swift-ring-builder", str(folder / f"{kind}.builder")]
        for arguments in (
            ["create", "4", "1", "1"],
            ["add", f"r1z1-127.0.0.1:{ports[kind]}/d1", "1"],
            ["rebalance"],
        ):
            subprocess.run(
                [*builder, *arguments], check=True, capture_output=True, env=_environment()
            )
    text = _PROXY_CONF.format(
        port=ports["proxy"], memcached=ports["memcached"], user=user, folder=folder
    )
    (folder / "proxy.conf").write_text(text)


def _environment() -> dict[str, str]:
    """Of Debian's Python, which must not see the project's."""
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}


def _wait_until_healthy(endpoint: str) -> None:
    """The proxy listens before its storage servers answer."""
    deadline = time.monotonic() + START_TIMEOUT_S
    request = urllib.request.Request(
        f"{endpoint}/auth/v1.0", headers={"X-Auth-User": "test:tester", "X-Auth-Key": "testing"}
    )
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@contextmanager
def running_swift() -> Iterator[ObjectStore]:
    """Swift for the length of a block; nothing of it stays."""
    _require_programs()
    with ExitStack() as stack:
        # Not in pytest's folder: Swift needs short paths and extended attributes.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nfbmr-swift-")))
        names = (*_STORAGE, "proxy", "memcached")
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        _write_configuration(folder, ports)
        memcached = ["memcached", "-l", "127.0.0.1", "-p", str(ports["memcached"]), "-m", "16"]
        commands = {"memcached": [*memcached, "-u", getpass.getuser()]}
        for kind in (*_STORAGE, "proxy"):
            commands[kind] = [f"swift-{kind}-server", str(folder / f"{kind}.conf")]
        for name, command in commands.items():
            process = Process(command, folder / f"{name}.log", _environment())
            stack.callback(process.end)
            process.wait_for_port(ports[name])
        store = ObjectStore(ports["proxy"])
        _wait_until_healthy(store.endpoint)
        yield store


@pytest.fixture(scope="session")
def swift() -> Iterator[ObjectStore]:
    """A Swift that all tests of a session share."""
    with running_swift() as store:
        yield store


@pytest.fixture
def swift_bucket(swift: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of a new bucket in Swift; this process and those it starts can reach it.

    A Ray that runs already keeps the environment it was started with: start a job as a process of
    its own, or ``nfbmr.session.ray_session`` after this fixture.
    """
    for name, value in swift.environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = f"s3://test-{uuid.uuid4().hex}"
    fsspec.filesystem("s3").mkdir(bucket)
    yield bucket
    s3fs.S3FileSystem.clear_instance_cache()

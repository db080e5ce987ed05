"""The registry of the manifests: PostgreSQL, artifacts straight in a store, a log-in.

Who may read, who may register; the server never handles an artifact.
"""

import secrets
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from nfbmr.errors import RegistryError
from nfbmr.registry import CHAMPION, Registry
from nfbmr.train.registration import register_finished
from tests.registry.finished_fit import finished_fit
from tests.services.mlflow_server import running_mlflow, settings_of_the_readme
from tests.services.postgres import DatabaseServer, create_database
from tests.services.processes import free_ports
from tests.services.swift import ObjectStore

pytestmark = [
    pytest.mark.integration,
    # MLflow's own server, imported for its client of users.
    pytest.mark.filterwarnings("ignore:starlette.middleware.wsgi is deprecated"),
]

CLUSTER = Path(__file__).parents[2] / "cluster"
ADMIN, PASSWORD = "admin", secrets.token_hex(12)


def container_of_the_manifest() -> dict[str, Any]:
    """The server as the cluster starts it."""
    for each in yaml.safe_load_all((CLUSTER / "kubernetes" / "mlflow.yaml").read_text()):
        if each["kind"] == "Deployment":
            (container,) = each["spec"]["template"]["spec"]["containers"]
            return dict(container)
    raise AssertionError("no deployment of MLflow")


def arguments_of_the_manifest(port: int, bucket: str) -> list[str]:
    """The server's arguments, with loopback's name and a test's bucket instead of the cluster's.

    As many workers as there: they share two new databases from the first moment on.
    """
    own = {
        "--host": None,
        "--port": None,
        "--allowed-hosts": f"127.0.0.1:{port}",
        "--default-artifact-root": f"{bucket}/mlflow",
    }
    given = dict(text.partition("=")[::2] for text in container_of_the_manifest()["args"])
    assert own.keys() < given.keys()
    assert int(given["--workers"]) > 1
    kept = {name: own.get(name, value) for name, value in given.items()}
    return [
        f"{name}={value}" if value else name for name, value in kept.items() if value is not None
    ]


@pytest.fixture
def server(
    tmp_path: Path,
    postgres: DatabaseServer,
    postgres_uri: str,
    swift: ObjectStore,
    swift_bucket: str,
) -> Iterator[str]:
    """Its clients have the store's credentials, as the jobs have; it has none."""
    users = create_database(postgres, f"users_{uuid.uuid4().hex}")
    (tmp_path / "basic_auth.ini").write_text(settings_of_the_readme(users))
    of_the_manifest = container_of_the_manifest()["env"]
    environment = {each["name"]: each["value"] for each in of_the_manifest if "value" in each} | {
        "MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "basic_auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
        "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
    }
    (port,) = free_ports(1)
    arguments = arguments_of_the_manifest(port, swift_bucket)
    with running_mlflow(postgres_uri, None, environment, port, arguments) as uri:
        yield uri


def log_in(monkeypatch: pytest.MonkeyPatch, user: str, password: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)


def test_who_may_read_and_who_may_register(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.server.auth.client import AuthServiceClient

    fit = finished_fit(tmp_path / "fit")
    with pytest.raises(RegistryError) as nobody:
        register_finished(fit, Registry(server), 0)
    assert "Traceback" not in str(nobody.value)

    log_in(monkeypatch, ADMIN, "wrong " + PASSWORD)
    with pytest.raises(RegistryError) as wrong:
        Registry(server).list_versions()
    assert PASSWORD not in str(wrong.value)

    log_in(monkeypatch, ADMIN, PASSWORD)
    version, decision = register_finished(fit, Registry(server), 0)
    assert decision.promote
    assert version.source.startswith("s3://")
    users = AuthServiceClient(server)
    reader, night = secrets.token_hex(12), secrets.token_hex(12)
    users.create_user("reader", reader)
    users.create_user("night", night)
    run = Registry(server).client.get_run(version.run_id)
    users.grant_user_permission("night", "experiment", run.info.experiment_id, "EDIT")

    log_in(monkeypatch, "reader", reader)
    registry = Registry(server)
    assert registry.resolve("bottle", CHAMPION).version == version.version
    assert registry.load("bottle").category == "bottle"
    with pytest.raises(RegistryError) as refused:
        registry.promote("bottle", "1", {"a": "b"})
    assert reader not in str(refused.value)
    assert "PERMISSION_DENIED" in str(refused.value) or "ermission" in str(refused.value)

    # As the README has it: may log runs, owns the models that it makes, and no others.
    log_in(monkeypatch, "night", night)
    with pytest.raises(RegistryError):
        Registry(server).promote("bottle", "1", {"a": "b"})
    other = finished_fit(tmp_path / "other", category="cable")
    registered, _ = register_finished(other, Registry(server), 0)
    assert registered.version == "1", "whoever makes a model may change it"


def test_another_name_of_the_host_is_refused(server: str) -> None:
    """As a page would use that has its own name answered with this address (DNS rebinding)."""
    answer = requests.get(
        f"{server}/api/2.0/mlflow/experiments/search", headers={"Host": "evil.example"}, timeout=10
    )
    assert answer.status_code == 403

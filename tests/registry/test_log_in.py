"""A server with the log-in and the arguments of the manifests: who may read, who may register."""

import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml

from nfbmr.errors import RegistryError
from nfbmr.registry import CHAMPION, Registry
from nfbmr.train.registration import register_finished
from tests.registry.finished_fit import finished_fit
from tests.services.mlflow_server import running_mlflow
from tests.services.processes import free_ports

pytestmark = [
    pytest.mark.integration,
    # MLflow's own server, imported for its client of users.
    pytest.mark.filterwarnings("ignore:starlette.middleware.wsgi is deprecated"),
]

CLUSTER = Path(__file__).parents[2] / "cluster"
ADMIN, PASSWORD = "admin", secrets.token_hex(12)


def settings_of_the_readme(database: str) -> str:
    """``basic_auth.ini`` as the README has it written, with another database."""
    (template,) = re.findall(
        r"printf '(\[mlflow\].*)' \"\$PASSWORD\"", (CLUSTER / "README.md").read_text()
    )
    lines = template.split("\\n")
    return "\n".join(
        f"database_uri = {database}" if line.startswith("database_uri") else line for line in lines
    )


def arguments_of_the_manifest(port: int) -> list[str]:
    """The arguments that say who may ask, for loopback's name instead of the cluster's."""
    for each in yaml.safe_load_all((CLUSTER / "kubernetes" / "mlflow.yaml").read_text()):
        if each["kind"] == "Deployment":
            (container,) = each["spec"]["template"]["spec"]["containers"]
            found = [text for text in container["args"] if text.startswith(("--app", "--allowed"))]
            assert len(found) == 2
            return [
                f"--allowed-hosts=127.0.0.1:{port}" if text.startswith("--allowed") else text
                for text in found
            ]
    raise AssertionError("no deployment of MLflow")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "basic_auth.ini").write_text(
        settings_of_the_readme(f"sqlite:///{tmp_path}/auth.db")
    )
    environment = {
        "MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "basic_auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
        "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
    }
    (port,) = free_ports(1)
    with running_mlflow(
        f"sqlite:///{tmp_path}/mlflow.db",
        str(tmp_path / "artifacts"),
        environment,
        port,
        arguments_of_the_manifest(port),
    ) as uri:
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

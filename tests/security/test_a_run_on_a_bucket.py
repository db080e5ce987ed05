"""Training and scoring as processes of their own, from a bucket to a bucket, with planted secrets.

What they ask of the store is what the policies in ``cluster/policies`` allow, no less and no more;
and no secret is in anything that they write: objects, files, the registry, logs, messages.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pytest
from mlflow import MlflowClient
from moto.server import ThreadedMotoServer

from nfbmr.data.procedural import FactorySettings, generate_factory
from tests.security.packed_contents import contents, forms
from tests.security.s3_requests import Policy, Recorder, Request
from tests.services.mlflow_server import running_mlflow, settings_of_the_readme

# Three minutes: make test-slow.
pytestmark = [pytest.mark.slow, pytest.mark.integration]

ROOT = Path(__file__).parents[2]
POLICIES = ROOT / "cluster" / "policies"
BUCKET = "factory"
SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDKEYID0001",
    "AWS_SECRET_ACCESS_KEY": "planted/secret+of+the+store0002",
    "AWS_SESSION_TOKEN": "planted-session-token-0003",
    "MLFLOW_TRACKING_USERNAME": "planted-user-0004",
    "MLFLOW_TRACKING_PASSWORD": "planted-password-0005",
    "RAY_AUTH_TOKEN": "planted-ray-token-0006" + 42 * "a",
    "SOME_OTHER_SECRET": "planted-elsewhere-0007",
}


@dataclass
class Run:
    """What two jobs did.

    Attributes:
        folder: everything they could write on this machine, Ray's logs included.
        endpoint: of the store.
        output: what they and two failing jobs printed.
        training: requests of training.
        scoring: requests of scoring.
    """

    folder: Path
    endpoint: str
    output: str
    training: list[Request]
    scoring: list[Request]


def job(folder: Path, endpoint: str, line: str, code: int = 0) -> str:
    """Run a job from the shell; returns what it printed."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RAY_", "MLFLOW_"))}
    environment = {
        **clean,
        **SECRETS,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
        "RAY_AUTH_MODE": "token",
        "RAY_TMPDIR": str(folder / "ray"),
        "TMPDIR": str(folder / "tmp"),
        "HOME": str(folder / "home"),
    }
    command = [sys.executable, "-m", *line.split()]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=600, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    # Ray's sockets need a short path.
    folder = Path(tmp_path_factory.mktemp("r", numbered=True))
    for name in ("ray", "tmp", "home"):
        (folder / name).mkdir()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    store = fsspec.filesystem(
        "s3",
        key="x",
        secret="y",
        client_kwargs={"endpoint_url": endpoint, "region_name": "us-east-1"},
    )
    settings = FactorySettings(
        categories=1, train=40, test_normal=4, test_defective=4, archive=12, size_px=96
    )
    factory = generate_factory(folder / "factory", settings)
    store.call_s3("create_bucket", Bucket=BUCKET)
    store.put(f"{factory.root}/", f"{BUCKET}/parts/", recursive=True)
    store.put(factory.archive, f"{BUCKET}/archive/line7.tar")
    users = tmp_path_factory.mktemp("users")
    with (
        registry_with_a_log_in(folder, users) as registry,
        Recorder.before(server) as recorder,
    ):
        yield run_of_jobs(folder, endpoint, registry, recorder)
    server.stop()


@contextmanager
def registry_with_a_log_in(folder: Path, users: Path) -> Iterator[str]:
    """An MLflow server that lets in the planted user only; yields its address.

    Args:
        folder: for its database, which is searched for secrets.
        users: for its database of users, which is not.
    """
    (users / "basic_auth.ini").write_text(settings_of_the_readme(f"sqlite:///{users}/auth.db"))
    environment = {
        "MLFLOW_AUTH_CONFIG_PATH": str(users / "basic_auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "x" * 64,
        "MLFLOW_AUTH_ADMIN_USERNAME": SECRETS["MLFLOW_TRACKING_USERNAME"],
        "MLFLOW_AUTH_ADMIN_PASSWORD": SECRETS["MLFLOW_TRACKING_PASSWORD"],
    }
    database, artifacts = f"sqlite:///{folder}/mlflow.db", str(users / "unused")
    with (
        running_mlflow(
            database, artifacts, environment, further=["--app-name=basic-auth"]
        ) as registry,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            patch.setenv(name, SECRETS[name])
        MlflowClient(registry, registry).create_experiment("nfbmr", f"s3://{BUCKET}/mlflow")
        yield registry


def run_of_jobs(folder: Path, endpoint: str, registry: str, recorder: Recorder) -> Run:
    """Train and score from the bucket to the bucket; then one of each that fails."""
    train = (
        f"jobs.train --data s3://{BUCKET}/parts --layout mvtec --work-dir s3://{BUCKET}/nfbmr"
        f" --registry {registry} --preset small --set backbone.image_size_px=96"
        " --set fit.flow_epochs=2 --set fit.mapper_epochs=2 --set fit.min_steps=1"
        " --set calibration.false_alarm_rate=0.2"
    )
    score = (
        (
            f"jobs.score s3://{BUCKET}/archive/line7.tar s3://{BUCKET}/parts"
            f" --output s3://{BUCKET}/scores/1 --registry {registry} --set run.failure_budget=1"
            " --category-pattern {{category}}/"
        )
        .replace("{{", "{")
        .replace("}}", "}")
    )
    recorder.taken()
    output = job(folder, endpoint, train)
    training = recorder.taken()
    output += job(folder, endpoint, score)
    scoring = recorder.taken()
    output += job(
        folder, endpoint, train.replace(f"s3://{BUCKET}/parts", "s3://no-such-bucket/x"), 3
    )
    wrong = "postgresql+psycopg2://planted-user-0004:planted-password-0005@127.0.0.1:9/mlflow"
    output += job(folder, endpoint, score.replace(registry, wrong).replace("scores/1", "s/2"), 6)
    return Run(folder, endpoint, output, training, scoring)


def of_bucket(requests: list[Request]) -> list[Request]:
    return [request for request in requests if request.bucket == BUCKET]


def test_reader_and_writer_allow_what_the_jobs_ask_for(run: Run) -> None:
    reader, writer = (Policy.read(POLICIES / f"{name}.json") for name in ("reader", "writer"))
    assert len(of_bucket(run.training)) > 100
    for request in of_bucket(run.training + run.scoring):
        assert reader.allowing(request) | writer.allowing(request), request


def test_the_policies_allow_nothing_that_is_never_asked_for(run: Run) -> None:
    """Every pair of action and prefix was needed, but for what this run does not do.

    It gives up no multipart upload, and neither takes weights from the bucket nor names the archive
    as a whole, as it names the parts.
    """
    requests = of_bucket(run.training + run.scoring)
    for name in ("reader", "writer"):
        policy = Policy.read(POLICIES / f"{name}.json")
        used = {pair for request in requests for pair in policy.allowing(request)}
        unused = {
            (action, resource)
            for action, resource in policy.pairs() - used
            if action != "s3:AbortMultipartUpload"
            and not resource.endswith(("/weights/*", "/archive"))
        }
        assert not unused, f"{name}.json: {sorted(unused)}"


def everything_written(run: Run) -> Iterator[tuple[str, bytes]]:
    """Names and contents of all files and objects."""
    for path in run.folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield str(path.relative_to(run.folder)), path.read_bytes()
    store = fsspec.filesystem(
        "s3",
        key="x",
        secret="y",
        client_kwargs={"endpoint_url": run.endpoint, "region_name": "us-east-1"},
    )
    for name in store.find(BUCKET):
        yield name, store.cat_file(name)


def test_no_secret_is_in_anything_that_was_written_or_printed(run: Run) -> None:
    assert "no-such-bucket" in run.output
    assert "127.0.0.1:9" in run.output
    names = []
    for name, data in [*everything_written(run), ("what was printed", run.output.encode())]:
        names.append(name)
        found = contents(data)
        for variable, secret in SECRETS.items():
            user = SECRETS["MLFLOW_TRACKING_USERNAME"] if "MLFLOW" in variable else ""
            for form in forms(secret, user):
                assert form not in found, f"{variable} is in {name}"
    written = "\n".join(names)
    for place in ("scores/1/_plan/", "scores/1/_SUCCESS", "mlflow.db", "mlflow/", "logs/"):
        assert place in written, f"nothing was written to {place}: the test looks at too little"

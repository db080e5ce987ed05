"""What several tests need: an S3-compatible server, the real pictures, a local Ray."""

import gc
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from nfbmr.config import Config, load_config
from nfbmr.data.procedural import Factory, FactorySettings, generate_factory
from nfbmr.progress import Progress
from nfbmr.registry import Registry, default_uri
from nfbmr.session import ray_session
from nfbmr.train.campaign import CampaignPaths, CategoryResult, run_campaign

pytest_plugins = ["tests.services.postgres", "tests.services.swift"]

SHARED = Path(__file__).parents[1].parent / "shared"


S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "reader",
    "AWS_SECRET_ACCESS_KEY": "not-a-real-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture(scope="session")
def s3_server() -> Iterator[ThreadedMotoServer]:
    """An S3-compatible server on loopback; the environment has what it takes to use it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (S3_ENVIRONMENT | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}).items():
            patch.setenv(name, value)
        yield server
    server.stop()


@pytest.fixture(scope="session")
def s3_endpoint(s3_server: ThreadedMotoServer) -> str:
    """The server's address."""
    host, port = s3_server.get_host_and_port()
    return f"http://{host}:{port}"


@pytest.fixture
def s3_bucket(s3_endpoint: str) -> Iterator[str]:
    """The URI of a new bucket."""
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = f"s3://test-{uuid.uuid4().hex}"
    fsspec.filesystem("s3").mkdir(bucket)
    yield bucket
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def local_ray(s3_endpoint: str) -> Iterator[None]:
    """A Ray on this machine that all tests of a session share; its workers can reach the server."""
    with ray_session():
        # What is imported by now stays for good: the collections after each test skip it.
        gc.collect()
        gc.freeze()
        yield


@pytest.fixture(scope="session")
def real_weights() -> str:
    """A real ImageNet backbone, where it lies beside the project."""
    path = SHARED / "weights" / "mobilenetv2_100.imagenet.safetensors"
    if not path.exists():
        pytest.skip("the real backbone does not lie beside the project")
    return str(path)


@dataclass(frozen=True)
class Trained:
    """A small factory whose every category has a champion.

    Attributes:
        factory: two categories of procedural surfaces and an archive with three broken files.
        settings: that it was made with.
        config: of the fits.
        work_dir: with features and registry.
        registry: SQLite in the work directory.
        results: of the campaign.
    """

    factory: Factory
    settings: FactorySettings
    config: Config
    work_dir: Path
    registry: Registry
    results: list[CategoryResult]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Trained:
    """Fit and register a small factory once for all tests that only look at it."""
    folder = tmp_path_factory.mktemp("trained")
    settings = FactorySettings(
        categories=2, train=60, test_normal=10, test_defective=10, archive=40, size_px=128
    )
    factory = generate_factory(folder / "factory", settings)
    overrides = [
        "backbone.image_size_px=128",
        "fit.min_steps=60",
        "calibration.false_alarm_rate=0.1",
        "run.unit_size=8",
    ]
    config = load_config(None, overrides, "small")
    registry = Registry(default_uri(str(folder)))
    paths = CampaignPaths.under(str(folder))
    quiet = Progress(quiet=True)
    results = run_campaign(factory.root, "mvtec", None, config, paths, registry, quiet)
    return Trained(factory, settings, config, folder, registry, results)


@pytest.fixture(autouse=True)
def _actors_of_failed_runs_go(request: pytest.FixtureRequest) -> Iterator[None]:
    """A caught exception and the test's frame hold each other, and with it a run's actors."""
    yield
    if "local_ray" in request.fixturenames:
        gc.collect()

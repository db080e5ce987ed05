"""What the tests of faults share: pictures, models, a store behind a faulty proxy, a cluster."""

import gzip
import io
import os
import tarfile
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
import torch
from PIL import Image
from ray.cluster_utils import Cluster

from nfbmr import storage, store_folders
from nfbmr.config import load_config
from nfbmr.model.backbone import create_backbone
from nfbmr.model.backbone_settings import BackboneSettings
from nfbmr.model.calibration import Calibration
from nfbmr.model.detector import Detector
from nfbmr.model.heads import Heads
from nfbmr.registry import Registry, default_uri
from nfbmr.score.dataset import read_scores
from nfbmr.score.units import UNITS_FOLDER
from nfbmr.session import _require_token
from tests.faults.driver import Driver
from tests.services.faulty_proxy import FaultyProxy, running_proxy
from tests.services.swift import ObjectStore, store_environment

CATEGORIES = ("bottle", "cable")
PICTURES = 60
UNIT_SIZE = 4
SIZE_PX = 64
_ONCE = ["run_id", "scored_at", "anomaly_map", "image_uri", "archive"]


Rows = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True)
class Plant:
    """Pictures and the models that score them.

    Attributes:
        work_dir: with the registry.
        tar: archive with all pictures.
        pictures: by name.
    """

    work_dir: Path
    tar: str
    pictures: Mapping[str, bytes]

    def argv(self, source: str, output: str, *settings: str) -> list[str]:
        """Arguments of ``jobs/score.py``."""
        chosen = (f"run.unit_size={UNIT_SIZE}", "run.actors_max=1", *settings)
        sets = [part for setting in chosen for part in ("--set", setting)]
        return [source, "--output", output, "--work-dir", str(self.work_dir), *sets]


def picture(seed: int, form: str = "jpeg", size_px: int = SIZE_PX) -> bytes:
    """A small encoded picture."""
    generator = np.random.default_rng(seed)
    coarse_HWC = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse_HWC).resize((size_px, size_px)).save(stream, form)
    return stream.getvalue()


def _register(work_dir: Path) -> None:
    """Detectors that were never fitted but score every picture differently."""
    registry = Registry(default_uri(str(work_dir)))
    registry.prepare()
    backbone = create_backbone(BackboneSettings(image_size_px=SIZE_PX))
    for number, category in enumerate(CATEGORIES):
        torch.manual_seed(number)
        heads = Heads(backbone.shape, load_config(preset="small").heads)
        heads.standardizer.fit(torch.randn(20, *backbone.shape))
        detector = Detector(
            category=category,
            backbone=backbone.identity(),
            weights="embedded",
            heads=heads.eval().requires_grad_(False),
            aggregate="mean",
            calibration=Calibration.from_scores(range(1, 20)),
            false_alarm_rate=0.1,
        )
        folder = work_dir / "models" / category
        detector.save(folder)
        version = registry.register(category, folder, params={}, metrics={}, curves=[], tags={})
        registry.promote(category, version.version, {})


@pytest.fixture(scope="session")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    folder = tmp_path_factory.mktemp("plant")
    _register(folder / "work")
    names = [f"{CATEGORIES[i % 2]}/{i:03d}.jpg" for i in range(PICTURES)]
    pictures = {name: picture(number) for number, name in enumerate(names)}
    with tarfile.open(folder / "all.tar", "w") as tar:
        for name, data in pictures.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return Plant(folder / "work", str(folder / "all.tar"), pictures)


@pytest.fixture(scope="session")
def proxy(swift: ObjectStore) -> Iterator[FaultyProxy]:
    with running_proxy(swift.port) as running:
        yield running


@pytest.fixture(scope="session")
def environment(proxy: FaultyProxy) -> dict[str, str]:
    """Of drivers and workers: the store is behind the proxy, and Ray asks for a token."""
    _require_token()
    token = {name: os.environ[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    path = {"PYTHONPATH": str(Path(__file__).parent / "killing_pictures")}
    return store_environment(proxy.endpoint) | token | path


@pytest.fixture
def here(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process reaches the store too."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def stored(plant: Plant, environment: Mapping[str, str]) -> str:
    """The pictures in a bucket, as a prefix ``pictures`` and ``all.…`` of each kind; its URI."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        store = fsspec.filesystem("s3")
        bucket = f"s3://faults-{uuid.uuid4().hex}"
        store.mkdir(bucket)
        store.pipe({f"{bucket}/pictures/{name}": data for name, data in plant.pictures.items()})
        store.pipe_file(f"{bucket}/all.tar", Path(plant.tar).read_bytes())
        store.pipe_file(f"{bucket}/all.tar.gz", gzip.compress(Path(plant.tar).read_bytes()))
        store.pipe_file(f"{bucket}/all.zip", _zip(plant.pictures))
        store.pipe_file(f"{bucket}/all.parquet", _parquet(plant.pictures))
        s3fs.S3FileSystem.clear_instance_cache()
    return bucket


def _zip(pictures: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in pictures.items():
            archive.writestr(name, data)
    return packed.getvalue()


def _parquet(pictures: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    table = pa.table({"image": list(pictures.values()), "path": list(pictures)})
    pq.write_table(table, packed, row_group_size=16)
    return packed.getvalue()


@pytest.fixture(scope="session")
def cluster(environment: Mapping[str, str]) -> Iterator[Cluster]:
    """A cluster of one node with two cores; drivers come and go, tests may add nodes."""
    with node_environment(environment):
        started = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 2,
                "include_dashboard": False,
                "object_store_memory": 200 * 2**20,
            },
        )
    yield started
    started.shutdown()


@contextmanager
def node_environment(environment: Mapping[str, str]) -> Iterator[None]:
    """While a node is started, whose workers inherit it; later tests have a store of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        _require_token()
        yield


@pytest.fixture(scope="session")
def driver(cluster: Cluster, environment: Mapping[str, str]) -> Iterator[Driver]:
    """A driver that lives through all tests: its workers stay warm."""
    running = Driver(cluster.address, environment)
    yield running
    running.close()


@pytest.fixture(scope="session")
def undisturbed(driver: Driver, plant: Plant, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The rows that every disturbed run has to give."""
    output = str(tmp_path_factory.mktemp("undisturbed") / "scores")
    outcome = driver.run(plant.argv(plant.tar, output))
    assert outcome.code == 0, outcome.said
    found = rows_of(output)
    assert len(found) == PICTURES
    assert len({row["content_hash"] for row in found.values()}) == PICTURES
    assert len({row["score"] for row in found.values()}) == PICTURES
    return found


def rows_of(output: str) -> Rows:
    """Rows of a finished run by member, without what differs from run to run; none is twice."""
    table = read_scores(output)
    members = table.column("member").to_pylist()
    assert len(set(members)) == len(members), "a picture has two rows"
    assert len(set(table.column("image_uri").to_pylist())) == len(members)
    assert store_folders.list_names(storage.join(output, UNITS_FOLDER)) == []
    return {str(row["member"]): row for row in _without(table, _ONCE).to_pylist()}


def assert_same(rows: Rows, expected: Rows) -> None:
    """The same pictures with the same values; scores up to rounding."""
    assert rows.keys() == expected.keys()
    for member, row in rows.items():
        for name, value in expected[member].items():
            wanted = pytest.approx(value, rel=1e-3) if isinstance(value, float) else value
            assert row[name] == wanted, (member, name)


def _without(table: pa.Table, columns: list[str]) -> pa.Table:
    return table.drop_columns([name for name in columns if name in table.column_names])

"""A pickle that runs a program, planted wherever nfbmr reads: refused, and never run."""

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data
import timm
import torch

from nfbmr.errors import NfbmrError, OutputError, WeightsError
from nfbmr.model.backbone import create_backbone
from nfbmr.model.detector import JSON_FILE, TENSORS_FILE, Detector
from nfbmr.model.identity import described_backbone
from nfbmr.model.weights import read_weights
from nfbmr.plain_columns import ExtensionColumnError, plain
from nfbmr.progress import Progress
from nfbmr.registry import load_detector
from nfbmr.score.dataset import read_marker, read_scores
from nfbmr.score.plan_files import load_plan, planned_table
from nfbmr.score.run import ScoringRequest, prepare, score
from nfbmr.score.units import read_unit
from nfbmr.train.feature_cache import FeatureCache
from nfbmr.train.finished import FinishedFit
from nfbmr.train.fit_checkpoint import FitCheckpoint
from nfbmr.train.night import open_night
from tests.conftest import Trained
from tests.registry.finished_fit import finished_fit, make_detector
from tests.security.pickle_bomb import Bomb, no_unpickling, parquet_with_a_bomb, pickled

QUIET = Progress(quiet=True)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """What a bomb leaves behind."""
    return tmp_path / "it-has-run"


def planted(read: Callable[[], object], trace: Path) -> NfbmrError:
    """Read what was planted: an error of ours, and nothing was looked up for a pickle."""
    with no_unpickling() as found, pytest.raises(NfbmrError) as caught:
        read()
    assert not trace.exists()
    assert not found
    return caught.value


def test_the_bomb_works(trace: Path) -> None:
    """Else the tests below would prove nothing."""
    with no_unpickling() as found:
        pickle.loads(pickled(trace))  # noqa: S301
    assert trace.exists()
    assert any("touch" in name for name in found)


def test_the_parquet_bomb_works_without_the_guard(trace: Path) -> None:
    """A value of Ray Data's extension type is unpickled by looking at it."""
    assert ray.data.Dataset  # importing it has registered the type
    data = parquet_with_a_bomb(trace, pa.table({"name": ["a"]}), "name")
    table = pq.read_table(pa.BufferReader(data))
    assert "arrow_pickled_object" in str(table.schema)
    assert not trace.exists()
    table.to_pylist()
    assert trace.exists()


@pytest.mark.parametrize("nested", [False, True])
def test_plain_refuses_extension_types_at_any_depth(nested: bool, trace: Path) -> None:
    data = parquet_with_a_bomb(trace, pa.table({"name": ["a"]}), "name")
    table = pq.read_table(pa.BufferReader(data))
    if nested:
        column = pa.StructArray.from_arrays([table.column("name").combine_chunks()], ["x"])
        table = pa.table({"s": pa.ListArray.from_arrays([0, 1], column)})
    assert "ray.data.arrow_pickled_object" in str(planted(lambda: plain(table), trace))
    assert plain(pa.table({"a": [[1.0]]})).num_rows == 1


@pytest.fixture
def model_folder(trained: Trained, tmp_path: Path) -> Path:
    folder = tmp_path / "detector"
    trained.registry.load(trained.results[0].category).save(folder)
    return folder


@pytest.mark.parametrize("name", [JSON_FILE, TENSORS_FILE])
def test_as_model(name: str, model_folder: Path, trace: Path) -> None:
    """The same files are the checkpoint that a fit hands over."""
    (model_folder / name).write_bytes(pickled(trace))
    error = planted(lambda: Detector.load(model_folder), trace)
    assert isinstance(error, WeightsError)
    assert name in str(error)


@pytest.mark.parametrize(
    "kwargs", ["checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"]
)
def test_as_what_a_models_network_is_built_with(kwargs: str, tmp_path: Path, trace: Path) -> None:
    """timm loads files, and fetches addresses, that stand among a network's arguments."""
    bomb = tmp_path / "w.pth"
    torch.save({"weight": Bomb(trace)}, bomb)
    make_detector().save(tmp_path)
    description = json.loads((tmp_path / JSON_FILE).read_text())
    description["backbone"] |= {"name": "resnet18", "kwargs": {kwargs: {"file": str(bomb)}}}
    if kwargs in ("checkpoint_path", "cache_dir"):
        description["backbone"]["kwargs"] = {kwargs: str(bomb)}
    (tmp_path / JSON_FILE).write_text(json.dumps(description))
    with pytest.raises(WeightsError, match="planning"):
        described_backbone(description, "planning")
    error = planted(
        lambda: create_backbone(Detector.load(tmp_path).backbone_settings("random")), trace
    )
    assert f"'{kwargs}' is not taken" in str(error)


def test_timm_opens_what_stands_there(tmp_path: Path, trace: Path) -> None:
    """Else the test above would prove nothing; without its restriction the bomb goes off."""
    bomb = tmp_path / "w.pth"
    torch.save({"weight": Bomb(trace)}, bomb)
    with pytest.raises(Exception, match="weights_only"):
        timm.create_model("resnet18", checkpoint_path=str(bomb))
    assert not trace.exists()
    torch.load(bomb, weights_only=False)
    assert trace.exists()


def test_as_registered_model(trained: Trained, tmp_path: Path, trace: Path) -> None:
    """The registry's record is honest, its artifacts are not; a stray pickle beside is not read."""
    version = trained.registry.resolve(trained.results[0].category)
    folder = tmp_path / "artifacts"
    shutil.copytree(version.source, folder)
    (folder / "model.pkl").write_bytes(pickled(trace))
    moved = type(version)(**{**version.as_dict(), "source": str(folder), "aliases": ()})
    with no_unpickling() as found:
        load_detector(moved, trained.registry.uri)
    assert not found
    (folder / TENSORS_FILE).write_bytes(pickled(trace))
    planted(lambda: load_detector(moved, trained.registry.uri), trace)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_as_backbone_weights(name: str, tmp_path: Path, trace: Path) -> None:
    path = tmp_path / name
    torch.save({"weight": Bomb(trace)}, path)
    error = planted(lambda: read_weights(str(path)), trace)
    assert "can run code" in str(error)


def test_as_cache_entry(tmp_path: Path, trace: Path) -> None:
    """With the right digest as well: whoever can write the cache can compute it."""
    cache = FeatureCache(str(tmp_path), "backbone")
    cache.write("ab12", torch.zeros(2, 3, 3))
    (path,) = tmp_path.rglob("*.features")
    data = pickled(trace)
    for planted_bytes in (data, hashlib.blake2b(data, digest_size=16).digest() + data):
        path.write_bytes(planted_bytes)
        with no_unpickling() as found:
            assert cache.read("ab12") is None
        assert not found
        assert not trace.exists()


def test_as_state_of_a_fit_and_of_a_night(tmp_path: Path, trace: Path) -> None:
    """They are begun anew; with the right digest as well."""
    data = pickled(trace)
    state = tmp_path / "fit.safetensors"
    for planted_bytes in (data, hashlib.blake2b(data, digest_size=16).digest() + data):
        state.write_bytes(planted_bytes)
        with no_unpickling() as found:
            assert FitCheckpoint(str(state), [], 0.0).load() is None
        assert not found
    (tmp_path / "nights" / "key").mkdir(parents=True)
    (tmp_path / "nights" / "key" / "night.json").write_bytes(data)
    with no_unpickling() as found:
        assert not open_night(str(tmp_path / "nights"), "key", QUIET).is_resumed
    assert not found
    assert not trace.exists()


@pytest.mark.parametrize("name", ["fit.json", "evidence.json"])
def test_as_what_a_kept_fit_says(name: str, tmp_path: Path, trace: Path) -> None:
    folder = finished_fit(tmp_path / "kept").folder
    (folder / name).write_bytes(pickled(trace))
    assert "damaged" in str(planted(lambda: FinishedFit.load(folder), trace))


@pytest.fixture
def planned(trained: Trained, tmp_path: Path) -> Path:
    """An output with a plan, and nothing scored yet."""
    output = tmp_path / "scores"
    request = ScoringRequest((trained.factory.archive,), str(output))
    prepare(request, str(output), trained.registry, trained.config.run, QUIET)
    return output


def pretend_size(description: Path, changed: Path) -> None:
    """Whoever plants a file can say in the plan's JSON how large it is."""
    plan = json.loads(description.read_text())
    for file in plan["files"]:
        if file["name"] == changed.name:
            file["bytes"] = changed.stat().st_size
    description.write_text(json.dumps(plan))


def test_as_plan(planned: Path, trace: Path) -> None:
    path = planned / "_plan" / "plan.json"
    honest = path.read_bytes()
    path.write_bytes(pickled(trace))
    assert isinstance(planted(lambda: load_plan(str(planned)), trace), OutputError)
    path.write_bytes(honest)
    for path in (planned / "_plan").glob("*.parquet"):
        honest = path.read_bytes()
        table = pq.read_table(path)
        for column in table.schema.names:
            path.write_bytes(parquet_with_a_bomb(trace, table, column))
            pretend_size(planned / "_plan" / "plan.json", path)
            error = planted(lambda: planned_table(load_plan(str(planned)), str(planned)), trace)
            assert "arrow_pickled_object" in str(error)
        path.write_bytes(pickled(trace))
        planted(lambda: load_plan(str(planned)), trace)
        path.write_bytes(honest)


@pytest.mark.integration
def test_as_finished_unit_and_finished_scores(
    trained: Trained, tmp_path: Path, trace: Path
) -> None:
    output = tmp_path / "scores"
    score(
        ScoringRequest((trained.factory.archive,), str(output)),
        trained.registry,
        trained.config.run,
        QUIET,
    )
    part = next(p for p in output.rglob("*.parquet") if "_plan" not in p.parts)
    bomb = parquet_with_a_bomb(trace, pq.read_table(part), "error")
    part.write_bytes(bomb)
    assert isinstance(planted(lambda: read_scores(str(output)), trace), ExtensionColumnError)
    (output / "_units").mkdir(exist_ok=True)
    (output / "_units" / "abc.parquet").write_bytes(bomb)
    planted(lambda: read_unit(str(output), "abc"), trace)
    marker = output / "_SUCCESS"
    marker.write_bytes(pickled(trace))
    with no_unpickling() as found, pytest.raises(OutputError, match="_SUCCESS is damaged"):
        read_marker(str(output))
    assert not found
    assert not trace.exists()


def test_as_configuration(tmp_path: Path, trace: Path) -> None:
    from nfbmr.config import load_config

    path = tmp_path / "night.toml"
    path.write_bytes(pickled(trace))
    assert "not TOML" in str(planted(lambda: load_config(str(path)), trace))


def test_the_record_of_a_model_is_json(model_folder: Path) -> None:
    assert json.loads((model_folder / JSON_FILE).read_text())["format"] >= 1

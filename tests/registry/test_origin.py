"""A version whose files lie where nfbmr's runs do not keep theirs is nobody's champion."""

import posixpath
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfbmr.errors import ForeignVersionError
from nfbmr.model_version import ModelVersion
from nfbmr.registry import CHAMPION, EXPERIMENT, Registry, embedded_uri
from nfbmr.registry.origin import is_below, lies_in_run
from tests.registry.finished_fit import make_detector

RUN = "5f" * 16


def version(source: str, run_id: str = RUN) -> ModelVersion:
    return ModelVersion("bottle", "nfbmr-bottle", "1", run_id, source, (), {}, 0.0)


@pytest.fixture
def own(registry: Registry, tmp_path: Path) -> ModelVersion:
    """A champion that was registered as every night's is."""
    folder = tmp_path / "files"
    make_detector().save(folder)
    found = registry.register("bottle", folder, params={}, metrics={}, curves=[], tags={})
    registry.promote("bottle", found.version, {})
    return registry.resolve("bottle")


def champion_from_elsewhere(registry: Registry, source: str, run_id: str | None) -> None:
    """What MLflow lets every user do under a name that nobody has yet."""
    registry.client.create_registered_model("nfbmr-nut")
    made = registry.client.create_model_version("nfbmr-nut", source, run_id)
    registry.client.set_registered_model_alias("nfbmr-nut", CHAMPION, made.version)


@pytest.mark.parametrize("whose", ["nobody's", "its own", "a champion's", "unknown"])
def test_a_version_whose_files_lie_elsewhere_is_refused(
    registry: Registry, own: ModelVersion, tmp_path: Path, whose: str
) -> None:
    """With a run of another experiment, with one of ours, and with none."""
    other = registry.client.create_experiment("other", artifact_location=str(tmp_path / "theirs"))
    runs = {
        "nobody's": None,
        "its own": registry.client.create_run(other).info.run_id,
        "a champion's": own.run_id,
        "unknown": RUN,
    }
    theirs = tmp_path / "theirs" / str(runs[whose]) / "artifacts" / "detector"
    make_detector("nut").save(theirs)
    champion_from_elsewhere(registry, str(theirs), runs[whose])
    for asked in (CHAMPION, "1"):
        with pytest.raises(
            ForeignVersionError, match="nfbmr-nut version 1 was not registered by nfbmr"
        ):
            registry.load("nut", asked)
    assert registry.load("bottle").category == "bottle"
    assert {v.category for v in registry.list_versions()} == {"bottle", "nut"}, "lists show it"


def test_a_run_of_ours_that_the_files_do_not_lie_in_is_no_proof(
    registry: Registry, own: ModelVersion, tmp_path: Path
) -> None:
    """Where a source steps upwards, out of it."""
    champion_from_elsewhere(registry, f"{own.source}/../../../../theirs", own.run_id)
    with pytest.raises(ForeignVersionError, match="was not registered by nfbmr"):
        registry.resolve("nut")


def test_before_the_first_night_there_is_nothing_to_compare_with(
    registry: Registry, tmp_path: Path
) -> None:
    champion_from_elsewhere(registry, str(tmp_path), None)
    assert registry.client.get_experiment_by_name(EXPERIMENT) is None
    assert registry.resolve("nut").source == str(tmp_path)


def test_a_registry_that_says_the_old_place_or_the_new_one_keeps_working(
    registry: Registry, own: ModelVersion, tmp_path: Path
) -> None:
    """The database copied elsewhere; then the experiment told of it, and then the versions."""
    copied = tmp_path / "copy" / "mlflow.db"
    copied.parent.mkdir()
    copied.write_bytes((tmp_path / "mlflow.db").read_bytes())
    moved = Registry(f"sqlite:///{copied}")
    assert moved.resolve("bottle") == own
    with sqlite3.connect(copied) as database:
        database.execute("UPDATE experiments SET artifact_location = '/new/artifacts'")
    assert Registry(moved.uri).resolve("bottle") == own
    with sqlite3.connect(copied) as database:
        place = f"/new/artifacts/{own.run_id}/artifacts/detector"
        database.execute("UPDATE model_versions SET source = ?, storage_location = ?", [place] * 2)
    assert Registry(moved.uri).resolve("bottle").source == place


def test_a_registry_may_lie_in_a_folder_that_is_named_by_steps_upwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of ``--work-dir ../work``, also where an experiment was made with such an address."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder = tmp_path / "files"
    make_detector().save(folder)
    for uri in (embedded_uri("../work"), "sqlite:///../other/mlflow.db"):
        registry = Registry(uri)
        found = registry.register("bottle", folder, params={}, metrics={}, curves=[], tags={})
        assert registry.load("bottle", found.version).category == "bottle"
        assert ".." not in found.source
    old = f"{tmp_path}/here/../old/artifacts"
    assert lies_in_run(version(f"{old}/{RUN}/artifacts/detector"), old)
    assert not lies_in_run(version(f"{old}/{RUN}/../../detector"), old)


def test_a_version_made_by_hand_of_a_nights_run_is_nfbmrs(
    registry: Registry, own: ModelVersion
) -> None:
    champion_from_elsewhere(registry, f"runs:/{own.run_id}/detector", own.run_id)
    assert registry.resolve("nut").run_id == own.run_id


def test_the_experiment_is_asked_for_once(
    registry: Registry, own: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no run, where everything lies as MLflow lays it out."""
    again = Registry(registry.uri)
    asked: list[str] = []

    def noted(name: str) -> Callable[[str], object]:
        real = getattr(again.client, name)
        return lambda key: [asked.append(name), real(key)][1]

    for name in ("get_experiment_by_name", "get_run"):
        monkeypatch.setattr(again.client, name, noted(name))
    assert [again.resolve("bottle").version for _ in range(3)] == ["1"] * 3
    assert asked == ["get_experiment_by_name"]


@pytest.mark.parametrize(
    ("location", "source"),
    [
        ("mlflow-artifacts:/1", f"mlflow-artifacts:/1/{RUN}/artifacts/detector"),
        ("s3://bucket/mlflow/1", f"s3://bucket/mlflow/1/{RUN}/artifacts/detector"),
        ("s3://bucket/mlflow/", f"s3://bucket/mlflow/{RUN}/artifacts/detector"),
        ("/data/artifacts", f"/data/artifacts/{RUN}/artifacts/detector"),
        ("file:///data/my%20artifacts", f"/data/my artifacts/{RUN}/artifacts/detector"),
        ("/data/artifacts", f"file:///data/artifacts/{RUN}/artifacts/detector"),
    ],
)
def test_sources_as_servers_and_embedded_registries_write_them(location: str, source: str) -> None:
    assert lies_in_run(version(source), location)
    assert not lies_in_run(version(source, "6a" * 16), location)
    assert not lies_in_run(version(source), location.rstrip("/") + "2")
    assert not lies_in_run(version(source, ""), location)


@pytest.mark.parametrize(
    "source",
    [
        "models:/m-5f5f",
        f"s3://evil/mlflow/1/{RUN}/artifacts/detector",
        f"s3://bucket/mlflow/11/{RUN}/artifacts/detector",
        f"s3://bucket/mlflow/1/{RUN}",
        f"s3://bucket/mlflow/1/{RUN}/../../9/detector",
        f"s3://bucket/mlflow/1/{RUN}/%2e%2e/%252e%252e/9",
        f"s3://bucket/mlflow/1/{RUN}/..\\..\\9",
        f"https://bucket/mlflow/1/{RUN}/artifacts/detector",
    ],
)
def test_sources_that_only_look_alike(source: str) -> None:
    assert not lies_in_run(version(source), "s3://bucket/mlflow/1")


@given(st.lists(st.sampled_from(["a", "b", ".", "..", "%2e%2e", "a..b"]), min_size=1, max_size=6))
def test_what_is_below_stays_below(parts: list[str]) -> None:
    path = "/".join(parts)
    if is_below(f"/root/{path}", "/root/a"):
        plain = posixpath.normpath(f"/root/{path.replace('%2e', '.')}")
        assert f"{plain}/".startswith("/root/a/")

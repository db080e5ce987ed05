"""A campaign on a real local Ray: parallel fits, a registry, a cache that is used again."""

import errno
import json
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image, ImageOps

from nfbmr import storage
from nfbmr.config import Config
from nfbmr.data.content import content_hash
from nfbmr.data.decoding import decode_rgb
from nfbmr.data.layouts import discover
from nfbmr.errors import DataError, OutputError, RegistryUnavailableError, StallError
from nfbmr.model_version import ModelVersion
from nfbmr.progress import Progress
from nfbmr.registry import CHAMPION, PREVIOUS, Registry, default_uri
from nfbmr.train import campaign, campaign_features, category_finish, night_lease
from nfbmr.train.campaign import (
    CampaignOptions,
    CampaignPaths,
    CategoryResult,
    run_campaign,
)
from nfbmr.train.campaign_state import Campaign
from nfbmr.train.category_tasks import split_categories
from nfbmr.train.code_version import code_version
from nfbmr.train.feature_cache import FeatureCache
from nfbmr.train.finished import FINGERPRINT_TAGS
from nfbmr.train.night import Night
from nfbmr.train.sample_pictures import HEATMAPS_FILE, LOSSES_FILE
from nfbmr.train.split import Split, split_normals
from nfbmr.train.unchanged import unchanged_categories
from tests.conftest import Trained

QUIET = Progress(quiet=True)


def test_every_category_is_registered_as_champion_with_its_evidence(trained: Trained) -> None:
    assert [r.outcome for r in trained.results] == ["registered", "registered"]
    for result in trained.results:
        version = trained.registry.resolve(result.category)
        assert version.version == result.version == "1"
        assert CHAMPION in version.aliases
        assert result.pictures + result.held_out == trained.settings.train
        assert version.tags["nfbmr.decision"].startswith("there was no champion: AUROC on labelled")
        assert version.tags["nfbmr.gate"] == "passed"
        assert float(version.tags["nfbmr.synthetic_auroc"]) > 0.5
        assert version.tags["nfbmr.pictures_fitted"] == str(result.pictures)
        detector = trained.registry.load(result.category)
        assert version.tags["nfbmr.pictures_held_out"] == str(result.held_out)
        assert version.tags["nfbmr.calibration_size"] == str(detector.calibration.n)
        assert version.tags["nfbmr.weights_hash"] == detector.backbone["weights_hash"]
        assert version.tags["nfbmr.code_version"] == code_version()
        for name in ("data_fingerprint", "settings_fingerprint"):
            assert len(version.tags[f"nfbmr.{name}"]) >= 16
        run = trained.registry.client.get_run(version.run_id).data
        assert run.params["fit.seed"] == str(trained.config.fit.seed)
        assert run.metrics["flow_loss"] == pytest.approx(result.flow_loss)
        packaging = trained.registry.read_file(version, "MLmodel")
        assert packaging is not None
        assert b"signature:" in packaging
        for name in (LOSSES_FILE, HEATMAPS_FILE):
            data = trained.registry.read_file(version, name)
            assert data is not None
            pixels_HWC = decode_rgb(data)
            assert min(pixels_HWC.shape[:2]) > 100
            assert len(np.unique(pixels_HWC.reshape(-1, 3), axis=0)) > 10, "an empty picture"
        losses = trained.registry.losses(version)
        assert set(losses) == {"flow_loss", "source_loss", "target_loss"}
        assert losses["flow_loss"][-1] < losses["flow_loss"][0]
        assert losses["source_loss"][-1] < losses["source_loss"][0]


def test_the_loaded_detector_is_calibrated_on_the_held_out_normals(trained: Trained) -> None:
    for result in trained.results:
        detector = trained.registry.load(result.category)
        assert detector.calibration.n == result.held_out
        assert detector.lineage["settings"] == trained.config.as_dict()
        assert detector.backbone["name"] == "nfbmr_small"


def test_a_second_night_uses_the_cache_and_isolates_failures(
    trained: Trained, tmp_path: Path
) -> None:
    """One category has changed for the worse: too few pictures; one has an unreadable picture."""
    data = tmp_path / "data"
    shutil.copytree(trained.factory.root, data)
    first, second = (result.category for result in trained.results)
    for path in sorted((data / first / "train" / "good").iterdir())[5:]:
        path.unlink()
    broken = data / second / "train" / "good" / "999.png"
    broken.write_bytes(b"no picture")
    new = add_pictures(data / second / "train" / "good", count=3)
    damaged = damage_an_entry(trained, data, second)
    said: list[str] = []

    class Recorder(Progress):
        def say(self, text: str) -> None:
            said.append(text)

    results = run_campaign(
        str(data),
        "mvtec",
        None,
        trained.config,
        CampaignPaths.under(str(trained.work_dir)),
        trained.registry,
        Recorder(quiet=True),
    )
    outcomes = {result.category: result for result in results}
    assert outcomes[first].outcome == "failed"
    assert "5 normal pictures" in outcomes[first].decision
    assert outcomes[second].outcome == "registered"
    assert outcomes[second].version == "2"
    assert outcomes[second].unreadable == 1
    samples = discover(str(data), "mvtec", [second])
    split = split_normals(samples, second, trained.config.calibration, trained.config.fit.seed)
    cut = sum(sample.uri in new for sample in split.held_out)
    assert any(f"({len(new) + cut} computed" in line for line in said), said
    assert any(f"{second}: 1 features in the cache were damaged" in line for line in said), said
    assert FeatureCache(str(damaged.parents[1]), "").read(damaged.stem) is not None
    assert len(outcomes[second].worst) == trained.config.night.worst_listed
    assert not list((trained.work_dir / "checkpoints" / "nights").iterdir())
    assert any(str(broken) in line for line in said), said
    assert trained.registry.resolve(second).version == "2", outcomes[second].decision
    assert trained.registry.resolve(second, PREVIOUS).version == "1"
    trained.registry.promote(second, "1", {})


def add_pictures(folder: Path, count: int) -> set[str]:
    """Upside-down copies: new pictures of the same kind."""
    added = set()
    for path in sorted(folder.glob("*.png"))[:count]:
        target = folder / f"new-{path.name}"
        ImageOps.flip(Image.open(path)).save(target)
        added.add(str(target))
    return added


def damage_an_entry(trained: Trained, data: Path, category: str) -> Path:
    """Flip a byte in the features of a picture that is fitted on."""
    samples = discover(str(data), "mvtec", [category])
    config = trained.config
    split = split_normals(samples, category, config.calibration, config.fit.seed)
    old = next(s.uri for s in split.fit if Path(s.uri).name[0].isdigit())
    name = content_hash(Path(old).read_bytes())
    path = next((trained.work_dir / "features").rglob(f"{name}.features"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 255
    path.write_bytes(content)
    return path


def test_unchanged_categories_are_left_out(trained: Trained, tmp_path: Path) -> None:
    """Nothing is fitted here: what has changed finds no time to begin."""
    first, second = (result.category for result in trained.results)
    over = CampaignOptions(only_changed=True, until=time.time() - 1)

    def outcomes(data: Path | str, config: Config) -> list[str]:
        paths = CampaignPaths(str(trained.work_dir / "features"), str(tmp_path / "checkpoints"))
        arguments = (str(data), "mvtec", None, config, paths, trained.registry, QUIET)
        return [result.outcome for result in run_campaign(*arguments, over)]

    assert outcomes(trained.factory.root, trained.config) == ["unchanged", "unchanged"]
    fit = replace(trained.config.fit, weight_decay=1e-4)
    other = replace(trained.config, fit=fit)
    assert outcomes(trained.factory.root, other) == ["not started", "not started"]
    night = replace(trained.config.night, cache_gib=50.0)
    assert outcomes(trained.factory.root, replace(trained.config, night=night)) == [
        "unchanged",
        "unchanged",
    ]
    data = tmp_path / "data"
    shutil.copytree(trained.factory.root, data)
    next((data / first / "train" / "good").iterdir()).unlink()
    assert outcomes(data, trained.config) == ["not started", "unchanged"]
    assert first < second
    nights = list((tmp_path / "checkpoints" / "nights").glob("*/night.json"))
    assert nights, "the same command goes on"
    # As if it had fitted and registered the other one before it was killed.
    own = CategoryResult(second, "registered", version="1", seconds=3.0, finished_at="2026-11-26")
    noted = [path.with_name(f"{second}.{'0' * 16}.result.json") for path in nights]
    for path in noted:
        path.write_text(json.dumps(own.as_dict()))
    assert outcomes(data, trained.config) == ["not started", "registered"]
    assert sum(path.exists() for path in noted) == len(noted), "as often as it is gone on with"


class Odd(Registry):
    """Of which one category cannot be looked up, and perhaps nothing else either."""

    odd = ""
    is_gone = False

    def find(self, category: str, alias_or_version: str = CHAMPION) -> ModelVersion | None:
        if category == self.odd or self.is_gone:
            raise RegistryUnavailableError("The registry failed.")
        return super().find(category, alias_or_version)

    def prepare(self) -> None:
        if self.is_gone:
            raise RegistryUnavailableError("The registry is out of reach.")
        super().prepare()


def test_one_category_that_cannot_be_looked_up_is_taken_for_changed(trained: Trained) -> None:
    first, second = (result.category for result in trained.results)
    config = replace(trained.config, run=replace(trained.config.run, registry_patience_s=0))
    splits, _ = split_categories(discover(trained.factory.root, "mvtec"), config)
    registry, told = Odd(trained.registry.uri), Told()
    registry.odd = first
    rows, names = unchanged_categories(splits, config, registry, told)
    assert [row.category for row in rows] == list(names) == [second]
    assert [line for line in told.lines if f"{first} is taken for changed: The registry" in line]
    registry.is_gone = True
    with pytest.raises(RegistryUnavailableError, match="is out of reach"):
        unchanged_categories(splits, config, registry, told)


def test_what_was_rolled_back_is_not_fitted_again_every_night(
    trained: Trained, tmp_path: Path
) -> None:
    """The gate would refuse it: the same pictures with the same settings make the same detector."""
    shutil.copy(trained.work_dir / "mlflow.db", tmp_path)
    registry = Registry(default_uri(str(tmp_path)))
    first, second = (result.category for result in trained.results)
    fitted = registry.resolve(first)
    created = registry.client.create_model_version(
        fitted.name, fitted.source, fitted.run_id, tags=dict.fromkeys(FINGERPRINT_TAGS, "other")
    )
    other = str(created.version)
    splits, _ = split_categories(discover(trained.factory.root, "mvtec"), trained.config)

    def unchanged() -> list[str]:
        rows, names = unchanged_categories(splits, trained.config, registry, QUIET)
        assert list(names) == [row.category for row in rows]
        decisions.update({row.category: (row.version, row.decision) for row in rows})
        return list(names)

    decisions: dict[str, tuple[str | None, str]] = {}
    registry.promote(first, other, {})
    assert unchanged() == [second]
    registry.promote(first, fitted.version, {})
    assert unchanged() == [first, second]
    registry.rollback(first)
    assert registry.resolve(first).version == other
    assert unchanged() == [first, second]
    version, decision = decisions[first]
    assert version == fitted.version
    assert f"was rolled back; version {other} is champion" in decision
    registry.promote(first, fitted.version, {})
    registry.promote(first, other, {})
    assert unchanged() == [second], "a person's choice is no rollback"


def test_a_night_that_finds_no_room_for_features_ends_with_a_row_for_every_category(
    trained: Trained, tmp_path: Path
) -> None:
    """GPUs are counted on that no node brings: waiting for them must have an end."""
    run = replace(trained.config.run, gpus=1, stall_timeout_s=5.0)
    paths = CampaignPaths(str(tmp_path / "features"), str(tmp_path / "checkpoints"))
    registry = Registry(default_uri(str(tmp_path)))
    arguments = (str(trained.factory.root), "mvtec", None, replace(trained.config, run=run))
    results = run_campaign(*arguments, paths, registry, QUIET)
    assert [result.outcome for result in results] == ["failed", "failed"]
    assert {"No picture was finished for 5 s" in result.decision for result in results} == {True}
    assert isinstance(results.error, StallError)
    assert list((tmp_path / "checkpoints" / "nights").glob("*/night.json")), "it goes on"


def run_on(data: Path, config: Config, work_dir: Path) -> list[CategoryResult]:
    registry = Registry(default_uri(str(work_dir)))
    paths = CampaignPaths.under(str(work_dir))
    return run_campaign(str(data), "folder", None, config, paths, registry, QUIET)


def test_an_empty_or_missing_root_is_an_error(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        run_on(tmp_path / "none", trained.config, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is empty"):
        run_on(tmp_path / "empty", trained.config, tmp_path)


def test_a_category_that_is_gone_fails_alone_and_divergence_is_reported_by_name(
    trained: Trained, tmp_path: Path
) -> None:
    """A worker's FitError comes back as a sentence, through Ray Train."""
    config = replace(
        trained.config,
        fit=replace(trained.config.fit, flow_learning_rate=1e30, gradient_clip_norm=1e30),
    )
    samples = discover(trained.factory.root, "mvtec")
    one = samples[0].category
    results = run_campaign(
        trained.factory.root,
        "mvtec",
        [one, "gone"],
        config,
        CampaignPaths(str(trained.work_dir / "features"), str(tmp_path / "checkpoints")),
        Registry(default_uri(str(tmp_path))),
        QUIET,
    )
    assert [r.outcome for r in results] == ["failed", "failed"]
    results.sort(key=lambda result: result.category == "gone")
    assert "there are no pictures of it" in results[1].decision
    assert f"{one!r} diverged" in results[0].decision
    assert "at step" in results[0].decision


def test_time_that_is_over_between_groups_leaves_the_rest_for_the_same_command(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not reached comes first then. Fitting is left out."""
    first, second = sorted(trained.results, key=lambda r: (-(r.pictures + r.held_out), r.category))
    reached: list[str] = []

    @dataclass(frozen=True)
    class OneGroup(CampaignOptions):
        def may_start(self) -> bool:
            return not reached

    def registered(_: object, splits: Mapping[str, Split]) -> list[CategoryResult]:
        reached.extend(splits)
        return [CategoryResult(name, "registered") for name in splits]

    def outcomes(options: CampaignOptions) -> dict[str, str]:
        paths = CampaignPaths(str(trained.work_dir / "features"), str(tmp_path / "checkpoints"))
        arguments = (trained.factory.root, "mvtec", None, trained.config, paths)
        results = run_campaign(*arguments, Registry(default_uri(str(tmp_path))), QUIET, options)
        return {result.category: result.outcome for result in results}

    monkeypatch.setattr(campaign_features, "GROUP_PICTURES", 1)
    monkeypatch.setattr(campaign, "fit_and_register", registered)
    assert outcomes(OneGroup()) == {first.category: "registered", second.category: "not started"}
    assert (reached.pop(), reached) == (first.category, [])
    outcomes(CampaignOptions())
    assert reached == [second.category, first.category]
    assert not storage.list_folders(str(tmp_path / "checkpoints" / "nights")), "it is closed"


def test_a_group_has_work_for_all_places(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its pictures alone, each category would be a group. Fitting is left out."""
    groups: list[int] = []

    def registered(_: object, splits: Mapping[str, Split]) -> list[CategoryResult]:
        groups.append(len(splits))
        return [CategoryResult(name, "registered") for name in splits]

    monkeypatch.setattr(campaign_features, "GROUP_PICTURES", trained.settings.train)
    monkeypatch.setattr(campaign, "fit_and_register", registered)
    paths = CampaignPaths(str(trained.work_dir / "features"), str(tmp_path / "checkpoints"))
    arguments = (trained.factory.root, "mvtec", None, trained.config, paths)
    run_campaign(*arguments, trained.registry, QUIET)
    assert groups == [2]


def test_a_night_that_was_taken_over_is_left_to_the_other_process(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This one stood still for too long. Fitting is left out."""
    first, second = sorted(trained.results, key=lambda r: (-(r.pictures + r.held_out), r.category))
    nights = tmp_path / "checkpoints" / "nights"

    def taken_over(campaign: Campaign, splits: Mapping[str, Split]) -> list[CategoryResult]:
        state = storage.join(campaign.night.states("other.0123"), "fit.safetensors")
        storage.write_atomically(state, b"state")
        other = b'{"id": "y", "host": "another machine", "pid": 1}'
        storage.write_atomically(f"{campaign.night.folder}.lease", other)
        for _ in range(200):
            if campaign.lease.is_lost:
                return [CategoryResult(name, "registered") for name in splits]
            threading.Event().wait(0.05)
        raise AssertionError("nobody noticed")

    monkeypatch.setattr(night_lease, "_RENEWED_EVERY_S", 0.05)
    monkeypatch.setattr(campaign_features, "GROUP_PICTURES", 1)
    monkeypatch.setattr(campaign, "fit_and_register", taken_over)
    paths = CampaignPaths(str(trained.work_dir / "features"), str(tmp_path / "checkpoints"))
    arguments = (trained.factory.root, "mvtec", None, trained.config, paths)
    rows = run_campaign(*arguments, trained.registry, QUIET)
    outcomes = {row.category: row.outcome for row in rows}
    assert outcomes == {first.category: "registered", second.category: "not started"}
    (late,) = (row for row in rows if row.category == second.category)
    assert "another process has taken this night over" in late.decision
    assert isinstance(rows.error, OutputError)
    (night,) = nights.glob("*/night.json")
    assert json.loads(night.read_text())["waited_for"] == []
    assert (night.parent / "other.0123" / "fit.safetensors").exists()


@pytest.mark.integration
def test_data_features_and_checkpoints_may_lie_in_an_object_store(
    trained: Trained, s3_bucket: str, tmp_path: Path
) -> None:
    category = trained.results[0].category
    store = fsspec.filesystem("s3")
    store.put(f"{trained.factory.root}/{category}", f"{s3_bucket}/data/{category}", recursive=True)
    results = run_campaign(
        f"{s3_bucket}/data",
        "mvtec",
        None,
        trained.config,
        CampaignPaths.under(f"{s3_bucket}/nightly"),
        Registry(default_uri(str(tmp_path))),
        QUIET,
    )
    assert [r.outcome for r in results] == ["registered"], results[0].decision
    assert results[0].pictures == trained.results[0].pictures
    assert store.glob(f"{s3_bucket}/nightly/features/**/*.features")


@pytest.mark.slow
@pytest.mark.integration
def test_a_store_that_fails_for_some_categories_fails_no_others(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the same command goes on with those."""
    first, second = sorted(result.category for result in trained.results)
    registry = Registry(default_uri(str(tmp_path)))
    paths = CampaignPaths(str(trained.work_dir / "features"), str(tmp_path / "checkpoints"))
    monkeypatch.setattr(campaign_features, "GROUP_PICTURES", 1)
    real = Night.result

    def out_of_order(self: Night, fit: str) -> dict[str, Any] | None:
        if fit.startswith(f"{first}."):
            raise OSError(errno.EIO, "the share is gone")
        return real(self, fit)

    def run() -> dict[str, tuple[str, str]]:
        quiet = Progress(quiet=True)
        results = run_campaign(
            trained.factory.root, "mvtec", None, trained.config, paths, registry, quiet
        )
        return {result.category: (result.outcome, result.decision) for result in results}

    with monkeypatch.context() as outage:
        outage.setattr(Night, "result", out_of_order)
        rows = run()
    assert rows[first][0] == "failed"
    assert "the share is gone" in rows[first][1]
    assert "run the same command again" in rows[first][1]
    assert rows[second][0] == "registered"
    assert {outcome for outcome, _ in run().values()} == {"registered"}
    assert {v.version for v in registry.list_versions()} == {"1"}


class Told(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.integration
@pytest.mark.parametrize("place", ["disk", pytest.param("object store", marks=pytest.mark.slow)])
def test_a_detector_that_is_fitted_is_registered_later_without_a_new_fit(
    place: str,
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """The store of the registry's artifacts fails behind the fit; the same command goes on."""
    category = trained.results[0].category
    work_dir = str(tmp_path)
    if place == "object store":
        work_dir = f"{request.getfixturevalue('s3_bucket')}/{tmp_path.name}"
    paths = replace(CampaignPaths.under(work_dir), features=str(trained.work_dir / "features"))
    registry = Registry(default_uri(str(tmp_path)))

    def run() -> tuple[CategoryResult, Told]:
        told = Told()
        (result,) = run_campaign(
            trained.factory.root, "mvtec", [category], trained.config, paths, registry, told
        )
        return result, told

    def refuse(*arguments: object) -> None:
        raise OSError(errno.EIO, "the artifact store is gone")

    with monkeypatch.context() as outage:
        outage.setattr(category_finish, "register", refuse)
        result, told = run()
    assert result.outcome == "failed"
    assert "the artifact store is gone" in result.decision
    assert [line for line in told.lines if "flow epoch" in line]
    threshold = result.metrics["threshold"]

    result, told = run()
    assert (result.outcome, result.version) == ("registered", "1")
    assert [line for line in told.lines if "0 of 1 categories are finished, 1 more are" in line]
    assert not [line for line in told.lines if "epoch" in line]
    assert not storage.list_folders(storage.join(paths.checkpoints, "nights"))
    again = Registry(default_uri(str(tmp_path))).load(category)
    assert again.threshold == pytest.approx(threshold)

"""Champions, rolled back and refused versions that a fit on the same pictures would come out as."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from nfbmr.config import Config
from nfbmr.data.layouts import discover
from nfbmr.registry import Registry, default_uri
from nfbmr.train.category_tasks import split_categories
from nfbmr.train.finished import FINGERPRINT_TAGS
from nfbmr.train.gate import AGAINST_TAG, VERDICT_TAG, Decision
from nfbmr.train.split import Split
from nfbmr.train.unchanged import unchanged_categories
from tests.conftest import Trained
from tests.train.campaigns import QUIET


@dataclass(frozen=True)
class LeftOut:
    """Compares categories, and remembers the version and the reason of those that are left out."""

    splits: Mapping[str, Split]
    config: Config
    registry: Registry
    decisions: dict[str, tuple[str | None, str]] = field(default_factory=dict)

    def __call__(
        self, splits: Mapping[str, Split] | None = None, config: Config | None = None
    ) -> list[str]:
        rows, names = unchanged_categories(
            splits or self.splits, config or self.config, self.registry, QUIET
        )
        assert list(names) == [row.category for row in rows]
        self.decisions.update({row.category: (row.version, row.decision) for row in rows})
        return list(names)


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
    left_out = LeftOut(splits, trained.config, registry)
    registry.promote(first, other, {})
    assert left_out() == [second]
    registry.promote(first, fitted.version, {})
    assert left_out() == [first, second]
    registry.rollback(first)
    assert registry.resolve(first).version == other
    assert left_out() == [first, second]
    version, decision = left_out.decisions[first]
    assert version == fitted.version
    assert f"was rolled back; version {other} is champion" in decision
    registry.promote(first, fitted.version, {})
    registry.promote(first, other, {})
    assert left_out() == [second], "a person's choice is no rollback"


def test_a_champion_whose_files_are_gone_is_fitted_again(trained: Trained, tmp_path: Path) -> None:
    """It fails every scoring run, and would be called unchanged until somebody looks."""
    first, second = (result.category for result in trained.results)
    splits, _ = split_categories(discover(trained.factory.root, "mvtec"), trained.config)
    source = trained.registry.resolve(first).source.removeprefix("file://")
    tensors = Path(source) / "detector.safetensors"
    moved = tensors.rename(tmp_path / "moved")
    try:
        _, names = unchanged_categories(splits, trained.config, trained.registry, QUIET)
    finally:
        moved.rename(tensors)
    assert list(names) == [second]
    _, names = unchanged_categories(splits, trained.config, trained.registry, QUIET)
    assert list(names) == [first, second]


def test_what_the_gate_refused_is_not_fitted_again_every_night(
    trained: Trained, tmp_path: Path
) -> None:
    """The same gate would refuse it against the same champion, by the same labelled pictures."""
    shutil.copy(trained.work_dir / "mlflow.db", tmp_path)
    registry = Registry(default_uri(str(tmp_path)))
    first, second = (result.category for result in trained.results)
    fitted = registry.resolve(first)

    def add(tags: dict[str, str]) -> str:
        created = registry.client.create_model_version(
            fitted.name, fitted.source, fitted.run_id, tags=tags
        )
        return str(created.version)

    long_ago = {"nfbmr.fitted_at": "2002-02-02T00:00:00Z"}
    champion = add({**dict.fromkeys(FINGERPRINT_TAGS, "other"), **long_ago})
    registry.promote(first, champion, {})
    config = trained.config
    splits, _ = split_categories(discover(trained.factory.root, "mvtec"), config)
    assert len(splits[first].labelled) == 20

    left_out = LeftOut(splits, config, registry)
    assert left_out() == [second]
    verdict = Decision(False, "champion 2: 0.50 is too little", against=champion).tags()
    refused = add({**fitted.tags, **verdict})
    registry.challenge(first)
    assert left_out() == [first, second]
    version, decision = left_out.decisions[first]
    assert version == refused
    assert "the gate refused it (champion 2: 0.50 is too little)" in decision
    gate = replace(config.gate, min_agreement=0.1)
    assert left_out(config=replace(config, gate=gate)) == [second], "it may pass another gate"
    fewer = replace(splits[first], labelled=splits[first].labelled[1:])
    assert left_out({**splits, first: fewer}) == [second], "it may pass by other pictures"
    shorter = replace(splits[first], fit=splits[first].fit[1:])
    assert left_out({**splits, first: shorter}) == [second], "another detector may pass"
    others = {AGAINST_TAG: "7", VERDICT_TAG: "passed", "nfbmr.version": "0"}
    others |= {"nfbmr.fitted_at": "2001-01-01T00:00:00Z"}  # A fit of tonight is not so old.
    for tag, other in others.items():
        registry.client.set_model_version_tag(fitted.name, refused, tag, other)
        assert left_out() == [second], tag
        old = {**fitted.tags, **verdict}[tag]
        registry.client.set_model_version_tag(fitted.name, refused, tag, old)
    assert left_out() == [first, second]

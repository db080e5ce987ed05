"""What goes wrong with one fit on a real Ray is mended or reported, and stops no other."""

import errno
import os
import resource
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import ray.cloudpickle
import torch

from nfbmr.data.layouts import discover
from nfbmr.fit_settings import FitSettings
from nfbmr.train.category_fit import CategoryTask
from nfbmr.train.category_tasks import Preparation, make_tasks, pictures_of, split_categories
from nfbmr.train.feature_cache import FeatureCache
from nfbmr.train.features import compute_features
from nfbmr.train.fit import EpochLosses
from nfbmr.train.fit_capacity import FitShare
from nfbmr.train.fit_queue import QueueHooks, fit_categories
from nfbmr.train.ray_fit import Cause, Failed, Fitted, NotStarted, Outcome
from tests.conftest import Trained

MIB = 2**20

# Workers cannot import this file.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@dataclass(frozen=True)
class TroubledFit(FitSettings):
    """Settings whose first fit meets with trouble, in its worker, when the mapper's turn comes.

    Attributes:
        trouble: ``killed`` (kill -9), ``memory`` (the kernel refuses to give more) or ``bug``.
        met: file that says that it has happened.
    """

    trouble: str = ""
    met: str = ""

    def epochs(self, stage: str, pictures: int) -> int:
        if stage == "mapper" and self.trouble and not Path(self.met).exists():
            Path(self.met).write_text("")
            self._meet()
        return FitSettings.epochs(self, stage, pictures)

    def _meet(self) -> None:
        if self.trouble == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.trouble == "bug":
            raise ZeroDivisionError("division by zero")
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + 256 * MIB
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        torch.empty(1024 * MIB, dtype=torch.uint8).fill_(1)


@pytest.fixture(scope="module")
def healthy(trained: Trained) -> CategoryTask:
    """The task of a category that can be fitted in a few seconds."""
    fit = replace(trained.config.fit, precision="float32", min_steps=1)
    fit = replace(fit, flow_epochs=4, mapper_epochs=4)
    night = replace(trained.config.night, checkpoint_interval_s=0.0)
    run = replace(trained.config.run, cpus_per_fit=0.5)
    config = replace(trained.config, fit=fit, night=night, run=run)
    samples = discover(trained.factory.root, "mvtec", [trained.results[0].category])
    splits, _ = split_categories(samples, config)
    pictures = [p for split in splits.values() for p in pictures_of(split)]
    root = str(trained.work_dir / "features")
    index = compute_features(pictures, config.backbone, root, config.run)
    tasks, _ = make_tasks(splits, Preparation(config, root, index))
    return tasks[0]


def named(task: CategoryTask, name: str, folder: Path, trouble: str = "") -> CategoryTask:
    """A copy under another name that keeps its state in a folder."""
    values = {f: getattr(task.config.fit, f) for f in FitSettings.__slots__}
    fit = TroubledFit(**values, trouble=trouble, met=str(folder / f"{name}.met"))
    config = replace(task.config, fit=fit)
    return replace(task, category=name, config=config, state_root=str(folder / name))


def fit_all(
    tasks: Sequence[CategoryTask], folder: Path, hooks: QueueHooks | None = None
) -> tuple[dict[str, Outcome], dict[str, list[EpochLosses]]]:
    """Outcomes, and the epochs that the workers reported, by category."""
    seen: dict[str, list[EpochLosses]] = {}
    hooks = replace(
        hooks or QueueHooks(), epoch=lambda category, e: seen.setdefault(category, []).append(e)
    )
    outcomes = fit_categories(tasks, tasks[0].config.run, str(folder / "runs"), hooks)
    return {outcome.category: outcome for outcome in outcomes}, seen


def losses(outcome: Outcome) -> list[EpochLosses]:
    assert isinstance(outcome, Fitted), outcome
    return outcome.report.losses


def no_epoch_twice(epochs: Sequence[EpochLosses]) -> bool:
    """What a worker reported last before it died may have been lost on the way."""
    places = [(e.stage, e.epoch) for e in epochs]
    return len(places) == len(set(places)) and places[-4:] == [("mapper", i) for i in (1, 2, 3, 4)]


@pytest.mark.slow
@pytest.mark.integration
def test_trouble_of_some_is_mended_or_reported_and_the_others_are_fitted(
    healthy: CategoryTask, tmp_path: Path
) -> None:
    poisoned = tmp_path / "poisoned"
    for entry in healthy.fit_entries:
        y_CHW = torch.full((4, 2, 2), float("nan"))
        FeatureCache(str(poisoned), healthy.backbone_key).write(entry, y_CHW)
    damaged = tmp_path / "damaged"
    shutil.copytree(Path(healthy.cache_root), damaged)
    entry = next(damaged.rglob(f"{healthy.fit_entries[3]}.features"))
    entry.write_bytes(entry.read_bytes()[:-1] + b"\0")
    repaired: list[str] = []

    def repair(task: CategoryTask, share: FitShare) -> None:
        assert share.cpus == 0.5
        repaired.append(task.category)
        shutil.copy(next(Path(healthy.cache_root).rglob(entry.name)), entry)

    large = replace(healthy.config.night, pictures_per_worker=len(healthy.fit_entries) // 2 + 1)
    tasks = [
        named(healthy, "healthy", tmp_path),
        named(healthy, "killed", tmp_path, "killed"),
        named(healthy, "memory", tmp_path, "memory"),
        named(healthy, "bug", tmp_path, "bug"),
        replace(named(healthy, "nan", tmp_path), cache_root=str(poisoned)),
        replace(named(healthy, "damaged", tmp_path), cache_root=str(damaged)),
        replace(named(healthy, "large", tmp_path), config=replace(healthy.config, night=large)),
    ]
    forgotten: list[str] = []

    def fitted(task: CategoryTask, run: str, outcome: Fitted) -> None:
        if task.category == "killed" and not forgotten:
            forgotten.append(run)
            raise OSError(errno.EIO, "the store is away")

    outcomes, seen = fit_all(tasks, tmp_path, QueueHooks(repair=repair, fitted=fitted))
    assert forgotten
    assert outcomes.keys() == {task.category for task in tasks}
    undisturbed = losses(outcomes["healthy"])
    assert len(undisturbed) == 8

    # kill -9: Ray Train starts the worker again, and it goes on after the flow.
    assert losses(outcomes["killed"]) == undisturbed
    assert no_epoch_twice(seen["killed"])
    # Out of memory, the same.
    assert losses(outcomes["memory"]) == undisturbed
    assert no_epoch_twice(seen["memory"])
    # A damaged entry is computed anew.
    assert repaired == ["damaged"]
    assert losses(outcomes["damaged"]) == undisturbed
    # Two workers that do every step together.
    for alone, together in zip(undisturbed, losses(outcomes["large"]), strict=True):
        assert together.losses == pytest.approx(alone.losses, rel=1e-3)

    nan, bug = outcomes["nan"], outcomes["bug"]
    assert isinstance(nan, Failed)
    assert nan.cause is Cause.USER
    assert "not finite" in nan.error
    assert isinstance(bug, Failed)
    assert bug.cause is Cause.PROGRAM
    assert "'bug' failed: ZeroDivisionError: division by zero" in bug.error


@pytest.mark.slow
@pytest.mark.integration
def test_a_worker_that_is_lost_every_time_is_reported_in_the_end(
    healthy: CategoryTask, tmp_path: Path
) -> None:
    night = replace(healthy.config.night, retries=1)
    task = named(replace(healthy, config=replace(healthy.config, night=night)), "doomed", tmp_path)
    fit = replace(task.config.fit, trouble="killed", met="/dev/null/never")
    outcomes, _ = fit_all(
        [replace(task, config=replace(task.config, fit=AlwaysKilled(**vars_of(fit))))], tmp_path
    )
    doomed = outcomes["doomed"]
    assert isinstance(doomed, Failed)
    assert doomed.cause is Cause.LOST
    assert "'doomed' was lost, 2 times in all" in doomed.error
    assert (tmp_path / "doomed" / "fit.safetensors").exists()


class AlwaysKilled(TroubledFit):
    """Dies in every attempt."""

    def epochs(self, stage: str, pictures: int) -> int:
        if stage == "mapper":
            os.kill(os.getpid(), signal.SIGKILL)
        return FitSettings.epochs(self, stage, pictures)


def vars_of(fit: TroubledFit) -> dict[str, object]:
    return {name: getattr(fit, name) for name in TroubledFit.__dataclass_fields__}


@pytest.mark.integration
def test_a_failure_that_another_attempt_would_mend_is_a_failure_when_the_time_is_over(
    healthy: CategoryTask, tmp_path: Path
) -> None:
    task = named(healthy, "memory", tmp_path, "memory")

    def may_start() -> bool:
        return not Path(tmp_path / "memory.met").exists()

    outcomes, _ = fit_all([task], tmp_path, QueueHooks(may_start=may_start))
    outcome = outcomes["memory"]
    assert isinstance(outcome, Failed)
    assert outcome.cause is Cause.MEMORY
    assert outcome.seconds > 0
    assert [(e.stage, e.epoch) for e in outcome.losses] == [("flow", 4)]


def test_nothing_is_begun_when_the_time_is_over(
    healthy: CategoryTask, tmp_path: Path, local_ray: None
) -> None:
    tasks = [named(healthy, name, tmp_path) for name in ("one", "two")]
    outcomes, seen = fit_all(tasks, tmp_path, QueueHooks(may_start=lambda: False))
    assert outcomes == {"one": NotStarted("one"), "two": NotStarted("two")}
    assert not seen


@pytest.mark.integration
def test_what_runs_when_the_time_is_over_is_finished(
    healthy: CategoryTask, tmp_path: Path, local_ray: None
) -> None:
    """Both would fit at a time; the second is not begun any more."""
    run = replace(healthy.config.run, cpus_per_fit=float(ray.cluster_resources()["CPU"]))
    task = replace(healthy, config=replace(healthy.config, run=run))
    tasks = [named(task, name, tmp_path) for name in ("one", "two")]
    began: list[str] = []

    def may_start() -> bool:
        began.append("asked")
        return len(began) == 1

    outcomes, seen = fit_all(tasks, tmp_path, QueueHooks(may_start=may_start))
    assert isinstance(outcomes["one"], Fitted)
    assert outcomes["two"] == NotStarted("two")
    assert set(seen) == {"one"}

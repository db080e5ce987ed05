"""What was measured once is not measured again, and what fails takes nothing else with it."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import ray.cloudpickle

from nfbmr.benchmark.ablation import Ablation, FailedFit, run_tasks
from nfbmr.benchmark.ablation_kept import KeptRows
from nfbmr.benchmark.ablation_task import AblationTask, RowResult, ablate
from nfbmr.benchmark.commands.ablation import failures_text
from nfbmr.benchmark.exit_code import exit_code
from nfbmr.progress import Progress
from nfbmr.published import TABLE5
from tests.benchmark.ablation_tasks import CONFIG, make_task

QUIET = Progress(quiet=True)

# Workers cannot import this file.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def rows_of(task: AblationTask, auroc: float = 1 / 3) -> list[RowResult]:
    return [
        RowResult(task.category, task.seed, row, "mean", auroc, 0.5) for row in range(len(TABLE5))
    ]


@pytest.fixture
def task(tmp_path: Path) -> AblationTask:
    parts = (["fit"], ["held"], ["cut"], ["test-1", "test-2"], [False, True])
    return AblationTask("bottle", 0, CONFIG, str(tmp_path), "backbone", *parts)


@pytest.fixture
def kept(tmp_path: Path) -> KeptRows:
    return KeptRows(str(tmp_path / "ablation"))


def test_kept_rows_are_those_that_were_measured(task: AblationTask, kept: KeptRows) -> None:
    assert kept.find(task) is None
    kept.keep(task, rows_of(task))
    assert kept.find(task) == rows_of(task)


def test_another_task_has_rows_of_its_own(task: AblationTask, kept: KeptRows) -> None:
    kept.keep(task, rows_of(task))
    fit = replace(CONFIG.fit, flow_epochs=CONFIG.fit.flow_epochs + 1)
    others = [
        replace(task, category="cable"),
        replace(task, seed=1),
        replace(task, config=replace(CONFIG, fit=fit)),
        replace(task, backbone_key="another"),
        replace(task, fit_entries=["other"]),
        replace(task, held_out_entries=["other"]),
        replace(task, synthetic_entries=["other"]),
        replace(task, test_entries=["test-2", "test-1"]),
        replace(task, is_defective=[True, False]),
    ]
    assert [kept.find(other) for other in others] == [None] * len(others)
    assert kept.find(replace(task, cache_root="/elsewhere")) == rows_of(task)


@pytest.mark.parametrize("text", ["", "{", "[]", "[1]", '[{"category": "bottle"}]', "null"])
def test_a_damaged_file_is_measured_again(task: AblationTask, kept: KeptRows, text: str) -> None:
    kept.keep(task, rows_of(task))
    Path(kept.place(task)).write_text(text)
    assert kept.find(task) is None


def test_rows_that_are_all_kept_need_no_worker(task: AblationTask, kept: KeptRows) -> None:
    def never(task: AblationTask) -> list[RowResult]:
        raise AssertionError

    kept.keep(task, rows_of(task))
    ablation = run_tasks([task], "mvtec", kept, QUIET, never)
    assert ablation == Ablation("mvtec", tuple(rows_of(task)), (), 1)


def killed_or_measured(task: AblationTask) -> list[RowResult]:
    if task.category == "killed":
        with Path(task.cache_root, "attempts").open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
    return ablate(task)


@pytest.mark.integration
def test_one_that_fails_and_one_that_is_killed_leave_the_others_their_rows(
    kept: KeptRows, tmp_path: Path, local_ray: None
) -> None:
    fits = replace(CONFIG.run, cpus_per_fit=1.0)
    tasks = [
        make_task(tmp_path, "broken", float("nan")),
        make_task(tmp_path, "killed"),
        make_task(tmp_path, "healthy"),
    ]
    tasks = [replace(task, config=replace(task.config, run=fits)) for task in tasks]
    ablation = run_tasks(tasks, "mvtec", kept, QUIET, killed_or_measured)
    assert [row.category for row in ablation.results] == ["healthy"] * len(TABLE5)
    broken, killed = ablation.failures
    assert (broken.category, killed.category) == ("broken", "killed")
    assert "'broken'" in broken.error
    assert "finite" in broken.error
    assert "'killed', seed 0, was lost, 3 times in all" in killed.error
    assert (tmp_path / "attempts").read_text() == "xxx"

    again = run_tasks(tasks[2:], "mvtec", kept, QUIET, killed_or_measured)
    assert (again.results, again.earlier) == (ablation.results, 1)


def test_what_failed_is_named_with_what_to_do(task: AblationTask) -> None:
    failed = FailedFit("cable", 1, "it diverged")
    ablation = Ablation("mvtec", tuple(rows_of(task)), (failed,), 0)
    text = failures_text(ablation, is_kept=True)
    assert "1 of 2 fits" in text
    assert "cable, seed 1: it diverged" in text
    assert "run the same command again" in text
    assert "--work-dir" in failures_text(ablation, is_kept=False)


def test_the_exit_code_says_that_a_fit_failed() -> None:
    assert exit_code({"failures": [{"category": "cable"}]}) == 8
    assert exit_code({"failures": []}) == 0
    assert exit_code({"passed": False}) == 1

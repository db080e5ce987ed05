"""One night of the demo factory: fit, score the archive, score and measure the test pictures.

A night lies in one folder. Every step finds what it has done already, so that a night that was cut
off goes on where it stopped.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from nfbmr.config import Config
from nfbmr.data.layouts import discover
from nfbmr.data.procedural import Factory
from nfbmr.data.sample import Sample
from nfbmr.errors import FailureBudgetError
from nfbmr.evaluate import Evaluation, describe_rate, evaluate
from nfbmr.progress import Progress, table
from nfbmr.registry import Registry
from nfbmr.report.page import write_report
from nfbmr.score.dataset import read_scores
from nfbmr.score.pictures import planned_samples, run_info, stored_picture
from nfbmr.score.run import ScoringRequest, score
from nfbmr.score.summary import ScoringSummary
from nfbmr.storage import absolute_uri
from nfbmr.train.campaign import CampaignPaths, run_campaign

LAYOUT = "mvtec"
"""Of its files; the surfaces are drawn, so that no published results are theirs."""


@dataclass(frozen=True)
class Night:
    """Where one night puts its results.

    Attributes:
        folder: of this night's own.
        config: settings of all its steps.
        registry: shared by all nights.
        progress: where it says what it does.
    """

    folder: Path
    config: Config
    registry: Registry
    progress: Progress

    @property
    def trained(self) -> Path:
        """Written when every category of this night is registered."""
        return self.folder / "trained.json"

    @property
    def scores(self) -> Path:
        """The archive's scores, a Parquet data set."""
        return self.folder / "scores"

    @property
    def archive_report(self) -> Path:
        """The page about the archive."""
        return self.folder / "archive.html"

    @property
    def report(self) -> Path:
        """The page about the test pictures; written last, its presence says the night is over."""
        return self.folder / "report.html"


@dataclass(frozen=True)
class NightResult:
    """What a night found.

    Attributes:
        test: the labelled test pictures, measured.
        archive: the archive's readable pictures, measured.
        scored: counts of the archive, broken files included.
    """

    test: Evaluation
    archive: Evaluation
    scored: ScoringSummary


def next_night(folder: Path) -> Path:
    """The folder of the night that was cut off, else of a new one."""
    number = 1
    while (folder / f"night-{number}" / "report.html").exists():
        number += 1
    return folder / f"night-{number}"


def play(night: Night, factory: Factory, work_dir: Path) -> NightResult:
    """All steps of a night. Needs a Ray session.

    Args:
        night: where its results go.
        factory: the pictures.
        work_dir: of training: cache of features and checkpoints.

    Raises:
        FailureBudgetError: a category could not be fitted.
    """
    train(night, factory, work_dir)
    scored = score_archive(night, factory)
    archive = report_archive(night, factory)
    return NightResult(evaluate_test_pictures(night, factory), archive, scored)


def train(night: Night, factory: Factory, work_dir: Path) -> None:
    """Fit and register every category.

    Raises:
        FailureBudgetError: a category failed.
    """
    if night.trained.exists():
        night.progress.say("Every category of this night is registered already")
        return
    results = run_campaign(
        factory.root,
        LAYOUT,
        None,
        night.config,
        CampaignPaths.under(str(work_dir)),
        night.registry,
        night.progress,
    )
    if results.error is not None:
        raise results.error
    failed = [f"{r.category}: {r.decision}" for r in results if r.outcome == "failed"]
    if failed:
        raise FailureBudgetError("The demo could not fit " + "; ".join(failed))
    night.folder.mkdir(parents=True, exist_ok=True)
    night.trained.write_text(json.dumps([result.as_dict() for result in results], indent=1))


def score_archive(night: Night, factory: Factory) -> ScoringSummary:
    """Score the production archive, broken files included."""
    request = ScoringRequest((factory.archive,), str(night.scores))
    return score(request, night.registry, night.config.run, night.progress)


def evaluate_test_pictures(night: Night, factory: Factory) -> Evaluation:
    """Score the labelled test pictures, measure, and write the report about them."""
    samples = discover(factory.root, LAYOUT)
    output = str(night.folder / "test-scores")
    score(
        ScoringRequest((factory.root,), output),
        night.registry,
        night.config.run,
        night.progress,
        pictures=lambda: planned_samples(samples, factory.root),
    )
    scores = read_scores(output)
    evaluation = evaluate(scores, samples)
    (night.folder / "evaluation.json").write_text(evaluation.to_json() + "\n")
    (night.folder / "evaluation.md").write_text(evaluation.to_markdown() + "\n")
    categories = {c.category: c.model_versions[0] for c in evaluation.categories}
    write_report(
        str(night.report),
        title="Test pictures of the demo factory",
        scores=scores,
        read_picture=stored_picture,
        run_info=run_info(output),
        evaluation=evaluation,
        samples=samples,
        losses={
            category: night.registry.losses(night.registry.resolve(category, version))
            for category, version in categories.items()
        },
    )
    return evaluation


def report_archive(night: Night, factory: Factory) -> Evaluation:
    """Write the report about the archive; its labels are known, since it was drawn here."""
    output = str(night.scores)
    scores = read_scores(output)
    samples = archive_samples(factory)
    evaluation = evaluate(scores, samples)
    write_report(
        str(night.archive_report),
        title="Production archive of the demo factory",
        scores=scores,
        read_picture=stored_picture,
        run_info=run_info(output),
        evaluation=evaluation,
        samples=samples,
    )
    return evaluation


def archive_samples(factory: Factory) -> list[Sample]:
    """The archive's pictures with what the factory knows about them."""
    archive = absolute_uri(factory.archive)
    with Path(factory.labels).open(newline="") as file:
        return [
            Sample(
                uri=f"{archive}::{row['member']}",
                category=row["category"],
                split="test",
                defect_type=row["defect_type"],
            )
            for row in csv.DictReader(file)
            if row["is_broken"] == "False"
        ]


def summary_table(result: NightResult) -> str:
    """The table that ends the demo."""
    in_archive = {c.category: c for c in result.archive.categories}
    rows = [
        (
            c.category,
            c.pictures,
            c.image_auroc,
            describe_rate(c.false_alarms),
            c.model_versions[0],
            in_archive[c.category].pictures,
            in_archive[c.category].image_auroc,
        )
        for c in result.test.categories
    ]
    header = (
        "category",
        "test pictures",
        "AUROC",
        "false alarms at the calibrated threshold",
        "model version",
        "in the archive",
        "AUROC there",
    )
    files = (
        f"{result.scored.pictures} files in the archive, {result.scored.failed} of them unreadable"
    )
    return f"{table(rows, header)}\n\n{files}: rows with status = 'error'."

"""The whole path on a small procedural factory: pictures, training, scoring, evaluation, report.

Everything it makes lies in one folder. Run again, it plays the next night: the same pictures, new
versions of the models, scores of their own. What was cut off goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nfbmr.cli import run_job
from nfbmr.config import Config, load_config
from nfbmr.data.layouts import discover
from nfbmr.data.procedural import Factory, FactorySettings, generate_factory, pictures_in
from nfbmr.data.sample import Sample
from nfbmr.errors import FailureBudgetError
from nfbmr.evaluate import Evaluation, describe_rate, evaluate
from nfbmr.progress import Progress, table
from nfbmr.registry import Registry, embedded_uri
from nfbmr.report.page import write_report
from nfbmr.score.dataset import read_scores
from nfbmr.score.pictures import planned_samples, run_info, stored_picture
from nfbmr.score.run import ScoringRequest, score
from nfbmr.score.summary import ScoringSummary
from nfbmr.session import ray_session
from nfbmr.storage import absolute_uri
from nfbmr.train.campaign import CampaignPaths, run_campaign

LAYOUT = "mvtec"
"""Of its files; the surfaces are drawn, so that no published results are theirs."""


@dataclass(frozen=True)
class Night:
    """Where one run of the demo puts its results.

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
    def report(self) -> Path:
        """Written last but one; its presence says that the night is over."""
        return self.folder / "report.html"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jobs/demo.py",
        description=__doc__,
        epilog="example:\n  python jobs/demo.py --folder /tmp/factory --categories 6",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--folder", default=".demo", help="default: %(default)s")
    parser.add_argument("--categories", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of pictures and fits")
    return parser


def next_night(folder: Path) -> Path:
    """The folder of the night that was cut off, else of a new one."""
    number = 1
    while (folder / f"night-{number}" / "report.html").exists():
        number += 1
    return folder / f"night-{number}"


def make_factory(folder: Path, settings: FactorySettings, progress: Progress) -> Factory:
    """Generate the factory's pictures, or find them there."""
    with progress.counter("Drawing the factory's pictures", pictures_in(settings)) as count:
        return generate_factory(folder, settings, count)


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
    failed = [f"{r.category}: {r.decision}" for r in results if r.outcome == "failed"]
    if failed:
        raise FailureBudgetError("The demo could not fit " + "; ".join(failed))
    night.folder.mkdir(parents=True, exist_ok=True)
    night.trained.write_text(json.dumps([result.as_dict() for result in results], indent=1))


def score_archive(night: Night, factory: Factory) -> ScoringSummary:
    """Score the production archive, broken files included."""
    request = ScoringRequest((factory.archive,), str(night.folder / "scores"))
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
    output = str(night.folder / "scores")
    scores = read_scores(output)
    samples = archive_samples(factory)
    evaluation = evaluate(scores, samples)
    write_report(
        str(night.folder / "archive.html"),
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


def summary_table(test: Evaluation, archive: Evaluation, scored: ScoringSummary) -> str:
    """The table that ends the demo."""
    in_archive = {c.category: c for c in archive.categories}
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
        for c in test.categories
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
    files = f"{scored.pictures} files in the archive, {scored.failed} of them unreadable"
    return f"{table(rows, header)}\n\n{files}: rows with status = 'error'."


def _run(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    folder = Path(arguments.folder).absolute()
    progress = Progress()
    factory_settings = FactorySettings(categories=arguments.categories, seed=arguments.seed)
    config = load_config(None, (f"fit.seed={arguments.seed}",), "small")
    night = Night(next_night(folder), config, Registry(embedded_uri(str(folder))), progress)
    factory = make_factory(folder / "factory", factory_settings, progress)
    with ray_session(None):
        train(night, factory, folder)
        scored = score_archive(night, factory)
        archive = report_archive(night, factory)
        test = evaluate_test_pictures(night, factory)
    print(f"\n{summary_table(test, archive, scored)}\n")
    places = [
        ("report, test pictures", night.report),
        ("report, archive", night.folder / "archive.html"),
        ("scores (Parquet)", night.folder / "scores"),
        ("models", f"nfbmr models list --work-dir {arguments.folder}"),
    ]
    print(table(places, ("where", f"{time.monotonic() - started:.0f} s in all")))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run_job(lambda: _run(arguments))


if __name__ == "__main__":
    sys.exit(main())

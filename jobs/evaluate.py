"""Score the test pictures of a labelled data root and compare the scores with the labels."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from nfbmr import storage
from nfbmr.cli import add_config_arguments, config_of, job_parser, registry_of, run_job
from nfbmr.data.layouts import LAYOUTS, discover_layout
from nfbmr.errors import ForeignVersionError
from nfbmr.evaluate import evaluate
from nfbmr.evaluation_files import (
    JSON,
    MARKDOWN,
    Evaluated,
    check_output,
    scores_uri_of,
    write_evaluation,
)
from nfbmr.model_version import ModelVersion
from nfbmr.progress import Progress
from nfbmr.registry import Registry
from nfbmr.score.dataset import read_scores
from nfbmr.score.pictures import planned_samples
from nfbmr.score.run import ScoringRequest, score
from nfbmr.session import ray_session


def _parser() -> argparse.ArgumentParser:
    parser = job_parser(
        "jobs/evaluate.py",
        "Score the test pictures of labelled data with the registered detectors, and measure.",
        "python jobs/evaluate.py --data /data/mvtec --layout mvtec --output results/mvtec",
    )
    parser.add_argument("--data", required=True, help="labelled data root")
    parser.add_argument("--layout", default="auto", help=f"{', '.join(LAYOUTS)} or auto")
    parser.add_argument("--categories", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument(
        "--output", required=True, help="folder for scores, evaluation.json and evaluation.md"
    )
    parser.add_argument(
        "--alias", default="champion", help="alias or version of the models (default: %(default)s)"
    )
    parser.add_argument("--weights", help="the backbone's weights, if they have moved")
    add_config_arguments(parser)
    return parser


def _model(registry: Registry, category: str, alias: str) -> ModelVersion | None:
    try:
        return registry.find(category, alias)
    except ForeignVersionError:  # Planning says so, and the category's pictures get no score.
        return None


def _run(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    layout, samples = discover_layout(arguments.data, arguments.layout, arguments.categories)
    registry = registry_of(arguments)
    categories = sorted({sample.category for sample in samples})
    data = storage.absolute_uri(arguments.data)
    check_output(arguments.output, data, categories)
    pictures = planned_samples(samples, arguments.data, with_versions=True)
    models = [_model(registry, category, arguments.alias) for category in categories]
    scores_uri = scores_uri_of(arguments.output, arguments.alias, registry.uri, models, pictures)
    request = ScoringRequest(
        sources=(arguments.data, *categories),
        output=scores_uri,
        alias=arguments.alias,
        weights=arguments.weights,
    )
    with ray_session(arguments.ray_address):
        summary = score(
            request,
            registry,
            config.run,
            Progress(),
            pictures=lambda: pictures,
        )
    evaluation = evaluate(read_scores(scores_uri), samples, layout)
    evaluated = Evaluated(data, layout, tuple(categories), scores_uri)
    write_evaluation(arguments.output, evaluation, evaluated)
    print(evaluation.to_table())
    print(f"\n{JSON} and {MARKDOWN} are in {arguments.output}, the scores in {scores_uri}")
    summary.check_failures(config.run)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run_job(lambda: _run(arguments))


if __name__ == "__main__":
    sys.exit(main())

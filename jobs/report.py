"""Write one self-contained HTML page about a finished scoring run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from nfbmr.cli import run_job
from nfbmr.data.layouts import AUTOMATIC, LAYOUTS, discover_layout
from nfbmr.evaluate import evaluate
from nfbmr.evaluation_files import read_evaluated
from nfbmr.report.page import check_report, write_report
from nfbmr.score.dataset import read_scores
from nfbmr.score.pictures import run_info, stored_picture


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jobs/report.py",
        description="Write an HTML page about a finished scoring run.",
        epilog="example:\n  python jobs/report.py --scores s3://scores/11 --output report.html",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scores", required=True, help="output of jobs/score.py or evaluate.py")
    parser.add_argument("--output", required=True, help="the HTML file")
    parser.add_argument("--title", default="Scoring run")
    parser.add_argument(
        "--data",
        help="labelled data root, if the pictures are from one; an evaluation knows its own",
    )
    parser.add_argument(
        "--layout",
        help=f"{', '.join(LAYOUTS)} or auto (default: the evaluation's, if there is one)",
    )
    return parser


def _run(arguments: argparse.Namespace) -> int:
    check_report(arguments.output)
    evaluated = read_evaluated(arguments.scores)
    uri = evaluated.scores if evaluated else arguments.scores
    data = arguments.data or (evaluated.data if evaluated else None)
    categories = evaluated.categories if evaluated and not arguments.data else None
    scores = read_scores(uri)
    known = evaluated.layout if evaluated and not arguments.data else AUTOMATIC
    wanted = arguments.layout or known
    layout, samples = discover_layout(data, wanted, categories) if data else ("", [])
    write_report(
        arguments.output,
        title=arguments.title,
        scores=scores,
        read_picture=stored_picture,
        run_info=run_info(uri),
        evaluation=evaluate(scores, samples, layout) if samples else None,
        samples=samples,
    )
    print(f"Report: {arguments.output}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run_job(lambda: _run(arguments))


if __name__ == "__main__":
    sys.exit(main())

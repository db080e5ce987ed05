"""Score an archive of pictures on Ray and leave the scores as Parquet."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from nfbmr import storage
from nfbmr.cli import add_config_arguments, config_of, job_parser, registry_of, run_job
from nfbmr.data.table_columns import AUTOMATIC, TABLE_KINDS, TableColumns
from nfbmr.errors import ConfigError
from nfbmr.output_place import check_place
from nfbmr.progress import Progress, table
from nfbmr.score.retry import retry_failed
from nfbmr.score.run import ScoringRequest, prepare, score
from nfbmr.score.run_record import record_in_registry
from nfbmr.score.status import RunStatus, run_status
from nfbmr.score.summary import summary_tables
from nfbmr.session import ray_session


def _parser() -> argparse.ArgumentParser:
    parser = job_parser(
        "jobs/score.py",
        "Score pictures with the registered detectors. The same command again goes on where it "
        "stopped.",
        "python jobs/score.py s3://factory/2026-11/ line7.tar --output s3://scores/2026-11\n"
        "  python jobs/score.py 's3://factory/2026-*/line7/*.tar' --output s3://scores/line7 "
        "--dry-run\n"
        "  python jobs/score.py parts.csv --category-column product --output s3://scores/parts",
    )
    parser.add_argument(
        "sources",
        nargs="*",
        help="prefixes of pictures, .tar, .tar.gz, .zip, .parquet (pictures or a manifest), .csv "
        "(a manifest: URIs of pictures), on disk or in an object store; and patterns of these with "
        "*, ?, [...] and **, in quotes",
    )
    parser.add_argument("--output", required=True, help="folder or s3:// prefix of this run's own")
    parser.add_argument(
        "--category-pattern",
        default="{category}/",
        help="where the category stands in a picture's name (default: %(default)s)",
    )
    parser.add_argument("--category", help="one category for all pictures")
    parser.add_argument(
        "--alias", default="champion", help="alias or version of the models (default: %(default)s)"
    )
    parser.add_argument("--weights", help="the backbone's weights, if they have moved")
    _add_table_arguments(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="list and plan, then stop")
    what.add_argument("--status", action="store_true", help="say how far the run in --output is")
    what.add_argument(
        "--retry-failed",
        action="store_true",
        help="score the error rows of the finished run in --output again",
    )
    parser.add_argument("--json", action="store_true", help="print status or summary as JSON")
    add_config_arguments(parser)
    return parser


def _add_table_arguments(parser: argparse.ArgumentParser) -> None:
    tables = parser.add_argument_group("columns of Parquet files and manifests")
    tables.add_argument(
        "--table",
        choices=TABLE_KINDS,
        default=AUTOMATIC,
        help="what a .parquet is: pictures if it has a column of bytes (or of structs with bytes "
        "and path), else a manifest if it has a text column such as image_uri, uri, url or path "
        "(default: %(default)s). A manifest's columns etag and size, if it has them, save looking "
        "every file up",
    )
    tables.add_argument("--image-column", metavar="NAME", help="of the bytes, or of the URIs")
    tables.add_argument(
        "--name-column", metavar="NAME", help="of pictures' names (default: path and the like)"
    )
    tables.add_argument("--category-column", metavar="NAME", help="(default: category, if there)")
    tables.add_argument(
        "--time-column",
        metavar="NAME",
        help="becomes the column captured_at of the scores (default: captured_at, timestamp or "
        "time, if there)",
    )


def status_table(status: RunStatus) -> str:
    """The table that --status prints."""
    left_s = status.seconds_left
    about = f"about {status.failed}"
    rows: list[tuple[str, object]] = [
        ("pictures", status.pictures),
        ("done", status.done),
        ("of them with an error", status.failed if status.failed_is_exact else about),
        ("left", status.left),
        ("time left", None if left_s is None else f"{left_s / 3600:.1f} h ({left_s:.0f} s)"),
    ]
    if status.retry_begun:
        rows.append(("retry", "begun, not finished: where cut off, --retry-failed goes on with it"))
    return table(rows, ("finished" if status.finished else "unfinished", status.output))


def _run(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    if arguments.status:
        status = run_status(arguments.output)
        print(json.dumps(status.as_dict(), indent=1) if arguments.json else status_table(status))
        return 0
    if not arguments.sources and not arguments.retry_failed:
        raise ConfigError("There is nothing to score: name prefixes, archives or manifests.")
    request = ScoringRequest(
        sources=tuple(arguments.sources),
        output=arguments.output,
        alias=arguments.alias,
        category_pattern=arguments.category_pattern,
        category=arguments.category,
        weights=arguments.weights,
        columns=TableColumns(
            arguments.table,
            arguments.image_column,
            arguments.name_column,
            arguments.category_column,
            arguments.time_column,
        ),
    )
    registry, progress = registry_of(arguments), Progress()
    if arguments.dry_run:
        check_place(request.output)
        prepare(request, storage.absolute_uri(request.output), registry, config.run, progress)
        return 0
    with ray_session(arguments.ray_address):
        work = retry_failed if arguments.retry_failed else score
        summary = work(request, registry, config.run, progress)
    text = json.dumps(summary.as_dict(), indent=1) if arguments.json else summary_tables(summary)
    print(text, flush=True)
    record_in_registry(summary, registry, progress)
    summary.check_failures(config.run)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run_job(lambda: _run(arguments))


if __name__ == "__main__":
    sys.exit(main())

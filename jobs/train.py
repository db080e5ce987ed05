"""Fit one detector per product category on Ray and register each in MLflow."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import datetime

from nfbmr import storage, store_folders
from nfbmr.cli import add_config_arguments, config_of, job_parser, registry_of, run_job
from nfbmr.errors import STORE_FAULTS, ConfigError, FailureBudgetError, OutputError
from nfbmr.output_place import check_place
from nfbmr.progress import Progress, table
from nfbmr.session import ray_session
from nfbmr.train.campaign import CampaignOptions, CampaignPaths, run_campaign
from nfbmr.train.campaign_result import FAILED, NOT_STARTED, CampaignRows, CategoryResult
from nfbmr.train.time_budget import OVER_HOURS, parse_until


def _parser() -> argparse.ArgumentParser:
    parser = job_parser(
        "jobs/train.py",
        "Fit one detector per category and register each in MLflow.",
        "python jobs/train.py --data /data/mvtec --layout mvtec --categories bottle cable\n"
        "  python jobs/train.py --data s3://factory/parts --only-changed --until 06:00 "
        "--json night.json",
    )
    parser.add_argument("--data", required=True, help="data root: a path or s3:// URI")
    parser.add_argument("--layout", default="auto", help="mvtec, dagm, mtd, visa, folder or auto")
    parser.add_argument("--categories", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument(
        "--only-changed",
        action="store_true",
        help="skip categories whose champion has the same pictures and settings",
    )
    parser.add_argument(
        "--until",
        metavar="HH:MM",
        help="begin no category after this time; what runs is finished, and the same command goes "
        f"on with the rest. A time that passed less than {OVER_HOURS} hours ago is over, else it "
        "is the next one. A date and time (2026-11-25T06:00) may be given instead",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write the final table as JSON, too; an older file is removed at the start",
    )
    add_config_arguments(parser)
    return parser


def summary_table(results: Sequence[CategoryResult]) -> str:
    """The table that ends a training run."""
    header = (
        "category",
        "outcome",
        "version",
        "pictures",
        "held out",
        "aggregate",
        "synthetic AUROC",
        "flow loss",
        "mapper loss",
        "seconds",
        "decision",
    )
    rows = [
        (
            r.category,
            r.outcome,
            r.version,
            r.pictures,
            r.held_out,
            r.aggregate,
            r.synthetic_auroc,
            r.flow_loss,
            r.mapper_loss,
            round(r.seconds, 1),
            r.decision,
        )
        for r in results
    ]
    return table(rows, header)


def _forget(uri: str) -> None:
    """Remove an older table, which would pass for this run's where that ends without one.

    Raises:
        OutputError: nothing can be written there, or the older one cannot be removed.
    """
    check_place(uri, is_file=True)
    folder, _, name = storage.absolute_uri(uri).rpartition("/")
    try:
        store_folders.remove_files(folder or "/", [name])
    except STORE_FAULTS as error:
        raise OutputError(
            f"--json {uri} cannot be removed to make way for a new one: {type(error).__name__}: "
            f"{error}. Check the rights to write there."
        ) from error


def _campaign(arguments: argparse.Namespace, until: float | None) -> CampaignRows:
    config = config_of(arguments)
    with ray_session(arguments.ray_address):
        return run_campaign(
            arguments.data,
            arguments.layout,
            arguments.categories,
            config,
            CampaignPaths.under(arguments.work_dir),
            registry_of(arguments),
            Progress(),
            CampaignOptions(only_changed=arguments.only_changed, until=until),
        )


def _run(arguments: argparse.Namespace) -> int:
    if arguments.json:
        _forget(arguments.json)
    now = time.time()
    until = parse_until(arguments.until, now) if arguments.until else None
    was_over = until is not None and until <= now
    if was_over:
        print(f"--until {arguments.until} has passed: no category is begun.", flush=True)
    results = _campaign(arguments, until)
    print(summary_table(results), flush=True)
    if arguments.json:
        data = json.dumps([result.as_dict() for result in results], indent=1).encode()
        storage.write_atomically(storage.absolute_uri(arguments.json), data)
    if results.error is not None:
        raise results.error
    late = [result.category for result in results if result.outcome == NOT_STARTED]
    if late:
        print(f"{len(late)} of {len(results)} categories were not reached before --until.")
    failed = [result.category for result in results if result.outcome == FAILED]
    reasons = [result.decision for result in results if result.outcome == FAILED]
    if failed:
        raise FailureBudgetError(
            f"{len(failed)} of {len(results)} categories failed: {', '.join(failed)}. The table "
            f"says why, the others are not affected; {failed[0]}: {reasons[0]}"
        )
    if was_over and len(late) == len(results):
        raise ConfigError(
            f"--until {arguments.until} had passed when the command began, at "
            f"{datetime.fromtimestamp(now).isoformat(' ', 'minutes')} by this machine's clock: "
            f"none of {len(results)} categories was begun. Give a later time, or none."
        )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run_job(lambda: _run(arguments))


if __name__ == "__main__":
    sys.exit(main())

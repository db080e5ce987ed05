"""The whole path on a small procedural factory: pictures, training, scoring, evaluation, report.

Everything it makes lies in one folder. Run again, it plays the next night: the same pictures, new
versions of the models, scores of their own. What was cut off goes on where it stopped.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from nfbmr.cli import run_job
from nfbmr.config import load_config
from nfbmr.data.procedural import FactorySettings, generate_factory, pictures_in
from nfbmr.demo import Night, next_night, play, summary_table
from nfbmr.output_place import check_place
from nfbmr.progress import Progress, table
from nfbmr.registry import Registry, embedded_uri
from nfbmr.session import ray_session


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


def _command() -> str:
    """How ``nfbmr`` is called: by its path where the environment is not active."""
    if shutil.which("nfbmr"):
        return "nfbmr"
    path = Path(sys.executable).with_name("nfbmr")
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _run(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    check_place(arguments.folder)
    folder = Path(arguments.folder).absolute()
    progress = Progress()
    settings = FactorySettings(categories=arguments.categories, seed=arguments.seed)
    config = load_config(None, (f"fit.seed={arguments.seed}",), "small")
    night = Night(next_night(folder), config, Registry(embedded_uri(str(folder))), progress)
    with progress.counter("Drawing the factory's pictures", pictures_in(settings)) as count:
        factory = generate_factory(folder / "factory", settings, count)
    with ray_session(None):
        result = play(night, factory, folder)
    print(f"\n{summary_table(result)}\n")
    places = [
        ("report, test pictures", night.report),
        ("report, archive", night.archive_report),
        ("scores (Parquet)", night.scores),
        ("models", f"{_command()} models list --work-dir {arguments.folder}"),
    ]
    print(table(places, ("where", f"{time.monotonic() - started:.0f} s in all")))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run_job(lambda: _run(arguments))


if __name__ == "__main__":
    sys.exit(main())

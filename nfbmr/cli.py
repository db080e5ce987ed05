"""What all commands share: arguments, errors as sentences; and the ``nfbmr`` command itself."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from nfbmr import __version__
from nfbmr.config import PRESETS, Config, load_config, to_toml
from nfbmr.errors import NfbmrError
from nfbmr.registry import Registry, default_uri

DEFAULT_WORK_DIR = ".nfbmr"
INTERRUPTED_EXIT_CODE = 130


def run_job(job: Callable[[], int]) -> int:
    """Run a command; an error that a user can mend becomes one sentence and its exit code.

    Args:
        job: returns the exit code.

    Returns:
        The exit code: 0, the error's, or 130 after Ctrl-C.
    """
    try:
        return job()
    except NfbmrError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE


def job_parser(name: str, description: str, example: str) -> argparse.ArgumentParser:
    """A parser with the arguments that every job has, and an example at the end of its help."""
    parser = argparse.ArgumentParser(
        prog=name,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--work-dir",
        default=DEFAULT_WORK_DIR,
        help="features, checkpoints and the embedded registry (default: %(default)s)",
    )
    parser.add_argument(
        "--registry",
        metavar="URI",
        help="MLflow tracking URI (default: $MLFLOW_TRACKING_URI, else SQLite in --work-dir)",
    )
    parser.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="Ray cluster to use (default: $RAY_ADDRESS, else this machine)",
    )
    return parser


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``, ``--preset`` and ``--set``."""
    parser.add_argument("--config", metavar="FILE", help="settings in TOML")
    parser.add_argument(
        "--preset", help=f"settings to start from: {', '.join(PRESETS)} (default: default)"
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one setting; may be repeated",
    )


def config_of(arguments: argparse.Namespace) -> Config:
    """The configuration that ``--config``, ``--preset`` and ``--set`` describe."""
    return load_config(arguments.config, arguments.overrides, arguments.preset)


def registry_of(arguments: argparse.Namespace) -> Registry:
    """The registry that ``--registry`` and ``--work-dir`` name."""
    return Registry(arguments.registry or default_uri(arguments.work_dir))


def _add_settings_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "settings",
        help="print all settings as TOML",
        description="Print all settings with their values, as TOML that --config takes.",
        epilog="example:\n  nfbmr settings --preset paper > paper.toml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_arguments(parser)
    parser.set_defaults(run=_print_settings)


def _print_settings(arguments: argparse.Namespace) -> int:
    print(to_toml(config_of(arguments)), end="")
    return 0


def _parser() -> argparse.ArgumentParser:
    # Not at the top: the jobs, which share this file, have no use for it.
    from nfbmr.models_cli import add_models_command

    parser = argparse.ArgumentParser(
        prog="nfbmr",
        description="Look up registered detectors, and settings. The jobs are in jobs/: train.py, "
        "score.py, evaluate.py, report.py, benchmark.py.",
    )
    parser.add_argument("--version", action="version", version=f"nfbmr {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    add_models_command(commands)
    _add_settings_command(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``nfbmr`` command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run_job(lambda: int(arguments.run(arguments)))


if __name__ == "__main__":
    sys.exit(main())

"""What all commands share: arguments, errors as sentences; and the ``nfbmr`` command itself."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence

from nfbmr import __version__
from nfbmr.config import PRESETS, Config, load_config
from nfbmr.errors import NfbmrError
from nfbmr.model_version import ModelVersion
from nfbmr.progress import table
from nfbmr.registry import CHAMPION, Registry, default_uri

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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nfbmr",
        description="Look up registered detectors. The jobs are in jobs/: train.py, score.py, "
        "evaluate.py, report.py, benchmark.py.",
    )
    parser.add_argument("--version", action="version", version=f"nfbmr {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    models = commands.add_parser("models", help="list, show or try registered detectors")
    actions = models.add_subparsers(dest="action", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--work-dir", default=DEFAULT_WORK_DIR)
    common.add_argument("--registry", metavar="URI")
    common.add_argument("--json", action="store_true", help="print JSON")
    actions.add_parser("list", parents=[common], help="all versions of all categories")
    show = actions.add_parser("show", parents=[common], help="one version in full")
    show.add_argument("category")
    show.add_argument("version", nargs="?", default=CHAMPION, help="number or alias")
    score = actions.add_parser("score", parents=[common], help="score single pictures")
    score.add_argument("category")
    score.add_argument("pictures", nargs="+", help="paths or URIs")
    score.add_argument("--version", default=CHAMPION, help="number or alias")
    score.add_argument("--weights", help="the backbone's weights, if they have moved")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``nfbmr`` command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    actions = {"list": _list, "show": _show, "score": _score}
    return run_job(lambda: actions[arguments.action](arguments))


def _row(model: ModelVersion) -> list[object]:
    created = time.strftime("%Y-%m-%d %H:%M", time.localtime(model.created_at))
    evidence = model.tags.get("nfbmr.synthetic_auroc")
    return [
        model.category,
        model.version,
        ", ".join(model.aliases) or None,
        created,
        model.tags.get("nfbmr.pictures_fitted"),
        model.tags.get("nfbmr.backbone"),
        float(evidence) if evidence else None,
    ]


def _list(arguments: argparse.Namespace) -> int:
    models = registry_of(arguments).list_versions()
    if arguments.json:
        print(json.dumps([model.as_dict() for model in models], indent=1))
    else:
        header = ("category", "version", "aliases", "created", "pictures", "backbone", "synthetic")
        print(table([_row(model) for model in models], header))
    return 0


def _show(arguments: argparse.Namespace) -> int:
    registry = registry_of(arguments)
    model = registry.resolve(arguments.category, arguments.version)
    detector = registry.load(arguments.category, model.version)
    values = {
        **model.as_dict(),
        "threshold": detector.threshold,
        "false_alarm_rate": detector.false_alarm_rate,
        "calibration_pictures": detector.calibration.n,
        "p_value_floor": detector.calibration.p_value_floor,
        "aggregate": detector.aggregate,
        "feature_shape": list(detector.heads.shape),
        "lineage": detector.lineage,
    }
    if arguments.json:
        print(json.dumps(values, indent=1))
    else:
        rows = [
            (key, json.dumps(value) if isinstance(value, (dict, list)) else value)
            for key, value in values.items()
            if key != "lineage"
        ]
        print(table(rows, ("", f"{model.name} version {model.version}")))
    return 0


def _score(arguments: argparse.Namespace) -> int:
    from nfbmr.score.single import score_pictures

    detector = registry_of(arguments).load(arguments.category, arguments.version)
    rows = score_pictures(detector, arguments.pictures, arguments.weights)
    if arguments.json:
        print(json.dumps(rows, indent=1))
    else:
        header = ("picture", "score", "threshold", "p_value", "of n", "anomalous", "error")
        print(table([list(row.values()) for row in rows], header))
    return 1 if any(row["error"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())

"""``nfbmr models``: look registered detectors up, compare, promote and roll back."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nfbmr import storage, store_folders
from nfbmr.cli import DEFAULT_WORK_DIR, registry_of
from nfbmr.errors import RegistryError
from nfbmr.model.calibration import Calibration
from nfbmr.model_version import ModelVersion
from nfbmr.progress import table
from nfbmr.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry

_PATIENCE_S = 60.0

Command = Callable[[argparse.Namespace], int]


_Add = Callable[[str, Command, str, str], argparse.ArgumentParser]


def add_models_command(commands: Any) -> None:
    """Add ``models`` with its actions to the subparsers of ``nfbmr``."""
    models = commands.add_parser("models", help="look up, compare, promote registered detectors")
    actions = models.add_subparsers(dest="action", required=True)

    def add(name: str, run: Command, text: str, example: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = actions.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=f"example:\n  nfbmr models {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument(
            "--work-dir", default=DEFAULT_WORK_DIR, help="of the jobs (default: %(default)s)"
        )
        parser.add_argument(
            "--registry",
            metavar="URI",
            help="MLflow tracking URI (default: $MLFLOW_TRACKING_URI, else SQLite in --work-dir)",
        )
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.set_defaults(run=run)
        return parser

    _add_reading(add)
    _add_promoting(add)
    _add_register(add)
    _add_score(add)


def _add_reading(add: _Add) -> None:
    listing = add("list", _list, "versions of all categories or of one", "list bottle")
    listing.add_argument("category", nargs="?")
    show = add("show", _show, "one version in full", "show bottle challenger")
    _add_version(show)
    diff = add("diff", _diff, "what differs between two versions", "diff bottle 3 champion")
    diff.add_argument("category")
    diff.add_argument("one", nargs="?", help="number or alias (default: champion)")
    diff.add_argument(
        "other",
        nargs="?",
        help="number or alias (default: champion; for the champion: challenger, else previous)",
    )


def _add_promoting(add: _Add) -> None:
    text = "make a version the champion, whatever the gate said"
    promote = add("promote", _promote, text, "promote bottle 4")
    promote.add_argument("category")
    promote.add_argument("version", help="number or alias")
    promote.add_argument("--reason", default="", help="is kept with the promotion")
    text = "make the previous champion champion again"
    rollback = add("rollback", _rollback, text, "rollback bottle")
    rollback.add_argument("category")
    rollback.add_argument("--reason", default="", help="is kept with the promotion")


def _add_register(add: _Add) -> None:
    register = add(
        "register",
        _register,
        "register and judge a detector that a run kept because the registry was gone",
        "register .nfbmr/checkpoints/unregistered/bottle-0a1b2c3d4e5f",
    )
    register.add_argument("folder", help="as the run's message named it; a path or s3:// URI")
    register.add_argument(
        "--patience",
        type=float,
        default=_PATIENCE_S,
        metavar="SECONDS",
        help="how long to try while the registry is out of reach (default: %(default)g)",
    )


def _add_score(add: _Add) -> None:
    score = add("score", _score, "score single pictures", "score bottle part.png")
    score.add_argument("category")
    score.add_argument("pictures", nargs="+", help="paths or URIs")
    score.add_argument("--version", default=CHAMPION, help="number or alias")
    score.add_argument("--weights", help="the backbone's weights, if they have moved")


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("category")
    parser.add_argument("version", nargs="?", default=CHAMPION, help="number or alias")


def _print(arguments: argparse.Namespace, values: Any, text: str) -> None:
    print(json.dumps(values, indent=1) if arguments.json else text)


def _list(arguments: argparse.Namespace) -> int:
    registry = registry_of(arguments)
    models = registry.list_versions(arguments.category)
    if not models and arguments.category:
        registry.resolve(arguments.category)  # says what there is
    header = ("category", "version", "aliases", "created", "pictures", "backbone", "gate", "AUROC")
    text = table([_list_row(model) for model in models], header)
    _print(arguments, [model.as_dict() for model in models], text)
    return 0


def _list_row(model: ModelVersion) -> list[object]:
    created = time.strftime("%Y-%m-%d %H:%M", time.localtime(model.created_at))
    auroc = model.tags.get("nfbmr.gate.labelled_auroc") or model.tags.get("nfbmr.synthetic_auroc")
    return [
        model.category,
        model.version,
        ", ".join(model.aliases) or None,
        created,
        model.tags.get("nfbmr.pictures_fitted"),
        model.tags.get("nfbmr.backbone"),
        model.tags.get("nfbmr.gate"),
        float(auroc) if auroc else None,
    ]


def _details(registry: Registry, model: ModelVersion) -> dict[str, Any]:
    """Everything that a version carries, but its tensors and curves."""
    description = registry.describe(model)
    calibration = Calibration.from_scores(description["calibration_scores"])
    rate = description["false_alarm_rate"]
    return {
        **model.as_dict(),
        "threshold": calibration.threshold(rate),
        "false_alarm_rate": rate,
        "calibration_pictures": calibration.n,
        "p_value_floor": calibration.p_value_floor,
        "aggregate": description["aggregate"],
        "feature_shape": description["feature_shape"],
        "backbone": description["backbone"],
        "weights": description["weights"],
        "metrics": registry.metrics(model),
        "lineage": description["lineage"],
        "decision": registry.decision(model),
    }


def _show(arguments: argparse.Namespace) -> int:
    registry = registry_of(arguments)
    model = registry.resolve(arguments.category, arguments.version)
    values = _details(registry, model)
    rows = [
        (key, json.dumps(value) if isinstance(value, (dict, list, tuple)) else value)
        for key, value in values.items()
        if key not in ("lineage", "decision")
    ]
    _print(arguments, values, table(rows, ("", f"{model.name} version {model.version}")))
    return 0


def _diff(arguments: argparse.Namespace) -> int:
    registry = registry_of(arguments)
    models = _pair(registry, arguments)
    one, other = (_comparable(_details(registry, model)) for model in models)
    different = {
        name: (one.get(name), other.get(name))
        for name in sorted({*one, *other})
        if one.get(name) != other.get(name)
    }
    header = ("", *(f"version {model.version}" for model in models))
    values = {
        "category": arguments.category,
        "versions": [model.version for model in models],
        "different": {name: list(pair) for name, pair in different.items()},
    }
    rows = [(name, *pair) for name, pair in different.items()]
    _print(arguments, values, table(rows, header) if rows else _nothing_differs(models))
    return 0


def _nothing_differs(models: tuple[ModelVersion, ModelVersion]) -> str:
    one, other = models
    if one.version == other.version:
        return f"Both are version {one.version} of {one.category!r}: nothing to compare."
    return f"Nothing differs between versions {one.version} and {other.version}."


def _pair(registry: Registry, arguments: argparse.Namespace) -> tuple[ModelVersion, ModelVersion]:
    """The two versions to compare: one that is named alone is compared with the champion.

    Raises:
        RegistryError: one of them does not exist, or the champion is alone.
    """
    category = arguments.category
    one = registry.resolve(category, arguments.one or CHAMPION)
    if arguments.other:
        return one, registry.resolve(category, arguments.other)
    champion = registry.resolve(category, CHAMPION)
    if one.version != champion.version:
        return one, champion
    return champion, _beside_champion(registry, champion)


def _beside_champion(registry: Registry, champion: ModelVersion) -> ModelVersion:
    """What a champion is compared with: the challenger, else the champion before.

    Raises:
        RegistryError: there is neither.
    """
    for alias in (CHALLENGER, PREVIOUS):
        found = registry.find(champion.category, alias)
        if found is not None and found.version != champion.version:
            return found
    raise RegistryError(
        f"Category {champion.category!r} has no challenger and no previous champion to compare "
        f"version {champion.version} with: train it again, or name two versions."
    )


def _comparable(details: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, data, metrics, calibration and decision under flat names."""
    lineage = dict(details["lineage"])
    calibration = ("threshold", "false_alarm_rate", "calibration_pictures", "aggregate")
    decision = details["decision"] or {}
    return {
        **_flat(lineage.pop("settings", {}), "settings."),
        **_flat(lineage, "data."),
        **_flat(details["metrics"], "metrics."),
        **_flat({name: details[name] for name in calibration}, "calibration."),
        **_flat(details["backbone"], "backbone."),
        **_flat(decision.get("numbers", {}), "gate."),
    }


def _flat(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, list) else value
    return flat


def _promote(arguments: argparse.Namespace) -> int:
    registry = registry_of(arguments)
    model = registry.resolve(arguments.category, arguments.version)
    registry.promote(arguments.category, model.version, {}, reason=arguments.reason)
    return _say_champion(arguments, registry)


def _rollback(arguments: argparse.Namespace) -> int:
    registry = registry_of(arguments)
    registry.resolve(arguments.category)
    registry.rollback(arguments.category, arguments.reason)
    return _say_champion(arguments, registry)


def _say_champion(arguments: argparse.Namespace, registry: Registry) -> int:
    last = registry.promotions(arguments.category)[-1]
    values = {
        "category": arguments.category,
        "champion": last.champion,
        "previous": last.replaces,
        "kind": last.kind,
        "reason": last.reason,
        "by": last.by,
    }
    text = f"Version {last.champion} of {arguments.category!r} is champion"
    text += f", version {last.replaces} is previous." if last.replaces else "."
    _print(arguments, values, text)
    return 0


def _register(arguments: argparse.Namespace) -> int:
    from nfbmr.train.finished import FinishedFit
    from nfbmr.train.registration import register_finished

    with tempfile.TemporaryDirectory(prefix="nfbmr-register-") as temporary:
        folder = Path(temporary)
        for name in store_folders.list_names(arguments.folder):
            data = storage.read(storage.join(arguments.folder, name))
            (folder / name).write_bytes(data or b"")
        fit = FinishedFit.load(folder, arguments.folder)
        registry = registry_of(arguments)
        model, decision = register_finished(fit, registry, arguments.patience)
    verdict = "champion" if decision.promote else "challenger"
    place = registry.argument
    values = {"registry": place, "version": model.as_dict(), "verdict": verdict}
    text = f"Version {model.version} of {model.category!r} is {verdict}: {decision.reason}"
    text += f"\nIt is registered in {place}: {arguments.folder} is not needed any more."
    _print(arguments, values | {"decision": decision.as_dict()}, text)
    return 0


def _score(arguments: argparse.Namespace) -> int:
    from nfbmr.score.single import score_pictures

    detector = registry_of(arguments).load(arguments.category, arguments.version)
    rows = score_pictures(detector, arguments.pictures, arguments.weights)
    header = ("picture", "score", "threshold", "p_value", "floor", "of n", "anomalous", "error")
    _print(arguments, rows, table([list(row.values()) for row in rows], header))
    return 1 if any(row["error"] for row in rows) else 0

"""The settings of a run: defaults, presets, a TOML file, single overrides, in that order."""

from __future__ import annotations

import difflib
import json
import math
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

import fsspec

from nfbmr.errors import STORE_ERRORS, ConfigError
from nfbmr.fit_settings import CalibrationSettings, FitSettings
from nfbmr.gate_settings import GateSettings
from nfbmr.model.backbone_settings import BackboneSettings
from nfbmr.model.flow import FlowSettings
from nfbmr.model.heads import HeadsSettings
from nfbmr.model.mapper import MapperSettings
from nfbmr.settings import NightSettings, RunSettings


@dataclass(frozen=True)
class Config:
    """All settings of training and scoring; every section's class describes its keys.

    Attributes:
        backbone: which frozen network, cut where.
        flow: shape of the flow.
        mapper: shape of the mapper.
        standardize: standardise features per channel before the flow.
        fit: how flow and mapper are fitted.
        calibration: held-out normals, false-alarm rate, aggregate.
        gate: when a new version becomes the champion.
        night: how a campaign over many categories runs.
        run: what a job may use of the machine or cluster.
    """

    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    flow: FlowSettings = field(default_factory=FlowSettings)
    mapper: MapperSettings = field(default_factory=MapperSettings)
    standardize: bool = True
    fit: FitSettings = field(default_factory=FitSettings)
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    gate: GateSettings = field(default_factory=GateSettings)
    night: NightSettings = field(default_factory=NightSettings)
    run: RunSettings = field(default_factory=RunSettings)

    @property
    def heads(self) -> HeadsSettings:
        """Shapes of what is fitted per category."""
        return HeadsSettings(self.flow, self.mapper, self.standardize, self.fit.precision)

    def as_dict(self) -> dict[str, Any]:
        """Plain nested values, as they could stand in a TOML file."""
        return asdict(self)


PRESETS: dict[str, dict[str, Any]] = {
    # The paper's shapes cost 130 times more per position than a CPU has time for.
    "default": {
        "flow": {"hidden_channels": 512},
        "mapper": {"latent_channels": 512, "block_channels": 128},
    },
    # For the demo and for trials on a laptop: heads for the small backbone, a minute per category.
    "small": {
        "flow": {"hidden_channels": 128},
        "mapper": {"latent_channels": 128, "block_channels": 32},
        "fit": {"min_steps": 150},
    },
    # Section 4.2, with the block width and kernel size that the paper leaves open at defaults.
    "paper": {
        "backbone": {
            "name": "tf_efficientnet_b5",
            "layer": "blocks.5",
            "weights": "pretrained",
            "image_size_px": 768,
        },
        "flow": {"coupling_blocks": 4, "hidden_channels": 1024},
        "mapper": {"residual_blocks": 2, "latent_channels": 1024, "block_channels": 256},
        "standardize": False,
        "fit": {
            "flow_epochs": 300,
            "mapper_epochs": 300,
            "batch_size": 8,
            "flow_learning_rate": 2e-4,
            "mapper_learning_rate": 3e-4,
            "min_steps": 1,
            "schedule": "constant",
            "gradient_clip_norm": 0.0,
            "precision": "float32",
        },
    },
}


def load_config(
    path: str | None = None, overrides: Sequence[str] = (), preset: str | None = None
) -> Config:
    """Build a configuration.

    Args:
        path: a TOML file (path or URI); its top-level ``preset`` names the preset to start from.
        overrides: ``section.key=value`` with the value in TOML; a bare word is a string.
        preset: overrides the file's.

    Raises:
        ConfigError: the file is missing or not TOML, a preset or key does not exist (the nearest
            name is suggested), or a value has the wrong type or does not fit.
    """
    from_file = _read_toml(path) if path else {}
    in_file = from_file.pop("preset", "default")
    name = preset or in_file
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError(
            f"preset {name!r} does not exist{_suggestion(str(name), PRESETS)}: expected one of "
            f"{', '.join(PRESETS)}."
        )
    values = _merged(PRESETS[name], from_file)
    for override in overrides:
        values = _merged(values, _parse_override(override))
    config = _build(Config, values, "")
    assert isinstance(config, Config)
    return config


def _read_toml(path: str) -> dict[str, Any]:
    try:
        with fsspec.open(path, "rb") as file:
            return tomllib.loads(file.read().decode())
    except FileNotFoundError as error:
        raise ConfigError(f"The configuration file {path} does not exist.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration file {path} is not TOML: {error}.") from error
    except STORE_ERRORS as error:
        raise ConfigError(f"The configuration file {path} cannot be read: {error}.") from error


def _parse_override(override: str) -> dict[str, Any]:
    """Turn ``a.b=c`` into ``{"a": {"b": c}}``."""
    name, separator, text = override.partition("=")
    if not separator or not name.strip():
        raise ConfigError(f"--set {override!r}: expected section.key=value, as in fit.seed=1.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for part in reversed(name.strip().split(".")):
        value = {part: value}
    return typing.cast("dict[str, Any]", value)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested merge; what stands above wins."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _suggestion(name: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""


def _nearest_setting(name: str) -> str:
    """The nearest full name; of a key without its section, or in a wrong one, that key's."""
    names = setting_names(Config)
    if nearest := _suggestion(name, [*(f.name for f in fields(Config)), *names]):
        return nearest
    by_key = {full.rpartition(".")[2]: full for full in reversed(names)}
    keys = difflib.get_close_matches(name.rpartition(".")[2], list(by_key), n=1, cutoff=0.6)
    return f" (did you mean {by_key[keys[0]]!r}?)" if keys else ""


def setting_names(cls: type[Any], prefix: str = "") -> list[str]:
    """The full names of all settings, as ``--set`` takes them."""
    hints = typing.get_type_hints(cls)
    names: list[str] = []
    for each in fields(cls):
        hint, name = hints[each.name], f"{prefix}{each.name}"
        section = is_dataclass(hint)
        names += setting_names(typing.cast("type[Any]", hint), f"{name}.") if section else [name]
    return names


def _build(cls: type[Any], values: Mapping[str, Any], prefix: str) -> Any:
    """Build a settings dataclass, refusing unknown keys and values of another type."""
    hints = typing.get_type_hints(cls)
    known = [f.name for f in fields(cls)]
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        full_name = f"{prefix}{key}"
        if key not in known:
            raise ConfigError(
                f"The setting {full_name!r} does not exist{_nearest_setting(full_name)}. "
                f"{'There are' if prefix else 'Sections and keys'}: "
                f"{', '.join(prefix + name for name in known)}."
            )
        hint = hints[key]
        if is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{full_name} = {value!r}: expected a section with keys.")
            arguments[key] = _build(typing.cast("type[Any]", hint), value, f"{full_name}.")
        else:
            arguments[key] = _checked(full_name, value, hint)
    return cls(**arguments)


def _checked(name: str, value: Any, hint: Any) -> Any:
    """The value, if it has the hinted type; an integer is taken where a float is expected."""
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = tuple(typing.get_origin(kind) or kind for kind in allowed)
    if float in kinds and type(value) is int:
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} = {value!r}: expected a finite number.")
    matches = any(
        isinstance(value, kind) and (kind is bool or not isinstance(value, bool)) for kind in kinds
    )
    if not matches:
        words = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
        raise ConfigError(
            f"{name} = {value!r} is of type {type(value).__name__}: expected {words}."
        )
    return value


def to_toml(config: Config) -> str:
    """All settings and their values, as ``load_config`` reads them."""
    return "".join(_toml_lines(config.as_dict(), ""))


def _toml_lines(values: Mapping[str, Any], section: str) -> Iterator[str]:
    own = {name: value for name, value in values.items() if not isinstance(value, Mapping)}
    below = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    if section and (own or not below):
        yield f"\n[{section}]\n"
    # A number, a text or a truth value is written in JSON as in TOML.
    yield from (
        f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in own.items()
    )
    for name, inner in below.items():
        yield from _toml_lines(inner, f"{section}.{name}" if section else name)

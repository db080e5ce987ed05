"""What a registered detector says of its backbone, taken for what it should be.

Networks are built by it later, for all categories at once: what is wrong with one detector must be
said where that detector is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from nfbmr.errors import ConfigError, WeightsError
from nfbmr.model.backbone_settings import BackboneSettings


def settings_of_identity(
    identity: Mapping[str, Any], weights: str, who: str = "A model's backbone"
) -> BackboneSettings:
    """Settings that rebuild a backbone from weights at a given place.

    Args:
        identity: ``Backbone.identity()`` at fitting, as JSON gives it back.
        weights: where they are.
        who: begins a message.

    Raises:
        WeightsError: a key is missing, or its value is none that a backbone can have.
    """
    for key, (is_right, expected) in _EXPECTED.items():
        _taken(identity, key, is_right, expected, who, "backbone.")
    names = ("name", "layer", "kwargs", "image_size_px", "resampling", "precision")
    try:
        return BackboneSettings(weights=weights, **{name: identity[name] for name in names})
    except ConfigError as error:
        raise WeightsError(f"{who} is damaged: {error} {_WHAT_TO_DO}") from error


def described_backbone(description: Any, who: str) -> tuple[dict[str, Any], str]:
    """The backbone that a detector was fitted on, by the content of its ``detector.json``.

    Args:
        description: that content.
        who: the file; begins a message.

    Returns:
        ``Backbone.identity()`` at fitting, and where its weights were then.

    Raises:
        WeightsError: a key is missing, or its value is none that a backbone can have.
    """
    values = description if isinstance(description, dict) else {}
    identity: dict[str, Any] = _taken(values, "backbone", _is_object, "an object", who)
    weights: str = _taken(values, "weights", _is_text, "a text", who)
    settings_of_identity(identity, weights, who)
    return identity, weights


_WHAT_TO_DO = "Fetch the model version again, promote another one, or fit the category again."


def _taken(
    values: Mapping[str, Any],
    key: str,
    is_right: Callable[[Any], bool],
    expected: str,
    who: str,
    above: str = "",
) -> Any:
    if key in values and is_right(values[key]):
        return values[key]
    found = f"= {values[key]!r:.80}" if key in values else "is missing"
    raise WeightsError(
        f"{who} is damaged: {above}{key} {found}, expected {expected}. {_WHAT_TO_DO}"
    )


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_size(value: Any) -> bool:
    return type(value) is int


def _are_three(value: Any) -> bool:
    """JSON knows NaN and infinity as well."""
    return (
        isinstance(value, (list, tuple))
        and len(value) == 3
        and all(type(each) in (int, float) and abs(each) < math.inf for each in value)
    )


def _are_three_above_zero(value: Any) -> bool:
    return _are_three(value) and min(value) > 0


_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (_is_text, "a text"),
    "layer": (_is_text, "a text"),
    "kwargs": (_is_object, "an object"),
    "image_size_px": (_is_size, "a whole number"),
    "resampling": (_is_text, "a text"),
    "precision": (_is_text, "a text"),
    "mean": (_are_three, "three finite numbers"),
    "std": (_are_three_above_zero, "three numbers above 0"),
    "weights_hash": (_is_text, "a text"),
}

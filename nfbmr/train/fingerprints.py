"""Names for what a fit depends on: same fingerprint, same detector."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from nfbmr.config import Config

FIT_VERSION = 1
"""Raise it when the same pictures and settings would give another detector than before."""

_SECTIONS = ("flow", "mapper", "standardize", "fit", "calibration")


def data_fingerprint(fit_entries: Sequence[str], held_out_entries: Sequence[str]) -> str:
    """Of the pictures of a category, by their content and by what they are used for.

    Args:
        fit_entries: cache entries of the pictures that are fitted on.
        held_out_entries: of those that calibrate.
    """
    return _digest([sorted(fit_entries), sorted(held_out_entries)])


def settings_fingerprint(config: Config, backbone: Mapping[str, Any]) -> str:
    """Of everything besides the pictures that a detector depends on.

    Resources do not belong to it, nor where the weights lie: the backbone's identity has their
    hash.

    Args:
        config: all settings.
        backbone: ``Backbone.identity()``.
    """
    values = config.as_dict()
    return _digest([FIT_VERSION, {name: values[name] for name in _SECTIONS}, dict(backbone)])


def fingerprint(*values: Any) -> str:
    """Of plain values, for instance those of a command."""
    return _digest(list(values))


def _digest(values: list[Any]) -> str:
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

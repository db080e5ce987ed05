"""Where the features of pictures are, as one pass over them tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture whose features are wanted.

    Attributes:
        uri: where the encoded picture lies.
        variant: 0 for the picture itself, k ≥ 1 for a copy with synthetic defect number k.
    """

    uri: str
    variant: int = 0


@dataclass(frozen=True)
class FeatureIndex:
    """Where the features of pictures are, and which pictures have none.

    Attributes:
        backbone_key: which backbone computed them.
        backbone: that backbone's identity.
        entries: the cache entry of every readable picture.
        errors: why the others could not be read.
        names: of every picture that could be fetched, readable or not: its entry, if it has one.
        computed: how many were computed in this pass; the rest were there already.
        busy: those of the errors that a store did not give, and may give later.
    """

    backbone_key: str
    backbone: dict[str, Any]
    entries: dict[Picture, str]
    errors: dict[Picture, str]
    names: dict[Picture, str]
    computed: int
    busy: frozenset[Picture] = frozenset()

"""What the feature cache calls a picture, or a copy of it with a synthetic defect."""

from __future__ import annotations

from nfbmr.data.content import content_hash
from nfbmr.data.synthetic_defects import VERSION

_CUT = "-cut"


def entry_name(picture_hash: str, variant: int) -> str:
    """The name of an entry.

    Args:
        picture_hash: ``content_hash`` of the encoded picture.
        variant: 0 for the picture itself, k ≥ 1 for a copy with synthetic defect number k.
    """
    return picture_hash if variant == 0 else f"{picture_hash}{_CUT}{VERSION}-{variant}"


def defect_seed(entry: str) -> int | None:
    """The seed of the synthetic defect in an entry's picture; None where it has none."""
    return int(content_hash(entry.encode())[:15], 16) if _CUT in entry else None


def entry_of_picture(entry: str) -> str:
    """The entry of the picture itself, for the entry of a copy with a synthetic defect too."""
    return entry.partition(_CUT)[0]

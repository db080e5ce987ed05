"""Folders of a data root that hold pictures, none of them where the layout expects them.

A folder whose name was mistyped (``cable/Normal``) is no category to the layout: without a word of
it nobody would notice that its detector is not trained any more.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from pathlib import PurePosixPath

from nfbmr.data.listing import Tree

_EXPECTED = {
    "folder": "in normal/ or good/, nor directly in it",
    "mvtec": "in train/good/ or test/<defect>/",
}
_KINDS = {"folder": ("normal", "good", "defective"), "mvtec": ("train", "test")}
"""Where these lie in the root itself, the root is one category's folder."""
_NO_CATEGORIES = frozenset(("masks", "ground_truth"))
_NAMED = 5


def left_over(tree: Tree, layout: str, categories: Collection[str]) -> dict[str, str]:
    """What was passed over, and what was found in it.

    Folders that begin with ``_`` or ``.`` and folders of masks are left out on purpose. So is
    everything in layouts of published data sets, which have further folders.

    Args:
        tree: the listed root.
        layout: its name.
        categories: that the layout found.

    Returns:
        A sentence for each folder, by its name.
    """
    if layout not in _EXPECTED:
        return {}
    inside: dict[str, Counter[str]] = defaultdict(Counter)
    for name in tree.pictures:
        parts = PurePosixPath(name).parts
        if len(parts) > 1:
            inside[parts[0]][parts[1] if len(parts) > 2 else ""] += 1
    if not inside.keys().isdisjoint(_KINDS[layout]):
        return {}
    return {
        name: _sentence(f"{tree.root}/{name}", found, layout)
        for name, found in inside.items()
        if name not in categories and name not in _NO_CATEGORIES and not name.startswith(("_", "."))
    }


def _sentence(folder: str, found: Counter[str], layout: str) -> str:
    names = sorted(name for name in found if name)
    further = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    where = f": they lie in {', '.join(names[:_NAMED])}{further}" if names else ""
    return (
        f"{folder} has {found.total()} pictures, none {_EXPECTED[layout]}{where}. Rename its "
        "folders, or let the name begin with _ if it is no category."
    )

"""A plain folder, for data of one's own.

``<category>/normal/**`` (or ``good``) holds normal pictures; one in five, chosen by a hash of its
name, is kept for the test. ``<category>/defective/<kind>/**`` (or directly in ``defective``) is
tested; a mask may lie at ``<category>/masks/<the same path>.png``. A category folder with pictures
directly in it is all normal and all trained on. A root that holds ``normal`` or ``defective``
itself is one category.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from nfbmr.data.hash_split import in_test_part
from nfbmr.data.listing import Tree
from nfbmr.data.sample import NORMAL, Sample

DESCRIPTION = "<category>/normal/ and <category>/defective/, or pictures in <category>/"
DEFECTIVE = "defective"
_NORMAL_FOLDERS = ("normal", "good")
_MASKS = "masks"


def matches(tree: Tree) -> bool:
    """Whether pictures lie in category folders at all."""
    return bool(find(tree))


def find(tree: Tree) -> list[Sample]:
    """All pictures of all category folders."""
    category = _only_category(tree)
    samples = (_sample(tree, name, category) for name in tree.pictures)
    return [sample for sample in samples if sample is not None]


def _only_category(tree: Tree) -> str | None:
    """The name of the one category whose folder the root is; None where it holds several."""
    top = {PurePosixPath(name).parts[0] for name in tree.pictures}
    is_category = not top.isdisjoint((*_NORMAL_FOLDERS, DEFECTIVE))
    return PurePosixPath(tree.root).name if is_category else None


def _sample(tree: Tree, name: str, only_category: str | None) -> Sample | None:
    parts = PurePosixPath(name).parts
    category, inside = (parts[0], parts[1:]) if only_category is None else (only_category, parts)
    if not inside:
        return None
    if len(inside) == 1:
        return Sample(tree.uri(name), category, "train")
    kind, rest = inside[0], inside[1:]
    if kind in _NORMAL_FOLDERS:
        split = "test" if in_test_part("/".join(rest)) else "train"
        return Sample(tree.uri(name), category, split, folder="/".join(rest[:-1]))
    if kind == DEFECTIVE:
        above = parts[: len(parts) - len(inside)]
        mask = str(PurePosixPath(*above, _MASKS, *rest).with_suffix(".png"))
        defect = rest[0] if len(rest) > 1 and rest[0] != NORMAL else DEFECTIVE
        mask_uri = tree.uri(mask) if mask in tree.files else None
        deeper = "/".join(rest[1:-1])
        return Sample(tree.uri(name), category, "test", defect, mask_uri, folder=deeper)
    return None

"""A plain folder, for data of one's own.

``<category>/normal/**`` (or ``good``) holds normal pictures; one in five, chosen by a hash of its
name, is kept for the test. ``<category>/defective/<kind>/*`` (or directly in ``defective``) is
tested; a mask may lie at ``<category>/masks/<the same path>.png``. A category folder with pictures
directly in it is all normal and all trained on.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from nfbmr.data.hash_split import in_test_part
from nfbmr.data.listing import Tree
from nfbmr.data.sample import Sample

DESCRIPTION = "<category>/normal/ and <category>/defective/, or pictures in <category>/"
DEFECTIVE = "defective"
_NORMAL_FOLDERS = ("normal", "good")


def matches(tree: Tree) -> bool:
    """Whether pictures lie in category folders at all."""
    return any(_sample(tree, name) is not None for name in tree.pictures)


def find(tree: Tree) -> list[Sample]:
    """All pictures of all category folders."""
    samples = (_sample(tree, name) for name in tree.pictures)
    return [sample for sample in samples if sample is not None]


def _sample(tree: Tree, name: str) -> Sample | None:
    parts = PurePosixPath(name).parts
    if len(parts) == 2:
        return Sample(tree.uri(name), parts[0], "train")
    if len(parts) < 3:
        return None
    category, kind, *inside = parts
    if kind in _NORMAL_FOLDERS:
        split = "test" if in_test_part("/".join(inside)) else "train"
        return Sample(tree.uri(name), category, split)
    if kind == DEFECTIVE:
        mask = str(PurePosixPath(category, "masks", *inside).with_suffix(".png"))
        defect = inside[0] if len(inside) > 1 else DEFECTIVE
        mask_uri = tree.uri(mask) if mask in tree.files else None
        return Sample(tree.uri(name), category, "test", defect, mask_uri)
    return None

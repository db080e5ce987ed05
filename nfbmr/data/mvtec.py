"""The layout of MVTec AD (Bergmann et al. 2019).

``<category>/train/good/*``, ``<category>/test/<defect>/*``,
``<category>/ground_truth/<defect>/<stem>_mask.png``. The root may also be one category's folder,
which then gives the category its name. Pictures in other folders of ``train`` are left out.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from nfbmr.data.listing import Tree
from nfbmr.data.sample import NORMAL, Sample

DESCRIPTION = "<category>/train/good/ and <category>/test/<defect>/"
_MASKS = "ground_truth"


def matches(tree: Tree) -> bool:
    """Whether some picture lies in a ``train/good`` folder."""
    own_name = PurePosixPath(tree.root).name
    places = (_place(name, own_name) for name in tree.pictures)
    return any((part, defect) == ("train", NORMAL) for _, part, defect, _ in places)


def find(tree: Tree) -> list[Sample]:
    """All normal training pictures, and all test pictures with their masks."""
    own_name = PurePosixPath(tree.root).name
    places = {name: _place(name, own_name) for name in tree.pictures}
    masks = {
        (category, defect, stem.removesuffix("_mask")): name
        for name, (category, part, defect, stem) in places.items()
        if part == _MASKS
    }
    samples = []
    for name, (category, part, defect, stem) in places.items():
        if part == "test" or (part == "train" and defect == NORMAL):
            mask = masks.get((category, defect, stem)) if defect != NORMAL else None
            mask_uri = tree.uri(mask) if mask else None
            samples.append(Sample(tree.uri(name), category, part, defect, mask_uri))
    return samples


def _place(name: str, own_name: str) -> tuple[str, str, str, str]:
    """(category, part, defect, stem); all empty where a file lies in no such place."""
    path = PurePosixPath(name)
    parts = path.parts if len(path.parts) == 4 else (own_name, *path.parts)
    if len(parts) != 4:
        return "", "", "", ""
    return parts[0], parts[1], parts[2], path.stem

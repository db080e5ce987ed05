"""The layout of MVTec AD (Bergmann et al. 2019).

``<category>/train/good/*``, ``<category>/test/<defect>/*``,
``<category>/ground_truth/<defect>/<stem>_mask.png``. The root may also be one category's folder.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from nfbmr.data.listing import Tree
from nfbmr.data.sample import NORMAL, Sample

DESCRIPTION = "<category>/train/good/ and <category>/test/<defect>/"


def matches(tree: Tree) -> bool:
    """Whether some picture lies in a ``train/good`` folder."""
    return any("/train/good/" in f"/{name}" for name in tree.pictures)


def find(tree: Tree) -> list[Sample]:
    """All training and test pictures."""
    masks = {_mask_key(name): name for name in tree.pictures if "ground_truth" in _parts(name)}
    samples = []
    for name in tree.pictures:
        parts = _parts(name)
        if len(parts) == 3:
            parts = (PurePosixPath(tree.root).name, *parts)
        if len(parts) != 4 or parts[1] not in ("train", "test"):
            continue
        category, split, defect, file = parts
        if split == "train" and defect != NORMAL:
            continue
        mask = masks.get((category, defect, PurePosixPath(file).stem))
        mask = mask or masks.get(("", defect, PurePosixPath(file).stem))
        mask_uri = tree.uri(mask) if mask else None
        samples.append(Sample(tree.uri(name), category, split, defect, mask_uri))
    return samples


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name).parts


def _mask_key(name: str) -> tuple[str, str, str]:
    """(category or empty, defect, stem of the picture)."""
    parts = _parts(name)
    category = parts[-4] if len(parts) >= 4 else ""
    return category, parts[-2], PurePosixPath(name).stem.removesuffix("_mask")

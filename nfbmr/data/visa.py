"""The layout of VisA (Zou et al. 2022).

``<category>/Data/Images/{Normal,Anomaly}/*`` and ``<category>/Data/Masks/Anomaly/<stem>.png``.
``split_csv/1cls.csv`` (columns object, split, label, image, mask) is the public split; without it
a hash of the file name splits the normal pictures.
"""

from __future__ import annotations

import csv
from pathlib import PurePosixPath

from nfbmr.data.hash_split import in_test_part
from nfbmr.data.listing import Tree
from nfbmr.data.sample import NORMAL, Sample

DESCRIPTION = "<category>/Data/Images/{Normal,Anomaly}/"
SPLIT_FILE = "split_csv/1cls.csv"
DEFECTIVE = "anomaly"


def matches(tree: Tree) -> bool:
    """Whether there are pictures in a ``Data/Images/Normal`` folder."""
    return any("/Data/Images/Normal/" in name for name in tree.pictures)


def find(tree: Tree) -> list[Sample]:
    """All pictures, by the public split where it is there."""
    splits = _public_splits(tree)
    pictures = set(tree.pictures)
    samples = []
    for name in tree.pictures:
        path = PurePosixPath(name)
        if len(path.parts) != 5 or path.parts[1:3] != ("Data", "Images"):
            continue
        category = path.parts[0]
        is_normal = path.parts[3] == "Normal"
        by_hash = "test" if not is_normal or in_test_part(path.name) else "train"
        split = splits.get(name, by_hash)
        mask = f"{category}/Data/Masks/Anomaly/{path.stem}.png"
        mask_uri = tree.uri(mask) if not is_normal and mask in pictures else None
        defect = NORMAL if is_normal else DEFECTIVE
        samples.append(Sample(tree.uri(name), category, split, defect, mask_uri))
    return samples


def _public_splits(tree: Tree) -> dict[str, str]:
    if SPLIT_FILE not in tree.files:
        return {}
    rows = csv.DictReader(tree.read_text(SPLIT_FILE).splitlines())
    return {row["image"]: row["split"] for row in rows}

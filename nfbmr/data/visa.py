"""The layout of VisA (Zou et al. 2022).

``<category>/Data/Images/{Normal,Anomaly}/*`` and ``<category>/Data/Masks/Anomaly/<stem>.png``.
``split_csv/1cls.csv`` is the public split, with the columns ``object, split, label, image, mask``
(paths from the root). Normal pictures that it does not name, or all where it is not there, are
split by a hash of their file names. Defective pictures are always tested.
"""

from __future__ import annotations

import csv
from pathlib import PurePosixPath

from nfbmr.data.hash_split import in_test_part
from nfbmr.data.listing import Tree
from nfbmr.data.sample import NORMAL, Sample
from nfbmr.errors import DataError

DESCRIPTION = "<category>/Data/Images/{Normal,Anomaly}/"
SPLIT_FILE = "split_csv/1cls.csv"
DEFECTIVE = "anomaly"
_COLUMNS = ("object", "split", "label", "image", "mask")


def matches(tree: Tree) -> bool:
    """Whether there are pictures in a ``Data/Images/Normal`` folder."""
    parts = (PurePosixPath(name).parts for name in tree.pictures)
    return any(len(own) == 5 and own[1:4] == ("Data", "Images", "Normal") for own in parts)


def find(tree: Tree) -> list[Sample]:
    """All pictures, by the public split where it is there.

    Raises:
        DataError: the split cannot be understood, or names pictures that are not there.
    """
    listed = _listed(tree)
    pictures = set(tree.pictures)
    samples = []
    for name in tree.pictures:
        path = PurePosixPath(name)
        if len(path.parts) != 5 or path.parts[1:3] != ("Data", "Images"):
            continue
        category, kind = path.parts[0], path.parts[3]
        if kind == "Normal":
            split = listed.get(name) or ("test" if in_test_part(path.name) else "train")
            samples.append(Sample(tree.uri(name), category, split, NORMAL))
        elif kind == "Anomaly":
            mask = f"{category}/Data/Masks/Anomaly/{path.stem}.png"
            mask_uri = tree.uri(mask) if mask in pictures else None
            samples.append(Sample(tree.uri(name), category, "test", DEFECTIVE, mask_uri))
    return samples


def _listed(tree: Tree) -> dict[str, str]:
    """The split of every picture of the public split, for the categories that are there."""
    if SPLIT_FILE not in tree.files:
        return {}
    try:
        reader = csv.DictReader(tree.read_text(SPLIT_FILE).splitlines())
        columns, listed = reader.fieldnames or (), list(reader)
    except csv.Error as error:
        raise DataError(
            f"{tree.uri(SPLIT_FILE)} is no readable CSV ({error}): copy the list again."
        ) from error
    missing = [column for column in _COLUMNS if column not in columns]
    if missing:
        raise DataError(
            f"{tree.uri(SPLIT_FILE)} has no column {missing[0]!r}: expected {', '.join(_COLUMNS)}."
        )
    present = {PurePosixPath(name).parts[0] for name in tree.pictures}
    rows = [row for row in listed if row["object"] in present]
    for row in rows:
        if row["image"] not in tree.files or row["split"] not in ("train", "test"):
            raise DataError(
                f"{tree.uri(SPLIT_FILE)} puts {row['image']!r} in {row['split']!r}: expected a "
                "picture that is there, in train or test; copy the category and the list again."
            )
    return {row["image"]: row["split"] for row in rows}

"""The layout of DAGM 2007 (Wieler and Hahn 2007).

``Class1/Train/0576.PNG``, ``Class1/Train/Label/0576_label.PNG`` and the same under ``Test``. The
list ``Label/Labels.txt`` has a first line with the class, then rows ``number flag picture flag
label``: a first flag of 1 marks a defective picture, whose label file stands at the end.

The paper trains "exclusively on the normal images within the training set": defective pictures of
``Train`` belong to neither split and are left out.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from nfbmr.data.listing import Tree
from nfbmr.data.sample import NORMAL, Sample
from nfbmr.errors import DataError

DESCRIPTION = "Class<N>/Train/ and Class<N>/Test/, each with Label/"
DEFECTIVE = "defective"
_FOLDER = re.compile(r"(?:^|/)(Class\d+)/(Train|Test)$", re.IGNORECASE)


def matches(tree: Tree) -> bool:
    """Whether there is a folder like ``Class1/Train``."""
    return bool(_folders(tree))


def find(tree: Tree) -> list[Sample]:
    """Normal training pictures, and all test pictures with their labels."""
    samples = []
    for folder, (category, split) in _folders(tree).items():
        masks = _masks(tree, folder)
        for stem, name in tree.stems(folder).items():
            mask = masks.get(stem)
            if mask is not None and split == "train":
                continue
            defect = NORMAL if mask is None else DEFECTIVE
            mask_uri = tree.uri(mask) if mask else None
            samples.append(Sample(tree.uri(name), category, split, defect, mask_uri))
    return samples


def _folders(tree: Tree) -> dict[str, tuple[str, str]]:
    """Folders with pictures: (category, split) by name."""
    found = {}
    for name in tree.pictures:
        folder = str(PurePosixPath(name).parent)
        match = _FOLDER.search(folder)
        if match:
            found[folder] = (match.group(1), match.group(2).lower())
    return found


def _masks(tree: Tree, folder: str) -> dict[str, str]:
    """The label file of every defective picture, by the picture's stem.

    Raises:
        DataError: the list names a label file that is not there.
    """
    label_folder = f"{folder}/Label"
    files = tree.stems(label_folder)
    listing = f"{label_folder}/Labels.txt"
    if listing not in tree.files:
        return {stem.removesuffix("_label"): name for stem, name in files.items()}
    masks = {}
    for line in tree.read_text(listing).splitlines():
        fields = line.split()
        if len(fields) < 5 or fields[1] == "0":
            continue
        label = PurePosixPath(fields[4]).stem
        if label not in files:
            raise DataError(
                f"{tree.uri(listing)} names {fields[4]}, which is not beside it: the copy of the "
                "data set is incomplete."
            )
        masks[PurePosixPath(fields[2]).stem] = files[label]
    return masks

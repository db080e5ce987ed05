"""The layout of DAGM 2007 (Wieler and Hahn 2007).

``Class1/Train/0576.PNG``, its mask ``Class1/Train/Label/0576_label.PNG``, and the same under
``Test``; the classes may lie one folder deeper, as the published archives unpack
(``Class1/Class1/Train``). The list ``Label/Labels.txt`` has a first line with the class, then rows
``number flag picture flag mask`` in which a first flag of 1 marks a defective picture and 0 a
normal one. The list decides for the pictures that it names; of the others, those with a mask are
defective.

The paper trains "exclusively on the normal images within the training set": defective pictures of
``Train`` belong to neither split and are left out.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from nfbmr.data.listing import Tree
from nfbmr.data.sample import NORMAL, Sample
from nfbmr.errors import DataError

DESCRIPTION = "Class<N>/Train/ and Class<N>/Test/, each with Label/"
DEFECTIVE = "defective"
_FOLDER = re.compile(r"(?:^|/)(Class\d+)/(Train|Test)(/Label)?$", re.IGNORECASE)
_FLAGS = {"0": False, "1": True}


@dataclass
class _Part:
    """One class's ``Train`` or ``Test``: file names by their stem."""

    pictures: dict[str, str] = field(default_factory=dict)
    masks: dict[str, str] = field(default_factory=dict)


def matches(tree: Tree) -> bool:
    """Whether there are pictures in a folder like ``Class1/Train``."""
    return any(_FOLDER.search(str(PurePosixPath(name).parent)) for name in tree.pictures)


def find(tree: Tree) -> list[Sample]:
    """Normal training pictures, and all test pictures with their masks.

    Raises:
        DataError: a list cannot be understood, or names files that are not there.
    """
    return [
        sample
        for (folder, category, split), part in _parts(tree).items()
        for sample in _samples(tree, folder, category, split, part)
    ]


def _parts(tree: Tree) -> dict[tuple[str, str, str], _Part]:
    """What lies in each (folder, category, split)."""
    parts: dict[tuple[str, str, str], _Part] = defaultdict(_Part)
    for name in tree.pictures:
        path = PurePosixPath(name)
        match = _FOLDER.search(str(path.parent))
        if match is None:
            continue
        category, split, label = match.groups()
        folder = path.parent.parent if label else path.parent
        part = parts[str(folder), category, split.lower()]
        if label:
            part.masks[path.stem.removesuffix("_label")] = name
        else:
            part.pictures[path.stem] = name
    return parts


def _samples(tree: Tree, folder: str, category: str, split: str, part: _Part) -> list[Sample]:
    listed = _listed(tree, f"{folder}/Label/Labels.txt", part)
    samples = []
    for stem, name in part.pictures.items():
        mask = part.masks.get(stem)
        if not listed.get(stem, mask is not None):
            samples.append(Sample(tree.uri(name), category, split, NORMAL))
        elif split == "test":
            mask_uri = tree.uri(mask) if mask else None
            samples.append(Sample(tree.uri(name), category, split, DEFECTIVE, mask_uri))
    return samples


def _listed(tree: Tree, listing: str, part: _Part) -> dict[str, bool]:
    """Whether each picture is defective, as far as the list says, by the picture's stem."""
    if listing not in tree.files:
        return {}
    listed = {}
    for number, line in enumerate(tree.read_text(listing).splitlines(), start=1):
        fields = line.split()
        if not fields or (number == 1 and len(fields) == 1):
            continue
        if len(fields) != 5 or fields[1] not in _FLAGS:
            raise DataError(
                f"{tree.uri(listing)}, line {number}, is {line!r}: expected `number flag picture "
                "flag mask` with a first flag of 0 or 1."
            )
        picture, is_defective = fields[2], _FLAGS[fields[1]]
        stem = PurePosixPath(picture).stem
        if stem not in part.pictures:
            raise DataError(f"{_names_missing(tree, listing)} the picture {picture}.")
        if is_defective and stem not in part.masks:
            raise DataError(f"{_names_missing(tree, listing)} the mask {fields[4]}.")
        listed[stem] = is_defective
    return listed


def _names_missing(tree: Tree, listing: str) -> str:
    return f"{tree.uri(listing)} names what is not there, so the data set is copied in part:"

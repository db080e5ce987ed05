"""The layout of the magnetic tile defects data set, MTD (Huang, Qiu and Yuan 2020).

``MT_Free/Imgs/*.jpg`` are normal, ``MT_<Defect>/Imgs/*.jpg`` defective with a mask ``*.png`` of
the same stem. ``train_filenames.txt`` at the root is the public split: the normal pictures it
names are trained on, everything else is tested. Without it, a hash of the file name splits.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from nfbmr.data.hash_split import in_test_part
from nfbmr.data.listing import Tree
from nfbmr.data.sample import NORMAL, Sample
from nfbmr.errors import DataError

DESCRIPTION = "MT_Free/Imgs/ and MT_<Defect>/Imgs/"
CATEGORY = "magnetic_tile"
SPLIT_FILE = "train_filenames.txt"
_NORMAL_FOLDER = "MT_Free"


def matches(tree: Tree) -> bool:
    """Whether there are pictures in ``MT_Free/Imgs``."""
    return any(name.startswith(f"{_NORMAL_FOLDER}/Imgs/") for name in tree.pictures)


def find(tree: Tree) -> list[Sample]:
    """All photographs with their split, and the masks of the defective ones.

    Raises:
        DataError: the public split names pictures that are not there.
    """
    names = set(tree.files)
    listed = _listed(tree)
    samples = []
    for name in tree.pictures:
        path = PurePosixPath(name)
        if path.suffix.lower() not in (".jpg", ".jpeg") or not _is_in_imgs(path):
            continue
        is_normal = path.parts[0] == _NORMAL_FOLDER
        in_train = path.name in listed if listed is not None else not in_test_part(path.name)
        split = "train" if is_normal and in_train else "test"
        defect = NORMAL if is_normal else path.parts[0].removeprefix("MT_").lower()
        mask = str(path.with_suffix(".png"))
        mask_uri = tree.uri(mask) if not is_normal and mask in names else None
        samples.append(Sample(tree.uri(name), CATEGORY, split, defect, mask_uri))
    return samples


def _is_in_imgs(path: PurePosixPath) -> bool:
    parts = path.parts
    return len(parts) == 3 and parts[0].startswith("MT_") and parts[1] == "Imgs"


def _listed(tree: Tree) -> set[str] | None:
    """The file names of the public split, or None without it."""
    if SPLIT_FILE not in tree.files:
        return None
    lines = (line.strip() for line in tree.read_text(SPLIT_FILE).splitlines())
    listed = {line for line in lines if line}
    present = {PurePosixPath(name).name for name in tree.pictures}
    if not listed <= present:
        missing = sorted(listed - present)
        raise DataError(
            f"{tree.uri(SPLIT_FILE)} names {len(missing)} pictures that are not there, first "
            f"{missing[0]}: the copy of the data set is incomplete."
        )
    return listed

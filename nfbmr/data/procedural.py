"""A small factory of procedurally generated surfaces, in the manner of DAGM 2007.

Writes an MVTec-AD-like tree for training and testing, and a tar of "production" pictures of which
some are defective and three are broken, with a CSV that says which.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nfbmr.data.sample import NORMAL
from nfbmr.data.surface_defects import DEFECTS, draw_defect
from nfbmr.data.textures import TextureClass
from nfbmr.errors import ConfigError, OutputError

ARCHIVE = "production.tar"
LABELS = "production_labels.csv"
MANIFEST = "factory.json"
BROKEN_FILES = 3

SURFACES: dict[str, TextureClass] = {
    "woven_fabric": TextureClass(
        "weave", (0.35, 0.25, 0.5, 0.5, 0.3), (0.16, 0.20, 0.34), (0.62, 0.68, 0.82), 0.02
    ),
    "printed_dots": TextureClass(
        "dots", (0.3, 0.2, 0.7, 0.4, 0.2), (0.88, 0.86, 0.80), (0.20, 0.28, 0.45), 0.015
    ),
    "corrugated_sheet": TextureClass(
        "grating", (0.1, 0.25, 0.3, 0.0, 0.2), (0.35, 0.36, 0.36), (0.85, 0.86, 0.86), 0.02
    ),
    "hammered_metal": TextureClass(
        "cells", (0.4, 0.6, 0.2, 0.5, 0.5), (0.24, 0.22, 0.20), (0.80, 0.74, 0.66), 0.02
    ),
    "leather": TextureClass(
        "cells", (0.15, 0.9, 0.8, 0.5, 0.5), (0.24, 0.12, 0.07), (0.60, 0.38, 0.24), 0.02
    ),
    "cast_concrete": TextureClass(
        "fractal", (0.35, 0.3, 0.5, 0.5, 0.5), (0.36, 0.35, 0.33), (0.74, 0.73, 0.70), 0.02
    ),
    "terrazzo": TextureClass(
        "speckle", (0.15, 0.3, 0.5, 0.5, 0.5), (0.72, 0.70, 0.66), (0.35, 0.30, 0.28), 0.02
    ),
    "brushed_steel": TextureClass(
        "anisotropic", (0.0, 0.7, 0.75, 0.5, 0.5), (0.30, 0.31, 0.33), (0.78, 0.79, 0.80), 0.02
    ),
}
"""The surfaces that a factory can be made of, by category name; roughly from easy to hard."""


@dataclass(frozen=True, slots=True)
class FactorySettings:
    """How large a factory is.

    Attributes:
        categories: how many surfaces, from the first of ``SURFACES`` on.
        train: normal training pictures per category.
        test_normal: normal test pictures per category.
        test_defective: defective test pictures per category.
        archive: readable pictures in the production archive, over all categories.
        defect_share: share of them that is defective.
        size_px: height and width of all pictures.
        seed: the same seed gives the same bytes.
    """

    categories: int = 4
    train: int = 100
    test_normal: int = 24
    test_defective: int = 25
    archive: int = 200
    defect_share: float = 0.1
    size_px: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.categories <= len(SURFACES):
            raise ConfigError(
                f"A factory of {self.categories} categories cannot be made: expected 1 to "
                f"{len(SURFACES)}."
            )
        if self.seed < 0:
            raise ConfigError(f"A seed of {self.seed}: expected 0 or more.")
        if not 0.0 <= self.defect_share <= 1.0:
            raise ConfigError(f"A defect share of {self.defect_share}: expected 0 to 1.")


@dataclass(frozen=True)
class Factory:
    """Where a factory lies.

    Attributes:
        root: folder of the data tree (layout ``mvtec``).
        archive: the production tar.
        labels: CSV with columns member, category, is_defective, defect_type, is_broken.
    """

    root: str
    archive: str
    labels: str


@dataclass(frozen=True)
class Surface:
    """One rendered picture with what is wrong with it.

    Attributes:
        image_HWC: (H, W, 3), uint8.
        normal_HWC: the same picture without the defect.
        mask_HW: where the two differ, bool.
        defect_type: ``good`` or a name of ``DEFECTS``.
    """

    image_HWC: NDArray[np.uint8]
    normal_HWC: NDArray[np.uint8]
    mask_HW: NDArray[np.bool_]
    defect_type: str


def render_surface(category: str, defect_type: str, size_px: int, seed: tuple[int, ...]) -> Surface:
    """Render one picture of a surface.

    Args:
        category: a name of ``SURFACES``.
        defect_type: ``good`` or a name of ``DEFECTS``.
        size_px: height and width.
        seed: the same seed gives the same picture.
    """
    rng = np.random.default_rng(seed)
    defect = None if defect_type == NORMAL else defect_type
    image_HWC, normal_HWC = draw_defect(SURFACES[category], size_px, rng, defect)
    return Surface(image_HWC, normal_HWC, (image_HWC != normal_HWC).any(-1), defect_type)


def generate_factory(
    root: str | Path,
    settings: FactorySettings | None = None,
    count: Callable[[int], None] = lambda done: None,
) -> Factory:
    """Write a factory, or find it done already.

    The manifest is written last: what was cut off is written again.

    Args:
        root: folder of the factory's own; made where it is missing.
        settings: how large it is.
        count: takes the number of pictures written so far.

    Raises:
        OutputError: the folder holds another factory, or something else.
    """
    settings = settings or FactorySettings()
    root = Path(root)
    factory = Factory(str(root / "data"), str(root / ARCHIVE), str(root / LABELS))
    if _is_done(root, settings):
        return factory
    written = 0
    for category in list(SURFACES)[: settings.categories]:
        for path, image in _category_files(category, settings):
            target = root / "data" / category / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_encoded(image, path))
            written += 1
            count(written)
    _write_archive(root, settings, lambda done: count(written + done))
    (root / MANIFEST).write_text(json.dumps(asdict(settings), indent=1) + "\n")
    return factory


def pictures_in(settings: FactorySettings) -> int:
    """How many files ``generate_factory`` writes, masks and the archive's members included."""
    per_category = settings.train + settings.test_normal + 2 * settings.test_defective
    return settings.categories * per_category + settings.archive + BROKEN_FILES


def _is_done(root: Path, settings: FactorySettings) -> bool:
    manifest = root / MANIFEST
    if not manifest.exists():
        known = {"data", ARCHIVE, LABELS}
        strangers = [p.name for p in root.iterdir() if p.name not in known] if root.exists() else []
        if strangers:
            raise OutputError(
                f"{root} holds other files (for example {strangers[0]}): choose an empty folder "
                "for the factory."
            )
        return False
    if json.loads(manifest.read_text()) != asdict(settings):
        raise OutputError(
            f"{root} holds a factory made with other settings ({manifest}): choose another folder, "
            "or remove this one."
        )
    return True


def _category_files(
    category: str, settings: FactorySettings
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Relative path and pixels of everything in one category's folder."""
    index = list(SURFACES).index(category)

    def surface(part: int, number: int, defect: str) -> Surface:
        return render_surface(
            category, defect, settings.size_px, (settings.seed, index, part, number)
        )

    for number in range(settings.train):
        yield f"train/good/{number:03d}{_suffix(number)}", surface(0, number, NORMAL).image_HWC
    for number in range(settings.test_normal):
        yield f"test/good/{number:03d}{_suffix(number)}", surface(1, number, NORMAL).image_HWC
    kinds = list(DEFECTS)
    for number in range(settings.test_defective):
        defect = kinds[number % len(kinds)]
        picture = surface(2, number, defect)
        yield f"test/{defect}/{number:03d}{_suffix(number)}", picture.image_HWC
        mask = picture.mask_HW.astype(np.uint8) * 255
        yield f"ground_truth/{defect}/{number:03d}_mask.png", mask


def _write_archive(root: Path, settings: FactorySettings, count: Callable[[int], None]) -> None:
    """The production tar and its labels; members in an order fixed by the seed."""
    names = list(SURFACES)[: settings.categories]
    rng = np.random.default_rng((settings.seed, 99))
    defective = set(
        rng.permutation(settings.archive)[
            : round(settings.defect_share * settings.archive)
        ].tolist()
    )
    broken_at = dict(
        zip(
            sorted(rng.permutation(settings.archive)[:BROKEN_FILES].tolist()),
            ("truncated", "empty", "no picture"),
            strict=False,
        )
    )
    rows: list[dict[str, object]] = []
    with tarfile.open(root / ARCHIVE, "w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(settings.archive):
            category = names[int(rng.integers(len(names)))]
            defect = list(DEFECTS)[number % len(DEFECTS)] if number in defective else NORMAL
            seed = (settings.seed, names.index(category), 3, number)
            image = render_surface(category, defect, settings.size_px, seed).image_HWC
            member = f"{category}/{number:05d}{_suffix(number)}"
            data = _encoded(image, member)
            rows.append(_add(tar, member, data, category, defect))
            if number in broken_at:
                kind = broken_at[number]
                broken = f"{category}/{number:05d}-{kind.replace(' ', '-')}.png"
                rows.append(_add(tar, broken, _broken(image, kind), category, NORMAL, broken=True))
            count(len(rows))
    with (root / LABELS).open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _suffix(number: int) -> str:
    """Two kinds of files everywhere: a detector should know what either looks like."""
    return ".jpg" if number % 2 else ".png"


def _encoded(image_HWC: NDArray[np.uint8], name: str) -> bytes:
    buffer = io.BytesIO()
    if name.endswith(".jpg"):
        Image.fromarray(image_HWC).save(buffer, format="JPEG", quality=95)
    else:
        Image.fromarray(image_HWC).save(buffer, format="PNG")
    return buffer.getvalue()


def _broken(image_HWC: NDArray[np.uint8], kind: str) -> bytes:
    whole = _encoded(image_HWC, "x.png")
    return {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "no picture": b"This is a text file with a picture's name.\n",
    }[kind]


def _add(
    tar: tarfile.TarFile, member: str, data: bytes, category: str, defect: str, broken: bool = False
) -> dict[str, object]:
    """Add a member with a fixed time stamp; return its row of labels."""
    info = tarfile.TarInfo(member)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
    return {
        "member": member,
        "category": category,
        "is_defective": defect != NORMAL,
        "defect_type": defect,
        "is_broken": broken,
    }

"""Which pictures a data root holds, by the layout of its folders."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from nfbmr.data import dagm, folder, mtd, mvtec, visa
from nfbmr.data.left_over import left_over
from nfbmr.data.listing import Tree
from nfbmr.data.sample import Sample
from nfbmr.errors import DataError


class Layout(Protocol):
    """What each module of a layout offers."""

    @property
    def DESCRIPTION(self) -> str:  # noqa: N802 (a constant of the module)
        """What the layout looks like, for messages."""

    def matches(self, tree: Tree) -> bool:
        """Whether the root looks like this layout."""

    def find(self, tree: Tree) -> list[Sample]:
        """All pictures that lie where the layout expects them."""


LAYOUTS: dict[str, Layout] = {
    "mvtec": mvtec,
    "dagm": dagm,
    "mtd": mtd,
    "visa": visa,
    "folder": folder,
}
"""Layouts by name, in the order in which ``auto`` tries them; the loosest last."""

AUTOMATIC = "auto"


@dataclass(frozen=True)
class Discovery:
    """What a data root holds.

    Attributes:
        layout: its name.
        samples: in the order of their URIs, which on a local disk are plain absolute paths.
        left_over: folders of pictures in which the layout found no category, with a sentence for
            each; none where categories were asked for by name.
        versions: of all pictures by URI, as ``Tree.versions``.
    """

    layout: str
    samples: list[Sample]
    left_over: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def discover(
    root: str, layout: str = AUTOMATIC, categories: Sequence[str] | None = None
) -> list[Sample]:
    """Find all labelled pictures of a data root; see ``discover_layout``."""
    return discover_layout(root, layout, categories)[1]


def discover_layout(
    root: str, layout: str = AUTOMATIC, categories: Sequence[str] | None = None
) -> tuple[str, list[Sample]]:
    """Find all labelled pictures of a data root, and say how they are laid out.

    Returns:
        ``layout`` and ``samples`` of ``discover_all``.
    """
    found = discover_all(root, layout, categories)
    return found.layout, found.samples


def discover_all(
    root: str, layout: str = AUTOMATIC, categories: Sequence[str] | None = None
) -> Discovery:
    """Find all labelled pictures of a data root, and what was passed over.

    A category without normal pictures to train on is returned like the others as long as one
    category has some: it fails by itself and does not stop the rest of the night.

    Args:
        root: folder or prefix: a path, ``file://`` or ``s3://`` URI.
        layout: a name of ``LAYOUTS``, or ``auto``.
        categories: only these; all by default.

    Raises:
        DataError: the root is missing or empty, the layout is unknown or does not fit, a category
            is unknown, or none has normal pictures to train on.
    """
    if layout != AUTOMATIC and layout not in LAYOUTS:
        near = difflib.get_close_matches(layout, LAYOUTS, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise DataError(
            f"--layout {layout!r} does not exist: expected {', '.join(LAYOUTS)} or auto.{hint}"
        )
    tree = Tree(root)
    chosen = recognise(tree) if layout == AUTOMATIC else layout
    samples = LAYOUTS[chosen].find(tree)
    if not samples:
        raise DataError(
            f"{tree.root} has {len(tree.pictures)} pictures but none where the layout {chosen!r} "
            f"expects them ({LAYOUTS[chosen].DESCRIPTION}): check --data and --layout."
        )
    found = {sample.category for sample in samples}
    passed_over = left_over(tree, chosen, found) if categories is None else {}
    samples = _selected(samples, categories)
    _check_normals(samples, tree.root, chosen)
    versions = {tree.uri(name): tree.versions[name] for name in tree.pictures}
    ordered = sorted(samples, key=lambda sample: sample.uri)
    return Discovery(chosen, ordered, passed_over, versions)


def recognise(tree: Tree) -> str:
    """The name of the first layout that fits.

    Args:
        tree: the listed root.

    Raises:
        DataError: none does.
    """
    for name, module in LAYOUTS.items():
        if module.matches(tree):
            return name
    looked_for = "; ".join(f"{name}: {module.DESCRIPTION}" for name, module in LAYOUTS.items())
    raise DataError(
        f"The layout of {tree.root} is not recognised among its {len(tree.files)} files. Looked "
        f"for {looked_for}."
    )


def _selected(samples: list[Sample], categories: Sequence[str] | None) -> list[Sample]:
    if categories is None:
        return samples
    known = sorted({sample.category for sample in samples})
    if not categories:
        raise DataError(f"No category was asked for: name some of {', '.join(known)}.")
    for wanted in categories:
        if wanted not in known:
            near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.4)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise DataError(
                f"There is no category {wanted!r}: expected some of {', '.join(known)}.{hint}"
            )
    return [sample for sample in samples if sample.category in set(categories)]


def _check_normals(samples: Sequence[Sample], root: str, layout: str) -> None:
    """At least one category must have something to train on; single ones fail by themselves."""
    if not any(sample.split == "train" for sample in samples):
        names = ", ".join(sorted({sample.category for sample in samples}))
        raise DataError(
            f"No category of {root} ({names}) has normal pictures to train on: the layout "
            f"{layout!r} expects {LAYOUTS[layout].DESCRIPTION}."
        )

"""Keeping the feature cache within its bounds: what was not used for longest goes first.

No file system tells reliably when a file was last read, object stores least of all. So every
campaign writes down which entries it used, in one small file beside them. Two campaigns at the
same time may lose one's note: then its entries count as older than they are, no more.
"""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from nfbmr import storage, store_folders
from nfbmr.train.feature_cache import SUFFIX

_USES = "last_used.json.gz"
_ABANDONED_S = 86400.0
_GIB = 2**30
_GZIP = 31
"""What zlib calls gzip's framing."""
_LARGEST_USES_BYTES = 2**28
_ONE_CAMPAIGN_S = 1.5 * 86400.0
"""Entries that were last used within so long before the latest use: those of one campaign."""


@dataclass(frozen=True, slots=True)
class Eviction:
    """What was done to keep a cache within its bounds.

    Attributes:
        removed: entries that went.
        size_gib: of what stays.
        needed_gib: of what the campaign needs.
    """

    removed: int
    size_gib: float
    needed_gib: float


def evict(root: str, backbone_key: str, needed: Collection[str], limit_gib: float) -> Eviction:
    """Note what a campaign uses, and remove what was not used for longest beyond a limit.

    What the campaign needs is never removed, even where that alone is more than the limit.

    Args:
        root: of the feature cache: folder or ``s3://`` prefix, for all backbones.
        backbone_key: of the campaign.
        needed: its entries.
        limit_gib: 0 for no limit.
    """
    found, wanted = _listed(root), _names(backbone_key, needed)
    noted = _uses(root)
    noted |= dict.fromkeys(wanted & found.keys(), int(time.time()))
    removed: list[str] = []
    if limit_gib > 0:
        ages = {name: noted.get(name, file.changed_at) for name, file in found.items()}
        removed = _oldest(found, found.keys() - wanted, ages, _size(found) - limit_gib * _GIB)
    store_folders.remove_files(root, removed)
    kept = {name: found[name] for name in found.keys() - set(removed)}
    _write_uses(root, {name: used for name, used in noted.items() if name in kept})
    needed_bytes = _size({name: file for name, file in found.items() if name in wanted})
    return Eviction(len(removed), _size(kept) / _GIB, needed_bytes / _GIB)


def make_room(
    root: str,
    backbone_key: str,
    needed: Collection[str],
    limit_gib: float,
    coming: int,
    *,
    is_full: bool = False,
) -> Eviction:
    """Remove what was not used for longest, before a campaign writes more.

    Which entries its pictures have is known only once they were read. So of its own backbone's,
    those that the latest campaign used stay as well: most pictures are the same again.

    Args:
        root: of the feature cache: folder or ``s3://`` prefix, for all backbones.
        backbone_key: of the campaign.
        needed: entries that it has used so far.
        limit_gib: that the cache and what is coming are to keep to; more than 0.
        coming: bytes of the pictures whose turn it is, of which some may be there already.
        is_full: there was no room left for them, whatever the limit says.
    """
    found, wanted = _listed(root), _names(backbone_key, needed)
    noted = _uses(root)
    ages = {name: noted.get(name, file.changed_at) for name, file in found.items()}
    own = {name for name in found if name.startswith(f"{backbone_key}/")} - wanted
    latest = max((noted[name] for name in own & noted.keys()), default=0.0)
    recent = {name for name in own if ages[name] >= latest - _ONE_CAMPAIGN_S}
    size = _size(found)
    there = _size({name: found[name] for name in own})
    too_much = size + max(0, coming - there) - limit_gib * _GIB
    if is_full:
        too_much = max(too_much, coming)
    removed = _oldest(found, found.keys() - wanted - recent, ages, too_much)
    store_folders.remove_files(root, removed)
    left = size - _size({name: found[name] for name in removed})
    needed_bytes = _size({name: file for name, file in found.items() if name in wanted})
    return Eviction(len(removed), left / _GIB, needed_bytes / _GIB)


def _listed(root: str) -> dict[str, store_folders.StoredFile]:
    """The entries of a cache by their names; what killed writers left is removed."""
    files = store_folders.list_tree(root)
    now = time.time()
    # On a local disk.
    abandoned = [
        name
        for name, file in files.items()
        if name.endswith(".partial") and now - file.changed_at > _ABANDONED_S
    ]
    store_folders.remove_files(root, abandoned)
    return {name: file for name, file in files.items() if name.endswith(SUFFIX)}


def _names(backbone_key: str, entries: Iterable[str]) -> set[str]:
    return {f"{backbone_key}/{entry[:2]}/{entry}{SUFFIX}" for entry in entries}


def _size(files: Mapping[str, store_folders.StoredFile]) -> int:
    return sum(file.size for file in files.values())


def _oldest(
    files: Mapping[str, store_folders.StoredFile],
    candidates: Iterable[str],
    ages: Mapping[str, float],
    too_much: float,
) -> list[str]:
    """Those of the candidates that must go for so many bytes, the longest unused first."""
    chosen: list[str] = []
    for name in sorted(candidates, key=lambda n: (ages[n], n)):
        if too_much <= 0:
            break
        chosen.append(name)
        too_much -= files[name].size
    return chosen


def _uses(root: str) -> dict[str, float]:
    """When entries were last used, by name; nothing where that was never noted or is damaged."""
    data = storage.read(storage.join(root, _USES))
    if data is None:
        return {}
    try:
        # Bounded: whoever may write to the cache must not fill the driver's memory.
        text = zlib.decompressobj(wbits=_GZIP).decompress(data, _LARGEST_USES_BYTES)
        uses = json.loads(text)
        return {str(name): float(used) for name, used in uses.items()}
    except (ValueError, TypeError, AttributeError, RecursionError, zlib.error):
        return {}


def _write_uses(root: str, uses: dict[str, float]) -> None:
    data = gzip.compress(json.dumps(uses, sort_keys=True).encode(), compresslevel=5, mtime=0)
    storage.write_atomically(storage.join(root, _USES), data)

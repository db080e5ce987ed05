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
from collections.abc import Collection
from dataclasses import dataclass

from nfbmr import storage, store_folders
from nfbmr.train.feature_cache import SUFFIX

_USES = "last_used.json.gz"
_ABANDONED_S = 86400.0
_GIB = 2**30
_GZIP = 31
"""What zlib calls gzip's framing."""
_LARGEST_USES_BYTES = 2**28


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
    now = time.time()
    files = store_folders.list_tree(root)
    # Writers that were killed leave these on a local disk.
    abandoned = [
        name
        for name, file in files.items()
        if name.endswith(".partial") and now - file.changed_at > _ABANDONED_S
    ]
    store_folders.remove_files(root, abandoned)
    sizes = {name: file.size for name, file in files.items() if name.endswith(SUFFIX)}
    wanted = {f"{backbone_key}/{entry[:2]}/{entry}{SUFFIX}" for entry in needed}
    used_at = _uses(root)
    used_at |= dict.fromkeys(wanted & sizes.keys(), int(now))
    removed = []
    total = sum(sizes.values())
    if limit_gib > 0:
        by_age = sorted(
            sizes.keys() - wanted, key=lambda n: (used_at.get(n, files[n].changed_at), n)
        )
        for name in by_age:
            if total <= limit_gib * _GIB:
                break
            removed.append(name)
            total -= sizes[name]
    store_folders.remove_files(root, removed)
    kept = sizes.keys() - set(removed)
    _write_uses(root, {name: used for name, used in used_at.items() if name in kept})
    needed_bytes = sum(sizes[name] for name in wanted & sizes.keys())
    return Eviction(len(removed), total / _GIB, needed_bytes / _GIB)


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

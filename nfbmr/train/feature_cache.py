"""Features on disk or in an object store, one entry per picture, reused from night to night.

A frozen backbone gives a picture the same features for ever, so an entry is keyed by the content
of the picture and by everything the features depend on besides (``Backbone.key()``).

Shapes: N pictures, C channels, H height, W width of the feature map.
"""

from __future__ import annotations

import hashlib
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from nfbmr import storage, store_folders
from nfbmr.errors import FeaturesError

SUFFIX = ".features"
_DIGEST_BYTES = 16


class FeatureCache:
    """Half-precision feature maps under ``<root>/<backbone key>/<two digits>/<entry>``.

    An entry is a 16-byte BLAKE2b digest followed by a safetensors file. One whose digest does not
    match is treated as missing: it is computed again, not trusted.

    Args:
        root: folder or ``s3://`` prefix.
        backbone_key: ``Backbone.key()``.
        threads: how many entries are read or looked for at once.
    """

    def __init__(self, root: str, backbone_key: str, threads: int = 8) -> None:
        self.root = storage.join(root, backbone_key)
        self.threads = threads

    def _uri(self, entry: str) -> str:
        return storage.join(self.root, entry[:2], f"{entry}{SUFFIX}")

    def write(self, entry: str, y_CHW: Tensor) -> None:
        """Store one picture's features, rounded to float16, in one atomic write."""
        clipped = y_CHW.clamp(-65504.0, 65504.0).to(torch.float16).cpu().contiguous()
        data = safetensors.torch.save({"y": clipped})
        storage.write_atomically(self._uri(entry), _digest(data) + data)

    def read(self, entry: str) -> Tensor | None:
        """One picture's features (C, H, W), float16, or None if missing or damaged."""
        data = storage.read(self._uri(entry))
        if data is None or data[:_DIGEST_BYTES] != _digest(data[_DIGEST_BYTES:]):
            return None
        try:
            return safetensors.torch.load(data[_DIGEST_BYTES:])["y"]
        except (safetensors.SafetensorError, KeyError, struct.error):
            return None

    def names(self) -> NDArray[np.bytes_]:
        """Names of all entries, sorted, by one listing: what they hold is checked by reading."""
        files = store_folders.list_tree(self.root)
        found = [f.rpartition("/")[2].removesuffix(SUFFIX) for f in files if f.endswith(SUFFIX)]
        return np.array(sorted(found), dtype=np.bytes_)

    def load(self, entries: list[str]) -> Tensor:
        """Features of many pictures in the order given, (N, C, H, W), float16.

        Raises:
            FeaturesError: an entry is missing or damaged.
        """
        with ThreadPoolExecutor(self.threads) as pool:
            maps = list(pool.map(self.read, entries))
        missing = [entry for entry, y in zip(entries, maps, strict=True) if y is None]
        if missing:
            raise FeaturesError(
                f"{len(missing)} of {len(entries)} features are not in the cache at {self.root}, "
                f"first {missing[0]}: run the same command again, they are computed anew."
            )
        return torch.stack([y for y in maps if y is not None])


def is_among(names: NDArray[np.bytes_], entry: str) -> bool:
    """Whether an entry is among sorted names."""
    wanted = entry.encode()
    place = int(np.searchsorted(names, np.bytes_(wanted)))
    return place < len(names) and bytes(names[place]) == wanted


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()

"""From merged files to the data set that readers see (``dataset`` says how it appears)."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from nfbmr import storage, store_folders
from nfbmr.score.dataset import data_uri
from nfbmr.score.parts import is_part
from nfbmr.score.units import UNITS_FOLDER
from nfbmr.store_faults import retried

_MERGE_PREFIX = "_merge-"
_COPIES = 8


def merge_folder(output: str) -> str:
    """A new folder for one driver's merge; other drivers of the run have others."""
    return storage.join(output, _MERGE_PREFIX + uuid.uuid4().hex)


def is_published(output: str) -> bool:
    """Whether the whole data set is there already, with or without its marker.

    Only a disk can tell: there the data folder appears with all of its files at once.
    """
    fs, path = storage.file_system(data_uri(output))
    return isinstance(fs, LocalFileSystem) and bool(fs.exists(path))


def publish(output: str, folder: str, names: Sequence[str]) -> None:
    """Make merged files the run's data set.

    Where another driver of the same run was faster, its files stay: they hold the same rows.

    Args:
        output: of the run.
        folder: where the files are; gone afterwards.
        names: of the files below the folder.
    """
    fs, path = storage.file_system(folder)
    _, target = storage.file_system(data_uri(output))
    if isinstance(fs, LocalFileSystem):
        # What a task that was killed while it wrote has left there.
        strangers = [name for name in store_folders.list_tree(folder) if not is_part(name)]
        store_folders.remove_files(folder, strangers)
        try:
            Path(path).rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            store_folders.remove_tree(folder)
        return
    with ThreadPoolExecutor(_COPIES, thread_name_prefix="nfbmr-publish") as pool:
        list(pool.map(lambda name: _copy(fs, f"{path}/{name}", f"{target}/{name}"), names))
    # Those of a merge with other settings; whatever else is there stays.
    store_folders.remove_files(data_uri(output), sorted(set(published_files(output)) - set(names)))
    store_folders.remove_tree(folder)


def _copy(fs: AbstractFileSystem, source: str, target: str) -> None:
    retried(lambda: fs.copy(source, target))


def published_files(output: str) -> list[str]:
    """Names of the data set's files below the data folder, sorted; what else lies there is none."""
    return sorted(name for name in store_folders.list_tree(data_uri(output)) if is_part(name))


def remove_leftovers(output: str) -> None:
    """Drop the units and what cut-off merges left, once the data set has its marker."""
    store_folders.remove_tree(storage.join(output, UNITS_FOLDER))
    for name in store_folders.list_folders(output):
        if name.startswith(_MERGE_PREFIX):
            store_folders.remove_tree(storage.join(output, name))
    partial = [name for name in store_folders.list_names(output) if storage.is_partial(name)]
    store_folders.remove_files(output, partial)

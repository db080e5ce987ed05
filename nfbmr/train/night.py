"""What a campaign remembers of itself until it ends, so that the same command goes on with it.

A night is one run of one command: the same data root, layout, categories, registry and settings.
Its folder is there from the command's start until it has nothing left to do; while it is there,
the same command goes on with that night, and afterwards, or when the night has lasted for too long,
it begins a new one.

``<root>/<night>/night.json``               when it began and was last gone on with, and which
                                            categories it did not reach
``<root>/<night>/<fit>/…``                  states of an unfinished fit (``FitCheckpoint``)
``<root>/<night>/<fit>.fitted.json``        where the finished detector waits to be registered
``<root>/<night>/<fit>.result.json``        the row of a category that is finished
``<root>/<night>/runs/…``                   Ray Train's storage

``<fit>`` is the category with a fingerprint of its data and settings: a category whose pictures
have changed since begins anew. Every file is written in one atomic write.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nfbmr import storage, store_folders
from nfbmr.errors import STORE_FAULTS, StoreError
from nfbmr.progress import Progress

_KEPT_DAYS = 14.0
_DAY_S = 86400.0
_NIGHT = "night.json"
_RUNS = "runs"
_ENCODING = ("utf-8", "surrogateescape")
_LONGEST_NAME_BYTES = 120
_FITTED = ".fitted.json"
_RESULT = ".result.json"


class Night:
    """The folder of one night; opened by ``open_night``.

    Args:
        folder: where.
        started_at: seconds since 1970.
        waited_for: categories that the same night did not reach when it was cut by its time.
        is_resumed: whether it was there already.
    """

    def __init__(
        self, folder: str, started_at: float, waited_for: frozenset[str], *, is_resumed: bool
    ) -> None:
        self.folder = folder
        self.started_at = started_at
        self.waited_for = waited_for
        self.is_resumed = is_resumed

    @property
    def runs(self) -> str:
        """Ray Train's storage."""
        return storage.join(self.folder, _RUNS)

    def fit_name(self, category: str, fingerprint: str) -> str:
        """``<fit>``: one category's files of this night."""
        return f"{_file_name(category)}.{fingerprint[:16]}"

    def states(self, fit: str) -> str:
        """Folder for the states of an unfinished fit."""
        return storage.join(self.folder, fit)

    def result(self, fit: str) -> dict[str, Any] | None:
        """The row of a finished category; None where it is not finished."""
        return self._read(fit + _RESULT)

    def results(self) -> dict[str, dict[str, Any]]:
        """The rows of all categories that are finished, by ``<fit>``."""
        names = [n for n in store_folders.list_names(self.folder) if n.endswith(_RESULT)]
        rows = {name.removesuffix(_RESULT): self._read(name) for name in names}
        return {fit: row for fit, row in rows.items() if row is not None}

    def forget_results(self) -> None:
        """No category is finished any more."""
        names = [n for n in store_folders.list_names(self.folder) if n.endswith(_RESULT)]
        store_folders.remove_files(self.folder, names)

    def note_result(self, fit: str, row: dict[str, Any]) -> None:
        """Remember that a category is finished, and drop what only unfinished ones need."""
        self._write(fit + _RESULT, row)
        fitted = self.fitted(fit)
        if fitted is not None:
            store_folders.remove_tree(storage.join(self.runs, fitted["run"]))
            store_folders.remove_tree(storage.join(self.folder, fit + _FITTED))
        store_folders.remove_tree(self.states(fit))

    def fitted(self, fit: str) -> dict[str, Any] | None:
        """Where a finished detector waits for its registration; None where there is none."""
        return self._read(fit + _FITTED)

    def note_fitted(self, fit: str, run: str, checkpoint: str) -> None:
        """Remember a finished detector before it is registered.

        Args:
            fit: whose.
            run: name of the Ray Train run in ``runs``.
            checkpoint: where the run left it.
        """
        self._write(fit + _FITTED, {"run": run, "checkpoint": checkpoint})

    def forget_fitted(self, fit: str) -> None:
        """The finished detector cannot be used: the category has to be fitted again."""
        store_folders.remove_tree(storage.join(self.folder, fit + _FITTED))

    def forget_others(self, fits: Mapping[str, str], spared: Collection[str]) -> None:
        """Drop what was kept of fits that the command does not have any more.

        A night that a failing category keeps open would otherwise gather the fits of all pictures
        that its categories ever had.

        Args:
            fits: names of the fits that the command has now, by category.
            spared: further categories whose fits stay, whatever they are.
        """
        kept, whole = set(fits.values()), {_file_name(category) for category in spared}

        def is_gone(fit: str) -> bool:
            return fit not in kept and fit.rpartition(".")[0] not in whole

        for name in store_folders.list_folders(self.folder):
            if name != _RUNS and is_gone(name):
                store_folders.remove_tree(self.states(name))
        for name in store_folders.list_names(self.folder):
            fit = name.removesuffix(_RESULT).removesuffix(_FITTED)
            if fit == name or not is_gone(fit):
                continue
            fitted = self._read(name) if name.endswith(_FITTED) else None
            if fitted is not None and "run" in fitted:
                store_folders.remove_tree(storage.join(self.runs, str(fitted["run"])))
            store_folders.remove_files(self.folder, [name])

    def keep_waiting(self, categories: frozenset[str]) -> None:
        """The night was cut: the same command goes on with these categories first."""
        values = {"started_at": self.started_at, "used_at": time.time()}
        self._write(_NIGHT, {**values, "waited_for": sorted(categories)})

    def close(self) -> None:
        """The night has nothing left to do."""
        store_folders.remove_tree(self.folder)

    def _read(self, name: str) -> dict[str, Any] | None:
        """A file of the night; a damaged one is as good as none: its category is fitted again."""
        data = storage.read(storage.join(self.folder, name))
        try:
            values = None if data is None else json.loads(data)
        except ValueError:
            return None
        return values if isinstance(values, dict) else None

    def _write(self, name: str, values: dict[str, Any]) -> None:
        storage.write_atomically(
            storage.join(self.folder, name), json.dumps(values).encode(), durable=True
        )


def _file_name(category: str) -> str:
    """The category in names of files, of which a file system takes 255 bytes."""
    if len(category.encode(*_ENCODING)) <= _LONGEST_NAME_BYTES:
        return category
    digest = hashlib.blake2b(category.encode(*_ENCODING), digest_size=8).hexdigest()
    return f"{category[:16]}~{digest}"


def open_night(root: str, key: str, progress: Progress, resume_hours: float = math.inf) -> Night:
    """Go on with a command's unfinished night, or begin a new one.

    Nights of other commands that nobody has gone on with for two weeks are removed.

    Args:
        root: folder or ``s3://`` prefix of all nights.
        key: fingerprint of the command.
        progress: told of what is damaged.
        resume_hours: a night that began longer ago is over: a new one begins, in which no category
            is finished. Unfinished fits go on, and categories that had to wait come first.
    """
    now = time.time()
    _remove_forgotten(root, key, now)
    folder = storage.join(root, key)
    begun = _begun(storage.join(folder, _NIGHT))
    if begun is not None:
        is_resumed = now - begun.started_at < 3600.0 * resume_hours
        started_at = begun.started_at if is_resumed else now
        night = Night(folder, started_at, begun.waited_for, is_resumed=is_resumed)
        if not is_resumed:
            progress.say(
                f"The night before is over after night.resume_hours = {resume_hours:g}: a new one "
                "begins, in which unfinished fits go on from their last state"
            )
            night.forget_results()  # First: cut short here, the same happens again.
        night.keep_waiting(begun.waited_for)
        return night
    if storage.read(storage.join(folder, _NIGHT)) is not None:
        progress.say(f"{folder}/{_NIGHT} is damaged: the night begins anew")
        store_folders.remove_tree(folder)
    night = Night(folder, now, frozenset(), is_resumed=False)
    night.keep_waiting(frozenset())
    return night


def _remove_forgotten(root: str, key: str, now: float) -> None:
    for name in store_folders.list_folders(root):
        begun = None if name == key else _begun(storage.join(root, name, _NIGHT))
        if begun is not None and now - begun.used_at > _KEPT_DAYS * _DAY_S:
            store_folders.remove_tree(storage.join(root, name))


@dataclass(frozen=True)
class _Begun:
    started_at: float
    used_at: float
    waited_for: frozenset[str]


def _begun(uri: str) -> _Begun | None:
    """What a night's own file says; None where that cannot be read."""
    data = storage.read(uri)
    if data is None:
        return None
    try:
        values = json.loads(data)
        started_at = float(values["started_at"])
        waited_for = frozenset(map(str, values["waited_for"]))
        return _Begun(started_at, float(values.get("used_at", started_at)), waited_for)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


@contextmanager
def tolerated(progress: Progress, what: str) -> Iterator[None]:
    """What a night cannot write down costs time in another night, and nothing in this one."""
    try:
        yield
    except (*STORE_FAULTS, StoreError) as error:
        progress.say(f"warning: {what}: {error}")

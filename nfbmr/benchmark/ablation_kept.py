"""Rows of Table 5 that an earlier run of the same command has measured already."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from nfbmr import plain_values, storage
from nfbmr.benchmark.ablation_task import AblationTask, RowResult
from nfbmr.published import TABLE5
from nfbmr.train.fingerprints import fingerprint, settings_fingerprint


class KeptRows:
    """One small file per category and seed, named by all that its rows depend on.

    Args:
        folder: where they lie; made with the first one.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def find(self, task: AblationTask) -> list[RowResult] | None:
        """A task's rows; None where they were not measured yet, or their file is damaged."""
        data = storage.read(self.place(task))
        if data is None:
            return None
        try:
            return _rows(json.loads(data), task)
        except (ValueError, TypeError, KeyError):
            return None

    def keep(self, task: AblationTask, rows: Sequence[RowResult]) -> None:
        """Write a task's rows, all or none."""
        text = json.dumps([asdict(row) for row in rows])
        storage.write_atomically(self.place(task), text.encode())

    def place(self, task: AblationTask) -> str:
        """The file of a task: pictures, labels, settings or code that differ give another one."""
        name = fingerprint(
            settings_fingerprint(task.config, {"key": task.backbone_key}),
            [task.category, task.seed],
            [list(task.fit_entries), list(task.held_out_entries), list(task.synthetic_entries)],
            [list(task.test_entries), list(task.is_defective)],
            [asdict(row) for row in TABLE5],
        )
        return storage.join(self.folder, f"{name}.json")


def _rows(values: object, task: AblationTask) -> list[RowResult]:
    rows = [RowResult(**plain_values.mapping(value)) for value in plain_values.items(values)]
    for row in rows:
        plain_values.text(row.aggregate)
        plain_values.number(row.image_auroc)
        plain_values.number(row.image_auroc_of_mean)
    expected = [(task.category, task.seed, i) for i in range(len(TABLE5))]
    if [(row.category, row.seed, row.row) for row in rows] != expected:
        raise ValueError("these are rows of something else")
    return rows

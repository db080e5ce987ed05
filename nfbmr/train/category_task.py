"""What a category's fit is given, and what it reports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from nfbmr import plain_values
from nfbmr.config import Config
from nfbmr.train.fingerprints import fingerprint, settings_fingerprint
from nfbmr.train.fit import EpochLosses
from nfbmr.train.worst import WorstPicture

REPORT_FILE = "fit.json"


@dataclass(frozen=True)
class CategoryTask:
    """Everything a worker needs to fit one category.

    Attributes:
        category: the product type.
        config: all settings.
        cache_root: where the features are.
        backbone_key: which backbone's.
        backbone: that backbone's identity.
        fit_entries: cache entries of the pictures to fit on.
        held_out_entries: of the normal pictures to calibrate with; the same as ``fit_entries``
            where they are cross-fitted.
        synthetic_entries: of held-out pictures with synthetic defects.
        folds: how many times heads are fitted to calibrate by cross-fitting; 0 where the pictures
            that calibrate are held out.
        lineage: goes into the detector.
        labelled_entries: labelled test pictures and whether each is defective; only the promotion
            gate looks at their scores.
        uris: where all these pictures lie, by entry.
        state_root: folder or ``s3://`` prefix where the fit keeps its state; None keeps none.
        memory_share: of the device that is the worker's.
    """

    category: str
    config: Config
    cache_root: str
    backbone_key: str
    backbone: dict[str, Any]
    fit_entries: Sequence[str]
    held_out_entries: Sequence[str]
    synthetic_entries: Sequence[str]
    folds: int = 0
    lineage: dict[str, Any] = field(default_factory=dict)
    labelled_entries: Mapping[str, bool] = field(default_factory=dict)
    uris: Mapping[str, str] = field(default_factory=dict)
    state_root: str | None = None
    memory_share: float = 1.0

    @property
    def fingerprint(self) -> str:
        """Of what the fit depends on, in the order in which it matters."""
        return fingerprint(
            list(self.fit_entries),
            list(self.held_out_entries),
            list(self.synthetic_entries),
            settings_fingerprint(self.config, self.backbone),
        )


@dataclass
class FitReport:
    """What a fit tells besides the detector.

    Attributes:
        losses: per epoch, as the fit reported them.
        aggregate: which aggregate was taken.
        synthetic_aurocs: per aggregate, where they were measured.
        threshold: the score above which a picture is anomalous.
        p_value_floor: the smallest p-value the calibration can give.
        seconds: the fit's wall time on its worker; where it was cut short, up to its last state
            and from there on.
        worst: training pictures that fit worst, the worst first.
        trimmed: training pictures that were left out because they fit worst.
    """

    losses: list[EpochLosses]
    aggregate: str
    synthetic_aurocs: dict[str, float]
    threshold: float
    p_value_floor: float
    seconds: float
    worst: list[WorstPicture] = field(default_factory=list)
    trimmed: int = 0

    def save(self, folder: Path) -> None:
        """Write ``fit.json`` beside the detector."""
        (folder / REPORT_FILE).write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> FitReport:
        """Read what ``save`` wrote.

        Raises:
            ValueError: it is something else; KeyError and TypeError likewise.
        """
        values = plain_values.mapping(json.loads((folder / REPORT_FILE).read_text()))
        plain_values.only(values, (each.name for each in fields(cls)))
        return cls(
            losses=[EpochLosses.from_dict(row) for row in plain_values.items(values["losses"])],
            aggregate=plain_values.text(values["aggregate"]),
            synthetic_aurocs=plain_values.numbers(values["synthetic_aurocs"]),
            threshold=plain_values.number(values["threshold"]),
            p_value_floor=plain_values.number(values["p_value_floor"]),
            seconds=plain_values.number(values["seconds"]),
            worst=[
                WorstPicture.from_dict(row) for row in plain_values.items(values.get("worst", []))
            ],
            trimmed=plain_values.count(values.get("trimmed", 0)),
        )

"""What a fit leaves behind for its judges: the score of every picture that was not fitted on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from nfbmr import plain_values

EVIDENCE_FILE = "evidence.json"


@dataclass(frozen=True)
class Evidence:
    """Image scores by picture, under the name that the feature cache gives it.

    Names follow from the pictures' content, so the evidence of two versions can be compared where
    both saw the same picture, whatever their backbones.

    Attributes:
        held_out: normal pictures of the calibration, in the order of their file names.
        synthetic: held-out pictures with synthetic defects.
        labelled: labelled test pictures.
        defective: those of ``labelled`` that are defective.
        fitted: pictures that were fitted on and not held out: their scores would flatter.
        cache_root: where the features lay.
        backbone_key: whose they were.
    """

    held_out: dict[str, float]
    synthetic: dict[str, float] = field(default_factory=dict)
    labelled: dict[str, float] = field(default_factory=dict)
    defective: tuple[str, ...] = ()
    fitted: tuple[str, ...] = ()
    cache_root: str = ""
    backbone_key: str = ""

    @property
    def scores(self) -> dict[str, float]:
        """All scores by name."""
        return {**self.labelled, **self.synthetic, **self.held_out}

    def to_json(self) -> str:
        """The content of ``evidence.json``."""
        return json.dumps(asdict(self), indent=0) + "\n"

    def save(self, folder: Path) -> None:
        """Write ``evidence.json`` beside the detector."""
        (folder / EVIDENCE_FILE).write_text(self.to_json())

    @classmethod
    def from_json(cls, text: str | bytes) -> Evidence:
        """Parse what ``to_json`` wrote.

        Raises:
            ValueError: it is something else; KeyError and TypeError likewise.
        """
        values = plain_values.mapping(json.loads(text))
        plain_values.only(values, (each.name for each in fields(cls)))
        return cls(
            held_out=plain_values.numbers(values["held_out"]),
            synthetic=plain_values.numbers(values["synthetic"]),
            labelled=plain_values.numbers(values["labelled"]),
            defective=plain_values.texts(values["defective"]),
            fitted=plain_values.texts(values["fitted"]),
            cache_root=plain_values.text(values["cache_root"]),
            backbone_key=plain_values.text(values["backbone_key"]),
        )

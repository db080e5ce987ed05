"""One labelled picture of a data set: where it lies and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass

NORMAL = "good"


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture of a labelled data set.

    Attributes:
        uri: where the encoded picture lies, as fsspec opens it (a path or ``s3://…``).
        category: product type; one category is one detector.
        split: ``train`` (normal pictures to fit on) or ``test``.
        defect_type: ``good`` for a normal picture, else the data set's word for the defect.
        mask_uri: where the picture's mask lies (non-zero = defective), or None.
        folder: where the layout lets folders lie among pictures of one kind: those that the picture
            lies in, below that of its kind (``2026-11-01/part-07``); empty where there are none.
    """

    uri: str
    category: str
    split: str
    defect_type: str = NORMAL
    mask_uri: str | None = None
    folder: str = ""

    @property
    def name(self) -> str:
        """The file's name with its ``folder``: of a picture's kind no other one has the same."""
        name = self.uri.rpartition("/")[2]
        return f"{self.folder}/{name}" if self.folder else name

    @property
    def is_defective(self) -> bool:
        """Whether the data set labels the picture as defective."""
        return self.defect_type != NORMAL

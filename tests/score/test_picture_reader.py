"""Whether a store answers at all, told by asking it for pictures that could be read before."""

import pytest

from nfbmr.data.archive_entry import ArchiveEntry
from nfbmr.errors import DataError
from nfbmr.score import picture_reader
from nfbmr.score.picture_reader import gives_any
from nfbmr.score.plan import PlannedPicture
from tests.test_store_faults import s3_error

PICTURES = [
    PlannedPicture(f"/a/{n}.png", "/a", f"{n}.png", None, 9, "v", "bottle") for n in range(9)
]


def failing(cause: BaseException | None, kind: str = "source") -> DataError:
    error = DataError("it cannot be read", kind)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "answers"),
    [
        (None, True),
        (failing(FileNotFoundError("gone")), False),
        (failing(None, "changed"), True),
        (failing(s3_error("SlowDown", 503)), False),
        (failing(ConnectionResetError()), False),
        (failing(s3_error("AccessDenied", 403)), False),
        (failing(s3_error("ExpiredToken", 400)), False),
    ],
)
def test_another_picture_is_an_answer_and_silence_and_absence_are_none(
    error: DataError | None, answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def read(entry: ArchiveEntry) -> bytes:
        asked.append(entry.member)
        if error is not None:
            raise error
        return b"x"

    monkeypatch.setattr(picture_reader, "read_entry", read)
    assert gives_any(PICTURES) is answers
    assert not gives_any([])
    assert len(set(asked)) <= 4

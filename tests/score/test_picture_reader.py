"""Whether a store answers at all, told by asking it for pictures that could be read before."""

import errno
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nfbmr.data.archive_entry import ArchiveEntry
from nfbmr.errors import DataError
from nfbmr.score import picture_reader
from nfbmr.score.picture_reader import PictureReader, gives_any
from nfbmr.score.plan import PlannedPicture
from nfbmr.store_faults import StoreFault
from tests.data.test_archives import tar_bytes, zip_bytes
from tests.score.planning import listed
from tests.test_store_faults import s3_error

MEMBERS = {f"bottle/{number}.png": b"%d" % number for number in range(4)}

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
        (failing(PermissionError(errno.EACCES, "a share whose rights are gone")), False),
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


def test_a_unit_whose_first_pictures_are_refused_answers_with_its_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(entry: ArchiveEntry) -> bytes:
        if int(entry.member.removesuffix(".png")) < 6:
            raise failing(s3_error("AccessDenied", 403))
        return b"x"

    monkeypatch.setattr(picture_reader, "read_entry", read)
    assert gives_any(PICTURES)
    assert not gives_any(PICTURES[:6])


def parquet(path: Path) -> None:
    table = pa.table({"name": list(MEMBERS), "image": list(MEMBERS.values())})
    pq.write_table(table, path, row_group_size=1)


PACKERS: dict[str, Callable[[Path], object]] = {
    "a.tar": lambda path: path.write_bytes(tar_bytes(MEMBERS)),
    "a.tar.gz": lambda path: path.write_bytes(tar_bytes(MEMBERS, "w:gz")),
    "a.zip": lambda path: path.write_bytes(zip_bytes(MEMBERS)),
    "a.parquet": parquet,
}


@pytest.mark.parametrize("was_open", [False, True], ids=["never opened", "opened before"])
@pytest.mark.parametrize("indexes", [False, True], ids=["no index", "index"])
@pytest.mark.parametrize("name", PACKERS)
def test_an_archive_that_is_gone_is_missing_whatever_its_kind(
    name: str, indexes: bool, was_open: bool, tmp_path: Path
) -> None:
    """A share that is not mounted: a run holds such units back, but not those that are damaged."""
    path = tmp_path / name
    PACKERS[name](path)
    keep = str(tmp_path / "indexes") if indexes else None
    rows = listed([str(path)], keep=keep).to_pylist()
    pictures = [PlannedPicture(**row) for row in rows]
    reader = PictureReader(0.0)
    if was_open:
        assert reader.read(pictures[0]).data == MEMBERS["bottle/0.png"]
    path.unlink()
    for read in map(reader.read, pictures[1:]):
        assert read.error is not None
        assert read.error.kind == StoreFault.MISSING
        assert read.refused is None


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EKEYEXPIRED])
def test_what_a_mounted_share_refuses_is_asked_for_again_when_all_others_are_done(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def read(entry: ArchiveEntry) -> bytes:
        asked.append(entry.member)
        raise failing(OSError(number, "refused"))

    monkeypatch.setattr(picture_reader, "read_entry", read)
    found = PictureReader(0.0).read(PICTURES[0])
    assert found.refused == StoreFault.DENIED
    assert asked == ["0.png"]

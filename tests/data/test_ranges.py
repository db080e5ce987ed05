"""Ranges of bytes: all of them, whatever a store says at first."""

from pathlib import Path

import pytest

from nfbmr.data import ranges
from nfbmr.data.archives import list_archive
from nfbmr.store_faults import StoreFault, fault_of, patience
from tests.data.test_requests import make_tar, make_zip


@pytest.mark.parametrize(("name", "data"), [("a.tar", make_tar()), ("a.zip", make_zip())])
def test_an_answer_that_was_cut_short_is_asked_for_again(
    name: str, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in review: while an archive was listed, it was taken for the archive's end."""
    path = tmp_path / name
    path.write_bytes(data)
    expected = [(e.member, e.offset, e.length) for e in list_archive(str(path)).entries]
    original, cut = ranges.fetch, []

    def sometimes_half(uri: str, *place: object) -> bytes:
        whole = original(uri, *place)  # type: ignore[arg-type]
        if len(cut) % 2 == 0 and len(whole) > 1:
            cut.append(len(whole))
            return whole[: len(whole) // 2]
        cut.append(0)
        return whole

    monkeypatch.setattr(ranges, "fetch", sometimes_half)
    listing = list_archive(str(path))
    assert cut
    assert listing.problems == []
    assert [(e.member, e.offset, e.length) for e in listing.entries] == expected


def test_what_stays_short_is_the_stores_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"0123456789")
    monkeypatch.setattr(ranges, "fetch", lambda *_: b"01234")
    with patience(0.0), pytest.raises(Exception, match="IncompleteRead") as caught:
        ranges.fetch_patiently(str(path), 0, 10, None)
    assert fault_of(caught.value) is StoreFault.BUSY

"""Pictures that a store did not give are asked for again; nothing is fitted on the rest of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import fsspec
import pytest

from nfbmr import storage
from nfbmr.errors import DataError, StoreError
from nfbmr.train.feature_index import FeatureIndex, Picture
from nfbmr.train.store_silence import PatientReader, StoreSilence, is_silence, settled
from tests.services import faulty_proxy as faulty
from tests.services.faulty_proxy import FaultyProxy, store_behind_proxy
from tests.services.swift import ObjectStore

PICTURES = [Picture("a.png"), Picture("a.png", 1), Picture("b.png"), Picture("c.png")]
BUSY = frozenset(PICTURES[1:3])


class Passes:
    """Passes over pictures, each with a store that does not give some of them.

    Attributes:
        asked: what each pass was asked for.
    """

    def __init__(self, *busy: frozenset[Picture]) -> None:
        self._busy = list(busy)
        self.asked: list[list[Picture]] = []

    def __call__(self, pictures: Sequence[Picture]) -> FeatureIndex:
        self.asked.append(list(pictures))
        busy = self._busy.pop(0) & set(pictures)
        entries = {p: f"{p.uri}-{p.variant}" for p in pictures if p not in busy}
        errors = {p: f"{p.uri}: slow down" for p in busy}
        return FeatureIndex("key", {}, entries, errors, entries, len(entries), busy)


def test_what_a_store_did_not_give_is_asked_for_once_more() -> None:
    said: list[str] = []
    passes = Passes(BUSY, frozenset(PICTURES[2:]))
    index = settled(PICTURES, Passes(frozenset()), said.append, [0.0])
    assert (index.entries.keys(), said) == (set(PICTURES), [])
    passes = Passes(BUSY, frozenset(PICTURES[2:]), frozenset())
    index = settled(PICTURES, passes, said.append, [0.0, 0.0])
    assert passes.asked == [PICTURES, PICTURES[1:3], PICTURES[2:3]]
    assert (index.entries.keys(), index.errors, index.busy) == (set(PICTURES), {}, frozenset())
    assert index.computed == len(PICTURES)
    assert [sentence.split(":")[0] for sentence in said] == [
        "The store did not give 2 pictures",
        "The store did not give 1 pictures",
    ]


def test_a_picture_that_a_store_never_gives_is_an_error_while_others_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(b"given")
    index = settled(PICTURES, Passes(BUSY, BUSY), lambda _: None, [0.0])
    assert index.errors.keys() == BUSY
    everything = frozenset(PICTURES)
    with pytest.raises(StoreError, match="gives no picture any more"):
        settled(PICTURES, Passes(everything, everything), lambda _: None, [0.0])


def test_a_pass_ends_where_nothing_was_given_at_all() -> None:
    silence = StoreSilence(silent_before_stop=3)
    silence.look("1.png", "slow down", busy=True)
    silence.look("2.png", "slow down", busy=True)
    silence.look("3.png", "no picture", busy=False)  # An answer: the store is there.
    silence.look("4.png", "slow down", busy=True)
    silence.look("5.png", "slow down", busy=True)
    with pytest.raises(StoreError, match="run the same command again"):
        silence.look("6.png", "slow down", busy=True)


@pytest.fixture
def proxy(swift: ObjectStore) -> Iterator[FaultyProxy]:
    with store_behind_proxy(swift) as running:
        yield running


@pytest.mark.integration
def test_silence_of_a_real_store_is_told_from_that_of_a_picture(proxy: FaultyProxy) -> None:
    bucket = f"s3://silence-{proxy.port}"
    fsspec.filesystem("s3").mkdir(bucket)
    good, bad = f"{bucket}/good.png", f"{bucket}/bad.png"
    for uri in (good, bad):
        storage.write_atomically(uri, b"encoded")
    reader = PatientReader(patience_s=1.0)
    silence = StoreSilence(silent_before_stop=2)
    silence.look(good, None, busy=False)
    with proxy.faults(lambda ask: faulty.SLOW_DOWN if "bad" in ask.path else None):
        refused = reader.read(bad)
        assert isinstance(refused, DataError)
        assert is_silence(refused)
        assert reader.read(good) == b"encoded"
        for _ in range(4):  # The other one is given: no reason to stop.
            silence.look(bad, str(refused), busy=True)
    missing = reader.read(f"{bucket}/missing.png")
    assert isinstance(missing, DataError)
    assert not is_silence(missing)
    assert reader.read(bad) == b"encoded"

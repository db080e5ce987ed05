"""A tar listed in many slices gives what one reader gives, whatever its pictures look like."""

import gzip
import io
import tarfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nfbmr.data.archive_entry import ArchiveListing
from nfbmr.data.archives import join_slices, list_archive, read_entry
from nfbmr.data.picture_names import is_picture
from nfbmr.data.ranges import size_and_version
from nfbmr.data.tar_headers import looks_like_header
from nfbmr.data.tar_lister import TarLister

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
SLICES = [512, 1024, 3 * 512, 10 * 512, 64 * 512]


def packed(members: list[tuple[str, bytes]], fmt: int, has_end: bool = True) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=fmt) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        end = tar.offset
    return out.getvalue() if has_end else out.getvalue()[:end]


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A whole, valid header: as the content of a picture it promises members that are not there."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.USTAR_FORMAT)


FORMAT = st.sampled_from(list(FORMATS.values()))
SHORT = st.text("ab/ö ", max_size=12).map(lambda name: f"c/{name}x.png")
LONG = st.integers(101, 240).map(lambda n: f"{'folder/' * (n // 7)}{'n' * (n % 7)}.png")
PLAIN = st.one_of(st.binary(max_size=40), st.integers(0, 5000).map(lambda n: b"\xff" * n))
TRAPS = st.one_of(
    st.tuples(st.integers(0, 9000), st.sampled_from([b"0", b"x", b"L", b"g", b"5"])).map(
        lambda parts: header("trap.png", parts[0], parts[1]) + b"z" * 700
    ),
    st.integers(1, 600).map(lambda n: bytes(n) + header("unaligned.png", 100)),
    st.integers(1, 3).map(lambda n: header("a.png", 512) * n + bytes(1024)),
)
EMBEDDED = st.tuples(
    st.lists(st.tuples(st.one_of(SHORT, LONG), PLAIN), min_size=1, max_size=4),
    FORMAT,
    st.booleans(),
    st.sampled_from([b"", bytes(512), b"q" * 512, b"q" * 1024]),
).map(lambda parts: parts[3] + packed(*parts[:3]))
MEMBERS = st.lists(
    st.tuples(st.one_of(SHORT, LONG, st.just("notes.txt")), st.one_of(PLAIN, TRAPS, EMBEDDED)),
    min_size=1,
    max_size=12,
)


def listed(uri: str, slice_bytes: int) -> ArchiveListing:
    lister = TarLister(uri, *size_and_version(uri), slice_bytes)
    return join_slices(lister, [lister.list_slice(name) for name in lister.slices])


def by_tarfile(data: bytes) -> dict[str, tuple[int, int]]:
    """What Python's own reader finds: the place of the last picture of each name."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {m.name: (m.offset_data, m.size) for m in tar if m.isreg() and is_picture(m.name)}


def places(listing: ArchiveListing) -> dict[str, tuple[int | None, int | None]]:
    return {entry.member: (entry.offset, entry.length) for entry in listing.entries}


@given(members=MEMBERS, fmt=FORMAT, slice_bytes=st.sampled_from(SLICES))
@settings(max_examples=150, deadline=None)
def test_slices_give_what_one_reader_gives(
    tmp_path_factory: pytest.TempPathFactory,
    members: list[tuple[str, bytes]],
    fmt: int,
    slice_bytes: int,
) -> None:
    members = [*members, ("last.png", b"last")]
    data = packed(members, fmt)
    path = tmp_path_factory.mktemp("slices") / "a.tar"
    path.write_bytes(data)
    alone = listed(str(path), 2 * len(data) // 512 * 512)
    sliced = listed(str(path), slice_bytes)
    assert sliced.table.equals(alone.table)
    assert sliced == alone
    assert alone.problems == []
    assert places(sliced) == by_tarfile(data)


@given(
    members=st.lists(st.tuples(SHORT, st.one_of(PLAIN, EMBEDDED)), min_size=3, max_size=8),
    slice_bytes=st.sampled_from(SLICES),
    cut=st.floats(0.2, 1.0),
    place=st.floats(0.2, 1.0),
)
@settings(max_examples=60, deadline=None)
def test_damage_is_told_the_same_way_by_slices(
    tmp_path_factory: pytest.TempPathFactory,
    members: list[tuple[str, bytes]],
    slice_bytes: int,
    cut: float,
    place: float,
) -> None:
    data = bytearray(packed([("first.png", b"1"), *members], tarfile.PAX_FORMAT))
    data = data[: max(1600, int(len(data) * cut))]
    data[min(len(data) - 1, max(1600, int(len(data) * place)))] ^= 0x55
    path = tmp_path_factory.mktemp("damaged") / "a.tar"
    path.write_bytes(bytes(data))
    alone = listed(str(path), 2 * len(data) // 512 * 512 + 512)
    sliced = listed(str(path), slice_bytes)
    assert sliced.table.equals(alone.table)
    assert sliced.problems == alone.problems


SIZE_FIELD = range(124, 136)
CHANGED = st.tuples(
    st.integers(0, 511).filter(lambda place: place not in SIZE_FIELD), st.integers(1, 255)
)
WHOLE_TAR = st.tuples(
    st.lists(st.tuples(SHORT, PLAIN), min_size=1, max_size=3), FORMAT, st.sampled_from([0, 512])
).map(lambda parts: b"q" * parts[2] + packed(*parts[:2]))
VICTIMS = st.one_of(
    # A header that still says how long the picture is, whatever that picture looks like.
    st.tuples(st.one_of(PLAIN, TRAPS, EMBEDDED), CHANGED),
    # Nothing is left of the header: a chain in the picture must not be taken for the archive's.
    st.tuples(st.one_of(PLAIN, WHOLE_TAR), st.sampled_from([b"\0", b"\xa5"])),
)


@given(
    before=st.lists(st.tuples(st.one_of(SHORT, LONG), st.one_of(PLAIN, TRAPS)), max_size=4),
    victim=st.tuples(st.one_of(SHORT, LONG), VICTIMS),
    behind=MEMBERS,
    fmt=FORMAT,
    slice_bytes=st.sampled_from([*SLICES, 2**20]),
    is_first_block=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_a_damaged_header_costs_its_own_picture_and_no_other(
    tmp_path_factory: pytest.TempPathFactory,
    before: list[tuple[str, bytes]],
    victim: tuple[str, tuple[bytes, tuple[int, int] | bytes]],
    behind: list[tuple[str, bytes]],
    fmt: int,
    slice_bytes: int,
    is_first_block: bool,
) -> None:
    """Nothing is listed that the whole archive does not have at the same place, either."""
    name, (content, damage) = victim
    members = [*before, (name, content), *behind, ("last.png", b"last")]
    data = bytearray(packed(members, fmt))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = tar.getmembers()
    lost = found.pop(len(before))
    place = lost.offset if is_first_block else lost.offset_data - 512
    if isinstance(damage, bytes):
        data[place : place + 512] = damage * 512
    else:
        data[place + damage[0]] ^= damage[1]
    assume(not looks_like_header(bytes(data[place : place + 512])))  # a blank for a zero
    path = tmp_path_factory.mktemp("damaged") / "a.tar"
    path.write_bytes(bytes(data))
    listing = listed(str(path), slice_bytes)
    expected = {m.name: (m.offset_data, m.size) for m in found if is_picture(m.name)}
    assert places(listing) == expected
    (problem,) = listing.problems
    assert f"byte {lost.offset}" in problem


def test_global_headers_and_sizes_that_do_not_fit_into_octal_digits(tmp_path: Path) -> None:
    """Base-256 sizes (GNU), sizes and names in PAX records, one of them for all later members."""

    def pax(kind: bytes, **values: str) -> bytes:
        records = tarfile.TarInfo._create_pax_generic_header(values, kind, "utf-8")  # type: ignore[attr-defined]
        return bytes(records)

    def base256(name: str, size: int) -> bytes:
        block = bytearray(header(name, 0))
        block[124:136] = b"\x80" + size.to_bytes(11, "big")
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        return bytes(block)

    def data(content: bytes) -> bytes:
        return content + bytes(-len(content) % 512)

    parts = [
        base256("large.png", 700) + data(b"a" * 700),
        pax(b"x", size="600", path="renamed.png") + header("short.png", 0) + data(b"b" * 600),
        header("between.png", 3) + data(b"c" * 3),
        pax(b"g", size="513", comment="for all that follow"),
        *(header(f"{n}.png", 0) + data(bytes([n]) * 513) for n in range(5)),
        bytes(1024),
    ]
    path = tmp_path / "a.tar"
    path.write_bytes(b"".join(parts))
    expected = {"large.png": b"a" * 700, "renamed.png": b"b" * 600, "between.png": b"c" * 3}
    expected |= {f"{n}.png": bytes([n]) * 513 for n in range(5)}
    for slice_bytes in SLICES:
        listing = listed(str(path), slice_bytes)
        assert {e.member: read_entry(e) for e in listing.entries} == expected
        assert listing.problems == []


def test_links_across_slices(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(20):
            info = tarfile.TarInfo(f"{number}.png")
            info.size = 600
            tar.addfile(info, io.BytesIO(bytes([number]) * 600))
        link = tarfile.TarInfo("again.png")
        link.type, link.linkname = tarfile.LNKTYPE, "3.png"
        tar.addfile(link)
    (tmp_path / "a.tar").write_bytes(out.getvalue())
    listing = listed(str(tmp_path / "a.tar"), 1024)
    assert read_entry(listing.entries[-1]) == bytes([3]) * 600


def test_a_slice_that_is_all_one_picture_is_passed_over(tmp_path: Path) -> None:
    members = [("a.png", b"a"), ("large.png", b"L" * 100_000), ("z.png", b"z")]
    (tmp_path / "a.tar").write_bytes(packed(members, tarfile.USTAR_FORMAT))
    listing = listed(str(tmp_path / "a.tar"), 512)
    assert [entry.member for entry in listing.entries] == ["a.png", "large.png", "z.png"]


def test_on_an_object_store_slices_fetch_ranges_of_the_version_they_were_cut_for(
    s3_bucket: str,
) -> None:
    uri = f"{s3_bucket}/a.tar"
    data = packed([(f"{n}.png", b"x" * 2000) for n in range(50)], tarfile.PAX_FORMAT)
    store = fsspec.filesystem("s3")
    store.pipe_file(uri, data)
    listing = listed(uri, 16 * 512)
    assert places(listing) == by_tarfile(data)
    assert [read_entry(entry) for entry in listing.entries] == [b"x" * 2000] * 50
    assert pa.types.is_large_string(listing.table.schema.field("member").type)


def test_a_size_that_fits_no_64_bits_is_damage_of_its_archive(tmp_path: Path) -> None:
    records = tarfile.TarInfo._create_pax_generic_header({"size": "9" * 25}, b"x", "utf-8")  # type: ignore[attr-defined]
    path = tmp_path / "a.tar"
    path.write_bytes(header("a.png", 1) + bytes([1]) + bytes(511) + records + header("b.png", 0))
    for name in (path, tmp_path / "a.tar.gz"):
        if name.suffix == ".gz":
            name.write_bytes(gzip.compress(path.read_bytes()))
        listing = list_archive(str(name))
        assert [entry.member for entry in listing.entries] == ["a.png"]
        assert "claims 9999999999999999999999999 bytes" in listing.problems[0]

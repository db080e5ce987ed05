"""Manifests: each row is kept, and what they say of a picture is believed."""

import csv
import decimal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfbmr.data import manifest
from nfbmr.data.archives import read_entry
from nfbmr.data.manifest import ABSENT, look_up
from nfbmr.data.manifest_blocks import _absolute
from nfbmr.data.table_columns import MANIFEST, PICTURES, TableColumns
from nfbmr.errors import ConfigError, DamagedTableError, DataError
from nfbmr.storage import absolute_uri
from tests.data.tables import WHEN, contents, listed


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    (tmp_path / "bottle").mkdir()
    for number, data in enumerate(contents(3)):
        (tmp_path / "bottle" / f"{number}.png").write_bytes(data)
    return [str(tmp_path / "bottle" / f"{number}.png") for number in range(3)]


def test_numbers_in_a_csv_stay_what_is_written(tmp_path: Path, pictures: list[str]) -> None:
    lines = ["uri,category,etag,size,captured_at"]
    lines += [f"{uri},007,0012,5,{1_790_000_000 + n}" for n, uri in enumerate(pictures[:2])]
    lines.append(f"{pictures[2]},NA,1e5,,")
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    table = listed(tmp_path / "m.csv").table
    assert table["category"].to_pylist() == ["007", "007", "NA"]
    assert table["version"].to_pylist() == ["0012", "0012", "1e5"]
    assert table["length"].to_pylist() == [5, 5, None]
    years = [time.year if time else None for time in table["captured_at"].to_pylist()]
    assert years == [2026, 2026, None]


def test_a_manifest_as_csv_and_as_parquet(tmp_path: Path, pictures: list[str]) -> None:
    """A relative path, a file URI, an absolute path; categories and times where they are known."""
    uris = ["bottle/0.png", f"file://{pictures[1]}", pictures[2]]
    rows = [(uri, "bottle" if n else "", WHEN.isoformat()) for n, uri in enumerate(uris)]
    with (tmp_path / "m.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("uri", "category", "captured_at"), *rows])
    columns = dict(zip(("image_uri", "category", "time"), zip(*rows, strict=True), strict=True))
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    for name in ("m.csv", "m.parquet"):
        listing = listed(tmp_path / name)
        assert [entry.image_uri for entry in listing.entries] == pictures
        assert listing.image_uris().to_pylist() == pictures
        assert [read_entry(entry) for entry in listing.entries] == contents(3)
        assert listing.table.column("category").to_pylist() == [None, "bottle", "bottle"]
        assert listing.table.column("captured_at").to_pylist() == [WHEN] * 3
        assert listing.category_names.to_pylist() == [f"bottle/{n}.png" for n in range(3)]
    Path(pictures[1]).write_bytes(b"changed")
    with pytest.raises(DataError, match="changed since it was listed"):
        read_entry(listing.entries[1])


def test_a_login_in_a_manifest_is_refused_and_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("uri\ns3://key:hunter2@bucket/a.png\n")
    with pytest.raises(ConfigError, match="has a login in it") as caught:
        listed(tmp_path / "m.csv")
    assert "hunter2" not in str(caught.value)


def test_missing_files_and_empty_rows_of_a_manifest_are_kept(
    tmp_path: Path, pictures: list[str]
) -> None:
    pq.write_table(pa.table({"uri": [pictures[0], None, "gone.png"]}), tmp_path / "m.parquet")
    listing = listed(tmp_path / "m.parquet")
    assert listing.problems == [f"{tmp_path}/m.parquet has no URI in row 2"]
    found, gone = listing.entries
    assert read_entry(found) == contents(1)[0]
    with pytest.raises(DataError, match="does not exist"):
        read_entry(gone)
    (tmp_path / "gone.png").write_bytes(b"came later")
    with pytest.raises(DataError, match="changed since it was listed"):
        read_entry(gone)


def test_what_a_manifest_knows_is_not_looked_up(
    tmp_path: Path, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("looked up")

    monkeypatch.setattr(manifest, "look_up", refuse)
    pq.write_table(pa.table({"uri": pictures[:1], "size": [100]}), tmp_path / "m.parquet")
    (entry,) = listed(tmp_path / "m.parquet").entries
    assert read_entry(entry) == contents(1)[0]
    Path(pictures[0]).write_bytes(b"shorter")
    with pytest.raises(DataError, match="has 7 of its 100 bytes"):
        read_entry(entry)


def test_of_a_slice_only_rows_of_which_nothing_is_said_are_looked_up(
    tmp_path: Path, pictures: list[str]
) -> None:
    """What a manifest says of a picture holds, whatever is missing of another one."""
    Path(pictures[1]).write_bytes(b"changed since the manifest was written")
    table = pa.table(
        {
            "uri": [pictures[0], pictures[1], pictures[2], "gone.png"],
            "etag": [None, '"old"', None, None],
            "size": [None, 101, 102, None],
        }
    )
    pq.write_table(table, tmp_path / "m.parquet")
    entries = listed(tmp_path / "m.parquet").entries
    now = look_up([pictures[0]])[pictures[0]]
    assert [(entry.length, entry.version) for entry in entries] == [
        now,
        (101, "old"),
        (102, None),
        (None, ABSENT),
    ]
    assert [read_entry(entries[i]) for i in (0, 2)] == [contents(3)[0], contents(3)[2]]
    with pytest.raises(DataError, match="changed since it was listed"):
        read_entry(entries[1])


def test_a_damaged_row_group_of_a_manifest_is_a_problem_of_each_of_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "ROWS_PER_SLICE", 4)
    path = tmp_path / "m.parquet"
    uris = [f"/x/{n}.png" for n in range(30)]
    table = pa.table({"uri": uris, "size": list(range(30))})
    pq.write_table(table, path, row_group_size=10, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(1).column(0)
    start = column.data_page_offset
    data[start : start + 40] = b"\xff" * 40
    path.write_bytes(bytes(data))
    listing = listed(path)
    assert [entry.member for entry in listing.entries] == uris[:10] + uris[20:]
    assert len(listing.problems) == 10
    for number, problem in enumerate(listing.problems, 11):
        assert f"m.parquet has an unreadable row {number}: " in problem


@pytest.mark.parametrize(
    "sizes",
    [
        ["100", "101.0", "L"],
        pa.array(["100", " 101 ", "1e9"]).dictionary_encode(),
        [100.0, 101.0, float("nan")],
        [100.0, 101.0, 1.5],
        pa.array([100, 101, -1], pa.int32()),
        pa.array([100, 101, 2**64 - 1], pa.uint64()),
        pa.array([decimal.Decimal("100.0"), decimal.Decimal("101.0"), None]),
    ],
    ids=["text", "dictionary", "floats", "fractions", "negative", "unsigned", "decimals"],
)
def test_sizes_in_any_form(sizes: object, tmp_path: Path, pictures: list[str]) -> None:
    """What is no whole number of bytes is not known, and is looked up."""
    pq.write_table(pa.table({"uri": pictures, "size": sizes}), tmp_path / "m.parquet")
    entries = listed(tmp_path / "m.parquet").entries
    assert [entry.length for entry in entries] == [100, 101, 102]
    assert [entry.version is None for entry in entries] == [True, True, False]


@pytest.mark.parametrize("sizes", [["S", "M", "L"], [[1], [2], [3]], [True, False, True]])
def test_a_column_size_that_means_something_else(
    sizes: list[object], tmp_path: Path, pictures: list[str]
) -> None:
    pq.write_table(pa.table({"uri": pictures, "size": sizes}), tmp_path / "m.parquet")
    entries = listed(tmp_path / "m.parquet").entries
    assert [read_entry(entry) for entry in entries] == contents(3)
    assert all(entry.version for entry in entries)


def test_a_damaged_csv_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"uri,category\n/x/\xe4.png,bottle\n")
    with pytest.raises(DamagedTableError, match=r"m\.csv is no readable CSV"):
        listed(tmp_path / "m.csv")


@given(
    forms=st.lists(
        st.sampled_from(["", "file:", "file://", "file://localhost"]), min_size=1, max_size=4
    ),
    detours=st.lists(st.sampled_from(["", "./", "x/../", "/", "../data/"]), max_size=3),
)
def test_a_picture_on_a_disk_has_one_name_however_it_is_written(
    forms: list[str], detours: list[str]
) -> None:
    spelled = pa.chunked_array([[f"{form}/data/{''.join(detours)}a.png" for form in forms]])
    found = set(_absolute("/elsewhere", spelled.cast(pa.large_string())).to_pylist())
    assert found == {"/data/a.png"} == {absolute_uri(f"/data/{''.join(detours)}a.png")}


def test_addresses_in_a_manifest_are_those_of_sources() -> None:
    spelled = ["s3a://b/x.png", "s3://b/x.png/", "x.png", "../b/x.png", None, "gs://b/x.png", "s3:"]
    uris = pa.chunked_array([pa.array(spelled, pa.large_string())])
    assert _absolute("s3://b", uris).to_pylist() == [
        *["s3://b/x.png"] * 3,
        "s3://b/../b/x.png",  # a key of its own
        None,
        "gs://b/x.png",
        "s3://b/s3:",
    ]
    assert _absolute("/b", uris).to_pylist()[2:5] == ["/b/x.png", "/b/x.png", None]


def test_looking_up_a_folder_takes_a_listing_and_single_files_a_question_each(
    s3_bucket: str,
) -> None:
    store = fsspec.filesystem("s3")
    many = [f"{s3_bucket}/many/{n}.png" for n in range(20)]
    single = [f"{s3_bucket}/{n}/a.png" for n in range(3)]
    for uri in (*many, *single):
        store.pipe_file(uri, uri.encode())
    missing = [f"{s3_bucket}/many/none.png", f"{s3_bucket}/nowhere/none.png"]
    found = look_up([*many, *single, *missing])
    for uri in (*many, *single):
        assert found[uri] == (len(uri), store.info(uri)["ETag"].strip('"'))
    assert [found[uri] for uri in missing] == [(None, ABSENT)] * 2


class OfNoLength(BaseHTTPRequestHandler):
    """Answers with a picture whose end is that of the connection, as some servers do."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(contents(1)[0])

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_server_that_states_no_size_ends_no_listing(tmp_path: Path, pictures: list[str]) -> None:
    """Found in review: one row with such an address ended the run, at each repetition."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), OfNoLength)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    uris = [f"http://127.0.0.1:{server.server_port}/a.png", pictures[1]]
    pq.write_table(pa.table({"uri": uris}), tmp_path / "m.parquet")
    try:
        entries = listed(tmp_path / "m.parquet").entries
        assert [entry.image_uri for entry in entries] == uris
        assert [entry.length for entry in entries] == [None, len(contents(2)[1])]
        assert [read_entry(entry) for entry in entries] == [contents(1)[0], contents(2)[1]]
    finally:
        server.shutdown()
        server.server_close()


def test_what_a_parquet_file_is_can_be_said(tmp_path: Path, pictures: list[str]) -> None:
    both = pa.table({"thumbnail": contents(1), "uri": pictures[:1]})
    pq.write_table(both, tmp_path / "both.parquet")
    assert listed(tmp_path / "both.parquet").entries[0].offset == 0
    assert listed(tmp_path / "both.parquet", kind=MANIFEST).entries[0].image_uri == pictures[0]
    pq.write_table(pa.table({"uri": pictures[:1]}), tmp_path / "uris.parquet")
    with pytest.raises(DataError, match="neither a column of encoded pictures"):
        listed(tmp_path / "uris.parquet", kind=PICTURES)
    pq.write_table(pa.table({"n": [1]}), tmp_path / "numbers.parquet")
    with pytest.raises(DataError, match=r"neither .* it has n\. Name the one .* --image-column"):
        listed(tmp_path / "numbers.parquet")
    with pytest.raises(DataError, match="has no column 'image'"):
        listed(tmp_path / "uris.parquet", image="image")
    with pytest.raises(DataError, match="has no column 'product': it has thumbnail, uri"):
        listed(tmp_path / "both.parquet", category="product")
    with pytest.raises(ConfigError, match="expected one of auto, pictures, manifest"):
        TableColumns(kind="other")
    (tmp_path / "no.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match=r"no\.parquet is no readable Parquet file"):
        listed(tmp_path / "no.parquet")


def test_what_cannot_be_asked_for_is_one_pictures_error_and_ends_no_listing(
    tmp_path: Path, pictures: list[str]
) -> None:
    bad = [f"{pictures[0]}/below", f"/{'x' * 300}.png", "/a\0b.png", "foo://x/y.png"]
    uris = [pictures[0], *bad, pictures[1]]
    pq.write_table(pa.table({"uri": uris}), tmp_path / "m.parquet")
    entries = listed(tmp_path / "m.parquet").entries
    assert [entry.image_uri for entry in entries] == uris
    assert [read_entry(entries[i]) for i in (0, 5)] == contents(2)
    for entry in entries[1:5]:
        with pytest.raises(DataError):
            read_entry(entry)

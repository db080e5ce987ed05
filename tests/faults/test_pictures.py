"""Pictures and archives that are damaged or mean harm: an error row each, and no other row lost."""

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from nfbmr.score.dataset import read_scores
from tests.faults.conftest import Plant, Rows, assert_same, picture, rows_of
from tests.faults.driver import Driver
from tests.faults.killing_pictures.sitecustomize import KILLER

pytestmark = pytest.mark.integration

GOOD = 12
BUDGET = "run.failure_budget=1"


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(side: int, bits: int, colour: int) -> bytes:
    """A black square; its rows are packed without ever being in memory at once."""
    packer = zlib.compressobj(9)
    channels = {0: 1, 2: 3}[colour]
    row = bytes(1 + (side * bits * channels + 7) // 8)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", packed) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def text_bomb() -> bytes:
    """A small picture whose comment unpacks to 512 MiB."""
    good = picture(0, "png")
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(512)) + packer.flush()
    bomb = png_chunk(b"zTXt", b"Comment\0\0" + packed)
    return good[:33] + bomb + good[33:]


def lying_jpeg() -> bytes:
    """A small JPEG whose header says 30,000 x 30,000."""
    data = bytearray(picture(1))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", 30_000, 30_000)
    return bytes(data)


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(255 - byte for byte in data[middle : middle + 20]) + data[middle:]


def bad_pictures() -> dict[str, bytes]:
    png, jpeg = picture(2, "png"), picture(3)
    return {
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "truncated.png": png[: len(png) // 2],
        "corrupt.png": flipped(png),
        "no_header.jpg": jpeg[20:],
        "zero_bytes.jpg": b"",
        "text.jpg": b"This is no picture at all.\n" * 10,
        "huge_30000.png": huge_png(30_000, 1, 0),
        "bomb_20000_rgb.png": huge_png(20_000, 8, 2),
        "lying_30000.jpg": lying_jpeg(),
        "comment_bomb.png": text_bomb(),
    }


def test_bad_pictures_are_error_rows_and_mislabelled_ones_are_scored(
    driver: Driver, plant: Plant, tmp_path: Path, undisturbed: Rows
) -> None:
    """One of them in every unit or two: no good picture beside them may suffer."""
    source = tmp_path / "pictures"
    (source / "bottle").mkdir(parents=True)
    bad = bad_pictures()
    good = {m: data for m, data in plant.pictures.items() if m.startswith("bottle/")}
    for member, data in good.items():
        (source / member).write_bytes(data)
    for name, data in bad.items():
        (source / "bottle" / name).write_bytes(data)
    image = Image.open(io.BytesIO(good["bottle/000.jpg"]))
    image.save(source / "bottle" / "png_named.jpg", "png")
    image.save(source / "bottle" / "jpeg_named.png", "jpeg", quality=95)
    output = str(tmp_path / "scores")
    outcome = driver.run(plant.argv(str(source), output))
    assert f"{len(bad)} of {len(bad) + len(good) + 2} pictures have no score" in outcome.said
    rows = rows_of(output)
    for name in bad:
        row = rows.pop(f"bottle/{name}")
        assert (row["status"], row["score"]) == ("error", None), name
        assert len(str(row["error"])) > 20
    expected = undisturbed["bottle/000.jpg"]["score"]
    assert rows.pop("bottle/png_named.jpg")["score"] == pytest.approx(expected, rel=0.02)
    assert rows.pop("bottle/jpeg_named.png")["status"] == "ok"
    assert_same(rows, {m: row for m, row in undisturbed.items() if m.startswith("bottle/")})


def test_pictures_that_kill_whatever_decodes_them_cost_no_others(
    driver: Driver, plant: Plant, tmp_path: Path, undisturbed: Rows
) -> None:
    """A crash of the decoder ends the actor's process; Ray gives the next one the same pictures."""
    source = tmp_path / "pictures"
    good = dict(list(plant.pictures.items())[:GOOD])
    killers = ["bottle/killer.jpg", "cable/killer.jpg"]
    for name, data in (*good.items(), *((name, picture(5) + KILLER) for name in killers)):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    output = str(tmp_path / "scores")
    driver.run(plant.argv(str(source), output, BUDGET))
    rows = rows_of(output)
    for name in killers:
        row = rows.pop(name)
        assert (row["status"], row["error_kind"]) == ("error", "killed")
        assert "was killed" in str(row["error"])
    assert_same(rows, {member: undisturbed[member] for member in good})


def test_a_truncated_tar_gives_its_whole_pictures_and_one_error_row(
    driver: Driver, plant: Plant, tmp_path: Path, undisturbed: Rows
) -> None:
    with tarfile.open(plant.tar) as tar:
        members = tar.getmembers()
    cut = members[40]
    short = tmp_path / "short.tar"
    short.write_bytes(Path(plant.tar).read_bytes()[: cut.offset_data + cut.size // 2])
    output = str(tmp_path / "scores")
    outcome = driver.run(plant.argv(str(short), output, BUDGET))
    assert outcome.code == 8
    assert "Damaged sources: 1 " in outcome.said
    assert "short.tar" in outcome.said
    assert driver.run(plant.argv(str(short), output, BUDGET, "run.damaged_sources=1")).code == 0
    rows = read_scores(output).to_pylist()
    errors = [row for row in rows if row["status"] == "error"]
    assert len(errors) == 1
    assert cut.name in errors[0]["error"]
    whole = {row["member"]: row["score"] for row in rows if row["status"] == "ok"}
    assert whole.keys() == {member.name for member in members[:40]}
    for member, score in whole.items():
        assert score == pytest.approx(undisturbed[member]["score"], rel=1e-3)


def lie(data: bytes, member: str, **fields: int) -> bytes:
    """A zip whose central directory says something else of one member."""
    places = {"crc": (16, "<I"), "packed": (20, "<I"), "size": (24, "<I"), "offset": (42, "<I")}
    changed = bytearray(data)
    name = member.encode()
    start = data.index(b"PK\1\2")
    while data[start + 46 : start + 46 + len(name)] != name:
        start = data.index(b"PK\1\2", start + 4)
    for field, value in fields.items():
        place, form = places[field]
        struct.pack_into(form, changed, start + place, value)
    return bytes(changed)


def zipped(pictures: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in pictures.items():
            archive.writestr(name, data)
    return stream.getvalue()


def lies(data: bytes, victim: str, length: int, other_offset: int) -> dict[str, bytes]:
    return {
        "size too large": lie(data, victim, size=length + 100),
        "size too small": lie(data, victim, size=length - 100),
        "size of a bomb": lie(data, victim, size=0xFFFFFFF0),
        "offset of another member": lie(data, victim, offset=other_offset),
        "offset into the middle": lie(data, victim, offset=other_offset + 7),
        "offset beyond the end": lie(data, victim, offset=0x7FFFFFFF),
        "crc": lie(data, victim, crc=0x12345678),
    }


@pytest.mark.slow  # a minute: make test-slow
def test_a_zip_with_a_lying_directory_gives_an_error_row_for_each_lie(
    driver: Driver, plant: Plant, tmp_path: Path, undisturbed: Rows
) -> None:
    """Above all never another picture's score under the name of the one that is lied about.

    Where only the directory's checksum lies, the picture is what its own header says: it is scored.
    """
    pictures = dict(list(plant.pictures.items())[:GOOD])
    victim, other = list(pictures)[3], list(pictures)[7]
    # As long as each other, so that nothing but the name tells one from the other.
    length = max(len(pictures[victim]), len(pictures[other]))
    pictures |= {name: pictures[name].ljust(length, b"\0") for name in (victim, other)}
    data = zipped(pictures)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        offset = archive.getinfo(other).header_offset
    cases = lies(data, victim, length, offset)
    folder = tmp_path / "zips"
    folder.mkdir()
    for name, lying in cases.items():
        (folder / f"{name}.zip").write_bytes(lying)
    sources = sorted(str(path) for path in folder.glob("*.zip"))
    output = str(tmp_path / "scores")
    outcome = driver.run([*sources, *plant.argv("", output, BUDGET)[1:]])
    assert outcome.code == 0, outcome.said
    rows = read_scores(output).to_pylist()
    assert len(rows) == GOOD * len(cases)
    assert len({row["image_uri"] for row in rows}) == len(rows)
    for row in rows:
        if row["member"] == victim and not row["archive"].endswith("crc.zip"):
            assert row["status"] == "error", row["archive"]
        else:
            assert row["status"] == "ok", (row["archive"], row["error"])
            expected = undisturbed[row["member"]]["score"]
            assert row["score"] == pytest.approx(expected, rel=1e-3)


def test_a_zip_whose_end_is_missing_is_a_sentence(
    driver: Driver, plant: Plant, tmp_path: Path
) -> None:
    data = zipped(dict(list(plant.pictures.items())[:GOOD]))
    (tmp_path / "cut.zip").write_bytes(data[: len(data) * 2 // 3])
    outcome = driver.run(plant.argv(str(tmp_path / "cut.zip"), str(tmp_path / "scores")))
    assert outcome.code == 3
    assert "cut.zip" in outcome.said
    assert "Traceback" not in outcome.said

"""Every kind of archive holds the same pictures under the same names."""

from pathlib import Path

import pytest

from nfbmr.benchmark.packing import KINDS, pack
from nfbmr.data.archives import list_archive, read_entry
from nfbmr.data.sample import Sample


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Bytes that are no pictures: packing looks at names only."""
    found = []
    for index in range(5):
        path = tmp_path / "pictures" / f"{index}.PNG"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([index]) * (600 * index + 1))
        found.append(Sample(str(path), "bottle" if index % 2 else "cable", "test"))
    return found


def content(source: str) -> dict[str, bytes]:
    return {entry.member: read_entry(entry) for entry in list_archive(source).entries}


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_disk(kind: str, samples: list[Sample], tmp_path: Path) -> None:
    packed = content(pack(samples, kind, str(tmp_path / "archives")))
    assert packed == {
        f"{sample.category}/{index:06d}.PNG": Path(sample.uri).read_bytes()
        for index, sample in enumerate(samples)
    }


@pytest.mark.parametrize("kind", KINDS)
def test_in_an_object_store(
    kind: str, samples: list[Sample], s3_bucket: str, tmp_path: Path
) -> None:
    here = content(pack(samples, kind, str(tmp_path / "archives")))
    assert content(pack(samples, kind, f"{s3_bucket}/archives")) == here

"""The procedural factory: seeded, laid out as MVTec AD, with exact masks and known breakage."""

import csv
import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from nfbmr.data.decoding import decode_mask, decode_rgb
from nfbmr.data.layouts import discover
from nfbmr.data.procedural import (
    SURFACES,
    Factory,
    FactorySettings,
    generate_factory,
    pictures_in,
    render_surface,
)
from nfbmr.data.synthetic_defects import cut_defect
from nfbmr.errors import ConfigError, DecodeError, OutputError

SETTINGS = FactorySettings(
    categories=2,
    train=4,
    test_normal=3,
    test_defective=6,
    archive=20,
    defect_share=0.25,
    size_px=64,
)


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    return generate_factory(tmp_path_factory.mktemp("factory"), SETTINGS)


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_the_same_seed_gives_the_same_bytes(factory: Factory, tmp_path: Path) -> None:
    again = generate_factory(tmp_path / "again", SETTINGS)
    assert digests(Path(again.root).parent) == digests(Path(factory.root).parent)
    other = FactorySettings(**{**vars_of(SETTINGS), "seed": 1})
    different = generate_factory(tmp_path / "other", other)
    assert digests(Path(different.root)) != digests(Path(factory.root))


def vars_of(settings: FactorySettings) -> dict[str, float]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


def test_the_tree_is_what_it_says(factory: Factory) -> None:
    samples = discover(factory.root, "auto")
    assert len({s.category for s in samples}) == 2
    assert sum(s.split == "train" for s in samples) == 2 * 4
    assert all(s.defect_type == "good" for s in samples if s.split == "train")
    defective = [s for s in samples if s.defect_type != "good"]
    assert len(defective) == 2 * 6
    for sample in defective:
        assert sample.mask_uri is not None
        mask_HW = decode_mask(Path(sample.mask_uri).read_bytes())
        assert mask_HW.shape == (64, 64)
        assert 0 < mask_HW.mean() < 0.6


def test_a_mask_is_where_the_defect_changes_the_picture() -> None:
    for index, category in enumerate(SURFACES):
        surface = render_surface(category, "stain", 96, (3, index))
        outside = ~surface.mask_HW
        assert (surface.image_HWC[outside] == surface.normal_HWC[outside]).all()
        changed_HW = (surface.image_HWC != surface.normal_HWC).any(-1)
        assert changed_HW[surface.mask_HW].mean() > 0.5


def test_the_archive_holds_a_known_share_of_defects_and_three_broken_files(
    factory: Factory,
) -> None:
    with Path(factory.labels).open(newline="") as file:
        labels = list(csv.DictReader(file))
    with tarfile.open(factory.archive) as tar:
        names = tar.getnames()
        contents = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
    assert names == [row["member"] for row in labels]
    assert len(names) == SETTINGS.archive + 3
    assert sum(row["is_defective"] == "True" for row in labels) == 5
    for row in labels:
        if row["is_broken"] == "True":
            with pytest.raises(DecodeError):
                decode_rgb(contents[row["member"]])
        else:
            assert decode_rgb(contents[row["member"]]).shape == (64, 64, 3)


def test_a_finished_factory_is_found_and_another_is_refused(
    factory: Factory, tmp_path: Path
) -> None:
    folder = Path(factory.root).parent
    before = digests(folder)
    assert generate_factory(folder, SETTINGS) == factory
    assert digests(folder) == before
    with pytest.raises(OutputError, match="made with other settings"):
        generate_factory(folder, FactorySettings(categories=1))
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"other files \(for example thesis\.txt\)"):
        generate_factory(tmp_path, SETTINGS)


def test_what_was_cut_off_is_written_again(factory: Factory, tmp_path: Path) -> None:
    generate_factory(tmp_path / "f", SETTINGS)
    manifest = next(p for p in (tmp_path / "f").iterdir() if p.suffix == ".json")
    assert json.loads(manifest.read_text())["seed"] == 0
    manifest.unlink()
    next((tmp_path / "f").rglob("*_mask.png")).unlink()
    generate_factory(tmp_path / "f", SETTINGS)
    assert digests(tmp_path / "f") == digests(Path(factory.root).parent)


def test_progress_counts_every_file(tmp_path: Path) -> None:
    counts: list[int] = []
    generate_factory(tmp_path / "f", SETTINGS, counts.append)
    assert counts[-1] == pictures_in(SETTINGS)
    assert counts == sorted(counts)


@pytest.mark.parametrize("wrong", [{"categories": 0}, {"categories": 99}, {"defect_share": 1.5}])
def test_impossible_factories_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        FactorySettings(**wrong)  # type: ignore[arg-type]


def test_a_cut_defect_is_seeded_and_local() -> None:
    image_HWC = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    for seed in range(50):
        defective_HWC = cut_defect(image_HWC, seed)
        assert (defective_HWC == cut_defect(image_HWC, seed)).all()
        changed_HW = (defective_HWC != image_HWC).any(-1)
        assert 0 < changed_HW.mean() < 0.5
        rows, columns = np.nonzero(changed_HW)
        box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert box < 0.6 * changed_HW.size

"""Each layout finds its pictures, splits, labels and masks, on disk and elsewhere."""

import hashlib
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.core import url_to_fs

from nfbmr.data.layouts import discover
from nfbmr.data.sample import Sample

SHARED = Path(__file__).parents[2].parent / "shared"
Maker = Callable[..., str]


@pytest.fixture(params=["local", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Maker]:
    """Make a root from names of empty files and contents of text files."""
    root = str(tmp_path / "root") if request.param == "local" else f"memory://{uuid.uuid4().hex}"

    def write(*names: str, **texts: str) -> str:
        fs, path = url_to_fs(root)
        contents = dict.fromkeys(names, "") | {n.replace("__", "/"): t for n, t in texts.items()}
        for name, text in contents.items():
            fs.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
            fs.pipe_file(f"{path}/{name}", text.encode())
        return root

    yield write
    if request.param == "memory" and fsspec.filesystem("memory").exists(root):
        fsspec.filesystem("memory").rm(root, recursive=True)


def brief(root: str, samples: list[Sample]) -> set[tuple[str, str, str, str, str | None]]:
    """Samples with names relative to the root."""

    def cut(uri: str) -> str:
        assert uri.startswith(f"{root}/")
        return uri.removeprefix(f"{root}/")

    return {
        (cut(s.uri), s.category, s.split, s.defect_type, s.mask_uri and cut(s.mask_uri))
        for s in samples
    }


MVTEC = [
    "bottle/train/good/000.png",
    "bottle/test/good/000.png",
    "bottle/test/broken_large/000.png",
    "bottle/test/broken_large/001.png",
    "bottle/ground_truth/broken_large/000_mask.png",
    "bottle/readme.txt",
]


def test_mvtec(make: Maker) -> None:
    root = make(*MVTEC, "cable/train/good/000.png", "cable/train/odd/001.png")
    samples = discover(root)
    assert brief(root, samples) == {
        ("bottle/train/good/000.png", "bottle", "train", "good", None),
        ("bottle/test/good/000.png", "bottle", "test", "good", None),
        (
            "bottle/test/broken_large/000.png",
            "bottle",
            "test",
            "broken_large",
            "bottle/ground_truth/broken_large/000_mask.png",
        ),
        ("bottle/test/broken_large/001.png", "bottle", "test", "broken_large", None),
        ("cable/train/good/000.png", "cable", "train", "good", None),
    }
    assert samples == sorted(samples, key=lambda sample: sample.uri)
    assert discover(root, "mvtec") == samples
    assert {s.category for s in discover(root, categories=["cable"])} == {"cable"}


def test_mvtec_root_of_one_category(make: Maker) -> None:
    root = make(*MVTEC)
    whole = [s for s in discover(root) if s.category == "bottle"]
    assert discover(f"{root}/bottle/") == whole


LABELS = "1\n574\t0\t0574.PNG\t0\t0\n575\t0\t0575.PNG\t0\t0\n576\t1\t0576.PNG\t1\t0576_label.PNG\n"


@pytest.mark.parametrize("labels", ["", LABELS, "\ufeff" + LABELS.replace("\n", "\r\n")])
@pytest.mark.parametrize("above", ["", "Class1/"])
def test_dagm(make: Maker, labels: str, above: str) -> None:
    texts = {}
    names = []
    for part in ("Train", "Test"):
        folder = f"{above}Class1/{part}"
        names += [f"{folder}/0574.PNG", f"{folder}/0575.PNG", f"{folder}/0576.PNG"]
        names += [f"{folder}/Label/0576_label.PNG"]
        if labels:
            texts[f"{folder}/Label/Labels.txt".replace("/", "__")] = labels
    root = make(*names, **texts)
    folder = f"{above}Class1"
    assert brief(root, discover(root)) == {
        (f"{folder}/Train/0574.PNG", "Class1", "train", "good", None),
        (f"{folder}/Train/0575.PNG", "Class1", "train", "good", None),
        (f"{folder}/Test/0574.PNG", "Class1", "test", "good", None),
        (f"{folder}/Test/0575.PNG", "Class1", "test", "good", None),
        (
            f"{folder}/Test/0576.PNG",
            "Class1",
            "test",
            "defective",
            f"{folder}/Test/Label/0576_label.PNG",
        ),
    }


def test_dagm_list_decides_and_a_mask_decides_for_the_rest(make: Maker) -> None:
    root = make(
        *(f"Class2/Train/{n}.PNG" for n in range(4)),
        "Class2/Train/Label/1_label.PNG",
        "Class2/Train/Label/2_label.PNG",
        **{"Class2__Train__Label__Labels.txt": "2\n1 0 1.PNG 0 1_label.PNG\n"},
    )
    # 1 is named as normal although it has a (black) mask; 2 has a mask and is not named.
    assert {s.uri[-5:] for s in discover(root)} == {"0.PNG", "1.PNG", "3.PNG"}


MTD = [
    *(f"MT_Free/Imgs/exp1_num_{n}.jpg" for n in range(40)),
    *(f"MT_Free/Imgs/exp1_num_{n}.png" for n in range(40)),
    "MT_Blowhole/Imgs/exp2_num_1.jpg",
    "MT_Blowhole/Imgs/exp2_num_1.png",
    "MT_Crack/Imgs/exp2_num_2.jpg",
    "other/Imgs/exp2_num_3.jpg",
]


def test_mtd_with_the_public_split(make: Maker) -> None:
    split = "exp1_num_3.jpg\nexp1_num_5.jpg\n"
    root = make(*MTD, **{"train_filenames.txt": split})
    samples = discover(root)
    train = {s.uri.rpartition("/")[2] for s in samples if s.split == "train"}
    assert train == set(split.split())
    assert {s.category for s in samples} == {"magnetic_tile"}
    defective = {row for row in brief(root, samples) if row[3] != "good"}
    assert defective == {
        (
            "MT_Blowhole/Imgs/exp2_num_1.jpg",
            "magnetic_tile",
            "test",
            "blowhole",
            "MT_Blowhole/Imgs/exp2_num_1.png",
        ),
        ("MT_Crack/Imgs/exp2_num_2.jpg", "magnetic_tile", "test", "crack", None),
    }
    assert len(samples) == 42


def is_tested(name: str) -> bool:
    """The hash split, calculated independently."""
    return int(hashlib.blake2b(name.encode(), digest_size=8).hexdigest(), 16) < 2**64 / 5


def test_mtd_without_the_public_split(make: Maker) -> None:
    samples = [s for s in discover(make(*MTD)) if not s.is_defective]
    assert all((s.split == "test") == is_tested(s.uri.rpartition("/")[2]) for s in samples)
    assert 2 <= sum(s.split == "test" for s in samples) <= 16


def test_real_magnetic_tiles() -> None:
    root = SHARED / "data" / "mtd"
    if not root.is_dir():
        pytest.skip(f"{root} is not there: the magnetic tile photographs are not in the repo")
    samples = discover(str(root))
    counts = Counter((s.split, s.is_defective) for s in samples)
    assert counts == {("train", False): 761, ("test", False): 191, ("test", True): 392}
    assert {s.defect_type for s in samples if s.is_defective} == {
        "blowhole",
        "break",
        "crack",
        "fray",
        "uneven",
    }
    assert all((s.mask_uri is not None) == s.is_defective for s in samples)
    assert all(
        Path(s.uri).is_file() and (not s.mask_uri or Path(s.mask_uri).is_file()) for s in samples
    )
    assert discover(f"file://{root}", "mtd", ["magnetic_tile"]) == samples


VISA = [
    *(f"candle/Data/Images/Normal/{n:04}.JPG" for n in range(30)),
    "candle/Data/Images/Anomaly/000.JPG",
    "candle/Data/Masks/Anomaly/000.png",
]


def test_visa(make: Maker) -> None:
    root = make(*VISA)
    for name, category, split, defect, mask in brief(root, discover(root)):
        assert category == "candle"
        if defect == "good":
            assert (split == "test") == is_tested(name.rpartition("/")[2])
        else:
            assert (split, defect) == ("test", "anomaly")
            assert mask == "candle/Data/Masks/Anomaly/000.png"


def test_visa_with_the_public_split(make: Maker) -> None:
    rows = [
        "object,split,label,image,mask",
        *(f"candle,test,normal,{name}," for name in VISA[:3]),
        *(f"candle,train,normal,{name}," for name in VISA[3:30]),
        f"candle,test,anomaly,{VISA[30]},{VISA[31]}",
        "fryum,train,normal,fryum/Data/Images/Normal/0000.JPG,",  # a category that was not copied
    ]
    root = make(*VISA, **{"split_csv__1cls.csv": "\n".join(rows)})
    samples = discover(root)
    tested = {s.uri.removeprefix(f"{root}/") for s in samples if s.split == "test"}
    assert tested == {*VISA[:3], VISA[30]}
    assert len(samples) == 31


def test_links_are_what_they_stand_for(tmp_path: Path) -> None:
    """Found in review: a root of links had no pictures, and a part of them was left out."""
    (tmp_path / "real" / "deep").mkdir(parents=True)
    for name in ("1.png", "deep/2.png"):
        (tmp_path / "real" / name).write_bytes(b"x")
    good = tmp_path / "root" / "bottle" / "train" / "good"
    good.mkdir(parents=True)
    (good / "0.png").write_bytes(b"x")
    (good / "1.png").symlink_to(tmp_path / "real" / "1.png")
    (tmp_path / "root" / "cable").mkdir()
    (tmp_path / "root" / "cable" / "train").mkdir()
    (tmp_path / "root" / "cable" / "train" / "good").symlink_to(tmp_path / "real" / "deep")
    found = discover(str(tmp_path / "root"), "auto")
    names = [sample.uri.removeprefix(f"{tmp_path}/root/") for sample in found]
    assert names == ["bottle/train/good/0.png", "bottle/train/good/1.png", "cable/train/good/2.png"]


def test_a_copy_in_another_layout_deeper_down_decides_nothing(make: Maker) -> None:
    """Found in review: VisA's own folder with a converted copy in it was taken for MVTec's."""
    root = make(
        *(f"candle/Data/Images/Normal/{n}.JPG" for n in range(20)),
        "candle/Data/Images/Anomaly/2.JPG",
        "VisA_pytorch/1cls/candle/train/good/1.JPG",
    )
    assert {sample.category for sample in discover(root, "auto")} == {"candle"}

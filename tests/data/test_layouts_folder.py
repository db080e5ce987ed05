"""One's own data in plain folders, and what is said when a root is not as expected."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfbmr.data.layouts import LAYOUTS, discover
from nfbmr.errors import DataError


def make(root: Path, *names: str, **texts: str) -> str:
    for name, text in (dict.fromkeys(names, "") | texts).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


OWN = [
    *(f"normal/2026-11-0{day}/{n}.png" for day in range(1, 4) for n in range(9)),
    "defective/plain.png",
    "defective/scratch/a.jpg",
    "defective/scratch/deeper/b.jpg",
    "defective/good/c.jpg",
    "masks/scratch/a.png",
    "notes.txt",
]


def test_plain_folders(tmp_path: Path) -> None:
    root = make(tmp_path, *(f"lid/{name}" for name in OWN), "loose/1.png", "loose/2.png")
    samples = discover(root)
    lid = {s.uri.removeprefix(f"{root}/lid/"): s for s in samples if s.category == "lid"}
    defects = {name: s.defect_type for name, s in lid.items() if s.is_defective}
    assert defects == {
        "defective/plain.png": "defective",
        "defective/scratch/a.jpg": "scratch",
        "defective/scratch/deeper/b.jpg": "scratch",
        "defective/good/c.jpg": "defective",
    }
    assert lid["defective/scratch/a.jpg"].mask_uri == f"{root}/lid/masks/scratch/a.png"
    assert all(s.split == "test" for s in samples if s.is_defective)
    normals = [s for s in lid.values() if not s.is_defective]
    assert len(normals) == 27
    assert {s.split for s in normals} == {"train", "test"}
    assert [s.split for s in samples if s.category == "loose"] == ["train", "train"]
    assert {s.name for s in normals} == {n.removeprefix("normal/") for n in OWN if "normal" in n}
    assert {s.name for s in samples if s.category == "loose"} == {"1.png", "2.png"}
    names = {s.defect_type: s.name for s in samples if s.uri.endswith("b.jpg")}
    assert names == {"scratch": "deeper/b.jpg"}
    assert lid["defective/plain.png"].name == "plain.png"


def test_a_root_that_is_one_category_does_not_make_defects_normal(tmp_path: Path) -> None:
    make(tmp_path, *(f"lid/{name}" for name in OWN))
    samples = discover(str(tmp_path / "lid"))
    assert samples == discover(str(tmp_path))
    assert {s.category for s in samples} == {"lid"}


@given(st.sets(st.text("abc123", min_size=1, max_size=6), min_size=5, max_size=40))
@settings(max_examples=15, deadline=None)
def test_pictures_keep_their_split_when_others_come(
    tmp_path_factory: pytest.TempPathFactory, names: set[str]
) -> None:
    root = tmp_path_factory.mktemp("own")
    make(root, *(f"lid/good/{name}.png" for name in names), "lid/1.png")
    before = {s.uri: s.split for s in discover(str(root))}
    make(root, *(f"lid/good/{name}-new.png" for name in names))
    after = {s.uri: s.split for s in discover(str(root))}
    assert before.items() <= after.items()


@pytest.mark.parametrize(
    ("names", "arguments", "message"),
    [
        ((), {}, "is empty"),
        (("a/b/c/1.txt",), {}, "is not recognised among its 1 files.*mvtec.*dagm.*mtd.*visa"),
        (("a/1.png",), {"layout": "mvtek"}, r"'mvtek' does not exist.*Did you mean 'mvtec'\?"),
        (("a/1.png",), {"layout": "zzz"}, "expected mvtec, dagm, mtd, visa, folder or auto.$"),
        (("a/1.png",), {"layout": "visa"}, "has 1 pictures but none where the layout 'visa'"),
        (("lid/1.png",), {"categories": ["lld"]}, r"no category 'lld'.*Did you mean 'lid'\?"),
        (("lid/1.png",), {"categories": []}, "No category was asked for: name some of lid"),
        (("lid/defective/1.png",), {}, r"No category of .* \(lid\) has normal pictures"),
        (("MT_Free/Imgs/1.txt", "MT_Break/Imgs/1.jpg"), {"layout": "mtd"}, "No category of"),
    ],
)
def test_errors_name_the_thing_and_what_was_expected(
    tmp_path: Path, names: tuple[str, ...], arguments: dict[str, str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        discover(make(tmp_path, *names), **arguments)


def test_a_missing_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist: check the path"):
        discover(str(tmp_path / "nowhere"))


def test_one_category_without_normals_does_not_stop_the_others(tmp_path: Path) -> None:
    samples = discover(make(tmp_path, "lid/1.png", "cup/defective/1.png"))
    assert {s.category for s in samples} == {"lid", "cup"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1 0 1.PNG 0", r"line 2, is '1 0 1.PNG 0': expected `number flag picture"),
        ("1 x 1.PNG 0 0", "first flag of 0 or 1"),
        ("1 0 7.PNG 0 0", r"copied in part: the picture 7\.PNG"),
        ("1 1 1.PNG 1 1_label.PNG", r"copied in part: the mask 1_label\.PNG"),
    ],
)
def test_a_dagm_list_that_does_not_fit_is_refused(tmp_path: Path, row: str, message: str) -> None:
    texts = {"Class1/Train/Label/Labels.txt": f"1\n{row}\n"}
    with pytest.raises(DataError, match=message):
        discover(make(tmp_path, "Class1/Train/1.PNG", **texts))


def test_public_splits_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    root = make(tmp_path / "mtd", "MT_Free/Imgs/1.jpg", **{"train_filenames.txt": "1.jpg\n2.jpg"})
    with pytest.raises(DataError, match=r"names 1 pictures that are not there, first 2\.jpg"):
        discover(root)
    picture = "candle/Data/Images/Normal/1.JPG"
    for text, message in [
        ("object,split,image\n", "has no column 'label': expected object, split, label"),
        (f"object,split,label,image,mask\ncandle,val,normal,{picture},\n", "in 'val': expected"),
        ("object,split,label,image,mask\ncandle,train,normal,2.JPG,\n", r"puts '2\.JPG' in"),
    ]:
        root = make(tmp_path / "visa", picture, **{"split_csv/1cls.csv": text})
        with pytest.raises(DataError, match=message):
            discover(root)


def test_every_layout_describes_itself() -> None:
    assert all(layout.DESCRIPTION for layout in LAYOUTS.values())

"""Folders of pictures in which the layout finds no category are said, those of masks are not."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfbmr.data.layouts import discover_all


def made(root: Path, *names: str) -> str:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return str(root)


@pytest.mark.parametrize("layout", ["folder", "auto"])
def test_folders_without_the_expected_ones_are_said(tmp_path: Path, layout: str) -> None:
    root = made(
        tmp_path,
        *(f"bottle/normal/{n}.png" for n in range(9)),
        *(f"cable/Normal/{n}.png" for n in range(3)),
        *(f"gear/2026-11-{n:02d}/{n}.png" for n in range(1, 9)),
        "loose/1.png",
    )
    found = discover_all(root, layout)
    assert {s.category for s in found.samples} == {"bottle", "loose"}
    assert found.left_over.keys() == {"cable", "gear"}
    assert found.left_over["cable"].startswith(
        f"{root}/cable has 3 pictures, none in normal/ or good/, nor directly in it: they lie in "
        "Normal. Rename"
    )
    assert "8 pictures" in found.left_over["gear"]
    assert "2026-11-05 and 3 more" in found.left_over["gear"]
    assert discover_all(root, layout, ["bottle"]).left_over == {}


def test_the_layout_of_mvtec(tmp_path: Path) -> None:
    root = made(
        tmp_path,
        *(f"bottle/train/good/{n}.png" for n in range(3)),
        "cable/train/Good/1.png",
        "gear/normal/1.png",
        "nut/test/bent/1.png",
    )
    found = discover_all(root)
    assert found.layout == "mvtec"
    assert found.left_over.keys() == {"cable", "gear"}
    assert "none in train/good/ or test/<defect>/: they lie in train" in found.left_over["cable"]


@pytest.mark.parametrize(
    "names",
    [
        ["lid/normal/1.png", "lid/defective/a/1.png", "lid/masks/a/1.png", "lid/Other/1.png"],
        ["lid/normal/1.png", "_old/x/1.png", ".cache/x/1.png", "masks/lid/1.png"],
        ["lid/normal/1.png", "ground_truth/lid/1.png", "notes/deep/readme.txt", "1.png"],
        ["normal/1.png", "normal/2.png", "Other/deep/1.png"],
        ["lid/train/good/1.png", "_x/train/bad/1.png", "docs/readme.txt"],
        ["train/good/1.png", "test/bent/1.png", "ground_truth/bent/1_mask.png"],
        ["MT_Free/Imgs/1.jpg", "MT_Free/Imgs/2.jpg", "Extra/Deep/1.jpg"],
        [*(f"candle/Data/Images/Normal/{n}.JPG" for n in range(1, 6)), "x/y/1.JPG"],
        ["Class1/Train/1.PNG", "Other/Deep/1.PNG"],
    ],
)
def test_what_is_left_out_on_purpose_is_not_said(tmp_path: Path, names: list[str]) -> None:
    assert discover_all(made(tmp_path, *names)).left_over == {}


@given(
    st.sets(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(["normal", "Normal", "x/y"])),
        min_size=1,
    )
)
@settings(max_examples=20, deadline=None)
def test_every_folder_of_pictures_is_a_category_or_said(
    tmp_path_factory: pytest.TempPathFactory, folders: set[tuple[str, str]]
) -> None:
    names = [f"{category}/{kind}/{n}.png" for category, kind in folders for n in range(9)]
    root = made(tmp_path_factory.mktemp("own"), "whole/1.png", *names)
    found = discover_all(root, "folder")
    categories = {sample.category for sample in found.samples}
    assert categories | found.left_over.keys() == {"whole"} | {name for name, _ in folders}
    assert not categories & found.left_over.keys()

"""Lists of labels and splits that come with data sets, as fuzz targets see them."""

from collections.abc import Callable
from pathlib import Path

from nfbmr.data.layouts import discover

LISTS = {
    "visa": (
        "split_csv/1cls.csv",
        b"object,split,label,image,mask\n"
        b"candle,train,normal,candle/Data/Images/Normal/0.JPG,\n"
        b"candle,test,normal,candle/Data/Images/Normal/1.JPG,\n"
        b"candle,test,anomaly,candle/Data/Images/Anomaly/0.JPG,candle/Data/Masks/Anomaly/0.png\n",
        [
            *("candle/Data/Images/Normal/0.JPG", "candle/Data/Images/Normal/1.JPG"),
            *("candle/Data/Images/Anomaly/0.JPG", "candle/Data/Masks/Anomaly/0.png"),
        ],
    ),
    "dagm": (
        "Class1/Train/Label/Labels.txt",
        b"1\n1\t0\t0001.PNG\t0\t0\n2\t1\t0002.PNG\t0\t0002_label.PNG\n",
        [
            *("Class1/Train/0001.PNG", "Class1/Train/0002.PNG"),
            *("Class1/Train/Label/0002_label.PNG", "Class1/Test/0001.PNG"),
        ],
    ),
    "mtd": (
        "train_filenames.txt",
        b"exp1_num_1.jpg\nexp1_num_2.jpg\n",
        [
            *("MT_Free/Imgs/exp1_num_1.jpg", "MT_Free/Imgs/exp1_num_2.jpg"),
            *("MT_Crack/Imgs/exp2_num_1.jpg", "MT_Crack/Imgs/exp2_num_1.png"),
        ],
    ),
}
"""Of each layout: where its list lies, a valid one, and the pictures beside it."""


def label_list(layout: str) -> Callable[[bytes, Path], None]:
    """The target of a layout: finds the pictures of a data set by the list that it is given."""
    place, _, pictures = LISTS[layout]

    def run(data: bytes, folder: Path) -> None:
        root = folder / layout
        for name in (*pictures, place):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        (root / place).write_bytes(data)
        discover(str(root), layout)

    return run

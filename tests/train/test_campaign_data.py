"""Categories that should be there tonight and are not are said."""

import shutil
from pathlib import Path

import pytest

from nfbmr.errors import DataError
from nfbmr.registry import Registry
from nfbmr.train.campaign_data import look_for, say_missing
from tests.conftest import Trained
from tests.train.campaigns import QUIET, Told, run_on


def folders(root: Path) -> Path:
    for name in ("bottle/normal", "cable/Normal"):
        (root / name).mkdir(parents=True)
        for number in range(9):
            (root / name / f"{number}.png").touch()
    return root


def test_a_folder_in_which_no_category_is_found_is_a_failed_row(tmp_path: Path) -> None:
    data = str(folders(tmp_path))
    tonight = look_for(data, "auto", None)
    rows = tonight.results
    assert {sample.category for sample in tonight.samples} == {"bottle"}
    assert tonight.versions.keys() >= {sample.uri for sample in tonight.samples}
    assert [(row.category, row.outcome) for row in rows] == [("cable", "failed")]
    assert tonight.categories == {"bottle", "cable"}
    assert "cable has 9 pictures, none in normal/" in rows[0].decision
    asked, gone = look_for(data, "folder", ["bottle", "cable", "gone"]).results
    assert asked == rows[0]
    assert "there are no pictures of it" in gone.decision
    assert look_for(data, "folder", ["bottle"]).results == []
    with pytest.raises(DataError, match="no category 'cable'"):
        look_for(data, "folder", ["cable"])


def test_a_night_has_the_row_in_its_table(trained: Trained, tmp_path: Path) -> None:
    """The one category that is found has too few pictures: nothing is fitted here."""
    rows = run_on(folders(tmp_path / "data"), trained.config, tmp_path)
    assert [(row.category, row.outcome) for row in rows] == [
        ("bottle", "failed"),
        ("cable", "failed"),
    ]
    assert "they lie in Normal" in rows[1].decision


def test_registered_categories_without_pictures_are_said(trained: Trained, tmp_path: Path) -> None:
    shutil.copy(trained.work_dir / "mlflow.db", tmp_path)
    registry, told = Registry(f"sqlite:///{tmp_path}/mlflow.db"), Told()
    first, second = sorted(result.category for result in trained.results)
    assert registry.categories() == [first, second]
    say_missing(registry, "s3://parts", [first, second, "new"], told)
    assert told.lines == []
    say_missing(registry, "s3://parts", ["new", second], told)
    (line,) = told.lines
    assert line.startswith("warning: 1 registered categories have no pictures in s3://parts")
    assert f": {first}. Their" in line


def test_a_registry_that_cannot_be_asked_ends_nothing(tmp_path: Path) -> None:
    told = Told()
    (tmp_path / "mlflow.db").write_text("this is no database")
    say_missing(Registry(f"sqlite:///{tmp_path}/mlflow.db"), "/parts", ["lid"], told)
    assert told.lines[0].startswith("warning: Whether categories are missing could not be")
    say_missing(Registry(f"sqlite:///{tmp_path}/new/mlflow.db"), "/parts", ["lid"], QUIET)

"""Detectors say which code fitted them: that of the job, not that of the image it runs in."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from nfbmr import __version__
from nfbmr.train.code_version import code_version, commit_of

ROOT = Path(__file__).parents[2]
OF_IMAGE = "0123abcd"


def git(folder: Path, *arguments: str) -> str:
    options = ("user.name=n", "user.email=n@example.org", "core.hooksPath=/dev/null")
    settings = [part for option in options for part in ("-c", option)]
    command = ["git", "-C", str(folder), *settings, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with this project's placeholder and attributes."""
    if not (ROOT / ".git").exists():
        pytest.skip("the placeholder is filled in where this is no checkout")
    root = tmp_path / "checkout"
    (root / "nfbmr").mkdir(parents=True)
    for name in (".gitattributes", "nfbmr/commit.txt"):
        shutil.copy(ROOT / name, root / name)
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "first")
    return root


def archived(checkout: Path, to: Path) -> Path:
    """The package as a job has it that was submitted with an archive of HEAD."""
    git(checkout, "archive", "--format=zip", f"--output={to}.zip", "HEAD")
    with zipfile.ZipFile(f"{to}.zip") as archive:
        archive.extractall(to)
    return to / "nfbmr"


def test_an_archive_says_its_commit_whatever_the_image_says(checkout: Path, tmp_path: Path) -> None:
    package = archived(checkout, tmp_path / "job")
    commit = commit_of(package, OF_IMAGE, tmp_path / "image")
    assert commit
    assert git(checkout, "rev-parse", "HEAD").startswith(commit)
    # The image is built from an archive, too.
    assert commit_of(package, OF_IMAGE, tmp_path / "job") == commit


def test_a_checkout_says_its_commit_and_whether_files_differ(
    checkout: Path, tmp_path: Path
) -> None:
    package = checkout / "nfbmr"
    commit = commit_of(package, OF_IMAGE, tmp_path)
    assert commit
    assert git(checkout, "rev-parse", "HEAD").startswith(commit)
    (package / "commit.txt").write_text("changed")
    assert commit_of(package, OF_IMAGE, tmp_path) == f"{commit}.dirty"


def test_an_image_speaks_for_the_code_that_is_installed_in_it_alone(
    checkout: Path, tmp_path: Path
) -> None:
    """The placeholder is left: neither came from an archive."""
    shutil.rmtree(checkout / ".git")
    assert commit_of(checkout / "nfbmr", OF_IMAGE, checkout) == OF_IMAGE
    assert commit_of(checkout / "nfbmr", "", checkout) is None
    assert commit_of(checkout / "nfbmr", OF_IMAGE, tmp_path / "image") is None


def test_the_version_is_in_it_in_any_case() -> None:
    assert code_version().partition("+")[0] == __version__

"""What the tests of scoring share."""

from pathlib import Path

import pytest


@pytest.fixture(params=["disk", "store"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder on disk, and a bucket."""
    if request.param == "disk":
        return str(tmp_path)
    bucket: str = request.getfixturevalue("s3_bucket")
    return f"{bucket}/scores"

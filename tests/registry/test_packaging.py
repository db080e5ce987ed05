"""What a version's requirements pin can be installed elsewhere."""

from pathlib import Path

import pytest
from packaging.requirements import Requirement

from nfbmr.registry.packaging import pin, write_model_files


@pytest.mark.parametrize(
    ("installed", "pinned"),
    [("2.11.0", "2.11.0"), ("2.11.0+cpu", "2.11.0"), ("2.11.0.dev1+cu128.git1", "2.11.0.dev1")],
)
def test_no_local_build_is_pinned(installed: str, pinned: str) -> None:
    assert pin("torch", installed) == f"torch=={pinned}"


def test_the_requirements_are_exact_versions_of_public_releases(tmp_path: Path) -> None:
    write_model_files(tmp_path, "0" * 32)
    lines = (tmp_path / "requirements.txt").read_text().splitlines()
    pinned = [Requirement(line) for line in lines if not line.startswith("#")]
    assert {"torch", "timm", "mlflow"} <= {requirement.name for requirement in pinned}
    for requirement in pinned:
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        assert "+" not in specifier.version

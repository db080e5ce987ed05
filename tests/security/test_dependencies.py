"""Every package that is installed is one version, known by its hashes, from no named host."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = [ROOT / "requirements.lock", *sorted((ROOT / "cluster").glob("requirements-*.lock"))]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_requirement_is_pinned_and_hashed(lock: Path) -> None:
    text = re.sub(r"(?m)^\s*#.*\n", "", lock.read_text())
    requirements = re.sub(r"\\\n\s*", "", text).strip().splitlines()
    assert len(requirements) > 50
    for requirement in requirements:
        assert re.match(
            r"[a-z0-9][a-z0-9.-]*==\d[\w.+]*( ;[^\\]+?)?( --hash=sha256:[0-9a-f]{64})+$",
            requirement,
        ), requirement[:120]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_no_host_and_no_file_outside_the_index(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert " @ " not in text
    assert "--index" not in text
    assert "--find-links" not in text


def test_the_installer_insists_on_the_hashes() -> None:
    installs = [
        *re.findall(r"uv pip sync.*", (ROOT / "Makefile").read_text()),
        *re.findall(r"uv pip sync(?:.*\\\n)*.*", (ROOT / "cluster" / "Containerfile").read_text()),
    ]
    assert len(installs) == 2
    assert all("--require-hashes" in install for install in installs)

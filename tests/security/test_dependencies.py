"""Every package that is installed is one version, known by its hashes, from no named host."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PEERS = {"anomalib_predict.py"}
"""Runs in an environment of its own."""
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


def test_what_the_program_imports_is_in_the_images_lock() -> None:
    """The tests' environment has more: what only they install would be missing in the image."""
    lock = (ROOT / "cluster" / "requirements-cuda.lock").read_text()
    locked = set(re.findall(r"(?m)^([a-z0-9][a-z0-9.-]*)==", lock))
    distributions = packages_distributions()
    imported = {
        name.split(".")[0]
        for path in [*(ROOT / "nfbmr").rglob("*.py"), *(ROOT / "jobs").glob("*.py")]
        if path.name not in PEERS
        for name in imported_by(path)
    }
    outside = imported - sys.stdlib_module_names - {"nfbmr", "jobs"}
    assert {"torch", "ray", "mlflow", "boto3"} <= outside
    missing = {
        name
        for name in outside
        if not {re.sub(r"[._]", "-", d.lower()) for d in distributions.get(name, ())} & locked
    }
    assert not missing


def imported_by(path: Path) -> set[str]:
    """Absolute imports, wherever they stand in a file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names

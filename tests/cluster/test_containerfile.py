"""The container file, read: it cannot be built here, but what it promises can be checked."""

import os
import re
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nfbmr import __version__
from tests.cluster.manifests import CLUSTER, load

ROOT = CLUSTER.parent
TEXT = (CLUSTER / "Containerfile").read_text()
LOCK = CLUSTER / "requirements-cuda.lock"
COMPILERS = re.compile(r"\b(build-essential|gcc|g\+\+|clang|cargo|rustc|make|[\w-]+-dev)\b")


@dataclass
class Stage:
    """One FROM with the instructions after it."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def of(self, keyword: str) -> list[str]:
        return [value for word, value in self.instructions if word == keyword]


@dataclass
class Containerfile:
    """What stands before the first stage, and the stages."""

    arguments: list[str]
    stages: list[Stage]


def parse(text: str) -> Containerfile:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    parsed = Containerfile([], [])
    for line in filter(None, map(str.strip, joined.splitlines())):
        keyword, _, value = line.partition(" ")
        assert re.fullmatch(r"FROM|ARG|RUN|COPY|ENV|LABEL|USER|WORKDIR|CMD", keyword), line
        if keyword == "FROM":
            base, _, name = value.partition(" AS ")
            parsed.stages.append(Stage(base, name))
        elif parsed.stages:
            parsed.stages[-1].instructions.append((keyword, value.strip()))
        else:
            assert keyword == "ARG", line
            parsed.arguments.append(value)
    return parsed


@pytest.fixture(scope="module")
def parsed() -> Containerfile:
    return parse(TEXT)


def test_the_last_stage_takes_the_packages_and_no_compiler(parsed: Containerfile) -> None:
    first, last = parsed.stages
    assert COMPILERS.search(" ".join(first.of("RUN"))), "FrEIA's wheel needs a build stage"
    assert not COMPILERS.search(" ".join(last.of("RUN")))
    assert last.of("COPY") == [f"--from={first.name} --chown=root:root /opt/nfbmr /opt/nfbmr"]
    assert first.base == last.base == "${PYTHON_IMAGE}"


def test_the_base_is_pinned_to_a_version_of_python(parsed: Containerfile) -> None:
    (image,) = [a.partition("=")[2] for a in parsed.arguments if a.startswith("PYTHON_IMAGE")]
    assert re.fullmatch(r"python:3\.(11|12|13)-slim-[a-z]+", image)
    base = image.partition(":")[2].partition("-")[0]
    assert f"--python-version {base}" in (ROOT / "Makefile").read_text()


def test_it_runs_as_a_numbered_user_that_owns_nothing(parsed: Containerfile) -> None:
    """A number, because Kubernetes cannot see that a name is not root."""
    last = parsed.stages[-1]
    assert last.of("USER") == ["10001:10001"]
    words = [word for word, _ in last.instructions]
    assert "RUN" not in words[words.index("USER") :]
    (created,) = [run for run in last.of("RUN") if "useradd" in run]
    assert "--uid 10001" in created
    assert "nologin" in created


def test_every_package_is_installed_from_the_lock_with_hashes(parsed: Containerfile) -> None:
    first = parsed.stages[0]
    assert "cluster/requirements-*.lock locks/" in first.of("COPY")
    (installed,) = [run for run in first.of("RUN") if "pip sync" in run]
    assert "--require-hashes" in installed
    (ours,) = [run for run in first.of("RUN") if run.endswith("--no-deps .")]
    assert "uv pip install" in ours


def test_the_variant_is_a_build_argument_that_names_a_lock(parsed: Containerfile) -> None:
    for stage in parsed.stages:
        assert "VARIANT=cuda" in stage.of("ARG")
    assert "-o cluster/requirements-cpu.lock" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize(
    ("variant", "locks", "installed"),
    [("cuda", ["cuda"], "cuda"), ("cpu", ["cuda", "cpu"], "cpu"), ("cpu", ["cuda"], "cuda")],
)
def test_each_variant_finds_a_lock(
    parsed: Containerfile, tmp_path: Path, variant: str, locks: list[str], installed: str
) -> None:
    """The step that picks the lock, run by a shell as the build runs it."""
    result = pick_lock(parsed, tmp_path, variant, locks)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "requirements.lock").read_text() == f"of {installed}"
    assert ("the CUDA build is installed" in result.stdout) == (installed != variant)


def test_another_variant_is_refused(parsed: Containerfile, tmp_path: Path) -> None:
    result = pick_lock(parsed, tmp_path, "rocm", ["cuda", "cpu"])
    assert result.returncode == 2
    assert "VARIANT is rocm: it must be cuda or cpu" in result.stderr
    assert not (tmp_path / "requirements.lock").exists()


def pick_lock(
    parsed: Containerfile, build: Path, variant: str, locks: list[str]
) -> subprocess.CompletedProcess[str]:
    (step,) = [run for run in parsed.stages[0].of("RUN") if "locks/" in run]
    (build / "locks").mkdir()
    for lock in locks:
        (build / "locks" / f"requirements-{lock}.lock").write_text(f"of {lock}")
    return subprocess.run(
        ["sh", "-ec", step],
        cwd=build,
        env=os.environ | {"VARIANT": variant},
        capture_output=True,
        text=True,
        timeout=20,
    )


def versions(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9][\w.-]*)==([^\s;]+)", text, re.MULTILINE))


def test_the_image_has_the_versions_that_were_tested_and_no_test_tools() -> None:
    tested = versions((ROOT / "requirements.lock").read_text())
    image = versions(LOCK.read_text())
    assert image.items() <= tested.items()
    assert {"ray", "torch", "mlflow", "psycopg2-binary", "flask-wtf"} <= set(image)
    assert not {"pytest", "moto", "playwright", "mypy", "ruff", "hypothesis"} & set(image)


def test_what_is_copied_exists_and_holds_no_secret(parsed: Containerfile) -> None:
    for copy in parsed.stages[0].of("COPY"):
        *sources, _ = [word for word in shlex.split(copy) if not word.startswith("--")]
        for source in sources:
            assert source != ".", "the whole context must not get into the image"
            assert list(ROOT.glob(source)), source
    assert not re.search(r"(?i)(password|secret|token|key)=", TEXT)


def test_the_script_that_it_copies_runs_under_its_python() -> None:
    first_line = (CLUSTER / "submit.py").read_text().splitlines()[0]
    assert first_line == "#!/opt/nfbmr/bin/python"
    assert (CLUSTER / "submit.py").stat().st_mode & 0o111


def test_tags_in_the_examples_are_ours() -> None:
    (kustomization,) = load("kustomization.yaml")
    tags = {f"{image['newName']}:{image['newTag']}" for image in kustomization["images"]}
    examples = set(re.findall(r"-t (\S+)", TEXT))
    assert tags <= examples == {f"nfbmr:{__version__}-{v}" for v in ("cuda", "cpu")}

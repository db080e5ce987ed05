"""``kill -9`` of a driver, actor or task, anywhere: the same command again gives the same rows.

42 points are drawn from seeds: 10 of what a driver does to files while it plans, 10 while it merges
and cleans up, 10 while it retries what failed, 6 of what reaches an object store while it publishes
there, 6 of how far the scoring is.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote

import fsspec
import pytest
from ray._private.ray_constants import PROCESS_TYPE_RAYLET
from ray.cluster_utils import Cluster

from nfbmr import store_folders
from nfbmr.score.dataset import read_marker, read_scores
from nfbmr.score.plan_files import load_plan
from nfbmr.score.units import finished_units, read_unit
from tests.faults.conftest import PICTURES, UNIT_SIZE, Plant, Rows, assert_same, rows_of
from tests.faults.driver import PATIENCE_S, Driver
from tests.services import faulty_proxy as faulty
from tests.services.faulty_proxy import Fault, FaultyProxy, Request

# Minutes each: make test-slow.
pytestmark = [pytest.mark.integration, pytest.mark.slow]

POINTS = 10
POINTS_WHILE_SCORING = 6
POINTS_IN_A_STORE = 6


def killed_at(
    cluster: Cluster, environment: Mapping[str, str], argv: list[str], folder: str, event: int
) -> None:
    """A new driver runs the command and is killed right before what it does to a file."""
    driver = Driver(cluster.address, environment)
    driver.start(argv, folder, event)
    with pytest.raises(EOFError):
        driver.outcome()
    driver.kill()


def points(events: int, seed: int) -> list[int]:
    """Some of so many events, and the last one."""
    return [*random.Random(seed).sample(range(events - 1), POINTS - 1), events - 1]


def test_while_planning(
    cluster: Cluster,
    environment: dict[str, str],
    driver: Driver,
    plant: Plant,
    tmp_path: Path,
    undisturbed: Rows,
) -> None:
    aside = tmp_path / "aside"
    steps = driver.run([*plant.argv(plant.tar, str(aside)), "--dry-run"], str(aside)).file_events
    assert steps >= POINTS
    whole = load_plan(str(aside))
    assert whole is not None
    for event in sorted(random.Random(0).sample(range(steps), POINTS)):
        output = str(tmp_path / f"scores-{event}")
        argv = plant.argv(plant.tar, output)
        killed_at(cluster, environment, [*argv, "--dry-run"], output, event)
        assert driver.run([*argv, "--dry-run"]).code == 0
        plan = load_plan(output)
        assert plan is not None
        assert plan.units == whole.units
    assert driver.run(argv).code == 0
    assert_same(rows_of(output), undisturbed)
    left = {path.name for path in Path(output, "_plan").iterdir()}
    kinds = ("pictures", "units", "plan", "indexes", "session")
    assert {name.partition("-")[0].partition(".")[0] for name in left} <= set(kinds)
    assert not [name for name in left if "-" in name and plan.run_id not in name]


def test_while_merging_marking_and_cleaning_up(
    cluster: Cluster,
    environment: dict[str, str],
    driver: Driver,
    plant: Plant,
    tmp_path: Path,
    undisturbed: Rows,
) -> None:
    output = tmp_path / "scores"
    argv = plant.argv(plant.tar, str(output))
    killed_at(cluster, environment, argv, str(output / "_merge-"), 0)
    assert len(finished_units(str(output))) == len(units_of(undisturbed))
    shutil.copytree(output, tmp_path / "scored")
    again = driver.run(argv, str(output))
    assert again.code == 0
    assert again.file_events >= POINTS
    marked = 0
    for event in points(again.file_events, seed=1):
        shutil.rmtree(output)
        shutil.copytree(tmp_path / "scored", output)
        killed_at(cluster, environment, argv, str(output), event)
        marked += read_marker(str(output)) is not None
        outcome = driver.run(argv)
        assert outcome.code == 0, outcome.said
        assert_same(rows_of(str(output)), undisturbed)
        left = {path.name for path in output.iterdir()}
        assert left <= {"_plan", "_SUCCESS", "_summary.json", "data"}
    assert 0 < marked < POINTS


class Strike:
    """Sees what changes an output in the store, and kills a driver at one of these requests.

    Args:
        output: URI of the output.
        event: the number of the request; it is not answered.

    Attributes:
        count: how many there have been.
        victim: who is killed.
    """

    def __init__(self, output: str, event: int = -1, part: str = "") -> None:
        self._path = f"{output.removeprefix('s3:/')}/{part}"
        self._event = event
        self.count = 0
        self.victim: Driver | None = None

    def __call__(self, request: Request) -> Fault | None:
        path = unquote(request.path).partition("?")[0]
        if request.method not in ("PUT", "POST", "DELETE") or not path.startswith(self._path):
            return None
        self.count += 1
        if self.victim is None or self.count - 1 != self._event:
            return None
        self.victim.strike()
        return faulty.reset

    def kill(self, proxy: FaultyProxy, victim: Driver, argv: list[str]) -> None:
        """Let a driver run a command until it is killed."""
        self.victim = victim
        with proxy.faults(self):
            victim.start(argv)
            with pytest.raises(EOFError):
                victim.outcome()
        victim.kill()


def test_while_publishing_in_an_object_store(
    cluster: Cluster,
    environment: dict[str, str],
    driver: Driver,
    plant: Plant,
    stored: str,
    proxy: FaultyProxy,
    here: None,
    undisturbed: Rows,
) -> None:
    """Merging, copying, marking, and removing what is not needed any more."""
    store = fsspec.filesystem("s3")
    output, scored = f"{stored}/published", f"{stored}/scored"
    argv = plant.argv(plant.tar, output)
    merging = Strike(output, 0, "_merge-")
    merging.kill(proxy, Driver(cluster.address, environment), argv)
    store.invalidate_cache()
    assert len(finished_units(output)) == len(units_of(undisturbed))
    store.copy(output, scored, recursive=True)
    seen = Strike(output)
    with proxy.faults(seen):
        assert driver.run(argv).code == 0
    assert seen.count >= POINTS
    marked = 0
    for event in sorted(random.Random(4).sample(range(seen.count), POINTS_IN_A_STORE)):
        store_folders.remove_tree(output)
        store.invalidate_cache()
        store.copy(scored, output, recursive=True)
        Strike(output, event).kill(proxy, Driver(cluster.address, environment), argv)
        store.invalidate_cache()
        marked += read_marker(output) is not None
        outcome = driver.run(argv)
        assert outcome.code == 0, outcome.said
        assert_same(rows_of(output), undisturbed)
        left = {*store_folders.list_names(output), *store_folders.list_folders(output)}
        assert left <= {"_plan", "_SUCCESS", "_summary.json", "data"}
    assert 0 < marked < POINTS_IN_A_STORE


def test_while_retrying_what_failed(
    cluster: Cluster,
    environment: dict[str, str],
    driver: Driver,
    plant: Plant,
    stored: str,
    proxy: FaultyProxy,
    tmp_path: Path,
    undisturbed: Rows,
) -> None:
    """From a finished run with errors to one without: no row is lost or doubled on the way."""
    output = tmp_path / "scores"
    argv = plant.argv(f"{stored}/pictures", str(output))
    denied = {name for name in plant.pictures if name.startswith("bottle/")}

    def refuse(request: Request) -> Fault | None:
        reads = request.method == "GET" and any(map(request.path.endswith, denied))
        return faulty.DENIED if reads else None

    with proxy.faults(refuse):
        driver.run(argv)
    assert failed_in(rows_of(str(output))) == denied
    shutil.copytree(output, tmp_path / "failed")
    retry = [*argv, "--retry-failed"]
    undisturbed_retry = driver.run(retry, str(output))
    assert undisturbed_retry.code == 0, undisturbed_retry.said
    assert_same(rows_of(str(output)), undisturbed)
    assert undisturbed_retry.file_events >= POINTS
    cut = 0
    for event in points(undisturbed_retry.file_events, seed=3):
        shutil.rmtree(output)
        shutil.copytree(tmp_path / "failed", output)
        killed_at(cluster, environment, retry, str(output), event)
        cut += read_marker(str(output)) is None or bool(failed_in(rows_of(str(output))))
        outcome = driver.run(retry)
        assert outcome.code == 0, outcome.said
        assert_same(rows_of(str(output)), undisturbed)
    assert cut > POINTS / 2


def failed_in(rows: Rows) -> set[str]:
    return {member for member, row in rows.items() if row["status"] == "error"}


def units_of(rows: Rows) -> list[int]:
    """Sizes of the units that these rows are cut into."""
    per_category = [row["category"] for row in rows.values()]
    counts = [per_category.count(name) for name in set(per_category)]
    return [n for count in counts for n in [UNIT_SIZE] * (-(-count // UNIT_SIZE))]


def dawdling(request: Request) -> Fault | None:
    """Reading takes long enough for a test to strike in the middle."""
    return faulty.slow(0.7) if request.path.endswith(".jpg") else None


def wait_for_units(driver: Driver, output: str, count: int) -> None:
    """Return when so many units are committed, or the run has ended."""
    deadline = time.monotonic() + PATIENCE_S
    while len(finished_units(output)) < count and not driver.ended_within(0.02):
        assert time.monotonic() < deadline, "a hang"


def test_while_scoring(
    cluster: Cluster,
    environment: dict[str, str],
    driver: Driver,
    plant: Plant,
    stored: str,
    proxy: FaultyProxy,
    tmp_path: Path,
    undisturbed: Rows,
) -> None:
    """One run is killed again and again; units that were finished are not scored again."""
    output = str(tmp_path / "scores")
    argv = plant.argv(f"{stored}/pictures", output)
    generator = random.Random(2)
    scored_at: dict[str, object] = {}
    with proxy.faults(dawdling):
        units = len(units_of(undisturbed))
        for target in sorted(generator.sample(range(units - 2), POINTS_WHILE_SCORING)):
            victim = Driver(cluster.address, environment)
            victim.start(argv)
            wait_for_units(victim, output, target)
            time.sleep(generator.uniform(0, 0.3))
            victim.kill()
            for name in finished_units(output):
                for row in read_unit(output, name).to_pylist():
                    scored_at.setdefault(row["member"], row["scored_at"])
    assert read_marker(output) is None
    assert UNIT_SIZE <= len(scored_at) < PICTURES
    assert driver.run(argv).code == 0
    assert_same(rows_of(output), undisturbed)
    final = finished_at(output)
    assert {member: final[member] for member in scored_at} == scored_at


def finished_at(output: str) -> dict[str, object]:
    return {row["member"]: row["scored_at"] for row in read_scores(output).to_pylist()}


def workers(cluster: Cluster, title: str) -> list[int]:
    """Ids of this cluster's workers that do something with this title."""
    raylet = cluster.head_node.all_processes[PROCESS_TYPE_RAYLET][0].process.pid
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue  # it ended meanwhile
        if parent == raylet and title in command:
            found.append(int(folder.name))
    return found


@pytest.mark.parametrize("title", ["Scorer", "Fetcher"])
def test_of_a_worker(
    title: str,
    cluster: Cluster,
    driver: Driver,
    plant: Plant,
    stored: str,
    proxy: FaultyProxy,
    tmp_path: Path,
    undisturbed: Rows,
) -> None:
    """The actor that scores, and a task that fetches."""
    output = str(tmp_path / "scores")
    with proxy.faults(dawdling):
        driver.start(plant.argv(f"{stored}/pictures", output))
        if title == "Scorer":  # All may be fetched before the actor is up.
            wait_for_units(driver, output, 3)
        victims = wait_for(lambda: workers(cluster, title))
        os.kill(victims[0], signal.SIGKILL)
        left = len(units_of(undisturbed)) - len(finished_units(output))
        outcome = driver.outcome()
    assert left > 0, "the run had ended before"
    assert outcome.code == 0, outcome.said
    assert_same(rows_of(output), undisturbed)


def wait_for(look: Callable[[], list[int]]) -> list[int]:
    deadline = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < deadline, "there is no such worker"
        time.sleep(0.02)
    return found

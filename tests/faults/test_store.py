"""An object store that throttles, resets, dawdles, cuts short, expires or fills up during a run.

Runs go through real Ray workers to a real object store, behind a proxy that fails.
"""

import itertools
import random
import uuid
from collections.abc import Mapping

import pytest
from ray.cluster_utils import Cluster

from nfbmr.errors import StoreError, WorkerError
from nfbmr.score.dataset import is_being_retried, read_marker
from nfbmr.score.units import finished_units
from tests.faults.conftest import PICTURES, Plant, Rows, assert_same, rows_of
from tests.faults.driver import Driver, Outcome
from tests.services import faulty_proxy as faulty
from tests.services.faulty_proxy import Choose, Fault, FaultyProxy, Request, some

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("here")]


# Minutes each: make test-slow.
by_hand = pytest.mark.slow

PATIENT = "run.store_patience_s=40"
IMPATIENT = "run.store_patience_s=1"


def is_picture_read(request: Request) -> bool:
    archives = (".jpg", "all.tar", "all.tar.gz", "all.zip", "all.parquet")
    return request.method == "GET" and request.path.endswith(archives)


def is_commit(request: Request) -> bool:
    return request.method in ("PUT", "POST") and "/_units/" in request.path


@pytest.fixture
def output(stored: str) -> str:
    return f"{stored}/scores-{uuid.uuid4().hex}"


def every_fault_in_turn(seed: int) -> Choose:
    """While an archive is listed as while it is read."""
    generator = random.Random(seed)
    kinds = (faulty.cut_short, faulty.truncated, faulty.reset, faulty.SLOW_DOWN)

    def choose(request: Request) -> Fault | None:
        hit = is_picture_read(request) and generator.random() < 0.25
        return generator.choice(kinds) if hit else None

    return choose


PASSING: dict[str, tuple[str, Choose]] = {
    "throttled": ("pictures", some(0.2, 1, faulty.SLOW_DOWN)),
    "reset": ("pictures", some(0.15, 2, faulty.reset)),
    "reset in the middle": ("all.tar", some(0.3, 3, faulty.reset_in_the_middle, is_picture_read)),
    "truncated": ("pictures", some(0.3, 4, faulty.truncated, is_picture_read)),
    "cut short under a header that hides it": (
        "pictures",
        some(0.05, 5, faulty.cut_short, is_picture_read),
    ),
    "slow": ("pictures", some(0.2, 6, faulty.slow(2.0), is_picture_read)),
    **{
        f"cut short, truncated and reset, {kind}": (kind, every_fault_in_turn(number))
        for number, kind in enumerate(("all.zip", "all.parquet", "all.tar.gz", "all.tar"))
    },
    "commits throttled": ("all.tar", some(0.4, 7, faulty.SLOW_DOWN, is_commit)),
    "commits reset": ("all.tar", some(0.3, 8, faulty.reset, is_commit)),
}


def passing(name: str) -> object:
    marks = [by_hand] if name.startswith("cut short") else []
    return pytest.param(*PASSING[name], id=name, marks=marks)


@pytest.mark.parametrize(("source", "faults"), [passing(name) for name in PASSING])
def test_what_passes_leaves_no_trace(
    source: str,
    faults: Choose,
    driver: Driver,
    plant: Plant,
    stored: str,
    output: str,
    proxy: FaultyProxy,
    undisturbed: Rows,
) -> None:
    with proxy.faults(faults):
        outcome = driver.run(plant.argv(f"{stored}/{source}", output, PATIENT))
    assert proxy.failed > 0, outcome.said
    assert outcome.code == 0, outcome.said
    assert_same(rows_of(output), undisturbed)


def ends_with_a_sentence(outcome: Outcome, *words: str) -> None:
    assert outcome.code == StoreError.exit_code, outcome.said
    sentence = outcome.said[outcome.said.index("error: ") :]
    for word in (*words, "run the same command again", "What was finished stays"):
        assert word in sentence
    assert "Traceback" not in outcome.said


@by_hand
@pytest.mark.parametrize(
    ("source", "answer", "after"),
    [
        ("pictures", faulty.EXPIRED, 110),
        ("pictures", faulty.UNKNOWN_KEY, 110),
        ("all.parquet", faulty.EXPIRED, 40),
        ("all.tar.gz", faulty.EXPIRED, 40),
    ],
    ids=["expired", "unknown", "expired, parquet", "expired, tar.gz"],
)
def test_credentials_that_stop_working_end_the_run_and_lose_nothing(
    source: str,
    answer: Fault,
    after: int,
    driver: Driver,
    plant: Plant,
    stored: str,
    output: str,
    proxy: FaultyProxy,
    undisturbed: Rows,
) -> None:
    """From the middle of the run on, everything is refused."""
    argv = plant.argv(f"{stored}/{source}", output)
    with proxy.faults(lambda request: answer if request.number > after else None):
        outcome = driver.run(argv)
        assert proxy.failed > 0, outcome.said
    ends_with_a_sentence(outcome, "credentials")
    done = finished_units(output)
    assert len(done) < PICTURES / 4
    assert read_marker(output) is None
    assert driver.run(argv).code == 0
    assert_same(rows_of(output), undisturbed)


@by_hand
def test_rights_that_are_missing_everywhere_end_the_run(
    driver: Driver, plant: Plant, stored: str, output: str, proxy: FaultyProxy, undisturbed: Rows
) -> None:
    argv = plant.argv(f"{stored}/pictures", output)
    with proxy.faults(lambda request: faulty.DENIED if is_picture_read(request) else None):
        ends_with_a_sentence(driver.run(argv), "AccessDenied", "not one picture")
    assert finished_units(output) == set()
    assert driver.run(argv).code == 0
    assert_same(rows_of(output), undisturbed)


@pytest.mark.parametrize(("whole", "other"), [("bottle", "cable"), ("cable", "bottle")])
def test_rights_that_are_missing_for_some_pictures_are_their_error_rows(
    driver: Driver,
    plant: Plant,
    stored: str,
    output: str,
    proxy: FaultyProxy,
    undisturbed: Rows,
    whole: str,
    other: str,
) -> None:
    """One picture here, the whole of the other category there, be it the first or the last."""
    denied = {m for m in undisturbed if m.startswith(f"{whole}/")}
    denied.add(min(m for m in undisturbed if m.startswith(f"{other}/")))

    def faults(request: Request) -> Fault | None:
        hit = any(request.path.endswith(f"/pictures/{member}") for member in denied)
        return faulty.DENIED if hit else None

    argv = plant.argv(f"{stored}/pictures", output)
    with proxy.faults(faults):
        outcome = driver.run(argv)
        again = driver.run([*argv, "--retry-failed"])
    assert "31 of 60 pictures have no score" in outcome.said
    assert "31 error rows were scored again; 31 are still errors" in again.said
    assert again.code == outcome.code
    assert not is_being_retried(output)
    rows = rows_of(output)
    assert rows.keys() == undisturbed.keys()
    for member, row in rows.items():
        if member in denied:
            assert row["status"] == "error"
            assert "AccessDenied" in str(row["error"])
        else:
            assert_same({member: row}, {member: undisturbed[member]})


@by_hand
def test_a_store_that_goes_out_for_longer_than_patience_ends_the_run_and_loses_nothing(
    driver: Driver, plant: Plant, stored: str, output: str, proxy: FaultyProxy, undisturbed: Rows
) -> None:
    """Pictures lie in the store, rows on the disk of this machine's plan: both must survive."""
    argv = plant.argv(f"{stored}/pictures", output, IMPATIENT)

    reads = itertools.count()

    def out(request: Request) -> Fault | None:
        return faulty.reset if is_picture_read(request) and next(reads) > PICTURES / 3 else None

    with proxy.faults(out):
        ends_with_a_sentence(driver.run(argv), "cannot be read")
    assert driver.run(argv).code == 0
    assert_same(rows_of(output), undisturbed)


def test_one_picture_that_always_resets_is_one_error_row(
    driver: Driver, plant: Plant, stored: str, output: str, proxy: FaultyProxy, undisturbed: Rows
) -> None:
    def one(request: Request) -> Fault | None:
        return faulty.reset if request.path.endswith("cable/007.jpg") else None

    with proxy.faults(one):
        outcome = driver.run(plant.argv(f"{stored}/pictures", output, IMPATIENT))
    assert "1 of 60 pictures" in outcome.said
    rows = rows_of(output)
    assert rows.pop("cable/007.jpg")["status"] == "error"
    assert_same(rows, {m: row for m, row in undisturbed.items() if m != "cable/007.jpg"})


@by_hand
def test_a_category_that_always_resets_is_error_rows_and_keeps_no_other_waiting(
    driver: Driver, plant: Plant, stored: str, output: str, proxy: FaultyProxy, undisturbed: Rows
) -> None:
    """Eight units without a readable picture, while the store gives all others."""

    def bottles(request: Request) -> Fault | None:
        hit = is_picture_read(request) and "/bottle/" in request.path
        return faulty.reset if hit else None

    argv = plant.argv(f"{stored}/pictures", output, IMPATIENT)
    with proxy.faults(bottles):
        outcome = driver.run(argv)
    assert "30 of 60 pictures have no score" in outcome.said, outcome.said
    rows = rows_of(output)
    assert rows.keys() == undisturbed.keys()
    for member, row in rows.items():
        if member.startswith("bottle/"):
            assert row["status"] == "error"
        else:
            assert_same({member: row}, {member: undisturbed[member]})
    again = driver.run([*argv, "--retry-failed"])
    assert again.code == 0, again.said
    assert_same(rows_of(output), undisturbed)


@by_hand
@pytest.mark.parametrize("answer", [faulty.QUOTA, faulty.NO_ROOM], ids=["quota", "507"])
def test_a_bucket_that_fills_up_at_commit_ends_the_run_and_loses_nothing(
    answer: Fault,
    driver: Driver,
    plant: Plant,
    stored: str,
    output: str,
    proxy: FaultyProxy,
    undisturbed: Rows,
) -> None:
    argv = plant.argv(plant.tar, output, IMPATIENT)
    commits = []

    def full(request: Request) -> Fault | None:
        if not is_commit(request):
            return None
        commits.append(request)
        return answer if len(commits) > 5 else None

    with proxy.faults(full):
        ends_with_a_sentence(driver.run(argv), "no room left")
    assert 0 < len(finished_units(output)) < PICTURES / 4
    assert driver.run(argv).code == 0
    assert_same(rows_of(output), undisturbed)


@by_hand
def test_a_bucket_that_fills_up_at_the_end_loses_nothing(
    driver: Driver, plant: Plant, stored: str, output: str, proxy: FaultyProxy, undisturbed: Rows
) -> None:
    """All units are committed; the large files of the data set find no room."""
    argv = plant.argv(plant.tar, output, IMPATIENT)

    def full(request: Request) -> Fault | None:
        is_part = request.method in ("PUT", "POST") and request.path.endswith("/part-00000.parquet")
        return faulty.QUOTA if is_part else None

    with proxy.faults(full):
        ends_with_a_sentence(driver.run(argv), "no room left")
    assert read_marker(output) is None
    assert len(finished_units(output)) >= PICTURES // 4
    outcome = driver.run(argv)
    assert outcome.code == 0
    assert "16 of 16 units were finished before" in outcome.said
    assert_same(rows_of(output), undisturbed)


@by_hand
def test_a_store_that_never_answers_ends_the_run_by_the_watchdog(
    cluster: Cluster,
    environment: Mapping[str, str],
    driver: Driver,
    plant: Plant,
    stored: str,
    output: str,
    proxy: FaultyProxy,
    undisturbed: Rows,
) -> None:
    """Its process ends too, though its workers still wait for the store."""
    argv = plant.argv(f"{stored}/pictures", output)
    stalled = Driver(cluster.address, environment)
    with proxy.faults(lambda request: faulty.silent if is_picture_read(request) else None):
        outcome = stalled.run([*argv, "--set", "run.stall_timeout_s=10"])
        assert stalled.close()
    assert outcome.code == WorkerError.exit_code, outcome.said
    assert "No unit was finished for 10 s (run.stall_timeout_s)" in outcome.said
    assert "Traceback" not in outcome.said
    assert driver.run(argv).code == 0
    assert_same(rows_of(output), undisturbed)

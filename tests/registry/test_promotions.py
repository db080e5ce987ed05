"""Promotion when nights overlap: real processes, one SQLite, no lost step and no stale alias."""

import itertools
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nfbmr.errors import RegistryError
from nfbmr.registry import BY_GATE, CHALLENGER, CHAMPION, PREVIOUS, ROLLBACK, Registry
from nfbmr.registry.names import LEDGER_TAG, NOTE_TAG
from nfbmr.registry.promotions import ADOPTED, SETTLING_S, Ledger, Promotion

PROCESSES = 2

Registered = Callable[[int], None]


@pytest.fixture
def registered(registry: Registry, tmp_path: Path) -> Registered:
    """Registers so many versions of ``bottle``; their files are of no matter here."""

    def register(count: int) -> None:
        for night in range(count):
            folder = tmp_path / f"night-{night}"
            folder.mkdir(exist_ok=True)
            (folder / "detector.json").write_text(str(night))
            (folder / "detector.safetensors").write_text(str(night))
            registry.register("bottle", folder, params={}, metrics={}, curves=[], tags={})

    return register


def aliases(registry: Registry) -> dict[str, str]:
    found = [(alias, v.version) for v in registry.list_versions() for alias in v.aliases]
    assert len(found) == len(dict(found))
    return dict(found)


def ledger_of(registry: Registry) -> Ledger:
    return Ledger(registry.client, "nfbmr-bottle")


def test_a_decision_counts_only_against_the_champion_that_it_was_made_against(
    registry: Registry, registered: Registered
) -> None:
    registered(3)
    assert registry.champion("bottle") is None
    assert registry.promote("bottle", "1", {}, replacing=None, kind=BY_GATE, reason="first")
    assert not registry.promote("bottle", "2", {}, replacing=None)
    assert aliases(registry) == {CHAMPION: "1", CHALLENGER: "3"}
    assert registry.promote("bottle", "3", {}, replacing="1")
    assert not registry.promote("bottle", "2", {}, replacing="1")
    assert aliases(registry) == {CHAMPION: "3", PREVIOUS: "1"}
    steps = [(p.replaces, p.champion) for p in registry.promotions("bottle")]
    assert steps == [(None, "1"), ("1", "3")]


def test_rollback_and_its_rollback(registry: Registry, registered: Registered) -> None:
    registered(2)
    with pytest.raises(RegistryError, match="no previous champion to roll back to"):
        registry.rollback("bottle")
    registry.promote("bottle", "1", {})
    registry.promote("bottle", "2", {})
    done = registry.rollback("bottle", "too many alarms")
    assert (done.champion, done.kind, done.reason) == ("1", ROLLBACK, "too many alarms")
    assert aliases(registry) == {CHAMPION: "1", PREVIOUS: "2"}
    registry.rollback("bottle")
    assert aliases(registry) == {CHAMPION: "2", PREVIOUS: "1"}


@pytest.mark.parametrize("later_s", [0.0, SETTLING_S + 1])
def test_a_promoter_that_died_before_the_aliases_followed_is_made_good(
    registry: Registry, registered: Registered, monkeypatch: pytest.MonkeyPatch, later_s: float
) -> None:
    registered(2)
    registry.promote("bottle", "1", {})
    assert ledger_of(registry).append(1, Promotion("2", "1", BY_GATE))
    assert registry.resolve("bottle", CHAMPION).version == "1"
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + later_s)
    champion = registry.champion("bottle")
    assert champion is not None
    assert champion.version == "2"
    assert aliases(registry) == {CHAMPION: "2", PREVIOUS: "1"}


def test_an_alias_moved_by_hand_is_taken_over(
    registry: Registry, registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(3)
    registry.promote("bottle", "1", {})
    registry.client.set_registered_model_alias("nfbmr-bottle", CHAMPION, "2")
    now = registry.promotions("bottle")[-1].at
    monkeypatch.setattr("time.time", lambda: now + SETTLING_S + 1)
    champion = registry.champion("bottle")
    assert champion is not None
    assert champion.version == "2"
    assert registry.promotions("bottle")[-1].kind == ADOPTED
    assert aliases(registry) == {CHAMPION: "2", PREVIOUS: "1", CHALLENGER: "3"}


def test_a_deleted_previous_is_no_previous(registry: Registry, registered: Registered) -> None:
    registered(2)
    registry.promote("bottle", "1", {})
    registry.client.delete_model_version("nfbmr-bottle", "1")
    registry.promote("bottle", "2", {})
    assert aliases(registry) == {CHAMPION: "2"}
    with pytest.raises(RegistryError, match="no previous champion"):
        registry.rollback("bottle")


def test_models_made_without_a_ledger_get_one(registry: Registry, registered: Registered) -> None:
    registered(2)
    registry.client.delete_registered_model_tag("nfbmr-bottle", "nfbmr.promotions_run")
    registry.client.set_registered_model_alias("nfbmr-bottle", CHAMPION, "1")
    assert registry.promote("bottle", "2", {}, replacing="1")
    assert aliases(registry) == {CHAMPION: "2", PREVIOUS: "1"}


def test_a_ledger_that_somebody_deleted_is_restored(
    registry: Registry, registered: Registered
) -> None:
    """It looks like a run that nobody needs."""
    registered(3)
    registry.promote("bottle", "1", {})
    run_id = registry.client.get_registered_model("nfbmr-bottle").tags[LEDGER_TAG]
    note = registry.client.get_run(run_id).data.tags[NOTE_TAG]
    assert "do not delete" in note
    registry.client.delete_run(run_id)
    with pytest.warns(UserWarning, match=f"run {run_id}.*had been deleted: it is restored"):
        assert registry.promote("bottle", "2", {}, replacing="1")
    assert registry.client.get_run(run_id).info.lifecycle_stage == "active"
    assert aliases(registry) == {CHAMPION: "2", PREVIOUS: "1", CHALLENGER: "3"}
    assert [p.champion for p in registry.promotions("bottle")] == ["1", "2"]
    assert registry.promote("bottle", "3", {}, replacing="2"), "without a warning now"


def test_a_ledger_that_is_gone_for_good_is_named(
    registry: Registry, registered: Registered
) -> None:
    registered(1)
    registry.client.set_registered_model_tag("nfbmr-bottle", LEDGER_TAG, "0" * 32)
    with pytest.raises(RegistryError, match=f"was removed for good.*delete the tag {LEDGER_TAG}"):
        registry.promote("bottle", "1", {})
    registry.client.delete_registered_model_tag("nfbmr-bottle", LEDGER_TAG)
    assert registry.promote("bottle", "1", {}, replacing=None)


OVERLAPPING_NIGHT = textwrap.dedent(
    """
    import sys
    from nfbmr.registry import BY_GATE, Registry

    uri, versions = sys.argv[1], sys.argv[2:]
    registry = Registry(uri)
    registry.client
    print("ready", flush=True)
    sys.stdin.readline()
    for version in versions:
        while True:
            champion = registry.champion("bottle")
            replaced = champion.version if champion else None
            if registry.promote("bottle", version, {}, replacing=replaced, kind=BY_GATE):
                print(replaced, version, flush=True)
                break
            print("again", flush=True)
    """
)


def test_processes_that_promote_at_once_lose_no_step(
    registry: Registry, registered: Registered
) -> None:
    """Each names the champion that it judged against; the ledger is one chain of just those."""
    each = 2
    registered(PROCESSES * each)
    nights = [
        subprocess.Popen(
            [sys.executable, "-c", OVERLAPPING_NIGHT, registry.uri]
            + [str(1 + night + PROCESSES * step) for step in range(each)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for night in range(PROCESSES)
    ]
    for night in nights:
        assert night.stdout is not None
        assert night.stdout.readline() == "ready\n"
    outputs = []
    for night in nights:
        assert night.stdin is not None
        night.stdin.write("go\n")
        night.stdin.flush()
    for night in nights:
        outputs.append(night.communicate(timeout=240)[0])
        assert night.returncode == 0
    claimed = {
        tuple(line.split()) for out in outputs for line in out.splitlines() if line != "again"
    }
    chain = registry.promotions("bottle")
    assert {(str(p.replaces), str(p.champion)) for p in chain} == claimed
    assert len(chain) == PROCESSES * each
    assert chain[0].replaces is None
    for before, after in itertools.pairwise(chain):
        assert after.replaces == before.champion
    found = aliases(registry)
    assert (found[CHAMPION], found[PREVIOUS]) == (chain[-1].champion, chain[-1].replaces)

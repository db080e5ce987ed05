"""Labels decide where there are any; elsewhere three other things must hold; numbers are kept."""

import json
from dataclasses import replace

import numpy as np
import pytest

from nfbmr.gate_settings import GateSettings
from nfbmr.train.comparison import Opponent, out_of_block_alarms
from nfbmr.train.evidence import Evidence
from nfbmr.train.gate import (
    BY_LABELS,
    WITHOUT_LABELS,
    Decision,
    decide,
)

RATE = 0.05
GATE = GateSettings()
TONIGHT = "2026-11-24T02:00:00Z"
YESTERDAY = "2026-11-23T02:00:00Z"


def evidence(
    seed: int = 0, separation: float = 3.0, labelled: int = 0, noise: float = 0.0
) -> Evidence:
    """100 held-out normals, as many synthetic defects, and labelled pictures of both kinds.

    Scores are a property of the picture plus the detector's own noise.
    """
    of_picture = np.random.default_rng(0)
    own = np.random.default_rng(1000 + seed)

    def scores(prefix: str, count: int, mean: float) -> dict[str, float]:
        values = of_picture.normal(mean, 1.0, count) + noise * own.normal(0.0, 1.0, count)
        return {f"{prefix}{i:03d}": float(value) for i, value in enumerate(values)}

    held_out = scores("normal", 100, 0.0)
    synthetic = scores("cut", 100, separation)
    good, bad = scores("good", labelled, 0.0), scores("bad", labelled, separation)
    return Evidence(held_out, synthetic, {**good, **bad}, tuple(bad))


def opponent(of: Evidence, fitted_at: str = YESTERDAY) -> Opponent:
    threshold = float(np.quantile(list(of.held_out.values()), 1 - RATE))
    return Opponent("3", of.scores, threshold, fitted_at, "test")


def judged(
    challenger: Evidence, champion: Evidence | None, settings: GateSettings = GATE
) -> Decision:
    other = None if champion is None else opponent(champion)
    return decide(challenger, TONIGHT, RATE, other, settings)


def failed(decision: Decision) -> list[str]:
    return [check.name for check in decision.checks if not check.passed]


def test_the_first_version_is_promoted_unless_it_guesses() -> None:
    decision = judged(evidence(labelled=20), None)
    assert decision.promote
    assert decision.basis == BY_LABELS
    assert decision.reason.startswith("there was no champion: AUROC on labelled pictures 0.9")
    worse_than_guessing = evidence(labelled=20, separation=-1.0)
    assert failed(judged(worse_than_guessing, None)) == ["floor"]
    assert failed(judged(evidence(separation=-1.0), None)) == ["floor"]


def test_labels_decide_where_there_are_enough_and_the_settings_allow_it() -> None:
    many, few = evidence(labelled=10), evidence(labelled=9)
    assert judged(many, many).basis == BY_LABELS
    assert judged(few, few).basis == WITHOUT_LABELS
    assert judged(many, many, replace(GATE, labelled=False)).basis == WITHOUT_LABELS
    only_old_labels = replace(many, labelled={}, defective=())
    assert judged(many, only_old_labels).basis == WITHOUT_LABELS


@pytest.mark.parametrize("labelled", [0, 50])
def test_it_may_be_a_little_worse_than_the_champion_but_not_more(labelled: int) -> None:
    champion = evidence(labelled=labelled, separation=3.0)
    much_worse = evidence(labelled=labelled, separation=1.0)
    assert judged(champion, champion).promote
    assert judged(champion, much_worse).promote
    decision = judged(much_worse, champion)
    assert not decision.promote
    assert "not_worse" in failed(decision)
    assert "champion 3: AUROC on" in decision.reason
    name = "labelled_auroc" if labelled else "synthetic_auroc"
    loss = decision.numbers[f"champion_{name}"] - decision.numbers[name]  # type: ignore[operator]
    assert f"{decision.numbers[name]:.3f}" in decision.reason
    just_allowed = replace(GATE, max_auroc_loss=loss, min_agreement=-1.0)
    assert judged(much_worse, champion, just_allowed).promote
    not_allowed = replace(GATE, max_auroc_loss=loss - 1e-6, min_agreement=-1.0)
    assert not judged(much_worse, champion, not_allowed).promote


def test_without_labels_both_must_rank_the_pictures_alike() -> None:
    champion = evidence(seed=1)
    assert judged(evidence(seed=2, noise=0.3), champion).promote
    stranger = replace(
        champion,
        held_out=dict(
            zip(champion.held_out, np.random.default_rng(5).normal(0, 1, 100).tolist(), strict=True)
        ),
    )
    strict = replace(GATE, min_agreement=0.95)
    assert failed(judged(stranger, champion, strict)) == ["agreement"]


def test_many_normals_that_the_champion_calls_anomalous_stop_a_promotion() -> None:
    """Defective or other pictures among tonight's normals."""
    champion = evidence()
    polluted = opponent(champion)
    scores = dict(polluted.scores)
    for name in list(champion.held_out)[:40]:
        scores[name] = polluted.threshold + 1.0
    decision = decide(champion, TONIGHT, RATE, replace(polluted, scores=scores), GATE)
    assert "champion_alarms" in failed(decision)
    assert "of tonight's new normals" in decision.reason
    known = replace(polluted, scores=scores, calibrated_with=frozenset(champion.held_out))
    assert "champion_alarms" not in failed(decide(champion, TONIGHT, RATE, known, GATE))


def test_normals_that_drift_while_they_are_taken_stop_a_promotion() -> None:
    steady = evidence()
    drifting = replace(
        steady,
        held_out={n: s + 0.5 * i for i, (n, s) in enumerate(steady.held_out.items())},
        synthetic={n: s + 60.0 for n, s in steady.synthetic.items()},
    )
    assert judged(steady, None).promote
    assert failed(judged(drifting, None)) == ["false_alarms"]


def test_exchangeable_normals_alarm_about_as_often_as_promised() -> None:
    """Over many categories; one category's count may be anything the binomial allows."""
    rng = np.random.default_rng(0)
    found = [out_of_block_alarms(rng.normal(size=100).tolist(), RATE)[0] for _ in range(300)]
    shares = [alarms.share for alarms in found]
    assert 0.03 < np.mean(shares) <= RATE + 0.005
    too_many = [alarms for alarms in found if alarms.low > RATE]
    assert len(too_many) < 0.05 * len(found)


def test_few_normals_promise_no_less_than_they_can() -> None:
    alarms, promised = out_of_block_alarms([float(i % 5) for i in range(10)], RATE)
    assert promised == pytest.approx(1 / 9)
    assert alarms.n == 10


def test_a_fit_older_than_the_champion_waits_for_a_person() -> None:
    """Two nights that overlap: the earlier fit does not undo the later one."""
    one = evidence(labelled=20)
    newer = opponent(one, fitted_at="2026-11-25T02:00:00Z")
    decision = decide(one, TONIGHT, RATE, newer, GATE)
    assert failed(decision) == ["not_older"]


def test_what_cannot_be_compared_is_not_promoted() -> None:
    unknown = Opponent("3", {}, 0.0, YESTERDAY, "nothing")
    decision = decide(evidence(), TONIGHT, RATE, unknown, GATE)
    assert failed(decision) == ["not_worse"]
    assert "cannot be compared" in decision.reason
    assert "nfbmr models promote" in decision.reason


def test_the_decision_and_its_numbers_are_plain_json_and_tags() -> None:
    decision = judged(evidence(labelled=20, seed=1, noise=0.1), evidence(labelled=20))
    values = json.loads(json.dumps(decision.as_dict()))
    assert values["promote"] is True
    assert values["against"] == "3"
    assert {check["name"] for check in values["checks"]} == {"floor", "not_worse"}
    assert {"false_alarms", "champion_alarms", "agreement", "labelled_auroc"} <= set(
        values["numbers"]
    )
    tags = decision.tags()
    assert tags["nfbmr.gate"] == "passed"
    assert tags["nfbmr.gate.against"] == "3"
    assert tags["nfbmr.decision"] == decision.reason
    assert float(tags["nfbmr.gate.labelled_auroc"]) == pytest.approx(
        values["numbers"]["labelled_auroc"], abs=1e-5
    )


def test_a_champion_that_cannot_be_loaded_counts_as_none_and_is_named() -> None:
    """The challenger must pass by itself; the number stays, against which it is promoted."""
    gone = Opponent("3", {}, 0.0, "2026-11-25T02:00:00Z", "nothing", unusable="Its files are gone.")
    decision = decide(evidence(labelled=20), TONIGHT, RATE, gone, GATE)
    assert (decision.promote, decision.against, decision.basis) == (True, "3", BY_LABELS)
    assert "champion 3 cannot be loaded and so counts as none: AUROC on labelled" in decision.reason
    assert decision.reason.endswith("(Its files are gone.)")
    strict = replace(GATE, min_auroc=1.0)
    decision = decide(evidence(labelled=20, separation=0.5), TONIGHT, RATE, gone, strict)
    assert failed(decision) == ["floor"]

"""Pictures that fit worst are found by how far their scores lie from the others'."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from nfbmr.train.worst import deviations, judged, kept_pictures

SCORES = torch.tensor([1.0, 1.1, 0.9, 1.05, 0.95, 3.0, 1.02, 0.2])


def test_deviations_are_robust_and_the_worst_has_the_largest() -> None:
    found = deviations(SCORES)
    assert found.argmax() == 5
    assert found[5] > 5
    assert found[7] < -5
    # One picture that is far worse changes nothing about the others.
    spoiled = SCORES.clone()
    spoiled[5] = 1e9
    others = torch.arange(8) != 5
    torch.testing.assert_close(deviations(spoiled)[others], found[others])


@given(
    st.lists(st.floats(0.01, 100.0), min_size=1, max_size=40),
    st.floats(0.0, 0.49),
    st.floats(0.0, 10.0),
)
def test_never_more_is_left_out_than_the_share_and_only_the_worst(
    scores: list[float], share: float, least: float
) -> None:
    score_N = torch.tensor(scores)
    kept_N = kept_pictures(score_N, share, least)
    left_out = int((~kept_N).sum())
    assert left_out <= share * len(scores)
    assert left_out < len(scores)
    if left_out:
        assert score_N[~kept_N].min() >= score_N[kept_N].max()
        if least > 0:
            assert deviations(score_N)[~kept_N].min() >= least


def test_a_deviation_that_is_asked_for_spares_clean_pictures() -> None:
    assert kept_pictures(SCORES, 0.3, 4.0).tolist() == [True] * 5 + [False] + [True] * 2
    assert int(kept_pictures(SCORES, 0.3, 0.0).sum()) == 6
    assert bool(kept_pictures(torch.full((9,), 2.0), 0.3, 3.0).all())


def test_judged_pictures_keep_their_order() -> None:
    uris = [f"/{i}.png" for i in range(8)]
    pictures = judged("fitted", uris, SCORES)
    assert [p.uri for p in pictures] == uris
    assert max(pictures, key=lambda p: p.deviation).uri == "/5.png"
    assert judged("fitted", [], torch.zeros(0)) == []

"""Costly pictures beside each other end as errors in bounded time; ordinary ones are decoded."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfbmr.data.decoding import DecodedPicture, decode_and_resize
from nfbmr.data.decoding_budget import DecodingBudget
from nfbmr.data.picture_file import DecodeLimits
from nfbmr.errors import DecodeError
from tests.fuzz import seeds
from tests.security.test_limits import jpeg_of_many_scans

PIXELS = DecodedPicture(np.zeros((4, 4, 3), np.uint8), 4, 4)
costs_s = st.lists(st.floats(0.0, 100.0), min_size=1, max_size=300)


def spend(budget: DecodingBudget, cost_s: float) -> tuple[float, bool]:
    """Seconds that a picture takes within its limit, counted and not spent, and whether it fails.

    As a decoder of a child process, which this process does not see working.
    """
    allowed_s = budget.limits().max_cpu_s

    def decode(data: bytes, size: object, resampling: str, limits: DecodeLimits) -> DecodedPicture:
        assert limits.max_cpu_s == allowed_s
        if cost_s > limits.max_cpu_s:
            raise DecodeError(f"more than {limits.max_cpu_s:g} s.", "too_slow")
        return PIXELS

    try:
        budget.decode_and_resize(decode, b"", 4, "box")
    except DecodeError:
        return allowed_s, True
    return cost_s, False


@given(costs_s)
def test_what_is_too_slow_takes_a_part_of_what_a_run_may_stand_still(costs: list[float]) -> None:
    """Whatever the unit, its failures are over well before it is taken for stalled."""
    budget = DecodingBudget(len(costs), stall_timeout_s=1800)
    spent = [spend(budget, cost) for cost in costs]
    assert sum(taken for taken, failed in spent if failed) <= 1800 / 4 + 60 + 1800 / 8
    assert all(
        cost > budget.ordinary_cpu_s
        for cost, (_, failed) in zip(costs, spent, strict=True)
        if failed
    )


@given(st.integers(0, 500), st.integers(1, 100))
def test_ordinary_pictures_use_nothing_up(before: int, threads: int) -> None:
    budget = DecodingBudget(64, stall_timeout_s=1800, threads=threads)
    for _ in range(before):
        budget._take(budget.ordinary_cpu_s)
    assert budget.limits() == DecodeLimits()
    assert budget.ordinary_cpu_s == 2


def test_without_a_limit_for_all_each_has_its_own() -> None:
    budget = DecodingBudget(1000)
    assert [spend(budget, math.inf) for _ in range(9)] == [(60.0, True)] * 9


def test_among_scan_bombs_an_ordinary_picture_is_decoded() -> None:
    """Real ones, with small limits: the later ones are stopped sooner, and say why."""
    bomb, good = jpeg_of_many_scans(300, 20_000), seeds.pictures()[0]
    limits = DecodeLimits(max_cpu_s=0.2)
    budget = DecodingBudget(12, stall_timeout_s=2.0, limits=limits, ordinary_cpu_s=0.01)
    allowed_s, sentences = [], []
    for _ in range(11):
        allowed_s.append(budget.limits().max_cpu_s)
        with pytest.raises(DecodeError, match="takes more than the limit") as caught:
            budget.decode_and_resize(decode_and_resize, bomb, 16, "box")
        assert caught.value.kind == "too_slow"
        sentences.append(str(caught.value))
    assert allowed_s[0] == 0.2
    assert allowed_s[-1] == 0.01
    assert sum(allowed_s) < 0.5 + 0.2 + 11 * 0.01
    assert sentences[0].endswith("the limit of 0.2 s to decode.")
    assert "the limit of 0.01 s to decode. That is less than the usual 0.2 s" in sentences[-1]
    found = budget.decode_and_resize(decode_and_resize, good, 16, "box")
    assert np.array_equal(found.pixels_HWC, decode_and_resize(good, 16, "box").pixels_HWC)

"""The sentence about the bottleneck follows from the seconds by stage."""

import pytest

from nfbmr.benchmark.scoring_job import LIST, JobRate, allowed_per_s
from nfbmr.score.stage_clock import CPU_COLUMNS, STAGES, WALL_COLUMNS


def job(cpu_s: dict[str, float], wall_s: dict[str, float], per_s: float) -> JobRate:
    return JobRate(
        source="prefix, disk",
        actors=2,
        cores=2,
        nodes=1,
        pictures=100,
        unit_size=64,
        per_s=per_s,
        with_start_per_s=per_s / 2,
        list_s=1.0,
        list_cpu_s=0.5,
        seconds={**dict.fromkeys(WALL_COLUMNS, 1.0), **{f"{k}_s": v for k, v in wall_s.items()}},
        cpu_seconds={
            **dict.fromkeys(CPU_COLUMNS, 0.5),
            **{f"{k}_cpu_s": v for k, v in cpu_s.items()},
        },
    )


def test_busy_cores_name_the_stage_that_works_most() -> None:
    busy = job({"decode": 16.0}, {"decode": 17.0}, per_s=10.0)
    assert busy.busy == pytest.approx(0.9)
    assert "busy 90% of the time, and decode takes 86% of it" in busy.bottleneck()


def test_idle_cores_name_the_stage_that_waits_most() -> None:
    idle = job({"forward": 4.0}, {"forward": 4.0, "fetch": 30.0}, per_s=2.0)
    assert idle.busy < 0.1
    assert "workers mostly wait in fetch (29.5 s); what helps is a store" in idle.bottleneck()


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_advice(stage: str) -> None:
    assert "what helps is" in job({stage: 16.0}, {}, per_s=10.0).bottleneck()
    assert "what helps is" in job({}, {stage: 90.0}, per_s=1.0).bottleneck()


def test_shares_add_up() -> None:
    shares = job({"forward": 9.0}, {}, per_s=5.0).shares()
    assert tuple(shares) == (LIST, *STAGES)
    assert sum(shares.values()) == pytest.approx(1.0)


def test_what_the_costs_allow() -> None:
    assert allowed_per_s({"a": 3.0, "b": 1.0}, pictures=100, cores=2) == 50.0

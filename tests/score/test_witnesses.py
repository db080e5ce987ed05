"""What tells whether a store works is found wherever it lies, in a bounded search."""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfbmr.errors import StoreError
from nfbmr.score import witnesses
from nfbmr.score.plan import Plan, PlannedPicture
from nfbmr.score.plan_files import planned_table, save_plan
from nfbmr.score.planned_units import cut_units
from nfbmr.score.units import read_unit, write_unit
from nfbmr.score.witnesses import Witnesses
from tests.score.committed_run import committed, planned
from tests.score.fetched_run import fetched, plan_of, stored
from tests.services.faulty_proxy import DENIED, Fault, FaultyProxy, Request


def with_a_hash(output: str, unit: str) -> None:
    """Make a unit one whose first picture was read; those of ``committed`` have no hashes."""
    table = read_unit(output, unit)
    index = table.schema.get_field_index("content_hash")
    hashes = pa.array(["ab", *[None] * (len(table) - 1)], table.schema.field(index).type)
    write_unit(output, unit, table.set_column(index, table.schema.field(index), hashes))


def known(plan: Plan, output: str) -> str | None:
    return Witnesses(plan, output).known({unit.name for unit in plan.units})


def test_a_witness_is_found_behind_many_units_that_were_not_read(tmp_path: Path) -> None:
    """None of them had a model: with the first few alone, a resumed run had no witness."""
    output = str(tmp_path)
    plan, _ = committed(output, [900, 9, 6], ["bottle", "nut", "screw"])
    plan = replace(plan, models={"nut": plan.models["nut"]}, model_errors={"bottle": "none"})
    assert known(plan, output) is None
    last = [unit.name for unit in plan.units if unit.category == "nut"][-1]
    with_a_hash(output, last)
    assert known(plan, output) == last


def test_a_witness_is_found_behind_categories_that_were_denied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = str(tmp_path)
    plan, _ = committed(output, [60, 60, 6], ["bottle", "nut", "screw"])
    monkeypatch.setattr(witnesses, "_FINISHED_ASKED", 6)
    screw = next(unit.name for unit in plan.units if unit.category == "screw")
    with_a_hash(output, screw)
    assert known(plan, output) == screw


def test_the_search_for_a_witness_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = str(tmp_path)
    plan, _ = committed(output, [60])
    monkeypatch.setattr(witnesses, "_FINISHED_ASKED", 5)
    asked: list[str] = []

    def reading(place: str, unit: str) -> pa.Table:
        asked.append(unit)
        return read_unit(place, unit)

    monkeypatch.setattr(witnesses, "read_unit", reading)
    assert known(plan, output) is None
    assert len(asked) == len(set(asked)) == 5


def refusing(names: Collection[str]) -> Callable[[Request], Fault | None]:
    """Refuses to give the objects of these names, without their folders."""
    return lambda request: (
        DENIED if request.method == "GET" and request.path.rpartition("/")[2] in names else None
    )


def test_pictures_that_are_refused_first_do_not_end_a_run_that_can_read_the_rest(
    s3_bucket: str, proxied: FaultyProxy, tmp_path: Path
) -> None:
    """The old months of a bucket in an archive class: they come first, and nothing was read yet."""
    names = stored(f"{s3_bucket}/parts", 60)
    plan = plan_of(f"{s3_bucket}/parts", str(tmp_path))
    with proxied.faults(refusing(names[:40])):
        found = fetched(plan, str(tmp_path))
    assert found.failed() == names[:40]
    assert len(found.first) == 20
    assert {picture.error_kind for picture in found.last} == {"denied"}
    with proxied.faults(refusing(names)), pytest.raises(StoreError, match="AccessDenied"):
        fetched(plan, str(tmp_path))


def test_pictures_that_are_gone_first_do_not_either_but_all_of_them_do(tmp_path: Path) -> None:
    """The oldest day that a rule removes between plan and run; and a share that is not mounted."""
    root, output = tmp_path / "parts", str(tmp_path / "scores")
    names = stored(str(root), 60)
    plan = plan_of(str(root), output)
    for name in names[:41]:
        (root / "bottle" / name).unlink()
    found = fetched(plan, output)
    assert found.failed() == names[:41]
    assert len(found.last) == 40
    for name in names[41:]:
        (root / "bottle" / name).unlink()
    with pytest.raises(StoreError, match="does not exist"):
        fetched(plan, output)


def test_what_is_refused_again_stays_an_error_while_pictures_that_were_read_still_answer(
    s3_bucket: str, proxied: FaultyProxy, tmp_path: Path
) -> None:
    """All that is left to score is refused: the store itself is fine, as the others tell."""
    root, output = f"{s3_bucket}/parts", str(tmp_path / "again")
    names = stored(root, 12)
    whole = plan_of(root, str(tmp_path / "whole"))
    table = planned_table(whole, str(tmp_path / "whole"))
    others = [PlannedPicture(**row) for row in table.slice(10).to_pylist()]
    again = replace(whole, units=cut_units(table.slice(0, 3), 2))
    save_plan(again, table.slice(0, 3), output)
    with proxied.faults(refusing(names[:10])):
        assert fetched(again, output, lambda: others, False).failed() == names[:3]
    with proxied.faults(refusing(names)), pytest.raises(StoreError, match="AccessDenied"):
        fetched(again, output, lambda: others, False)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_units_are_drawn_from_everywhere_in_a_plan(count: int) -> None:
    plan, _ = planned([count], ["bottle"], unit_size=1) if count else (empty_plan(), None)
    names = plan.units.table.column("name").to_pylist()
    drawn = [names.index(name) for name in Witnesses(plan, "none")._candidates()]
    assert len(set(drawn)) == len(drawn) == min(count, 64)
    stretches = sorted(number * 64 // count for number in drawn)
    assert count < 64 or stretches == pytest.approx(range(64), abs=1)


def empty_plan() -> Plan:
    plan, _ = planned([1], ["bottle"])
    return replace(plan, units=plan.units[:0])


def test_a_search_in_vain_asks_others_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, _ = planned([300], ["bottle"], unit_size=1)
    asked: list[str] = []

    def silent(self: Witnesses, name: str) -> bool:
        asked.append(name)
        return False

    monkeypatch.setattr(Witnesses, "answers", silent)
    assert [Witnesses(plan, "none").find() for _ in range(3)] == [None] * 3
    assert len(asked) == 3 * 64
    assert len(set(asked)) > 64
    monkeypatch.setattr(witnesses, "_SEARCH_S", 0.0)
    assert Witnesses(plan, "none").find() is None
    assert len(asked) == 3 * 64 + 1

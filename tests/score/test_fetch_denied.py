"""Pictures that a store denies, one here and one there, or all from some moment on."""

from pathlib import Path

import pytest

from nfbmr.errors import StoreError
from tests.score.fetched_run import fetched, plan_of, stored
from tests.services.faulty_proxy import DENIED, Fault, FaultyProxy, Request

UNIT_SIZE = 8


def test_pictures_denied_here_and_there_let_no_unit_come_again(
    s3_bucket: str, proxied: FaultyProxy, tmp_path: Path
) -> None:
    """Those that another account wrote: there is one of them in every unit."""
    names = stored(f"{s3_bucket}/parts", 40)
    plan = plan_of(f"{s3_bucket}/parts", str(tmp_path), UNIT_SIZE)
    others = names[::UNIT_SIZE]

    def fault(request: Request) -> Fault | None:
        return DENIED if request.path.rpartition("/")[2] in others else None

    with proxied.faults(fault):
        found = fetched(plan, str(tmp_path))
    assert found.failed() == others
    assert (len(found.first), len(found.last)) == (40, 0)
    assert {picture.error_kind for picture in found.first} == {None, "denied"}
    # A question for each unit beside its pictures.
    assert proxied.seen <= 40 + 5


@pytest.mark.parametrize("read", range(1, UNIT_SIZE, 3))
def test_rights_that_are_taken_away_within_a_unit_make_no_errors_of_its_rest(
    s3_bucket: str, proxied: FaultyProxy, tmp_path: Path, read: int
) -> None:
    stored(f"{s3_bucket}/parts", 12 * UNIT_SIZE)
    plan = plan_of(f"{s3_bucket}/parts", str(tmp_path), UNIT_SIZE)
    settled: list[str] = []
    with (
        proxied.faults(lambda request: DENIED if request.number >= read else None),
        pytest.raises(StoreError, match="AccessDenied"),
    ):
        fetched(plan, str(tmp_path), on_settled=settled.append)
    assert settled == []

"""Scoring runs as far as fetching: units are held back and come again as in a whole one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nfbmr import storage
from nfbmr.score.fetch import Fetcher
from nfbmr.score.pipeline import _watch, _waves
from nfbmr.score.plan import Plan, PlannedPicture
from nfbmr.score.plan_files import save_plan
from nfbmr.score.planned_units import cut_units, sorted_by_category
from nfbmr.score.store_watch import is_held, refusals
from nfbmr.score.unit_row import UnitPicture, pictures_from_json
from nfbmr.score.witnesses import Witnesses
from tests.score.committed_run import planned
from tests.score.planning import listed


@dataclass
class Fetched:
    """What became of a run's pictures.

    Attributes:
        first: those of units that were settled when they came first.
        last: those of units that had to come again.
    """

    first: list[UnitPicture] = field(default_factory=list)
    last: list[UnitPicture] = field(default_factory=list)

    def failed(self) -> list[str]:
        """The names of those with an error, without their folders, sorted."""
        pictures = [*self.first, *self.last]
        return sorted(p.member.rpartition("/")[2] for p in pictures if p.error is not None)


def stored(root: str, count: int) -> list[str]:
    """Write so many pictures of one category below a folder or prefix; their names, in order."""
    names = [f"{number:03d}.jpg" for number in range(count)]
    for name in names:
        storage.write_atomically(storage.join(root, "bottle", name), name.encode())
    return names


def plan_of(root: str, output: str, unit_size: int = 2) -> Plan:
    """A saved plan of what lies there."""
    ordered = sorted_by_category(listed([root]))
    models = planned([1], ["bottle"])[0].models
    plan = Plan("r" * 32, {"sources": [root]}, models, {}, cut_units(ordered, unit_size))
    save_plan(plan, ordered, output)
    return plan


def fetched(
    plan: Plan,
    output: str,
    others: Callable[[], Sequence[PlannedPicture]] = tuple,
    holds_gone: bool = True,
    on_settled: Callable[[str], object] = lambda _: None,
) -> Fetched:
    """Fetch all units as a run does that finds nothing done before.

    Args:
        plan: of the run.
        output: of the run.
        others: see ``Witnesses``.
        holds_gone: see ``Fetcher``.
        on_settled: told the names of units that a run would commit.

    Raises:
        StoreError: as a run does.
    """
    found = Fetched()
    witnesses = Witnesses(plan, output, others)
    watch = _watch(plan, plan.units, witnesses, ())
    for wave, last_try in _waves(plan.units, watch):
        asked = witnesses.of(watch.witness) if last_try and watch.witness else ()
        fetcher = Fetcher({}, output, plan.run_id, 0.0, last_try, asked, holds_gone)
        for unit in wave:
            pictures = pictures_from_json(str(fetcher.fetch(unit)["pictures"]))
            watch.look({"unit": unit.name, "pictures": len(pictures), **refusals(pictures)})
            if not is_held(pictures):
                on_settled(unit.name)
                (found.last if last_try else found.first).extend(pictures)
    return found

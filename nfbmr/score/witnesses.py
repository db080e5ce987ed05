"""What is asked to learn whether a store works: pictures that it gave before, or may give now."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property

from nfbmr.errors import OutputError
from nfbmr.score.picture_reader import gives_any
from nfbmr.score.plan import Plan, PlannedPicture
from nfbmr.score.plan_files import unit_pictures
from nfbmr.score.planned_units import Units
from nfbmr.score.units import read_unit

_FINISHED_ASKED = 256
"""Of finished units, at most, until one is found with a picture that could be read."""

_DRAWN = 64
"""Units from all over a plan that are asked where none is known to be readable."""

_SEARCH_S = 60.0
"""After so long nothing further is asked: a store that is silent lets every question wait."""


class Witnesses:
    """Names what can tell whether a store works, and asks it.

    Args:
        plan: of the run.
        output: of the run.
        others: pictures of none of the plan's units that could be read before; called where they
            are needed.
    """

    def __init__(
        self,
        plan: Plan,
        output: str,
        others: Callable[[], Sequence[PlannedPicture]] = tuple,
    ) -> None:
        self._plan = plan
        self._output = output
        self._list_others = others

    @cached_property
    def _others(self) -> dict[str, PlannedPicture]:
        return {picture.image_uri: picture for picture in self._list_others()}

    @cached_property
    def _tried(self) -> Units:
        """The units with a model; those of all others are not read."""
        return self._plan.units.of_categories(self._plan.models)

    def of(self, name: str) -> list[PlannedPicture]:
        """The pictures of a unit, or the one of the others that has this name."""
        found = self._plan.units.named([name])
        if not len(found):
            return [self._others[name]] if name in self._others else []
        pictures = unit_pictures(self._output, self._plan.run_id, found[0])
        return [picture for picture in pictures if picture.problem is None]

    def answers(self, name: str) -> bool:
        """Whether the store gives a picture of what has this name."""
        return gives_any(self.of(name))

    def known(self, finished: Collection[str]) -> str | None:
        """One of some finished units with a picture that could be read; None if none is known."""
        for name in self._first_asked(finished):
            try:
                hashes = read_unit(self._output, name).column("content_hash")
            except OutputError:  # Another driver of the run has just finished it; or it is damaged.
                continue
            if hashes.null_count < len(hashes):
                return name
        return None

    def _first_asked(self, finished: Collection[str]) -> list[str]:
        """Finished units to look for a readable picture in, of which the first should have one.

        The first unit of every category, since whole categories may be denied; then some at random,
        which their names are.
        """
        tried = self._tried.named(finished)
        firsts = tried.one_of_each_category_first()[: _FINISHED_ASKED // 2]
        names = [unit.name for unit in firsts]
        names += sorted(set(tried.table.column("name").to_pylist()) - set(names))
        return names[:_FINISHED_ASKED]

    def find(self) -> str | None:
        """The first that the store gives now: of the others, then of units all over the plan.

        What comes first in a plan may be what a store does not give any more: the oldest pictures
        of a year, say. None if no unit that was asked answers; the next call asks others.
        """
        deadline = time.monotonic() + _SEARCH_S
        for name in self._candidates():
            if self.answers(name):
                return name
            if time.monotonic() > deadline:
                break
        return None

    def _candidates(self) -> Iterator[str]:
        yield from self._others
        units = self._tried
        drawn = min(_DRAWN, len(units))
        bounds = [number * len(units) // drawn for number in range(drawn + 1)] if drawn else [0]
        for number in random.sample(range(drawn), drawn):
            yield units[random.randrange(bounds[number], bounds[number + 1])].name

"""Slices of sources on their way: as they come, or in the order of the sources.

A bounded number of slices is listed or held at any moment, whatever there is in all.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from nfbmr.data.lister import Lister, SliceListing

AHEAD = 32
"""Slices that are being listed at the same time."""
HELD = 64
"""Slices that are listed and wait for those before them."""

Place = tuple[int, int, int]
"""A source's number, a slice's number in it, and which of the slices as which that goes on."""
ListSlice = Callable[[Lister, str], SliceListing]


class Arrivals:
    """Lists the slices of many sources.

    Args:
        listers: of the sources.
        list_slice: lists one slice.
        pool: in whose threads.
    """

    def __init__(
        self, listers: list[Lister], list_slice: ListSlice, pool: ThreadPoolExecutor
    ) -> None:
        self._listers = listers
        self._list_slice = list_slice
        self._pool = pool
        self._futures: dict[Future[SliceListing], Place] = {}
        self._left = (
            ((source, number, 0), name)
            for source, lister in enumerate(listers)
            for number, name in enumerate(lister.slices)
        )

    def __enter__(self) -> Arrivals:
        return self

    def __exit__(self, *_: object) -> None:
        for future in self._futures:
            future.cancel()

    def as_they_come(self) -> Iterator[tuple[Place, SliceListing]]:
        """Every slice with its place."""
        while True:
            self._submit_first_parts(AHEAD - len(self._futures))
            if not self._futures:
                return
            for place, listing in self._finished():
                if listing.goes_on_as is not None:
                    self._submit(_next_part(place), listing.goes_on_as)
                yield place, listing

    def in_order(self) -> Iterator[tuple[Place, SliceListing]]:
        """Every slice with its place, by place; those behind are listed meanwhile."""
        heads: deque[Place] = deque()
        arrived: dict[Place, SliceListing] = {}
        more: list[tuple[Place, str]] = []  # A heap of what arrived slices go on as.
        while True:
            free = AHEAD - len(self._futures) if len(arrived) < HELD else 0
            while more and (free > 0 or more[0][0] == heads[0]):
                self._submit(*heapq.heappop(more))
                free -= 1
            heads.extend(self._submit_first_parts(free))
            if not heads:
                return
            if heads[0] not in arrived:
                for place, listing in self._finished():
                    arrived[place] = listing
                    if listing.goes_on_as is not None:
                        heapq.heappush(more, (_next_part(place), listing.goes_on_as))
                continue
            place = heads.popleft()
            listing = arrived.pop(place)
            if listing.goes_on_as is not None:
                heads.appendleft(_next_part(place))
            yield place, listing

    def _submit_first_parts(self, count: int) -> list[Place]:
        places = []
        for place, name in itertools.islice(self._left, max(0, count)):
            self._submit(place, name)
            places.append(place)
        return places

    def _submit(self, place: Place, name: str) -> None:
        future = self._pool.submit(self._list_slice, self._listers[place[0]], name)
        self._futures[future] = place

    def _finished(self) -> Iterator[tuple[Place, SliceListing]]:
        done, _ = wait(self._futures, return_when=FIRST_COMPLETED)
        for future in done:
            yield self._futures.pop(future), future.result()


def _next_part(place: Place) -> Place:
    source, number, part = place
    return source, number, part + 1

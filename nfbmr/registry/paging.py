"""MLflow's searches, whose results come in pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def pages(search: Any, **arguments: Any) -> Iterator[Any]:
    """All results of an MLflow search, page by page."""
    token = None
    while True:
        page = search(page_token=token, **arguments)
        yield from page
        token = page.token
        if not token:
            return

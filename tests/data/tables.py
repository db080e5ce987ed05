"""What the tests of tables share."""

import datetime

from nfbmr.data.archive_entry import ArchiveListing
from nfbmr.data.archives import join_slices, lister_of
from nfbmr.data.table_columns import TableColumns

WHEN = datetime.datetime(2026, 11, 24, 8, 15, 0, 250_000, tzinfo=datetime.UTC)


def listed(uri: object, **columns: str) -> ArchiveListing:
    lister = lister_of(str(uri), None, TableColumns(**columns))
    return join_slices(lister, [lister.list_slice(name) for name in lister.slices])


def contents(count: int) -> list[bytes]:
    return [bytes([n]) * (100 + n) for n in range(count)]

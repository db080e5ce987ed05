"""A name is new once, whatever came between, and however the digests are kept."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from nfbmr.score.seen_names import LARGEST_RUN, SeenNames

NAMES = st.text(st.characters(codec="utf-8"), max_size=4)


@given(
    calls=st.lists(st.lists(NAMES, unique=True, max_size=30), max_size=12),
    largest_run=st.sampled_from([1, 5, LARGEST_RUN]),
)
def test_a_name_is_new_the_first_time_only(calls: list[list[str]], largest_run: int) -> None:
    seen, expected = SeenNames(largest_run), set[str]()
    for names in calls:
        column = pa.chunked_array([pa.array(names, pa.large_string())])
        assert seen.are_new(column).to_pylist() == [name not in expected for name in names]
        expected |= set(names)
        assert len(seen) == len(expected)


def test_it_keeps_sixteen_bytes_of_a_name_in_few_arrays() -> None:
    seen = SeenNames()
    for start in range(0, 64_000, 1000):
        names = [f"s3://bucket/a/prefix/{number:09d}.jpg" for number in range(start, start + 1000)]
        assert seen.are_new(pa.chunked_array([names])).true_count == 1000
    assert sum(run.nbytes for run in seen._runs) == 64_000 * 16
    assert len(seen._runs) <= 7

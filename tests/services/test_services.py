"""The services that integration tests use are real, and what tests rely on holds."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest

from nfbmr import storage, store_folders
from nfbmr.data.tree_listing import files_below

pytestmark = pytest.mark.integration


def test_the_object_store_keeps_lists_and_reads_ranges(swift_bucket: str) -> None:
    store = fsspec.filesystem("s3")
    names = [f"{swift_bucket}/pictures/{i:03d}.jpg" for i in range(20)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: storage.write_atomically(name, name.encode() * 100), names))
    assert store_folders.list_names(f"{swift_bucket}/pictures") == [
        n.rpartition("/")[2] for n in names
    ]
    below = files_below(store, f"{swift_bucket[5:]}/pictures", after=names[11][5:])
    assert [f"s3://{info['name']}" for info in below] == names[12:]
    whole = names[7].encode() * 100
    assert store.cat_file(names[7], start=10, end=50) == whole[10:50]
    with storage.open_atomically(f"{swift_bucket}/large") as file:
        for piece in range(3):
            file.write(bytes([piece]) * 2**22)
    assert store.info(f"{swift_bucket}/large")["size"] == 3 * 2**22
    store_folders.remove_tree(f"{swift_bucket}/pictures")
    assert store_folders.list_names(f"{swift_bucket}/pictures") == []


def test_the_database_asks_for_its_password_and_each_test_has_its_own(postgres_uri: str) -> None:
    def ask(uri: str, sql: str) -> subprocess.CompletedProcess[str]:
        command = ["psql", "--no-password", "-tAc", sql, uri.replace("+psycopg2", "")]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert ask(postgres_uri, "create table a (b int); select count(*) from a").stdout == (
        "CREATE TABLE\n0\n"
    )
    password = postgres_uri.partition("nfbmr:")[2].partition("@")[0]
    refused = ask(postgres_uri.replace(password, "wrong"), "select 1")
    assert refused.returncode != 0
    assert "password authentication failed" in refused.stderr

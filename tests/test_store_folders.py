"""A folder's entries are the files and folders in it, on a disk and in an object store."""

import fsspec

from nfbmr import storage, store_folders


def test_a_folder_made_in_a_console_is_empty(s3_bucket: str) -> None:
    """It is an object without bytes, whose key ends in a slash."""
    store, bucket = fsspec.filesystem("s3"), s3_bucket.removeprefix("s3://")
    for key in ("scores/2026-11/", "scores/2026-11/deeper/"):
        store.call_s3("put_object", Bucket=bucket, Key=key, Body=b"")
    folder = f"{s3_bucket}/scores/2026-11"
    assert store_folders.list_names(folder) == []
    assert store_folders.list_folders(folder) == ["deeper"]
    assert store_folders.list_folders(f"{s3_bucket}/scores") == ["2026-11"]
    assert (
        store_folders.list_names(f"{folder}/deeper")
        == store_folders.list_folders(f"{folder}/deeper")
        == []
    )
    assert store_folders.list_tree(folder) == {}
    storage.write_atomically(f"{folder}/one", b"1")
    assert store_folders.list_names(folder) == [*store_folders.list_tree(folder)] == ["one"]
    store_folders.remove_tree(folder)
    assert store_folders.list_tree(folder) == {}

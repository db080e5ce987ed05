"""Logins in addresses: refused where they are given, blotted out where they come back in errors."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import jobs.score
import jobs.train
from nfbmr.data.archives import list_archive
from nfbmr.errors import (
    ConfigError,
    DataError,
    DecodeError,
    FitError,
    OutputError,
    RegistryError,
    WorkerError,
    refuse_login,
    without_logins,
)

LOGIN = "https://anna:planted-word@store.internal/line7.tar"


@pytest.mark.parametrize(
    ("main", "line"),
    [
        (jobs.score.main, f"{LOGIN} --output out --registry sqlite:///none.db"),
        (jobs.score.main, f"line7.tar --output {LOGIN} --registry sqlite:///none.db"),
        (jobs.train.main, f"--data {LOGIN} --registry sqlite:///none.db"),
    ],
)
def test_an_address_with_a_login_is_refused_without_repeating_it(
    main: Callable[[list[str]], int],
    line: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nfbmr.session.ray.is_initialized", lambda: True)
    assert main(line.split()) == 2
    captured = capsys.readouterr()
    assert "Credentials come from the environment" in captured.err
    assert "planted-word" not in captured.out + captured.err
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"planted" in p.read_bytes()]


def test_weights_with_a_login_are_refused() -> None:
    from nfbmr.model.weights import read_weights

    with pytest.raises(ConfigError, match=r"https://\*\*\*@store.internal") as caught:
        read_weights(LOGIN)
    assert "planted-word" not in str(caught.value)


WORD = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12)


# It may begin as a port does, followed by what ends one.
PASSWORD = st.text("aZ09/@+:%-?#", max_size=12).map(lambda word: f"{word}-planted")


@given(WORD, PASSWORD, WORD, WORD)
def test_no_message_of_ours_holds_a_login(user: str, secret: str, host: str, key: str) -> None:
    """Whatever signs the password has: keys of object stores have slashes, too."""
    text = f"cannot connect to postgresql+psycopg2://{user}:{secret}@{host}/db or s3://{key}-p@b"
    text += f" or https://store/x?password={key}-q&X-Amz-Signature={key}-r&y=1"
    assert not any(f"{key}-{end}" in str(DataError(text)) for end in "pqr")
    for kind in (ConfigError, DataError, FitError, OutputError, RegistryError, WorkerError):
        assert secret not in str(kind(text))
    error = DecodeError(text, "unreadable")
    assert secret not in str(error)
    assert secret not in repr(pickle.loads(pickle.dumps(error)))  # noqa: S301
    assert f"@{host}/db" in str(error)


WITHOUT_A_LOGIN = (
    "s3://factory/a@b/c.png",
    "s3://factory/a:b@2x.png",
    "https://host/x?y=z@w",
    "http://h:5000/a@b.png",
    "https://store.internal:9000/bucket/line@2x.png?versionId=7",
    "hdfs://namenode:8020/a@b.png",
    "/mnt/line7/token=1/a.png",
    "sqlite:////tmp/a@b.db",
)


@pytest.mark.parametrize("uri", WITHOUT_A_LOGIN)
def test_addresses_without_a_login_stay_as_they_are(uri: str) -> None:
    refuse_login(uri)
    if "token" not in uri:
        text = f"{uri}, not found; ask anna@factory"
        assert without_logins(text) == text


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://mlflow:12/planted@db/mlflow",
        "postgresql+psycopg2://mlflow:12345?planted@db/mlflow",
        "redis://:6379/planted@db",
        "https://anna:80planted@store/x.png",
        "HTTPS://anna:planted@store/x.png",
    ],
)
def test_a_password_may_begin_like_a_port(uri: str) -> None:
    with pytest.raises(ConfigError, match="has a login in it") as caught:
        refuse_login(uri)
    assert "planted" not in str(caught.value) + without_logins(f"no answer from {uri}")


SIGNED = (
    "https://b.s3.amazonaws.com/a.png?X-Amz-Expires=60&X-Amz-Signature=planted",
    "https://b.s3.amazonaws.com/a.png?X-Amz-Credential=planted%2F20261101",
    "https://b.s3.amazonaws.com/a.png?x-amz-security-token=planted",
    "https://b.s3.amazonaws.com/a.png?AWSAccessKeyId=planted&Expires=1",
    "https://b.s3.amazonaws.com/a.png?Expires=1&Signature=planted",
    "https://storage.googleapis.com/b/a.png?X-Goog-Signature=planted",
    "https://x.blob.core.windows.net/b/a.png?sv=2025-01-05&sig=planted",
    "https://store/a.png?token=planted",
    "https://store/a.png?api_key=planted",
)


@pytest.mark.parametrize("uri", SIGNED)
def test_an_address_that_was_signed_is_refused_and_its_values_are_blotted_out(
    uri: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="s3://bucket/key") as caught:
        refuse_login(uri)
    assert "planted" not in str(caught.value) + without_logins(f"403 for {uri}, see the log")
    (tmp_path / "parts.csv").write_text(f"uri\nhttps://store/a.png?versionId=1\n{uri}\n")
    with pytest.raises(ConfigError, match="s3://bucket/key") as of_manifest:
        list_archive(str(tmp_path / "parts.csv"))
    assert "planted" not in str(of_manifest.value)


@pytest.mark.parametrize(
    "text",
    [
        "aws_secret_access_key=planted",
        "aws_secret_access_key = planted\nregion = x",
        "AWS_SECRET_ACCESS_KEY='planted' is wrong",
        '{"user": "anna", "password": "planted with \\" a quote planted", "port": 5}',
        "{'SecretAccessKey': 'planted', 'Expiration': 1}",
        '"{\\"sessionToken\\": \\"planted\\", \\"port\\": 5}"',
        '{"secret_key" : "planted',
    ],
)
def test_settings_and_json_with_secrets_are_blotted_out(text: str) -> None:
    blotted = without_logins(text)
    assert "planted" not in blotted
    assert "***" in blotted
    for kept in ("region = x", "is wrong", "anna", '"port": 5', "'Expiration': 1", "port"):
        assert (kept in blotted) == (kept in text)

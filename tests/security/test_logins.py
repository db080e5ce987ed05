"""Logins in addresses: refused where they are given, blotted out where they come back in errors."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import jobs.score
import jobs.train
from nfbmr.errors import (
    ConfigError,
    DataError,
    DecodeError,
    FitError,
    OutputError,
    RegistryError,
    WorkerError,
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


PASSWORD = st.text("aZ09/@+:%-", max_size=12).map(lambda word: f"p{word}-planted")


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


def test_addresses_without_a_login_stay_as_they_are() -> None:
    text = "s3://factory/a@b/c.png, https://host/x?y=z@w, http://h:5000/a@b and anna@factory"
    assert without_logins(text) == text

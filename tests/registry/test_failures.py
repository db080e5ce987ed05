"""What goes wrong is a sentence without credentials; what may go well later is tried again."""

import json
import shlex
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from ray.train import Checkpoint

from nfbmr import cli
from nfbmr.config import load_config
from nfbmr.errors import RegistryError, RegistryUnavailableError
from nfbmr.registry import CHAMPION, Registry, without_password
from nfbmr.registry.promotions import SETTLING_S
from nfbmr.train.category_task import CategoryTask
from nfbmr.train.ray_fit import Fitted
from nfbmr.train.registration import register, register_finished
from tests.registry.finished_fit import finished_fit

NOBODY = "http://user:hunter2@127.0.0.1:9"


@pytest.mark.parametrize(
    "text",
    [
        "http://user:hunter2@host/x",
        "postgresql://nfbmr:hunter2@127.0.0.1/db and s3://key:p@hunter2@bucket/x",
        "https://store/w.safetensors?X-Amz-Signature=hunter2&x=1",
        "failed for password=hunter2, sorry",
    ],
)
def test_credentials_are_blotted_out(text: str) -> None:
    assert "hunter2" not in without_password(text)
    assert without_password("s3://bucket/mail@example/x.png?size=3") in (
        "s3://bucket/mail@example/x.png?size=3"
    )


def test_patience_is_counted_from_the_moment_the_registry_went_away() -> None:
    registry = Registry("http://127.0.0.1:9")
    calls = []

    def gone() -> None:
        calls.append(time.monotonic())
        raise RegistryUnavailableError("gone")

    with pytest.raises(RegistryUnavailableError):
        registry.patiently(gone, patience_s=0.8)
    first = len(calls)
    assert first >= 3
    with pytest.raises(RegistryUnavailableError):
        registry.patiently(gone, patience_s=0.8)
    assert len(calls) == first + 1


def test_what_the_registry_refuses_is_not_tried_again() -> None:
    calls = []

    def refused() -> None:
        calls.append(1)
        raise RegistryError("no")

    with pytest.raises(RegistryError):
        Registry("http://127.0.0.1:9").patiently(refused, patience_s=60)
    assert len(calls) == 1


def printed_command(error: RegistryError) -> list[str]:
    """The arguments of ``nfbmr`` that a message ends with."""
    name, *arguments = shlex.split(str(error).partition("register it with: ")[2])
    assert (name, *arguments[:2]) == ("nfbmr", "models", "register")
    return arguments


def test_a_detector_that_cannot_be_registered_is_kept_and_registered_later(
    registry: Registry,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The whole way: the message's own command registers, judges and promotes it, anywhere."""
    fit = finished_fit(tmp_path / "worker files")
    config = load_config(None, ["run.registry_patience_s=0.1"])
    task = CategoryTask("bottle", config, "", "", {}, [], [], [])
    fitted = Fitted("bottle", Checkpoint.from_directory(fit.folder), fit.report)
    with pytest.raises(RegistryUnavailableError) as caught:
        register(fitted, task, Registry(NOBODY), str(tmp_path / "kept here"))
    assert "hunter2" not in str(caught.value)
    command = printed_command(caught.value)
    assert command[-2:] == ["--registry", "http://127.0.0.1:9"], "a login would be in the log"
    database = Path(registry.uri.removeprefix("sqlite:///"))
    database.rename(tmp_path / "elsewhere.db")
    database.mkdir()  # No file that could be opened: the registry is gone.
    with pytest.raises(RegistryUnavailableError) as caught:
        register(fitted, task, registry, str(tmp_path / "kept here"))
    database.rmdir()
    (tmp_path / "elsewhere.db").rename(database)
    command = printed_command(caught.value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path / "worker files")
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "Version 1 of 'bottle' is champion: there was no champion" in said
    assert f"It is registered in {registry.uri}: {tmp_path / 'kept here'}" in said
    version = registry.resolve("bottle", CHAMPION)
    assert version.tags["nfbmr.pictures_fitted"] == "160"
    decision = registry.decision(version)
    assert decision is not None
    assert decision["promote"] is True
    assert cli.main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["registry"] == registry.uri
    assert [v.version for v in registry.list_versions()] == ["1"]
    # The same campaign, gone on with, finds it registered and needs no copy any more.
    assert Path(command[2]).exists()
    version, _ = register(fitted, task, registry, str(tmp_path / "kept here"))
    assert version.version == "1"
    assert not Path(command[2]).exists()


def test_a_folder_that_is_no_finished_fit_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "detector.json").write_text("{}")
    assert cli.main(["models", "register", str(tmp_path)]) == 4
    assert "is no finished fit: detector.safetensors, fit.json" in capsys.readouterr().err


def test_a_second_night_is_judged_against_the_first(registry: Registry, tmp_path: Path) -> None:
    """Better or equal is promoted, worse stays challenger, an older one waits for a person."""
    first, _ = register_finished(finished_fit(tmp_path / "1", night=2), registry, 0)
    same, decision = register_finished(finished_fit(tmp_path / "2", night=3), registry, 0)
    assert (decision.promote, decision.against) == (True, first.version)
    worse, decision = register_finished(
        finished_fit(tmp_path / "3", night=4, separation=1.0), registry, 0
    )
    assert not decision.promote
    assert registry.resolve("bottle", "challenger").version == worse.version
    assert registry.resolve("bottle", worse.version).tags["nfbmr.gate"] == "refused"
    older, decision = register_finished(finished_fit(tmp_path / "4", night=1), registry, 0)
    assert [check.name for check in decision.checks if not check.passed] == ["not_older"]
    assert registry.resolve("bottle").version == same.version
    assert registry.resolve("bottle", "previous").version == first.version
    assert len({first.version, same.version, worse.version, older.version}) == 4


def test_a_rollback_lasts_until_the_pictures_change_or_a_person_decides(
    registry: Registry, tmp_path: Path
) -> None:
    """The next night fits the same again: it must not undo what a person did."""

    def night(number: int, pictures: int) -> tuple[str, bool, str]:
        fit = finished_fit(tmp_path / str(number), night=number, pictures=pictures)
        version, decision = register_finished(fit, registry, 0)
        return version.version, decision.promote, decision.reason

    assert night(1, pictures=1)[:2] == ("1", True)
    assert night(2, pictures=2)[:2] == ("2", True)
    registry.rollback("bottle")
    version, promoted, reason = night(3, pictures=2)
    assert (version, promoted) == ("3", False)
    assert "with the same settings as version 2, which was rolled back" in reason
    assert "nfbmr models promote" in reason
    assert night(4, pictures=2)[:2] == ("4", False)
    assert registry.resolve("bottle", CHAMPION).version == "1"
    assert night(5, pictures=3)[:2] == ("5", True)
    registry.rollback("bottle")
    registry.promote("bottle", "5", {})
    assert night(6, pictures=3)[:2] == ("6", True)


class CutError(MlflowException):
    """The connection, gone, as MLflow's client says it."""


class CuttingClient:
    """MLflow's client, of which one call reaches the server and brings no answer back, or none.

    Args:
        client: the real one.
        number: of the call.
        is_late: whether the server has done what was asked.
    """

    def __init__(self, client: Any, number: int, is_late: bool) -> None:
        self._client, self._left, self._is_late = client, number, is_late
        self.was_cut = False

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)

        def call(*args: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                self.was_cut = True
                if self._is_late:
                    real(*args, **options)
                raise CutError(name)
            return real(*args, **options)

        return call


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize(
    ("cut", "is_late"),
    [
        pytest.param(0, False, id="first version, unheard"),
        pytest.param(0, True, id="first version, unanswered"),
        pytest.param(1, False, id="second version, unheard"),
        pytest.param(1, True, id="second version, unanswered"),
    ],
)
def test_a_registration_that_is_cut_at_any_call_is_finished_by_doing_it_again(
    registry: Registry, tmp_path: Path, cut: int, is_late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version, challenger or champion, and the ledger are what an undisturbed one leaves."""
    real = registry.client
    # Every call of the first version, where the model is made; every second one of the next.
    for number in range(1, 100, 1 + cut):
        category = f"bottle{number}"
        fits = [
            finished_fit(tmp_path / f"{category}-{night}", night=night, category=category)
            for night in (2, 3)
        ]
        for fit in fits[:cut]:
            register_finished(fit, registry, 0)
        cutting = CuttingClient(real, number, is_late)
        monkeypatch.setattr(registry, "_client", cutting)
        with suppress(RegistryError):
            register_finished(fits[cut], registry, 0)
        monkeypatch.setattr(registry, "_client", real)
        if not cutting.was_cut:
            break
        later = time.time() + SETTLING_S + 1
        with monkeypatch.context() as tomorrow:
            tomorrow.setattr("time.time", lambda later=later: later)
            for index, fit in enumerate(fits[cut:], cut + 1):
                version, decision = register_finished(fit, registry, 0)
                assert (version.version, decision.promote) == (str(index), True), number
            assert registry.champion(category) is not None
        assert registry.resolve(category, CHAMPION).version == "2", number
        assert registry.resolve(category, "previous").version == "1", number
        assert [entry.champion for entry in registry.promotions(category)] == ["1", "2"], number
        assert [v.version for v in registry.list_versions(category)] == ["2", "1"], number
    assert number > 15

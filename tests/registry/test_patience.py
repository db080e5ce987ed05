"""How long a registry that cannot be reached is asked again."""

import pytest

from nfbmr.config import load_config
from nfbmr.errors import RegistryUnavailableError
from nfbmr.registry import connection
from nfbmr.registry.connection import Connection


def test_a_registry_that_went_away_again_later_is_waited_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After patience ran out it is asked once each time, until nobody has asked for long."""
    gone = Connection("http://127.0.0.1:9")
    asked: list[None] = []

    def operation() -> None:
        asked.append(None)
        raise RegistryUnavailableError("it is gone")

    for _ in range(2):
        asked.clear()
        with pytest.raises(RegistryUnavailableError):
            gone.patiently(operation, 0.0)
        assert len(asked) == 1
    monkeypatch.setattr(connection, "_FORGOTTEN_AFTER_S", 0.0)
    asked.clear()
    with pytest.raises(RegistryUnavailableError):
        gone.patiently(operation, 0.1)
    assert len(asked) == 2


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.mark.parametrize(("gone_s", "comes_back"), [(120.0, True), (299.0, True), (400.0, False)])
def test_by_default_a_registry_may_be_gone_for_five_minutes(
    gone_s: float, comes_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pauses double from half a second to half a minute."""
    clock = Clock()
    monkeypatch.setattr(connection, "time", clock)
    patience_s = load_config().run.registry_patience_s

    def operation() -> str:
        if clock.now < 1000.0 + gone_s:
            raise RegistryUnavailableError("it is gone")
        return "registered"

    registry = Connection("http://127.0.0.1:9")
    if comes_back:
        assert registry.patiently(operation, patience_s) == "registered"
        assert gone_s <= clock.now - 1000.0 < gone_s + 30
    else:
        with pytest.raises(RegistryUnavailableError):
            registry.patiently(operation, patience_s)
        assert clock.now - 1000.0 == pytest.approx(patience_s)
    assert clock.pauses[:8] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]

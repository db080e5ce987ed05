"""How long a registry that cannot be reached is asked again."""

import pytest

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

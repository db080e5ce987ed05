"""Who is champion, and who was: an append-only ledger that the aliases follow.

MLflow's aliases are plain writes: of two processes that move ``champion`` at the same moment the
later one wins, and neither learns of the other. What MLflow does guarantee is that a parameter of a
run is written once: a second value for the same name is refused. So every category has a run whose
parameters ``promotion.0000``, ``promotion.0001``, … are its promotions in order. Each names the
champion that it replaces. To promote is to write the next number; whoever comes second is refused,
looks again, and judges again against the champion that there is now.

The aliases are a copy of the last entry for everyone who reads. Whoever has written an entry sets
them, then looks whether a newer entry has come meanwhile, and if so sets them to that; then it
writes ``followed.0000``, ``followed.0001``, … A process that dies in between leaves the aliases
behind, and an entry without that mark; the next one that promotes, rolls back or looks for the
champion to judge against brings them in line, however late. An alias moved by hand (in MLflow's
pages, say) is taken over as an entry of its own once the last entry is older than ``SETTLING_S``.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import time
import uuid
import warnings
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from nfbmr import plain_values
from nfbmr.errors import RegistryError
from nfbmr.registry.names import (
    CHALLENGER,
    CHAMPION,
    LEDGER_NOTE,
    LEDGER_TAG,
    NOTE_TAG,
    PREVIOUS,
)
from nfbmr.registry.paging import pages

if TYPE_CHECKING:
    from mlflow import MlflowClient

SETTLING_S = 600.0
"""Aliases that differ from a younger entry are late; from an older one, moved by hand."""

BY_GATE = "gate"
BY_HAND = "hand"
ROLLBACK = "rollback"
ADOPTED = "adopted"

_LONGEST_REASON = 2000
_SET_ATTEMPTS = 3


def _author() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # A container's user may have no name.
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


@dataclass(frozen=True, slots=True)
class Promotion:
    """One entry of the ledger.

    Attributes:
        champion: the version that became champion; None where the alias was taken away by hand.
        replaces: the champion before, which becomes ``previous``.
        kind: ``gate``, ``hand``, ``rollback`` or ``adopted``.
        reason: the sentence that goes with it.
        at: seconds since 1970.
        by: user and machine.
        claim: tells this attempt to write an entry from every other.
    """

    champion: str | None
    replaces: str | None
    kind: str
    reason: str = ""
    at: float = field(default_factory=time.time)
    by: str = field(default_factory=_author)
    claim: str = field(default_factory=lambda: uuid.uuid4().hex)

    def to_json(self) -> str:
        """As it stands in the ledger."""
        values = {**asdict(self), "reason": self.reason[:_LONGEST_REASON]}
        return json.dumps(values, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Promotion:
        """What ``to_json`` wrote.

        Raises:
            ValueError: it is no JSON, or a part is not known.
            TypeError: a part is missing or of another type.
            RecursionError: it is nested too deeply.
        """
        values = plain_values.mapping(json.loads(text))
        plain_values.only(values, (each.name for each in fields(cls)))
        for name in ("champion", "replaces"):
            if values.get(name) is not None:
                plain_values.text(values[name])
        for name in ("kind", "reason", "by", "claim"):
            plain_values.text(values.get(name, ""))
        plain_values.number(values.get("at", 0.0))
        return cls(**values)


class Ledger:
    """The promotions of one registered model.

    Args:
        client: MLflow's.
        name: of the registered model, which must exist.
    """

    def __init__(self, client: MlflowClient, name: str) -> None:
        self._client = client
        self.name = name
        self._run_id = self._find_run()

    def _find_run(self) -> str:
        """The run named when the model was made; for older models that of the first version."""
        run_id = self._client.get_registered_model(self.name).tags.get(LEDGER_TAG)
        if run_id:
            return str(run_id)
        found = self._client.search_model_versions(f"name='{self.name}'")
        return str(min(found, key=lambda version: int(version.version)).run_id)

    def entries(self) -> list[Promotion]:
        """All promotions in order."""
        params = self._params()
        found: list[Promotion] = []
        while (text := params.get(_key(len(found)))) is not None:
            found.append(self._entry(len(found), text))
        return found

    def _entry(self, number: int, text: str) -> Promotion:
        try:
            return Promotion.from_json(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise RegistryError(
                f"The parameter {_key(number)} of MLflow's run {self._run_id}, which keeps the "
                f"promotions of {self.name}, is damaged ({type(error).__name__}: {error}): another "
                "program wrote it. Its text must be a promotion's, as in the parameter before it."
            ) from None

    def _params(self) -> dict[str, str]:
        return dict(self._run().data.params)

    def _run(self) -> Any:
        """MLflow's run, also one that was deleted and can be restored.

        Raises:
            RegistryError: it was removed for good.
        """
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_run(self._run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise RegistryError(
                f"MLflow's run {self._run_id}, which kept the promotions of {self.name}, was "
                f"removed for good. Restore it from a backup, or delete the tag {LEDGER_TAG} of "
                f"the registered model {self.name}: its promotions then begin anew."
            ) from None

    def _log(self, key: str, value: str) -> None:
        """Write a parameter; of a run that somebody deleted, after it was restored."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.log_param(self._run_id, key, value)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE" or not self._is_deleted():
                raise
            warnings.warn(
                f"MLflow's run {self._run_id}, which keeps the promotions of {self.name}, had been "
                "deleted: it is restored. Leave it where it is.",
                stacklevel=2,
            )
            self._client.restore_run(self._run_id)
            self._client.set_tag(self._run_id, NOTE_TAG, LEDGER_NOTE)
            self._client.log_param(self._run_id, key, value)

    def _is_deleted(self) -> bool:
        return str(self._run().info.lifecycle_stage) == "deleted"

    def append(self, after: int, promotion: Promotion) -> bool:
        """Write the entry that follows the first ``after`` ones.

        Returns:
            False where another process was faster.
        """
        from mlflow.exceptions import MlflowException

        try:
            self._log(_key(after), promotion.to_json())
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
        entries = self.entries()
        return len(entries) > after and entries[after].claim == promotion.claim

    def settled(self) -> list[Promotion]:
        """All promotions, after aliases that are late or were moved by hand are dealt with."""
        entries = self.entries()
        last = entries[-1] if entries else None
        aliases = self._aliases()
        champion = aliases.get(CHAMPION)
        if champion == (last.champion if last else None):
            return entries
        if last is not None and self._are_late(champion, last, len(entries)):
            self.follow()
            return self.entries()
        replaced = last.champion if last else aliases.get(PREVIOUS)
        reason = "the alias was moved outside nfbmr"
        self.append(len(entries), Promotion(champion, replaced, ADOPTED, reason))
        self.follow()
        return self.entries()

    def _are_late(self, champion: str | None, last: Promotion, count: int) -> bool:
        """Whether the aliases have not followed the last entry yet, rather than been moved."""
        if time.time() - last.at < SETTLING_S:
            return True
        return champion == last.replaces and _mark(count - 1) not in self._params()

    def follow(self) -> None:
        """Set the aliases to the last entry, and again while newer entries come."""
        entries = self.entries()
        while True:
            last = entries[-1]
            self._point(PREVIOUS, last.replaces)
            self._point(CHAMPION, last.champion)
            newer = self.entries()
            if len(newer) == len(entries):
                break
            entries = newer
        self._log(_mark(len(entries) - 1), "yes")
        if last.champion is not None and self._aliases().get(CHALLENGER) == last.champion:
            self._point(CHALLENGER, None)
            self.challenge()  # A version that was registered meanwhile may have lost its alias.

    def challenge(self) -> None:
        """Let the newest version be ``challenger``, unless it ever was champion.

        Whoever registers or judges a version does it last of all; where newer versions come
        meanwhile it is done again, so that all who do it at the same time agree.
        """
        newest = self._newest()
        while not any(newest == entry.champion for entry in self.entries()):
            self._set(CHALLENGER, newest)
            before, newest = newest, self._newest()
            if before == newest:
                return

    def _newest(self) -> str:
        search = self._client.search_model_versions
        versions = pages(search, filter_string=f"name='{self.name}'")
        return str(max(int(each.version) for each in versions))

    def _aliases(self) -> dict[str, str]:
        aliases = self._client.get_registered_model(self.name).aliases
        return {alias: str(version) for alias, version in aliases.items()}

    def _point(self, alias: str, version: str | None) -> None:
        """Set an alias, or take it away where its version is none or was deleted."""
        if version is not None and self._set(alias, version):
            return
        if alias in self._aliases():
            self._client.delete_registered_model_alias(self.name, alias)

    def _set(self, alias: str, version: str) -> bool:
        """Set an alias; False where the version was deleted."""
        from mlflow.exceptions import MlflowException

        for attempt in range(_SET_ATTEMPTS):
            try:
                self._client.set_registered_model_alias(self.name, alias, version)
                break
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return False
                # Two processes that set a new alias at once both insert it; one is refused.
                if error.error_code != "BAD_REQUEST" or attempt + 1 == _SET_ATTEMPTS:
                    raise
        return True


def _key(number: int) -> str:
    return f"promotion.{number:04d}"


def _mark(number: int) -> str:
    """Says that the aliases were set to this entry."""
    return f"followed.{number:04d}"

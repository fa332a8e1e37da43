"""The [store] table: how an object store is reached where the repository is in one.

Decides the keys as the core's own reader of this table has them (`store/settings.py` there), so
that one file serves the agent and every other command; what they mean is decided there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

from backpoint_agent.settings.secret import SecretSettings
from backpoint_agent.settings.section import KeyPath, Section, mistake
from backpoint_agent.settings.values import BucketAddress, Flag, LocalPath, Text
from backpoint_repo.errors import UsageError
from backpoint_repo.secret_place import SecretPlace
from backpoint_repo.store import settings as core
from backpoint_repo.store.place import BucketPlace, parse_place


def _endpoint(text: str) -> str:
    """Whether http:// is allowed shows with the keys beside it."""
    try:
        return core.check_endpoint(text, allow_http=True)
    except UsageError as error:
        raise mistake(str(error)) from None


class StoreTable(Section):
    """One table; it stands for itself. endpoint: of the server; none for the cloud's own."""

    endpoint: Annotated[Text, AfterValidator(_endpoint)] | None = None
    region: Text | None = None
    ca_file: LocalPath | None = None
    virtual_hosted: Flag = False
    allow_http: Flag = False
    access_key_id: Text | None = None
    secret_access_key: SecretSettings | None = None
    session_token: SecretSettings | None = None

    @classmethod
    def between(cls, given: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
        """Half a pair of keys is none, and what is stored does not travel in the clear."""
        endpoint = given.get("endpoint")
        if isinstance(endpoint, str) and endpoint.startswith("http:"):
            try:
                core.check_endpoint(endpoint, allow_http=given.get("allow_http") is True)
            except UsageError as error:
                yield ("endpoint",), str(error)
        named, secret = (given.get(key) for key in ("access_key_id", "secret_access_key"))
        if named is not None and secret is None:
            yield ("access_key_id",), "needs a secret_access_key beside it"
        for key in ("secret_access_key", "session_token"):
            if given.get(key) is not None and named is None:
                yield (key,), "needs an access_key_id beside it"

    def settings(self) -> core.StoreSettings:
        """As the core takes it."""
        return core.StoreSettings(
            endpoint=self.endpoint,
            region=self.region,
            ca_file=self.ca_file,
            virtual_hosted=self.virtual_hosted,
            allow_http=self.allow_http,
            access_key_id=self.access_key_id,
            secret_access_key=_place(self.secret_access_key),
            session_token=_place(self.session_token),
        )


class StoreAtTable(StoreTable):
    """For one address and what is below it, as the one that a copy goes to."""

    address: BucketAddress


class StoreSettings(StoreTable):
    """at: [[store.at]], for addresses that [store] itself is not for."""

    at: tuple[StoreAtTable, ...] = ()

    @classmethod
    def between(cls, given: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
        """One address with two tables leaves open which counts."""
        yield from super().between(given)
        seen: set[str] = set()
        tables = given.get("at")
        for number, table in enumerate(tables if isinstance(tables, list) else ()):
            address = table.get("address") if isinstance(table, Mapping) else None
            if isinstance(address, str):
                if address.rstrip("/") in seen:
                    yield ("at", number, "address"), "has a table already"
                seen.add(address.rstrip("/"))

    def tables(self) -> core.StoreTables:
        """As the core takes them; without any, the environment decides."""
        own = self.settings()
        at = []
        for table in self.at:
            place = parse_place(table.address)
            assert isinstance(place, BucketPlace)
            at.append((place, table.settings()))
        return core.StoreTables(None if own == core.StoreSettings() else own, tuple(at))


def _place(secret: SecretSettings | None) -> SecretPlace | None:
    if secret is None:
        return None
    return SecretPlace(file=secret.file, command=secret.command, environment=secret.environment)

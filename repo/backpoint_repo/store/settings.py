"""How an object store is reached: what the [store] table of a TOML file may say, and which of its
tables an address takes.

The table `[store]` is for all addresses; `[[store.at]]` tables are for one `address` and what is
below it, and the longest that fits counts. A table stands for itself: what it leaves out has its
default, and is not looked for in another table or the environment; but where it names no key the
credentials are the environment's. All else in the file is the agent's and is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from backpoint_repo.errors import UsageError
from backpoint_repo.secret_place import SecretPlace
from backpoint_repo.store.place import BucketPlace, parse_place

VARIABLE: Final = "BACKPOINT_CONFIG"
FILE_MAX: Final = 1 << 20
"""Bytes. What is larger is some other file."""

_AT_MAX: Final = 1000
_LOOPBACK: Final = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class StoreSettings:
    """One table. endpoint: URL of the server; None: the cloud's own."""

    endpoint: str | None = None
    region: str | None = None
    ca_file: Path | None = None
    """Authorities that are believed beside the system's, PEM."""
    virtual_hosted: bool = False
    """The bucket is in the host's name, not in the path."""
    allow_http: bool = False
    access_key_id: str | None = None
    secret_access_key: SecretPlace | None = None
    session_token: SecretPlace | None = None


@dataclass(frozen=True)
class StoreTables:
    """All tables of a file. at: each with the place it is for."""

    default: StoreSettings | None = None
    at: tuple[tuple[BucketPlace, StoreSettings], ...] = ()

    def settings_of(self, place: BucketPlace) -> StoreSettings | None:
        """Of the longest address that `place` is in; None where there is none at all."""
        fitting = [pair for pair in self.at if place.is_below(pair[0])]
        if fitting:
            return max(fitting, key=lambda pair: len(pair[0].address))[1]
        return self.default


def check_endpoint(endpoint: str, *, allow_http: bool) -> str:
    """The URL as it is used. Raises UsageError with what follows its name: `must be ...`."""
    try:
        parts = urlsplit(endpoint)
        port_given = parts.port is not None or not parts.netloc.endswith(":")
    except ValueError:
        raise UsageError("must be a URL like https://s3.example.com:9000") from None
    if "@" in parts.netloc:
        raise UsageError("must not hold a user or password")
    usable = parts.scheme in ("http", "https") and parts.hostname and port_given
    if not usable or parts.query or parts.fragment or not endpoint.isascii() or " " in endpoint:
        raise UsageError("must be a URL like https://s3.example.com:9000")
    if parts.scheme == "http" and not allow_http and not is_loopback(endpoint):
        raise UsageError(
            "is http://, which shows everybody on the way what is stored when, and lets them "
            "change it; use https://, or allow http (allow_http = true, AWS_ALLOW_HTTP=true)"
        )
    return endpoint.rstrip("/")


def is_loopback(endpoint: str) -> bool:
    """Whether its requests stay on this machine."""
    return _LOOPBACK.fullmatch(urlsplit(endpoint).hostname or "") is not None


def read_store_file(path: Path) -> StoreTables:
    """The tables of a TOML file. Raises UsageError naming the file and the key."""
    import tomllib

    try:
        with path.open("rb") as file:
            content = file.read(FILE_MAX + 1)
        if len(content) > FILE_MAX:
            raise UsageError(f"{path} is larger than 1 MiB; this is no configuration")
        document = tomllib.loads(content.decode("utf-8-sig").replace("\r\n", "\n"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no TOML: {error}") from error
    found = document.get("store")
    if found is None:
        return StoreTables()
    try:
        return _tables(found, path.absolute().parent)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _tables(found: Any, folder: Path) -> StoreTables:
    if not isinstance(found, dict):
        raise UsageError("store must be a table: [store]")
    table = dict(found)
    ats = table.pop("at", [])
    if not isinstance(ats, list) or len(ats) > _AT_MAX:
        raise UsageError("store.at must be tables: [[store.at]]")
    default = _settings(table, "store", folder) if table else None
    at: dict[BucketPlace, StoreSettings] = {}
    for number, one in enumerate(ats):
        place, settings = _placed(one, f"store.at[{number}]", folder)
        if place in at:
            raise UsageError(f"store.at[{number}].address: {place.address} has a table already")
        at[place] = settings
    return StoreTables(default, tuple(at.items()))


def _placed(one: Any, key: str, folder: Path) -> tuple[BucketPlace, StoreSettings]:
    if not isinstance(one, dict):
        raise UsageError("store.at must be tables: [[store.at]]")
    table = dict(one)
    try:
        place = parse_place(_text(table.pop("address", None), f"{key}.address"))
    except UsageError as error:
        raise UsageError(f"{key}.address: {error}") from None
    if isinstance(place, Path):
        raise UsageError(f"{key}.address: must begin with s3://, gs:// or az://")
    return place, _settings(table, key, folder)


def _settings(table: Mapping[str, Any], key: str, folder: Path) -> StoreSettings:
    read: dict[str, Any] = {}
    for name, value in table.items():
        if name not in _KEYS:
            shown = name if _NAME.fullmatch(name) else "a key"
            raise UsageError(f"{key}.{shown}: is not known; there are {', '.join(_KEYS)}")
        read[name] = _KEYS[name](value, f"{key}.{name}")
    settings = StoreSettings(**read)
    if settings.endpoint is not None:
        try:
            endpoint = check_endpoint(settings.endpoint, allow_http=settings.allow_http)
        except UsageError as error:
            raise UsageError(f"{key}.endpoint: {error}") from None
        settings = replace(settings, endpoint=endpoint)
    complaint = lone_key(settings)
    if complaint:
        raise UsageError(f"{key}.{complaint}")
    return _resolved(settings, folder)


def lone_key(settings: StoreSettings) -> str | None:
    """What is wrong with the keys seen together, beginning with the key to blame."""
    named, secret = settings.access_key_id is not None, settings.secret_access_key is not None
    if named and not secret:
        return "access_key_id: needs a secret_access_key beside it"
    if secret and not named:
        return "secret_access_key: needs an access_key_id beside it"
    if settings.session_token is not None and not named:
        return "session_token: needs an access_key_id beside it"
    return None


def _resolved(settings: StoreSettings, folder: Path) -> StoreSettings:
    """Relative paths are relative to the file's folder."""

    def absolute(path: Path) -> Path:
        try:
            return folder / path.expanduser()
        except RuntimeError:
            raise UsageError(f"the home of {path.parts[0]} is not known") from None

    def secret(place: SecretPlace | None) -> SecretPlace | None:
        return replace(place, file=absolute(place.file)) if place and place.file else place

    return replace(
        settings,
        ca_file=absolute(settings.ca_file) if settings.ca_file else None,
        secret_access_key=secret(settings.secret_access_key),
        session_token=secret(settings.session_token),
    )


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise UsageError(f"{key}: must be a text of one line")
    return value


def _flag(value: Any, key: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{key}: must be true or false")
    return value


def _path(value: Any, key: str) -> Path:
    return Path(_text(value, key))


def _secret(value: Any, key: str) -> SecretPlace:
    """Never the secret itself: the file may be read by others, copied and shown."""
    form = '{ file = "..." }, { command = "..." } or { environment = "..." }'
    if isinstance(value, str):
        raise UsageError(f"{key}: secrets do not stand in this file; say where it is: {form}")
    if not isinstance(value, dict) or len(value) != 1 or not value.keys() <= _SOURCES:
        raise UsageError(f"{key}: must say where the secret is: {form}")
    ((source, where),) = value.items()
    text = _text(where, f"{key}.{source}")
    if source == "file":
        return SecretPlace(file=Path(text))
    return SecretPlace(command=text) if source == "command" else SecretPlace(environment=text)


_SOURCES: Final = {"file", "command", "environment"}
_KEYS: Final[dict[str, Callable[[Any, str], Any]]] = {
    "endpoint": _text,
    "region": _text,
    "ca_file": _path,
    "virtual_hosted": _flag,
    "allow_http": _flag,
    "access_key_id": _text,
    "secret_access_key": _secret,
    "session_token": _secret,
}

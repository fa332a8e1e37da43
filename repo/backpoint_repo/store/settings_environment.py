"""How an object store is reached by what the environment says, as the tools of AWS take it.

Decides which variables count and which of two that say the same. Keys may also be those of a
profile in the shared credentials file. A profile that is no pair of keys (roles, single sign-on)
is refused with a sentence. What there is beside it, of machines and containers that are given
credentials from outside, is left to the library.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from backpoint_repo.errors import KeyFault, UsageError
from backpoint_repo.store.settings import StoreSettings, check_endpoint

_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_REGIONS: Final = ("AWS_REGION", "AWS_DEFAULT_REGION")
_KEY: Final = "AWS_ACCESS_KEY_ID"
_SECRET: Final = "AWS_SECRET_ACCESS_KEY"  # the name of a variable
_TOKENS: Final = ("AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
_PROFILE: Final = "AWS_PROFILE"
_PROFILE_KEYS: Final = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
_TRUE: Final = ("1", "true", "yes", "on")


class Keys(NamedTuple):
    """What requests are signed with."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None

    def __repr__(self) -> str:
        return f"Keys({self.access_key_id!r}, ...)"


def environment_settings(environment: Mapping[str, str]) -> StoreSettings:
    """All but the keys. Raises UsageError naming the variable."""
    allow_http = is_true(environment.get("AWS_ALLOW_HTTP", ""))
    endpoint_name = _first(environment, _ENDPOINTS)
    endpoint = None
    if endpoint_name is not None:
        try:
            endpoint = check_endpoint(environment[endpoint_name], allow_http=allow_http)
        except UsageError as error:
            raise UsageError(f"{endpoint_name} {error}") from None
    region_name = _first(environment, _REGIONS)
    ca_file = environment.get("AWS_CA_BUNDLE")
    return StoreSettings(
        endpoint=endpoint,
        region=environment[region_name] if region_name else None,
        ca_file=Path(ca_file) if ca_file else None,
        virtual_hosted=is_true(environment.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "")),
        allow_http=allow_http,
    )


def environment_keys(environment: Mapping[str, str]) -> Keys | None:
    """The variables', or those of the profile; None where the library must find some.

    Raises KeyFault where there is half a pair, or a profile that is named has none.
    """
    key, secret = environment.get(_KEY), environment.get(_SECRET)
    if key and secret:
        token = _first(environment, _TOKENS)
        return Keys(key, secret, environment[token] if token else None)
    if key or secret:
        there, missing = (_KEY, _SECRET) if key else (_SECRET, _KEY)
        raise KeyFault(f"{there} is set and {missing} is not; both together are a key")
    return _profile_keys(environment)


def is_true(text: str) -> bool:
    """What object stores' tools take as yes."""
    return text.strip().lower() in _TRUE


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    """An empty variable counts as not set."""
    return next((name for name in names if environment.get(name)), None)


def _profile_keys(environment: Mapping[str, str]) -> Keys | None:
    """Of AWS_PROFILE; of `default` where there is such."""
    import configparser

    named = environment.get(_PROFILE)
    given = environment.get("AWS_SHARED_CREDENTIALS_FILE")
    home = environment.get("HOME")
    if not given and not home:
        return None
    path = Path(given or f"{home}/.aws/credentials").expanduser()
    profiles = configparser.RawConfigParser(strict=False)
    try:
        profiles.read_string(path.read_text("utf-8"))
    except FileNotFoundError:
        profiles.clear()
    except OSError as error:
        raise KeyFault(f"cannot read {path}: {error.strerror}") from None
    except (configparser.Error, ValueError):
        raise KeyFault(f"{path} is no file of AWS credentials") from None
    name = named or "default"
    key, secret, token = (profiles.get(name, key, fallback="") for key in _PROFILE_KEYS)
    if key and secret:
        return Keys(key, secret, token or None)
    if named:
        raise KeyFault(
            f"{_PROFILE} names {named!r}, and {path} has no aws_access_key_id and "
            "aws_secret_access_key for it; roles and single sign-on are not supported"
        )
    return None

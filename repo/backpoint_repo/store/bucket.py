"""The library's view of a bucket, made from an address and settings.

Decides what the library is told: that certificates are verified, that it does not repeat requests
(`object_store.py` does), how long a request may take, and that nothing it would find in the
environment by itself goes before what was settled here. The only place besides `object_store.py`
and `object_faults.py` that knows the library; imported when a bucket is opened, not before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from backpoint_repo import version
from backpoint_repo.errors import StoreMisconfigured, UsageError
from backpoint_repo.store.place import BucketPlace
from backpoint_repo.store.settings import StoreSettings, check_endpoint, is_loopback
from backpoint_repo.store.settings_environment import (
    Keys,
    environment_keys,
    environment_settings,
    is_true,
)

if TYPE_CHECKING:
    from obstore.store import AzureConfig, ClientConfig, GCSConfig, RetryConfig, S3Credential
    from obstore.store import ObjectStore as Bucket

REGION: Final = "us-east-1"
"""Where nobody names one; what stores that have no regions expect."""
CONNECT_S: Final = 10
REQUEST_S: Final = 300
"""Of a whole request, also of a 32 MiB pack that shares a 10 Mbit/s line with seven others."""
_REGION: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_CA_MAX: Final = 16 << 20
_RETRY: Final[RetryConfig] = {"max_retries": 0, "retry_timeout": timedelta(seconds=REQUEST_S)}
_ENDPOINTS: Final = {
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_ALLOW_HTTP: Final = {"gs": "GOOGLE_ALLOW_HTTP", "az": "AZURE_ALLOW_HTTP"}


def open_bucket(
    place: BucketPlace, settings: StoreSettings | None, environment: Mapping[str, str]
) -> Bucket:
    """settings: of a [store] table; without one the environment decides.

    Raises UsageError, KeyFault, StoreMisconfigured. Asks nothing of the store.
    """
    try:
        if place.scheme == "s3":
            return _s3_bucket(place, settings, environment)
        return _other_bucket(place, settings or StoreSettings(), environment)
    except (BaseError, ValueError) as error:
        reason = str(error).partition("\n")[0][:300]
        raise StoreMisconfigured(f"{place.address} cannot be opened: {reason}") from None


def _s3_bucket(
    place: BucketPlace, table: StoreSettings | None, environment: Mapping[str, str]
) -> Bucket:
    settings = table or environment_settings(environment)
    region = settings.region or REGION
    if not _REGION.fullmatch(region):
        raise UsageError(f"{region!r} is no region; one looks like {REGION}")
    endpoint = _endpoint(settings, region, place.bucket)
    keys = _table_keys(settings, place, environment) or environment_keys(environment)
    return S3Store(
        place.bucket,
        prefix=place.prefix or None,
        # Said even where it is the cloud's own: the library would take AWS_ENDPOINT_URL.
        endpoint=endpoint,
        aws_endpoint_url_s3=endpoint,
        region=region,
        virtual_hosted_style_request=settings.virtual_hosted,
        conditional_put="etag",
        # Buckets that lock objects take none without a checksum; signing needs this one anyway.
        checksum_algorithm="SHA256",
        client_options=_client_options(settings, endpoint),
        retry_config=_RETRY,
        credential_provider=_StaticKeys(keys) if keys else None,
    )


def _endpoint(settings: StoreSettings, region: str, bucket: str) -> str:
    endpoint = settings.endpoint or f"https://s3.{region}.amazonaws.com"
    scheme, _, host = endpoint.partition("://")
    if settings.virtual_hosted and not host.startswith(f"{bucket}."):
        return f"{scheme}://{bucket}.{host}"
    return endpoint


def _table_keys(
    settings: StoreSettings, place: BucketPlace, environment: Mapping[str, str]
) -> Keys | None:
    if settings.access_key_id is None or settings.secret_access_key is None:
        return None
    of = f"of {place.address}"
    secret = settings.secret_access_key.read_ascii(f"the secret_access_key {of}", environment)
    token = settings.session_token
    return Keys(
        settings.access_key_id,
        secret,
        token.read_ascii(f"the session_token {of}", environment) if token else None,
    )


class _StaticKeys:
    """Given as a whole, so that no token out of the environment joins a key out of a table."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def __call__(self) -> S3Credential:
        return {
            "access_key_id": self._keys.access_key_id,
            "secret_access_key": self._keys.secret_access_key,
            "token": self._keys.session_token,
            "expires_at": None,
        }


def _other_bucket(
    place: BucketPlace, settings: StoreSettings, environment: Mapping[str, str]
) -> Bucket:
    """Google's or Microsoft's: the library reads their variables itself."""
    if settings.access_key_id is not None:
        raise UsageError(
            f"{place.address}: access_key_id in [store] is for s3:// only; credentials of "
            f"{place.scheme}:// come from the environment"
        )
    name = next((name for name in _ENDPOINTS[place.scheme] if environment.get(name)), None)
    allow_http = settings.allow_http or is_true(environment.get(_ALLOW_HTTP[place.scheme], ""))
    endpoint = settings.endpoint
    if endpoint is None and name is not None:
        try:
            endpoint = check_endpoint(environment[name], allow_http=allow_http)
        except UsageError as error:
            raise UsageError(f"{name} {error}") from None
    options = _client_options(settings, endpoint or "https://")
    prefix = place.prefix or None
    if place.scheme == "gs":
        google: GCSConfig = {"base_url": endpoint} if endpoint else {}
        return GCSStore(
            place.bucket, prefix=prefix, client_options=options, retry_config=_RETRY, config=google
        )
    azure: AzureConfig = {"endpoint": endpoint} if endpoint else {}
    return AzureStore(
        place.bucket, prefix=prefix, client_options=options, retry_config=_RETRY, config=azure
    )


def _client_options(settings: StoreSettings, endpoint: str) -> ClientConfig:
    options: ClientConfig = {
        "connect_timeout": timedelta(seconds=CONNECT_S),
        "timeout": timedelta(seconds=REQUEST_S),
        "user_agent": f"backpoint/{version.VERSION}",
        "allow_invalid_certificates": False,
        "allow_http": endpoint.startswith("http://")
        and (settings.allow_http or is_loopback(endpoint)),
    }
    if settings.ca_file is not None:
        options["root_certificate"] = _authorities(settings.ca_file)
    return options


def _authorities(path: Path) -> bytes:
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as f:
            return f.read(_CA_MAX)
    except OSError as error:
        raise UsageError(f"cannot read the authorities in {path}: {error.strerror}") from None

"""What an address means: a directory, or a bucket of an object store."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

from obstore.store import S3Store

from backpoint_repo.errors import UsageError
from backpoint_repo.store.contract import Store
from backpoint_repo.store.local import LocalStore
from backpoint_repo.store.object_store import ObjectStore

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def open_store(address: str, environment: Mapping[str, str]) -> Store:
    """The store at an address. Raises UsageError for one that means nothing."""
    found = _SCHEME.match(address)
    if found is None:
        return LocalStore(Path(address))
    if found[1] == "file":
        return LocalStore(Path(address.removeprefix("file://")))
    if found[1] != "s3":
        raise UsageError(f"{address}: a repository is in a directory, or at s3://")
    bucket, _, prefix = address[found.end() :].partition("/")
    return ObjectStore(
        S3Store(
            bucket,
            prefix=prefix or None,
            endpoint=environment.get("AWS_ENDPOINT"),
            access_key_id=environment.get("AWS_ACCESS_KEY_ID"),
            secret_access_key=environment.get("AWS_SECRET_ACCESS_KEY"),
            region=environment.get("AWS_REGION", "us-east-1"),
            client_options={"allow_http": environment.get("AWS_ALLOW_HTTP") == "true"},
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=60)},
        ),
        address,
    )

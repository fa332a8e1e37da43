"""One bucket as the library sees it, in any process, and how long a request to it may take.

Decides the time limits. The library counts a pause in reading from the beginning of a request, also
while a body is still going out, so what reads and what writes are clients of their own. Knows no
key and no error.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from backpoint_repo.store.object_library import library

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Bucket

CONNECT_S: Final = 10
STALL_S: Final = 30
"""How long nothing may come of an answer."""
READ_S: Final = 3600
"""A whole object of 1 GiB at 300 kB/s; one that stalls ends long before."""
SMALL: Final = 1 << 20
SMALL_WRITE_S: Final = 60
LARGE_WRITE_S: Final = 300
"""A pack of 32 MiB that shares a line of 2 MB/s with fifteen others needs 270 s."""
PATIENT_WRITE_S: Final = 900
"""Where that was too short: as much at 600 kB/s."""

_LIMITS: Final = {
    "read": {"read_timeout": f"{STALL_S}s", "timeout": f"{READ_S}s"},
    "small": {"timeout": f"{SMALL_WRITE_S}s"},
    "large": {"timeout": f"{LARGE_WRITE_S}s"},
    "patient": {"timeout": f"{PATIENT_WRITE_S}s"},
}
_NO_RETRIES: Final = {"max_retries": 0}
"""A conditional put must not be repeated blindly; `object_store.py` does it seeingly."""
_NAMES: Final = {"endpoint_url_s3": "aws_endpoint_url_s3"}
"""Settings that the library tells by a name that it does not take."""


class Requests(NamedTuple):
    """The library, and the bucket to call its functions with."""

    library: ModuleType
    bucket: Any


class ObjectClient:
    """Thread-safe, and usable in a process that was forked from the one that made it."""

    def __init__(self, bucket: Bucket) -> None:
        """bucket: says where it is and how requests are signed; its time limits are not used."""
        self._bucket: Any = bucket
        library()  # so that a process that is forked from here knows that it needs its own
        self._made: dict[tuple[int, str], Requests] = {}
        """By process and limits. What another process made stays: see `object_library.py`."""

    @property
    def kind(self) -> str:
        """S3Store, GCSStore, AzureStore ..."""
        return type(self._bucket).__name__

    def reading(self) -> Requests:
        """For what has an answer to wait for, and next to nothing to send."""
        return self._with("read")

    def writing(self, size: int, *, again: bool = False) -> Requests:
        """size: bytes to be sent. again: it may be that the time was too short."""
        if size <= SMALL:
            return self._with("small")
        return self._with("patient" if again else "large")

    def _with(self, limits: str) -> Requests:
        place = (os.getpid(), limits)
        found = self._made.get(place)
        if found is not None:
            return found
        return self._made.setdefault(place, self._make(_LIMITS[limits]))

    def _make(self, limits: dict[str, str]) -> Requests:
        here = library()
        arguments, options = self._bucket.__getnewargs_ex__()
        client = dict(options.get("client_options") or {})
        client |= {"connect_timeout": f"{CONNECT_S}s"} | limits
        config = {_NAMES.get(key, key): value for key, value in options.get("config", {}).items()}
        changed = {"client_options": client, "retry_config": _NO_RETRIES, "config": config}
        return Requests(here, getattr(here._store, self.kind)(*arguments, **(options | changed)))

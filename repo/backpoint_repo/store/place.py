"""What the text of an address says: a directory, or a bucket and a prefix in it.

Pure. Decides which addresses are refused, and with which sentence. Knows no settings and no store.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from backpoint_repo.errors import UsageError

SCHEMES: Final = ("s3", "gs", "az")
PREFIX_MAX: Final = 700
"""Characters. Stores take keys of 1024 bytes, and ours go below the prefix."""

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SLIP: Final = re.compile(r"(s3|gs|az|file):", re.IGNORECASE)
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_PREFIX: Final = re.compile(r"[A-Za-z0-9._=+,()!/-]*")
_FORMS: Final = "a directory, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"


@dataclass(frozen=True)
class BucketPlace:
    """scheme: of SCHEMES. prefix: "" or parts joined by single slashes."""

    scheme: str
    bucket: str
    prefix: str

    @property
    def address(self) -> str:
        """The one spelling of this place."""
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")

    def is_below(self, other: BucketPlace) -> bool:
        """Whether it is the other one, or inside it."""
        return f"{self.address}/".startswith(f"{other.address}/")


def is_address(text: str) -> bool:
    """Whether it is meant as an address; if not, it is a path."""
    return _SCHEME.match(text) is not None or _SLIP.match(text) is not None


def parse_place(text: str) -> BucketPlace | Path:
    """Raises UsageError; its message never repeats what may be a password."""
    found = _SCHEME.match(text)
    if found is None:
        if _SLIP.match(text):
            raise UsageError(
                f"{text!r} is neither an address nor a path; an address begins with s3://, gs://, "
                "az:// or file:///, and a path of such a name with ./"
            )
        return Path(text)
    scheme, rest = found[1].lower(), text[found.end() :]
    # Secret keys have slashes in them, so a user's part may end anywhere; a path of files has @.
    if "@" in (rest.partition("/")[0] if scheme == "file" else rest):
        raise UsageError(
            "an address holds no user and no password, because everybody on this machine can see "
            "what a command was called with; credentials come from the environment or from [store]"
        )
    if scheme == "file":
        return _file_path(text)
    if scheme not in SCHEMES:
        hint = "; a server's URL is its endpoint" if scheme in ("http", "https") else ""
        raise UsageError(f"{scheme}:// is no place for a repository, which is {_FORMS}{hint}")
    return _bucket_place(scheme, rest)


def _file_path(text: str) -> Path:
    try:
        parts = urlsplit(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is no file address; it looks like file:///srv/backups"
        ) from None
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise UsageError(f"{text!r} has a ? or #; give such a path without file://")
    if parts.netloc not in ("", "localhost"):
        raise UsageError(f"{text!r} names the machine {parts.netloc!r}; file:///path has 3 slashes")
    path = unquote(parts.path)
    if not path.startswith("/") or "\0" in path:
        raise UsageError(f"{text!r} has no path; it looks like file:///srv/backups")
    return Path(path)


def _bucket_place(scheme: str, rest: str) -> BucketPlace:
    bucket, _, prefix = rest.partition("/")
    kind = "container" if scheme == "az" else "bucket"
    shown = f"{scheme}://{rest}"
    if "?" in rest or "#" in rest:
        raise UsageError(
            f"{shown.partition('?')[0].partition('#')[0]}: an address has no ? and no #; an "
            "endpoint and a region come from the environment or from [store]"
        )
    if not bucket:
        raise UsageError(f"{shown!r} names no {kind}; an address is {scheme}://{kind}/prefix")
    if ":" in bucket:
        raise UsageError(
            f"{shown!r} has a : where the {kind} stands; a server's host and port are its "
            "endpoint, which comes from the environment or from [store]"
        )
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"{shown!r}: {bucket!r} cannot be the name of a {kind}")
    return BucketPlace(scheme, bucket, _checked_prefix(shown, prefix.removesuffix("/")))


def _checked_prefix(shown: str, prefix: str) -> str:
    parts = prefix.split("/") if prefix else []
    if "" in parts:
        raise UsageError(f"{shown!r}: there is nothing between two slashes")
    if "." in parts or ".." in parts:
        raise UsageError(f"{shown!r}: a bucket knows no . and no .. between slashes")
    if not _PREFIX.fullmatch(prefix):
        raise UsageError(
            f"{shown!r}: a prefix is of letters, digits and . _ - = + , ( ) ! between slashes"
        )
    if len(prefix) > PREFIX_MAX:
        raise UsageError(f"{shown[:60]!r}...: a prefix has at most {PREFIX_MAX} characters")
    return prefix

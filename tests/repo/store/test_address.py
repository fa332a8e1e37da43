"""Addresses: what each means, which are refused and with which sentence, what opening one imports.

What the stores behind them do is in `test_store_contract.py`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.errors import BackpointError, KeyFault, StoreMisconfigured, UsageError
from backpoint_repo.store.address import open_store
from backpoint_repo.store.local import LocalStore
from backpoint_repo.store.place import BucketPlace, is_address, parse_place

SECRET = "wJalrXUtnFEMI/K7MDENG"
BUCKETS = st.from_regex(r"[a-z0-9][a-z0-9.-]{2,20}", fullmatch=True)
PARTS = st.lists(
    st.text("abcXYZ019._=+,()!-", min_size=1, max_size=8).filter(lambda part: part.strip(".")),
    max_size=4,
)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/srv/backups", "/srv/backups"),
        ("backups", "backups"),
        ("./s3:backups", "./s3:backups"),
        ("file:///srv/backups", "/srv/backups"),
        ("FILE:///srv/two%20words", "/srv/two words"),
        ("file://localhost/srv/a@b", "/srv/a@b"),
    ],
)
def test_directories(text: str, path: str) -> None:
    assert parse_place(text) == Path(path)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("s3://bucket", BucketPlace("s3", "bucket", "")),
        ("s3://bucket/", BucketPlace("s3", "bucket", "")),
        ("S3://my.bucket-1/a/b_c/", BucketPlace("s3", "my.bucket-1", "a/b_c")),
        ("gs://bucket/a", BucketPlace("gs", "bucket", "a")),
        ("az://container/a+b", BucketPlace("az", "container", "a+b")),
    ],
)
def test_buckets(text: str, place: BucketPlace) -> None:
    assert parse_place(text) == place


@given(st.sampled_from(["s3", "gs", "az"]), BUCKETS, PARTS)
def test_every_place_is_what_its_own_address_says(
    scheme: str, bucket: str, parts: list[str]
) -> None:
    place = BucketPlace(scheme, bucket, "/".join(parts))
    assert parse_place(place.address) == place
    assert is_address(place.address)
    for depth in range(len(parts) + 1):
        assert place.is_below(BucketPlace(scheme, bucket, "/".join(parts[:depth])))
    assert not place.is_below(BucketPlace(scheme, f"{bucket}x", ""))
    assert not place.is_below(BucketPlace(scheme, bucket, f"{place.prefix}x"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("s3://", "names no bucket"),
        ("s3:///prefix", "names no bucket"),
        ("az:///prefix", "names no container"),
        ("s3:bucket/prefix", "neither an address nor a path"),
        ("s3:/bucket", "neither an address nor a path"),
        ("s3://bucket/a/../b", "no . and no .."),
        ("s3://bucket/./b", "no . and no .."),
        ("s3://bucket/a//b", "nothing between two slashes"),
        ("s3://bucket/a?versionId=3", "no ? and no #"),
        ("s3://bucket/a#b", "no ? and no #"),
        ("s3://bucket/a b", "a prefix is of letters"),
        ("s3://bucket/ä", "a prefix is of letters"),
        ("s3://bucket/a%2e", "a prefix is of letters"),
        ("s3://bucket/a\nb", "a prefix is of letters"),
        ("s3://bucket/" + "a" * 701, "at most 700"),
        ("s3://host:9000/bucket", "endpoint"),
        ("s3://bu\x1bcket/a", "cannot be the name of a bucket"),
        ("s3://b/a", "cannot be the name of a bucket"),
        ("http://host:9000/bucket", "a server's URL is its endpoint"),
        ("sftp://host/path", "sftp:// is no place"),
        ("file://", "no path"),
        ("file://host/path", "names the machine 'host'"),
        ("file:///a?b", "without file://"),
        ("file:///a%00b", "no path"),
    ],
)
def test_an_address_that_means_nothing_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=re.escape(why)) as refused:
        parse_place(text)
    assert "\n" not in str(refused.value)
    assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["s3", "gs", "az", "https", "ftp"])
@pytest.mark.parametrize("form", ["key:{}@bucket/p", "{}@bucket", "key:{}@bucket?x=1"])
def test_a_password_in_an_address_is_refused_and_not_repeated(scheme: str, form: str) -> None:
    with pytest.raises(UsageError, match="no user and no password") as refused:
        parse_place(f"{scheme}://" + form.format(SECRET))
    assert SECRET not in str(refused.value)
    assert SECRET.partition("/")[0] not in str(refused.value)


@given(
    st.text(max_size=40), st.sampled_from(["", "s3://", "gs://", "az://b/", "file://", "s3://b/"])
)
def test_any_text_is_a_place_or_a_sentence(text: str, before: str) -> None:
    try:
        place = parse_place(before + text)
    except UsageError:
        return
    assert isinstance(place, Path) or parse_place(place.address) == place


def test_local_addresses_open_local_stores(tmp_path: Path) -> None:
    for address in (str(tmp_path), f"file://{tmp_path}"):
        store = open_store(address, {"BACKPOINT_CONFIG": "/nowhere"})
        assert isinstance(store, LocalStore)
        assert store.address == str(tmp_path)


def test_a_bucket_is_opened_without_asking_anybody() -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": SECRET}
    store = open_store("S3://bucket/a/", keys)
    assert store.address == "s3://bucket/a"
    assert store.lanes > 1
    assert SECRET not in repr(store)


@pytest.mark.parametrize(
    ("variables", "error", "why"),
    [
        ({"AWS_ENDPOINT_URL": "http://s3.example.com"}, UsageError, "AWS_ENDPOINT_URL is http://"),
        ({"AWS_ENDPOINT_URL": "s3.example.com"}, UsageError, "must be a URL"),
        ({"AWS_ENDPOINT_URL_S3": "https://u:p@h"}, UsageError, "no"),
        ({"AWS_REGION": "eu/../"}, UsageError, "is no region"),
        ({"AWS_CA_BUNDLE": "/nowhere/ca.pem"}, UsageError, "/nowhere/ca.pem"),
        ({"AWS_CA_BUNDLE": "/dev/null"}, StoreMisconfigured, "certificates"),
        ({"AWS_ACCESS_KEY_ID": "a"}, KeyFault, "AWS_SECRET_ACCESS_KEY is not"),
        ({"AWS_SECRET_ACCESS_KEY": SECRET}, KeyFault, "AWS_ACCESS_KEY_ID is not"),
        ({"AWS_PROFILE": "other", "HOME": "/nowhere"}, KeyFault, "AWS_PROFILE names 'other'"),
        ({"BACKPOINT_CONFIG": "/nowhere/b.toml"}, UsageError, "/nowhere/b.toml"),
    ],
)
def test_settings_that_mean_nothing_are_told_when_a_bucket_is_opened(
    variables: dict[str, str], error: type[BackpointError], why: str
) -> None:
    with pytest.raises(error, match=why) as refused:
        open_store("s3://bucket/a", variables)
    assert SECRET not in str(refused.value)


def test_azure_without_an_account_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(StoreMisconfigured, match=r"az://container.*[Aa]ccount") as refused:
        open_store("az://container/a", {})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("words", [["--help"], ["points", "--help"], ["points", "-r", "/nowhere"]])
def test_the_library_is_not_imported_for_what_needs_none(words: list[str]) -> None:
    script = (
        "import sys\nfrom backpoint_repo.cli import main\n"
        f"try: main({words!r})\nexcept SystemExit: pass\n"
        "sys.exit(any(name.partition('.')[0] == 'obstore' for name in sys.modules))"
    )
    environment = {"BACKPOINT_PASSPHRASE": "x", "HOME": "/nowhere"}
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, env=environment)

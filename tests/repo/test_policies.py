"""The policies handed out in `repo/policies`: what they forbid, that they agree with each other and
with the page that quotes them, and that a locked bucket can be put back after an attack.
"""

from __future__ import annotations

import re
import secrets
from typing import Final
from xml.etree import ElementTree

import pytest

from backpoint_repo.repository import open_repository
from backpoint_repo.store.address import open_store
from object_server import ADMIN, ObjectServer
from policies import FOLDER, PLACEHOLDERS, policy
from policy_proxy import Asked, is_allowed
from s3_requests import Caller
from small_repository import PASSPHRASE, assert_clean, back_up, new_repository, read_disk
from synthetic_disk import random_disk

KIB: Final = 1 << 10
PREFIX: Final = "vms/repo"
NO: Final = (
    "s3:DeleteObjectVersion",
    "s3:PutObjectRetention",
    "s3:PutObjectLegalHold",
    "s3:BypassGovernanceRetention",
)


def test_the_two_policies_of_buckets_differ_only_in_what_other_servers_do_not_know() -> None:
    ours = policy("s3-bucket.json", **dict.fromkeys(PLACEHOLDERS, "x"))
    other = policy("other-s3-bucket.json", **dict.fromkeys(PLACEHOLDERS, "x"))
    kept = []
    for row in ours["Statement"]:
        if row["Effect"] == "Deny" and "Condition" in row:
            continue
        kept.append({name: value for name, value in row.items() if name != "Condition"})
    assert other == ours | {"Statement": kept}


@pytest.mark.parametrize("name", ["s3-bucket.json", "other-s3-bucket.json"])
def test_nobody_of_them_destroys_versions_or_lifts_locks(name: str) -> None:
    given = {"ACCOUNT": "1", "AGENT": "a", "MAINTAINER": "m", "BUCKET": "b", "PREFIX": "p"}
    document = policy(name, **given)
    for user in ("a", "m"):
        who = f"arn:aws:iam::1:user/{user}"
        for action in NO:
            assert not is_allowed(document, Asked(who, action, "arn:aws:s3:::b/p/x", {}))
        for action in ("s3:PutBucketPolicy", "s3:PutLifecycleConfiguration", "s3:DeleteBucket"):
            assert not is_allowed(document, Asked(who, action, "arn:aws:s3:::b", {}))


@pytest.mark.parametrize("cloud", ["minio", "gcs"])
def test_roles_of_other_stores_differ_in_the_right_to_delete(cloud: str) -> None:
    ends = {"minio": "{}.json", "gcs": "{}-role.json"}[cloud]
    agent, maintainer = (allowed(f"{cloud}-{ends.format(who)}") for who in ("agent", "maintainer"))
    assert {action.rpartition(".")[2].rpartition(":")[2] for action in maintainer - agent} <= {
        "delete",
        "DeleteObject",
    }
    assert agent < maintainer


def allowed(name: str) -> set[str]:
    document = policy(name, **dict.fromkeys(PLACEHOLDERS, "x"))
    if "includedPermissions" in document:
        return set(document["includedPermissions"])
    rows = [row for row in document["Statement"] if row["Effect"] == "Allow"]
    return {action for row in rows for action in row["Action"]}


def test_what_an_attacker_with_the_right_to_delete_took_is_put_back(server: ObjectServer) -> None:
    """A bucket that locks: deleting puts markers, taking them away brings all back as it was."""
    bucket = f"locked-{secrets.token_hex(6)}"
    admin = Caller(server.endpoint, *ADMIN)
    lock = {"x-amz-bucket-object-lock-enabled": "true"}
    assert admin.ask("PUT", f"/{bucket}", headers=lock).status == 200
    assert admin.ask("PUT", f"/{bucket}", {"object-lock": ""}, _lock_rule()).status == 200
    store = open_store(f"s3://{bucket}/{PREFIX}", server.environment())
    repository = new_repository(store)
    disk = random_disk(64 * KIB, 1)
    point = back_up(repository, "vm", disk)
    kept = {key for key, _ in store.list("") if not key.startswith("leases/")}
    for key in kept:
        store.delete(key)
    assert list(store.list("")) == []
    versions = admin.ask("GET", f"/{bucket}", {"versions": ""})
    for key, version in _pairs(versions.body, "Version"):
        refused = admin.ask("DELETE", f"/{bucket}/{key}", {"versionId": version})
        assert refused.status == 403, (key, refused)
    for key, version in _pairs(versions.body, "DeleteMarker"):
        if key.removeprefix(f"{PREFIX}/") in kept:
            found = admin.ask("DELETE", f"/{bucket}/{key}", {"versionId": version})
            assert found.status == 204, (key, found)
    again = open_repository(store, PASSPHRASE, repository.clock)
    assert read_disk(again, again.point(point.point_id).disks[0]) == disk.content(0, disk.size)
    assert_clean(again)


def _lock_rule() -> bytes:
    """`s3-object-lock.json`, as the service itself takes it."""
    rule = policy("s3-object-lock.json")
    default = rule["Rule"]["DefaultRetention"]
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in default.items())
    return (
        "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>"
        f"<Rule><DefaultRetention>{inner}</DefaultRetention></Rule></ObjectLockConfiguration>"
    ).encode()


def _pairs(body: bytes, name: str) -> list[tuple[str, str]]:
    """(key, version) of each entry of a listing of versions."""
    rows = ElementTree.fromstring(body).findall(f"{{*}}{name}")
    return [(row.findtext("{*}Key") or "", row.findtext("{*}VersionId") or "") for row in rows]


def test_the_page_names_every_policy_and_no_other() -> None:
    page = (FOLDER.parent / "STORES.md").read_text()
    assert set(re.findall(r"policies/([a-z0-9-]+\.json)", page)) == {
        path.name for path in FOLDER.iterdir()
    }


def test_what_the_page_quotes_is_what_the_file_says() -> None:
    page = (FOLDER.parent / "STORES.md").read_text()
    quoted = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    texts = [path.read_text() for path in FOLDER.iterdir()]
    assert quoted
    for text in quoted:
        assert any(_joined(text) in _joined(whole) for whole in texts), text


def _joined(text: str) -> str:
    return "".join(text.split())

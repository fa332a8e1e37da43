"""A whole backup with a credential that cannot delete or replace, and a maintainer who clears up.

The bucket's policy is the one that `repo/STORES.md` hands out: SeaweedFS carries out what it knows
of it (who may delete), a proxy all of it.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from backpoint_repo.catalog_merge import COMPACT_AFTER
from backpoint_repo.credential import AgentCredential, write_credential
from backpoint_repo.errors import ObjectExists, StoreReadOnly
from backpoint_repo.format import Kind
from backpoint_repo.lease import BACKUP, Lease, LeaseTerms
from backpoint_repo.lease_book import read_leases
from backpoint_repo.point import Disk, Point
from backpoint_repo.repository import Repository, open_repository
from backpoint_repo.retention.removal import remove_points
from backpoint_repo.store.address import open_store
from backpoint_repo.store.contract import Store
from command_line import CommandLine
from object_server import ACCOUNT, ADMIN, AGENT, MAINTAINER, ObjectServer
from policies import policy
from policy_proxy import PolicyProxy, policy_proxy
from s3_requests import Caller
from small_repository import (
    PASSPHRASE,
    assert_clean,
    back_up,
    new_repository,
)
from synthetic_disk import random_disk

KIB: Final = 1 << 10
PREFIX: Final = "vms/repo"
USERS: Final = {"agent": AGENT, "maintainer": MAINTAINER}


@dataclass(frozen=True)
class Place:
    """A bucket with the policies of agents and maintainers. proxy: what carries out all of it."""

    server: ObjectServer
    proxy: PolicyProxy
    bucket: str

    @property
    def address(self) -> str:
        return f"s3://{self.bucket}/{PREFIX}"

    def store(self, credential: tuple[str, str]) -> Store:
        return open_store(self.address, self.environment(credential))

    def environment(self, credential: tuple[str, str]) -> dict[str, str]:
        return ObjectServer(self.proxy.endpoint).environment(credential)

    def caller(self, credential: tuple[str, str], *, direct: bool = False) -> Caller:
        """direct: past the proxy."""
        return Caller((self.server if direct else self.proxy).endpoint, *credential)


@pytest.fixture
def place(server: ObjectServer) -> Iterator[Place]:
    bucket = f"policies-{secrets.token_hex(6)}"
    given = {"ACCOUNT": ACCOUNT, "AGENT": "agent", "MAINTAINER": "maintainer"}
    given |= {"BUCKET": bucket, "PREFIX": PREFIX}
    admin = Caller(server.endpoint, *ADMIN)
    assert admin.ask("PUT", f"/{bucket}").status == 200
    set_policy(admin, bucket, policy("other-s3-bucket.json", **given))
    users = {keys[0]: f"arn:aws:iam::{ACCOUNT}:user/{name}" for name, keys in USERS.items()}
    with policy_proxy(server.endpoint, policy("s3-bucket.json", **given), users) as proxy:
        yield Place(server, proxy, bucket)


def set_policy(admin: Caller, bucket: str, document: object) -> None:
    answer = admin.ask("PUT", f"/{bucket}", {"policy": ""}, json.dumps(document).encode())
    assert answer.status == 204, answer


def counts(store: Store) -> Counter[str]:
    """Objects in each folder."""
    return Counter(found.key.partition("/")[0] for found in store.list(""))


def test_what_the_policy_lets_an_agent_do(place: Place) -> None:
    """SeaweedFS is asked directly where it knows the rule, and the proxy where it does not."""
    agent, key = place.caller(AGENT), f"/{place.bucket}/{PREFIX}/points/1"
    direct = place.caller(AGENT, direct=True)
    new = {"if-none-match": "*"}
    assert agent.ask("PUT", key, body=b"first", headers=new).status == 200
    assert agent.ask("PUT", key, body=b"second", headers=new).status == 412
    assert agent.ask("PUT", key, body=b"second").status == 403
    assert agent.ask("PUT", f"{key}0", body=b"unconditional").status == 403
    for caller in (agent, direct):
        assert caller.ask("GET", key).body == b"first"
        assert caller.ask("GET", f"/{place.bucket}", {"list-type": "2"}).status == 200
        assert caller.ask("DELETE", key).status == 403
        outside = f"/{place.bucket}/elsewhere/1"
        assert caller.ask("PUT", outside, body=b"x", headers=new).status == 403
    listed = f"<Delete><Object><Key>{PREFIX}/points/1</Key></Object></Delete>".encode()
    direct.ask("POST", f"/{place.bucket}", {"delete": ""}, listed)
    for change in ("policy", "versioning", "lifecycle", "object-lock"):
        assert direct.ask("PUT", f"/{place.bucket}", {change: ""}, b"{}").status == 403
    assert agent.ask("GET", key).body == b"first"
    assert place.caller(MAINTAINER).ask("DELETE", key).status == 204
    assert place.caller(MAINTAINER).ask("PUT", key, body=b"unconditional").status == 403


@pytest.mark.parametrize("direct", [False, True])
def test_the_errors_a_store_makes_of_it(place: Place, direct: bool) -> None:
    """Also where deleting several at once is answered with success and a word on each."""
    open_store(place.address, place.server.environment()).put("config", [b"some bytes"])
    environment = place.server.environment(AGENT) if direct else place.environment(AGENT)
    store = open_store(place.address, environment)
    store.put("points/1", [b"one"])
    with pytest.raises(ObjectExists):
        store.put("points/1", [b"two"])
    with pytest.raises(StoreReadOnly):
        store.delete("points/1")
    assert store.get("points/1") == b"one"


def test_a_whole_backup_and_a_maintainer_who_clears_up(place: Place, tmp_path: Path) -> None:
    """Whatever agents leave behind is bounded by what they back up, and gone after a collection."""
    owner = new_repository(place.store(MAINTAINER))
    keyring = owner.sealed.keyring
    credential = AgentCredential.of(owner.config, keyring.secret)
    agent = open_repository(place.store(AGENT), credential, owner.clock)
    _backups(agent, range(10))
    _many_points(agent)
    _dead_session(agent)
    _commands_of_an_agent(place, credential, tmp_path)
    before = counts(agent.sealed.store)
    _backups(agent, range(10, 13))
    grown = counts(agent.sealed.store) - before
    # A lease and word that it is over, a pack of data, one of nodes, a segment, a point.
    assert grown == {"leases": 6, "packs": 3, "nodes": 3, "index": 3, "points": 3}
    assert before["catalog"] == 1
    first = agent.catalog.refresh()[0]
    with pytest.raises(StoreReadOnly, match="without the right to delete"):
        remove_points(agent.sealed, [first.point_id], agent.clock)
    assert place.proxy.refused[_arn("agent"), "s3:PutObject"] == 0, "every put is conditional"
    assert place.proxy.unchecked == 0, "and has a checksum, without which no locked bucket takes it"
    _maintenance(place, owner, tmp_path)


def _arn(user: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:user/{user}"


def _backups(agent: Repository, seeds: range) -> None:
    for seed in seeds:
        disk = random_disk(64 * KIB, seed)
        assert disk.data_blocks(), "so that each has a segment"
        assert back_up(agent, "vm", disk).warnings == ()


def _many_points(agent: Repository) -> None:
    """So many that the next backup compacts the catalogue."""
    disk = Disk("disk0", 1 << 20, bytes(32), 0, "empty")

    def put(number: int) -> None:
        own = Point(secrets.token_bytes(16), "other", 1e9 + number, 1e9 + number, "", (disk,))
        agent.sealed.put(Kind.POINT, own.point_id.hex(), own.encode())

    for _ in agent.sealed.each(range(COMPACT_AFTER), put):
        pass


def _dead_session(agent: Repository) -> None:
    """It refreshed its lease and never came back; long ago."""
    lease = Lease(agent.sealed, secrets.token_bytes(16), LeaseTerms(BACKUP, 0), lambda: 1e9)
    for _ in range(3):
        lease.refresh()
    lease.abandon()


def _commands_of_an_agent(place: Place, credential: AgentCredential, folder: Path) -> None:
    write_credential(credential, folder / "agent.credential")
    line = CommandLine(
        folder,
        {
            "BACKPOINT_REPO": place.address,
            "BACKPOINT_CREDENTIAL": str(folder / "agent.credential"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            **place.environment(AGENT),
        },
    )
    (folder / "disk.raw").write_bytes(secrets.token_bytes(64 * KIB))
    for label in ("one", "two"):
        words = ("backup", "image", "--vm", "web", "--label", label, folder / "disk.raw")
        assert line.run(*words).err == ""
    assert "right to delete" in line.run("prune", "web", "--keep-last", "1", code=4).error


def _maintenance(place: Place, owner: Repository, folder: Path) -> None:
    line = CommandLine(
        folder,
        {
            "BACKPOINT_REPO": place.address,
            "BACKPOINT_PASSPHRASE": PASSPHRASE.text,
            "XDG_CACHE_HOME": str(folder / "cache"),
            **place.environment(MAINTAINER),
        },
    )
    before = counts(owner.sealed.store)
    assert before["leases"] > 2 * 15
    assert before["index"] == 10 + 1 + 3 + 1, "a segment each, and an empty one"
    pruned = line.run("prune", "vm", "--keep-last", "3")
    assert "10 points removed" in pruned.out, pruned
    said = line.run("collect", "--wait", "0s").err
    assert said.count("ended, no sign of life") == 1, said
    after = counts(owner.sealed.store)
    assert after["leases"] == 0
    assert after["index"] <= 2
    assert after["packs"] < before["packs"]
    # Sessions that made no point leave a void: the one that died, and two that tried to prune.
    assert after["points"] == 3 + COMPACT_AFTER + 2 + 3
    assert read_leases(owner.sealed) == []
    assert_clean(owner)

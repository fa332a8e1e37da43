"""The steps that take the backups to another place: a bucket with keys of its own, kept in step,
and read from there as if it were here. What each must prove is with the step.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator
from typing import Final

from tools.play import Play

from object_server import ADMIN, ObjectServer, object_server

_ADDRESS: Final = "s3://backups/site-b"
_MOUNT: Final = "backups-b"
_CACHE: Final = "cache-b"
_DISK: Final = "disk0-flat.vmdk"


def take_off_site(play: Play) -> None:
    """Another passphrase and another chunk average: nothing of this place opens that one."""
    with _bucket(play):
        _copy(play)
        _keep_in_step(play)
        _read_there(play)


def _copy(play: Play) -> None:
    stage = play.stage
    with stage.step("a repository in a bucket, with other keys and larger chunks"):
        other = ("-r", _ADDRESS, "init", "--chunk-avg", "128K")
        stage.run("backpoint", *other, environment=_passphrase(play, "BACKPOINT_PASSPHRASE_FILE"))
    with stage.step("copy all points there; then again: nothing is left to do"):
        stage.run("backpoint", "copy", "--to", _ADDRESS, "--verify", environment=_to(play))
        before = _points(play)
        stage.run("backpoint", "copy", "--to", _ADDRESS, environment=_to(play))
        stage.require(_points(play) == before, "the second copy has copied something")
        stage.require(len(before) == _own_points(play), "points are missing in the copy")


def _keep_in_step(play: Play) -> None:
    stage = play.stage
    with stage.step("one more backup, and the replica follows: how far it lagged behind is shown"):
        play.back_up("nightly")
        stage.run("backpoint", "tail", "--to", _ADDRESS, "--once", environment=_to(play))
        stage.require(len(_points(play)) == _own_points(play), "the replica is not in step")


def _read_there(play: Play) -> None:
    stage = play.stage
    own = _passphrase(play, "BACKPOINT_PASSPHRASE_FILE")
    mount = play.folder / _MOUNT
    mount.mkdir()
    with stage.step("mount the bucket, with a cache on this machine: it reads like the original"):
        cache = ("--cache", play.folder / _CACHE, "--cache-size", "1G")
        stage.run("backpoint", "-r", _ADDRESS, "mount", *cache, mount, environment=own)
        try:
            there = mount / "vms" / "web01" / "latest" / _DISK
            stage.run("cmp", play.point("web01") / _DISK, there)
        finally:
            stage.run("backpoint", "umount", mount)
    with stage.step("every stored byte in the bucket is right"):
        stage.run("backpoint", "-r", _ADDRESS, "check", "--read-data", environment=own)


@contextlib.contextmanager
def _bucket(play: Play) -> Iterator[ObjectServer]:
    folder = play.folder / "object-server"
    folder.mkdir()
    stage = play.stage
    with contextlib.ExitStack() as opened:
        with stage.step("an object store: SeaweedFS; how to reach it goes into the configuration"):
            server = opened.enter_context(object_server(folder))
            server.make_bucket(_ADDRESS.removeprefix("s3://").partition("/")[0])
            _tell_where(play, server)
        yield server


def _tell_where(play: Play, server: ObjectServer) -> None:
    """The key's secret is in a file of its own, as the vCenter's password is."""
    secret = play.folder / "s3.secret"
    secret.touch(mode=0o600)
    secret.write_text(f"{ADMIN[1]}\n")
    table = (
        "[store]",
        f'endpoint = "{server.endpoint}"',
        'region = "us-east-1"',
        f'access_key_id = "{ADMIN[0]}"',
        f'secret_access_key = {{ file = "{secret.name}" }}',
    )
    with (play.folder / "backpoint.toml").open("a") as config:
        config.write("\n" + "\n".join(table) + "\n")
    for line in table:
        play.stage.note(line)
    play.agent("config-check")


def _passphrase(play: Play, variable: str) -> dict[str, str]:
    path = play.folder / "passphrase-b"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(16) + "\n")
    return {variable: str(path)}


def _to(play: Play) -> dict[str, str]:
    return _passphrase(play, "BACKPOINT_TO_PASSPHRASE_FILE")


def _points(play: Play) -> list[str]:
    """Of the copy: their ids."""
    own = _passphrase(play, "BACKPOINT_PASSPHRASE_FILE")
    command = ("backpoint", "-r", _ADDRESS, "points", "--json")
    return _ids(play.stage.run(*command, environment=own, hidden=".*"))


def _own_points(play: Play) -> int:
    return len(_ids(play.stage.run("backpoint", "points", "--json", hidden=".*")))


def _ids(told: str) -> list[str]:
    return sorted(point["id"] for point in json.loads(told)["points"])

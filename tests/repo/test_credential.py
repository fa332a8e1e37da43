"""The agent credential as a file: private, whole, and never mistaken for something else."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from backpoint_repo.credential import (
    AgentCredential,
    read_credential,
    write_credential,
    write_secret_file,
)
from backpoint_repo.errors import KeyFault, UsageError
from backpoint_repo.repository import Repository, open_repository
from backpoint_repo.store.memory import MemoryStore
from small_repository import new_repository

CREDENTIAL = AgentCredential(bytes(range(16)), bytes(range(32)), bytes(range(32, 64)))


def test_written_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "agent"
    before = os.umask(0)
    write_credential(CREDENTIAL, path)
    os.umask(before)
    assert read_credential(path) == CREDENTIAL
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "agent"
    path.write_text("precious")
    with pytest.raises(UsageError, match="exists"):
        write_credential(CREDENTIAL, path)
    assert path.read_text() == "precious"
    with pytest.raises(UsageError):
        write_secret_file(tmp_path / "no" / "folder", "x")


def test_a_full_disk_leaves_no_half_file(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "x", str(tmp_path)], check=True)
    try:
        (tmp_path / "fills it").write_bytes(bytes(4096))
        with pytest.raises(UsageError, match="No space"):
            write_credential(CREDENTIAL, tmp_path / "agent")
        assert not (tmp_path / "agent").exists()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


GOOD = {"type": "backpoint agent credential", "version": 1, "repository": "00" * 16,
        "secret": "A" * 43 + "="}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "7",
        "null",
        "[" * 60_000,
        "\x00\xff",
        json.dumps({**GOOD, "type": "other"}),
        json.dumps({**GOOD, "version": 2}),
        json.dumps({**GOOD, "repository": "00"}),
        json.dumps({**GOOD, "repository": None}),
        json.dumps({**GOOD, "secret": "AAAA"}),
        json.dumps({**GOOD, "secret": "ä"}),
        json.dumps({**GOOD, "secret": 7}),
        json.dumps(GOOD) + "x",
    ],
)
def test_what_is_no_credential(tmp_path: Path, text: str) -> None:
    path = tmp_path / "agent"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(KeyFault, match=str(path)):
        read_credential(path)


def test_unreadable_places(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(KeyFault, match=str(path)):
            read_credential(path)


def test_of_another_repository(repository: Repository) -> None:
    other = new_repository(MemoryStore())
    credential = AgentCredential.of(other.config, other.sealed.keyring.secret)
    with pytest.raises(KeyFault, match=other.config.repository_id.hex()):
        open_repository(repository.sealed.store, credential)


def test_secrets_are_not_shown() -> None:
    assert "secret" not in repr(CREDENTIAL)
    assert CREDENTIAL.secret.hex() not in repr(CREDENTIAL)

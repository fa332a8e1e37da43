"""The agent's [store] table: it says to the agent what it says to every other command, and a
repository in a bucket is opened by it.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from backpoint_agent.commands.opening import open_repository
from backpoint_agent.settings.model import Settings
from backpoint_agent.settings.read import read_settings_file
from backpoint_repo.credential import AgentCredential, write_credential
from backpoint_repo.store.address import open_store
from backpoint_repo.store.settings import read_store_file
from object_server import ADMIN, object_server
from small_repository import assert_clean, back_up, new_repository
from synthetic_disk import SyntheticDisk

_REST = """
[vcenters.main]
address = "vc1.example.com"
user = "backup"
password = { environment = "P" }
"""
_TABLES = """
[store]
endpoint = "https://s3.example.com:9000/"
region = "eu-1"
ca_file = "ca.pem"
virtual_hosted = true
access_key_id = "key"
secret_access_key = { file = "secret" }
session_token = { command = "pass show token" }
[[store.at]]
address = "S3://offsite/backups/"
endpoint = "http://10.0.0.1"
allow_http = true
[[store.at]]
address = "gs://other"
"""


def settings_of(folder: Path, repository: str, store: str) -> Settings:
    path = folder / "b.toml"
    path.write_text(f'[repository]\npath = "{repository}"\n{_keys(repository)}{store}{_REST}')
    return read_settings_file(path)


def _keys(repository: str) -> str:
    return 'credential = "agent.credential"\n' if repository.startswith("s3:") else ""


@pytest.mark.parametrize("store", [_TABLES, "", _TABLES[_TABLES.index("[[store.at]]") :]])
def test_both_readers_of_the_table_read_the_same(tmp_path: Path, store: str) -> None:
    settings = settings_of(tmp_path, "/srv/backpoint", store)
    assert settings.store.tables() == read_store_file(tmp_path / "b.toml")


def test_a_repository_in_a_bucket_is_opened_and_backed_up_to(tmp_path: Path) -> None:
    """By the file alone: the environment of this process knows no store."""
    address = f"s3://tests/{secrets.token_hex(8)}"
    (tmp_path / "server").mkdir()
    with object_server(tmp_path / "server") as server:
        made = new_repository(open_store(address, server.environment()))
        credential = AgentCredential.of(made.config, made.sealed.keyring.secret)
        write_credential(credential, tmp_path / "agent.credential")
        secret = tmp_path / "secret"
        secret.write_text(ADMIN[1])
        secret.chmod(0o600)
        table = (
            f'[store]\nendpoint = "{server.endpoint}"\naccess_key_id = "{ADMIN[0]}"\n'
            'secret_access_key = { file = "secret" }\n'
        )
        repository = open_repository(settings_of(tmp_path, address, table))
        point = back_up(repository, "vm", SyntheticDisk(1 << 16))
        assert [found.point_id for found in made.catalog.refresh()] == [point.point_id]
        assert_clean(made)

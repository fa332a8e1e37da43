"""The commands of a first backup, on a bucket of a real object store."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_repo.store.address import open_store
from command_line import CommandLine
from object_server import ADMIN, ObjectServer, object_server

PASSPHRASE = "correct horse"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """With the bucket `tests`, which a listing does not make."""
    with object_server(tmp_path_factory.mktemp("objects")) as running:
        running.make_bucket("tests")
        yield running


@pytest.fixture
def line(server: ObjectServer, tmp_path: Path) -> CommandLine:
    """The owner's commands on a prefix that nobody has used."""
    variables = {
        "BACKPOINT_REPO": f"s3://tests/{secrets.token_hex(8)}",
        "BACKPOINT_PASSPHRASE": PASSPHRASE,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    return CommandLine(tmp_path, variables | server.environment())


def test_a_repository_from_its_making_to_a_restore(line: CommandLine, disk: Path) -> None:
    address = line.variables["BACKPOINT_REPO"]
    assert line.run("--json", "init").record["address"] == address
    line.run("backup", "image", "--vm", "vm", disk)
    line.run("key", "export-agent", "-o", "agent.credential")
    agent = CommandLine(
        line.folder,
        {name: text for name, text in line.variables.items() if name != "BACKPOINT_PASSPHRASE"}
        | {"BACKPOINT_CREDENTIAL": str(line.folder / "agent.credential")},
    )
    agent.run("backup", "image", "--vm", "vm", disk)
    assert len(agent.run("--json", "points").record["points"]) == 2
    line.run("restore", "vm@latest", "--disk", "0", "-o", "out.raw")
    assert (line.folder / "out.raw").read_bytes() == disk.read_bytes()
    assert "clean" in line.run("check", "--read-data").out
    assert "foreign" not in line.run("stats").out
    line.run("collect")
    assert "clean" in agent.run("check").out


def test_what_is_at_a_place_already_is_left_alone(line: CommandLine, server: ObjectServer) -> None:
    address = line.variables["BACKPOINT_REPO"]
    foreign = open_store(f"{address}/sub", server.environment())
    foreign.put("file", [b"somebody's"])
    said = line.run("init", code=2).error
    assert said.startswith(f"{address} is not empty (it has sub/")
    assert said.endswith("a repository needs a prefix of its own")
    assert "there is no repository" in line.run("points", code=4).error
    below = CommandLine(line.folder, {**line.variables, "BACKPOINT_REPO": f"{address}/other"})
    below.run("init")
    assert "repository at" in below.run("init", code=2).error


@pytest.mark.parametrize("where", ["option", "variable"])
def test_a_settings_file_in_place_of_the_environment(
    line: CommandLine, server: ObjectServer, where: str
) -> None:
    """The agent's own file serves: all else in it is not looked at."""
    secret = line.folder / "secret"
    secret.write_text(ADMIN[1])
    secret.chmod(0o600)
    settings = line.folder / "backpoint.toml"
    settings.write_text(
        f'[repository]\npath = "/srv"\n[store]\nendpoint = "{server.endpoint}"\n'
        f'access_key_id = "{ADMIN[0]}"\nsecret_access_key = {{ file = "secret" }}\n'
    )
    ours = {name: text for name, text in line.variables.items() if not name.startswith("AWS_")}
    if where == "variable":
        CommandLine(line.folder, ours | {"BACKPOINT_CONFIG": str(settings)}).run("init")
    else:
        CommandLine(line.folder, ours).run("init", "--settings", settings)
    assert line.run("--json", "points").record["points"] == []


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["-r", "s3://key:s3cr3t@tests/x", "points"], 2, "no user and no password"),
        (["-r", "s3:tests", "points"], 2, "neither an address nor a path"),
        (["--settings", "/nowhere.toml", "points"], 2, "/nowhere.toml cannot be read"),
        (["-r", "s3://no-such-bucket/x", "points"], 4, "no such bucket|no repository"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    line: CommandLine, words: list[str], code: int, why: str
) -> None:
    said = line.run(*words, code=code).error
    assert any(reason in said for reason in why.split("|"))
    assert "s3cr3t" not in said

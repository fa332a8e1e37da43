"""`backpoint parity`: the cost before, what is protected after, and exit codes for timers."""

from __future__ import annotations

import random
from pathlib import Path

from backpoint_repo.format import Kind
from command_line import CommandLine, opened
from small_repository import assert_clean, keys_of


def spares_of(line: CommandLine) -> list[str]:
    return keys_of(opened(line).sealed.store, Kind.PARITY)


def test_parity_is_set_kept_up_and_put_off(
    owner: CommandLine, agent: CommandLine, disk: Path
) -> None:
    assert "--set 10+2" in agent.run("parity", code=2).error
    owner.run("backup", "image", "--vm", "web", disk)
    plan = agent.run("parity", "--set", "2+1", "--dry-run", "--json").record
    assert (plan["packs"], plan["bare_packs"], plan["to_make"]) == (2, 2, 1)
    assert plan["written_bytes"] > 2 << 20
    assert not spares_of(owner)
    said = agent.run("parity", "--set", "2+1")
    assert "2 packs" in said.err
    assert "to write" in said.err
    assert "2 packs of 2.0 MiB protected, in 1 group;" in said.out
    assert "not protected" not in said.out
    assert len(spares_of(owner)) == 1
    owner.run("backup", "image", "--vm", "mail", disk)
    other = disk.with_name("other.raw")
    other.write_bytes(random.Random(1).randbytes(1 << 20))
    owner.run("backup", "image", "--vm", "db", other)
    again = agent.run("parity", "--json").record
    assert (again["scheme"], again["bare_packs"], again["in_doubt"]) == ("2+1", 0, [])
    assert (again["made"], again["dropped"]) == (len(spares_of(owner)) - 1, 0)
    assert agent.run("parity", "--verify", "--json").record["made"] == 0
    assert "no parity" in owner.run("parity", "--off").out
    assert not spares_of(owner)
    assert "--set 10+2" in owner.run("parity", code=2).error
    assert_clean(opened(owner))


def test_damage_is_told_and_ends_with_1(owner: CommandLine, disk: Path) -> None:
    owner.run("backup", "image", "--vm", "web", disk)
    owner.run("parity", "--set", "4+2")
    store = opened(owner).sealed.store
    (pack,) = keys_of(store, Kind.DATA_PACK)
    data = store.get(pack)
    store.delete(pack)
    assert "lacks 1 of its 2 packs" in owner.run("parity", "--dry-run").err
    said = owner.run("parity", code=1)
    assert "stays" in said.err
    assert "heal" in said.err
    store.put(pack, [data])
    owner.run("parity")
    assert_clean(opened(owner))


def test_nonsense_is_refused(owner: CommandLine) -> None:
    assert "like 10+2" in owner.run("parity", "--set", "ten+two", code=2).error
    owner.run("parity", "--set", "3+1", "--off", code=2)

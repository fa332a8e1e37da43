"""`backpoint leases`: who is there, and how one is ended."""

from __future__ import annotations

from backpoint_repo.format import Kind
from backpoint_repo.lease import MOUNT, Lease, LeaseTerms
from backpoint_repo.lease_book import read_leases
from backpoint_repo.record import encode_record
from backpoint_repo.trash import put_trash
from command_line import CommandLine, opened

SESSION = bytes(range(16))
DEAD = bytes(range(16, 32))


def test_nobody(agent: CommandLine) -> None:
    assert "nobody uses the repository" in agent.run("leases").err
    assert agent.run("leases", "--json").record == {"epoch": 0, "leases": []}


def test_who_is_there(agent: CommandLine) -> None:
    repository = opened(agent)
    Lease(repository.sealed, SESSION, LeaseTerms(MOUNT, 1), repository.clock)
    Lease(repository.sealed, DEAD, LeaseTerms(MOUNT, 3), lambda: 0.0)
    put_trash(repository.sealed, 3, (), 2, bytes(16), 0.0)
    heading, alive, dead = agent.run("leases").out.splitlines()
    assert heading.split()[:3] == ["session", "purpose", "host"]
    assert alive.split()[0] == SESSION.hex()[:8]
    assert alive.split()[4] == "2", "epochs behind"
    assert dead.split()[-1] == "expired"
    record = agent.run("leases", "--json").record
    assert record["epoch"] == 3
    assert [lease["expired"] for lease in record["leases"]] == [False, True]


def test_where_trash_cannot_be_read(agent: CommandLine) -> None:
    """That is when people have to know who is at work; and what to do is said."""
    repository = opened(agent)
    Lease(repository.sealed, SESSION, LeaseTerms(MOUNT, 1), repository.clock)
    repository.sealed.store.put("trash/0000000000000007", [b"no trash"])
    said = agent.run("leases")
    assert SESSION.hex()[:8] in said.out
    assert "put back from a copy" in said.err
    assert "`backpoint leases`" in agent.run("collect", code=4).error
    assert "put them back from a copy" in agent.run("check", code=1).out
    assert agent.run("stats", "--json").record["unreadable"]


def test_what_strangers_write_is_shown_short_and_harmless(agent: CommandLine) -> None:
    repository = opened(agent)
    now = repository.clock()
    fields = {"session": SESSION, "purpose": "\x1b[31mred\n", "epoch": 0, "host": "h" * 100_000}
    times = {"started": now, "refreshed": now, "lifetime_s": 600.0, "pid": 1}
    record = encode_record({**fields, **times, "pins": []})
    repository.sealed.put(Kind.LEASE, f"{SESSION.hex()}-00000000", record)
    for said in (agent.run("leases").out, agent.run("leases", "--end", SESSION.hex()).out):
        assert "\\x1b[31mred" in said
        assert "\x1b" not in said
        assert len(said) < 1000


def test_ending_one(agent: CommandLine) -> None:
    repository = opened(agent)
    for session in (SESSION, DEAD):
        Lease(repository.sealed, session, LeaseTerms(MOUNT, 1), repository.clock)
    assert "no session" in agent.run("leases", "--end", "ffff", code=2).error
    assert "2 sessions" in agent.run("leases", "--end", "", code=2).error
    assert "is ended" in agent.run("leases", "--end", DEAD.hex()[:8]).out
    assert [lease.session for lease in read_leases(repository.sealed)] == [SESSION]
    assert agent.run("check").out.endswith("clean\n")

"""`hold` and `unhold`, and how `points` and `show` tell of them."""

from __future__ import annotations

import pytest

from backpoint_repo.errors import UsageError
from backpoint_repo.moment import parse_end
from backpoint_repo.point_hold import Hold, put_hold, read_holds
from backpoint_repo.point_record import holds_cell
from command_line import CommandLine, opened
from small_repository import NOON, back_up
from synthetic_disk import random_disk

SESSION = "11112222333344ff"


@pytest.fixture
def points(owner: CommandLine) -> list[str]:
    """Ids of two points of web01."""
    repository = opened(owner)
    times = (NOON, NOON + 86400)
    return [
        back_up(repository, "web01", random_disk(1 << 14, n), time=time).point_id.hex()
        for n, time in enumerate(times)
    ]


def test_a_held_point_stays_until_it_is_unheld(agent: CommandLine, points: list[str]) -> None:
    """For the agent too; a second hold takes the place of the first."""
    said = agent.run("hold", "web01@0", "--why", "before the migration")
    assert said.out == "web01@2023-11-14T22-13-20Z is held until it is dropped\n"
    [hold] = agent.run("points", "--json").record["points"][0]["holds"]
    assert (hold["why"], hold["by_hand"], hold["until"]) == ("before the migration", True, None)
    assert "0 points removed" in agent.run("prune", "--keep-last", "1").out
    record = agent.run("hold", "web01@0", "--until", "30d", "--json").record
    assert record["id"] == points[0]
    [hold] = agent.run("show", "web01@0", "--json").record["holds"]
    assert hold["until"] - hold["since"] == pytest.approx(30 * 86400, abs=1)
    row = agent.run("points").out.splitlines()[1]
    assert row.rstrip().endswith(f"until {hold['until_time'][:10]}")
    assert f"until {hold['until_time']}" in agent.run("show", "web01@0").out
    assert agent.run("unhold", "web01@0").out.endswith("is not held by hand any more\n")
    assert read_holds(opened(agent).sealed) == []
    assert "nobody has put a hold" in agent.run("unhold", "web01@0", code=2).error
    assert "1 point removed" in agent.run("prune", "--keep-last", "1").out


def test_what_a_live_session_holds_is_told_and_stays(owner: CommandLine, points: list[str]) -> None:
    sealed = opened(owner).sealed
    put_hold(sealed, Hold(bytes.fromhex(points[0]), SESSION, "live session lab", NOON))
    said = owner.run("unhold", "web01@0", code=2)
    assert "held by something else, too: live session lab" in said.err
    owner.run("hold", "web01@0")
    record = owner.run("unhold", "web01@0", "--json").record
    assert [hold["why"] for hold in record["holds"]] == ["live session lab"]
    assert [hold.holder for hold in read_holds(sealed)] == [SESSION]


def test_the_cell_tells_how_long() -> None:
    holds = [Hold(bytes(16), SESSION, "", NOON, NOON + day * 86400) for day in range(2)]
    assert holds_cell([]) == ""
    assert holds_cell(holds) == "until 2023-11-15"
    assert holds_cell([*holds, Hold(bytes(16), SESSION, "", NOON)]) == "held"
    assert holds_cell([Hold(bytes(16), SESSION, "", NOON, 1e300)]) == "held"


@pytest.mark.parametrize("until", ["yesterday", "2020-01-01", "0d", "1600000000", "5 fortnights"])
def test_an_end_that_is_none_is_refused(until: str) -> None:
    with pytest.raises(UsageError):
        parse_end(until, NOON)


def test_an_end_may_be_a_time_or_a_while(owner: CommandLine, points: list[str]) -> None:
    assert parse_end("2d", NOON) == NOON + 2 * 86400
    assert parse_end("1700000001", NOON) == NOON + 1
    owner.run("hold", "web01@latest", "--until", "2100-01-01", "--why", b"caf\xe9")
    [hold] = read_holds(opened(owner).sealed)
    assert hold.point_id.hex() == points[1]
    assert hold.until == 4102444800.0
    assert hold.why == r"caf\udce9"
    assert "no later time" in owner.run("hold", "web01@0", "--until", "2001-01-01", code=2).error

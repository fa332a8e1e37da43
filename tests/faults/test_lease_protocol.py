"""Every interleaving of the protocol of leases and trash, and what breaks without each rule.

The scenes are small: races of this kind need two or three parties and one or two chunks.
`BACKPOINT_MODEL=large` explores larger ones (hours of states, gigabytes of memory).
"""

from __future__ import annotations

import os

import pytest

from faults.lease_protocol import Actor, State, explore
from faults.protocol_collector import Collector
from faults.protocol_reader import Mount
from faults.protocol_remover import Expiry, Holder, Pruner, Reaper, Remover
from faults.protocol_store import SEEN_ALL, Lease, Pack, Store, TrashObject
from faults.protocol_writer import Writer


def store_of(packs: str, points: dict[int, str], *leases: Lease, **more: object) -> Store:
    """packs: "ab c": two packs, p-ab and p-c, of the long gone session 9."""
    return Store(
        frozenset(Pack(f"p-{letters}", 9, letters) for letters in packs.split()),
        frozenset(points.items()),
        frozenset(leases),
        **more,  # type: ignore[arg-type]
    )


def scene(store: Store, *actors: Actor) -> State:
    return State(store, actors)


def trash_of(epoch: int, pack: str, swept: int = 0) -> frozenset[TrashObject]:
    return frozenset({TrashObject(epoch, frozenset({pack}), swept)})


def some(*sessions: int) -> frozenset[int]:
    return frozenset(sessions)


PAIR = store_of("a b", {10: "ab"})
TWO = store_of("a b", {10: "a", 11: "b"})
SPARSE = store_of("ab", {10: "ab", 11: "b"})
YOUNG = store_of("a", {})
STANDING = store_of("a", {10: "a"})
LATE = store_of("a", {}, Lease(21, SEEN_ALL), trash=trash_of(2, "gone", 1))
"""Collector 21 read trash before there was any, and slept while epoch 1 came and went."""
MIDWAY = store_of("a", {1: "a"}, Lease(21, SEEN_ALL), trash=trash_of(1, "p-a"))
MIDWAY = MIDWAY.with_pack(Pack("1a0", 1, "a"))
"""Collector 21 has marked before point 1 was published, and is about to delete p-a."""

SCENES = {
    "a writer and a collector": scene(
        PAIR, Writer(1, "a"), Pruner(some(10)), Collector(21, 2), Expiry(some(1, 21))
    ),
    "an increment": scene(
        PAIR, Writer(1, "ab", parent=10), Pruner(some(10)), Collector(21, 2), Expiry(some(1, 21))
    ),
    "two writers": scene(
        PAIR,
        Writer(1, "a"),
        Writer(2, "ab", parent=10),
        Pruner(some(10)),
        Collector(21),
        Expiry(some(1, 2)),
    ),
    "two collectors": scene(
        PAIR,
        Writer(1, "a"),
        Pruner(some(10)),
        Collector(21),
        Collector(22),
        Expiry(some(1)),
    ),
    "one compacts, one sweeps": scene(
        SPARSE,
        Writer(1, "a"),
        Pruner(some(10, 11)),
        Collector(21, compacts=True),
        Collector(22),
        Expiry(some(1)),
    ),
    "two compact": scene(
        SPARSE,
        Pruner(some(10, 11)),
        Writer(1, "b"),
        Collector(21, compacts=True),
        Collector(22, compacts=True),
    ),
    "two epochs": scene(TWO, Writer(1, "a"), Pruner(some(10, 11)), Collector(21, 2)),
    "a source that changes": scene(
        TWO, Writer(1, "b", reread="a"), Pruner(some(10, 11)), Collector(21, 2)
    ),
    "a late collector": scene(
        LATE, Writer(1, "a"), Collector(21, pc="packs"), Collector(22), Expiry(some(1))
    ),
    "a mount": scene(PAIR, Mount(5), Pruner(some(10)), Collector(21, 2), Expiry(some(5))),
    "a mount that serves at once": scene(
        STANDING, Mount(5, eager=True), Pruner(some(10)), Collector(21)
    ),
    "a mount of a new point": scene(
        YOUNG, Writer(1, "a"), Mount(5), Pruner(some(1)), Collector(21)
    ),
    "a machine that sleeps": scene(
        YOUNG, Writer(1, "a", sleeps=True), Reaper(1), Pruner(some(1), notes=True), Collector(21)
    ),
    "a put without an answer": scene(
        YOUNG, Writer(1, "a", hasty=True), Collector(21), Expiry(some(1))
    ),
    "a hold": scene(STANDING, Holder(10), Remover(30, 10), Collector(21)),
}
SWEPT_TWICE = scene(
    MIDWAY,
    Collector(21, pc="delete", names=frozenset({"p-a"}), epoch=1),
    Collector(22),
    Collector(23),
    Pruner(some(1)),
    Writer(3, "a"),
)
LARGE = {
    "an epoch swept twice": SWEPT_TWICE,
    "everybody": scene(
        PAIR,
        Writer(1, "a"),
        Writer(2, "ab", parent=10),
        Mount(5),
        Pruner(some(10)),
        Collector(21),
        Collector(22),
        Expiry(some(1, 2, 5)),
    ),
    "two collectors, two rounds": scene(
        TWO,
        Writer(1, "ab"),
        Pruner(some(10, 11)),
        Collector(21, 2, compacts=True),
        Collector(22, 2),
        Expiry(some(1, 21, 22)),
    ),
}

NEEDED = {
    "void": "a writer and a collector",
    "the wait": "a writer and a collector",
    "the second mark": "a writer and a collector",
    "store again": "a writer and a collector",
    "copies before deletion": "a writer and a collector",
    "trash filter": "two epochs",
    "trash before packs": "two epochs",
    "the newest trash stays": "two epochs",
    "accumulated exclusions": "a source that changes",
    "nothing comes back": "one compacts, one sweeps",
    "put-if-absent of trash": "two compact",
    "swept epochs": "a late collector",
    "trash again before a sweep": "a late collector",
    "pins in the lease": "a mount",
    "pins with roots": "a mount",
    "trash before pins": "a mount that serves at once",
    "points before pins": "a mount of a new point",
    "open only what is pinned": "a mount of a new point",
    "note looked for after the removal": "a machine that sleeps",
    "point looked for after the note": "a machine that sleeps",
    "void of one's own": "a put without an answer",
    "a lease of who removes": "a hold",
}
"""Rule left out -> the scene in which something is lost."""

THRIFTY = ("leases before points", "owners' leases")
"""Rules of the first mark that cost work when they are left out, and lose nothing: what a writer or
a point needs is put into trash, and stored again or copied out. Not in the model at all, because it
holds without: that a writer looks at its own lease before it publishes (the void decides)."""


@pytest.mark.parametrize("name", SCENES)
def test_nothing_is_lost_and_nothing_stays(name: str) -> None:
    """Whatever the order: points and what is held open are whole; orphans go in the end."""
    outcome = explore(SCENES[name])
    assert not outcome.problem, "\n".join([outcome.problem, *outcome.trace])
    assert outcome.states > 200


@pytest.mark.parametrize(("rule", "name"), NEEDED.items())
def test_every_rule_is_needed(rule: str, name: str) -> None:
    assert explore(SCENES[name], without=rule).problem


def test_a_copy_in_trash_is_no_copy() -> None:
    """Of two that delete, each would leave the last copy to the other."""
    assert explore(SWEPT_TWICE, without="copies outside trash").problem


@pytest.mark.parametrize("rule", THRIFTY)
@pytest.mark.parametrize("name", ["a writer and a collector", "a mount of a new point"])
def test_rules_that_only_save_work(rule: str, name: str) -> None:
    assert not explore(SCENES[name], without=rule).problem


if os.environ.get("BACKPOINT_MODEL") == "large":

    @pytest.mark.timeout(0)
    @pytest.mark.parametrize("name", LARGE)
    def test_large(name: str) -> None:
        outcome = explore(LARGE[name])
        assert not outcome.problem, "\n".join([outcome.problem, *outcome.trace])

"""Real backups, collectors, removals and readers on one store, switched at every call of it.

After each run the oracle of `interleaved_scene.py` judges. `BACKPOINT_INTERLEAVE=N` runs N random
walks instead of a few, and every schedule of the small casts with one preemption more. A failure
prints the seed, the calls, and the choices with which `Replayed` shows it again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Final

import pytest

from backpoint_repo import reading
from backpoint_repo.collecting.sweep import Watch
from backpoint_repo.collecting.workplace import Workplace
from backpoint_repo.index import Index
from backpoint_repo.lease import BACKUP, LeaseTerms
from backpoint_repo.pin import Pin
from backpoint_repo.publication import Publication
from backpoint_repo.trash import newest_epoch
from faults.actors import Broken
from faults.interleaved_scene import Play, Scene
from faults.interleaving import Listing
from faults.schedules import Replayed, Wandering, all_preemptions

SEEDS: Final = int(os.environ.get("BACKPOINT_INTERLEAVE", "0"))
MORE: Final = 1 if SEEDS else 0
WALKS: Final = SEEDS or 36
WALKS_A_TEST: Final = 12
ROLES: Final = (
    *("writer1", "writer2", "increment", "copier1", "mount", "live", "restore"),
    *("collector1", "collector2", "sweeper", "pruner", "reaper"),
)
NEED_OLD: Final = ("mount", "restore", "pruner")
_SHARED: Final = (
    *("put leases", "delete leases", "list leases", "put points", "delete points", "list points"),
    *("put trash", "list trash", "put packs", "list packs", "delete packs", "list notes", "pause"),
)
"""Calls that tell others something, or are told. Before other calls a switch is as good as before
the next of these: they read what nobody changes, or keep what nobody looks for."""


@pytest.fixture(scope="module")
def standing() -> Scene:
    return Scene()


@pytest.fixture(scope="module")
def orphaned() -> Scene:
    return Scene(orphaned=True)


def shared(call: str) -> bool:
    return call.startswith(_SHARED)


def explored(play: Play, most: int, matters: Callable[[str], bool] = shared) -> int:
    """How many schedules there were. Fails with the one that breaks something."""
    try:
        return all_preemptions(play.run, most, matters)
    except Broken as error:
        pytest.fail(f"{error}\n{play.story()}")


@pytest.mark.parametrize("listing", Listing)
def test_a_writer_and_a_collector(orphaned: Scene, listing: Listing) -> None:
    """One preemption: 53 schedules; the writer deduplicates onto what the collector takes."""
    play = Play(orphaned, ["writer1", "collector1"], 25, listing)
    assert explored(play, 1 + MORE) > 40


def test_a_copier_and_a_collector(orphaned: Scene) -> None:
    """One preemption; sealed blobs come from a replica, and some of them are being taken here."""
    assert explored(Play(orphaned, ["copier1", "collector1"], 25), 1 + MORE) > 40


@pytest.mark.parametrize("reader", ["mount", "restore", "live"])
def test_a_reader_while_its_point_goes(standing: Scene, reader: str) -> None:
    """One preemption: some 100 schedules of a reader, a removal and a collector."""
    play = Play(standing, ["sweeper", "collector1", reader], 25)
    assert explored(play, 1 + MORE) > 60


def test_two_collectors(orphaned: Scene) -> None:
    """One preemption: some 80 schedules; both want the same packs."""
    assert explored(Play(orphaned, ["collector1", "collector2"], 25), 1 + MORE) > 40


@pytest.mark.parametrize("first", range(0, WALKS, WALKS_A_TEST))
def test_everybody_at_random(standing: Scene, orphaned: Scene, first: int) -> None:
    """Casts of three to eight, who crash, are taken for dead, and read folders in two halves."""
    for seed in range(first, min(first + WALKS_A_TEST, WALKS)):
        play, walk = chance(standing, orphaned, seed)
        try:
            play.run(walk)
        except Broken as error:
            pytest.fail(f"seed {seed}: {error}\n{play.story()}")


def chance(standing: Scene, orphaned: Scene, seed: int) -> tuple[Play, Wandering]:
    """What a seed stands for."""
    rng = random.Random(seed)
    scene = rng.choice([standing, orphaned])
    usable = [role for role in ROLES if "old" in scene.points or role not in NEED_OLD]
    cast = rng.sample(usable, rng.randint(3, 8))
    deaths = {name: rng.choice([0.0, 0.0, 0.01, 0.03]) for name in cast}
    play = Play(scene, cast, listing=rng.choice(list(Listing)))
    return play, Wandering(seed, rng.choice([0.02, 0.1, 0.3, 0.6]), deaths)


def test_a_run_repeats_itself(standing: Scene, orphaned: Scene) -> None:
    """By its seed, and by its choices."""
    play, walk = chance(standing, orphaned, 5)
    play.run(walk)
    again, same_walk = chance(standing, orphaned, 5)
    again.run(same_walk)
    assert again.calls == play.calls
    again.run(Replayed(walk.choices))
    assert again.calls == play.calls
    assert len(play.calls) > 50


def no_second_look(publication: Publication, flush: Callable[[], None]) -> None:
    flush()
    epoch = newest_epoch(publication._parts.sealed)
    publication.lease.refresh(LeaseTerms(BACKUP, epoch, publication.lease.terms.pins))


SPOILED: Final = {
    "no second look": (Publication, "settle", no_second_look, ("put points", "put packs"), 2),
    "no wait": (Watch, "blocking", lambda *_: (), ("put points", "pause"), 1),
    "no second mark": (Workplace, "look_again", lambda _: None, ("put points", "list packs"), 1),
    "no exclusions": (Index, "exclude", lambda *_: None, ("list packs", "put trash"), 1),
}
"""What is left out of the program; calls before which a switch shows it, and how many it takes."""


@pytest.mark.parametrize(
    ("name", "writer"),
    [*((name, "writer1") for name in SPOILED), ("no exclusions", "copier1")],
)
def test_what_is_left_out_shows(
    orphaned: Scene, name: str, writer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler can fail: without one step of the program something is lost."""
    owner, method, spoiled, calls, most = SPOILED[name]
    monkeypatch.setattr(owner, method, spoiled)
    play = Play(orphaned, [writer, "collector1"], 1 << 30)
    with pytest.raises(Broken, match="lost"):
        all_preemptions(play.run, most, lambda call: call.startswith(calls))


def test_pins_without_roots_show(standing: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader whose lease only names its point, which is removed: the collector stops, not
    knowing what it may take."""
    monkeypatch.setattr(reading, "pin_of", lambda point: Pin(point.point_id))
    play = Play(standing, ["pruner", "collector1", "restore"], 1 << 30)
    with pytest.raises(Broken, match="collector stopped"):
        all_preemptions(play.run, 1, lambda call: call.startswith("list index"))

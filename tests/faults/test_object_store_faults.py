"""What an object store and the network to it do wrong: no wrong byte, no hang, no half point.

Every work that is harmed either succeeds or ends in one error of the right class; the repository is
whole after it, and the same work succeeds as soon as nothing is harmed any more.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backpoint_repo.errors import (
    ObjectDamaged,
    ObjectMissing,
    RepositoryError,
    StoreDenied,
    StoreMisconfigured,
    StoreReadOnly,
    StoreUnavailable,
)
from backpoint_repo.repository import Repository
from backpoint_repo.store import object_client
from backpoint_repo.store.memory import MemoryStore
from faults.bucket_scene import NEW_SEED, BucketScene, Template, content_of
from many_points import make_many_points
from object_server import ObjectServer
from paced_proxy import Harm, Kind, PacedProxy
from small_repository import new_repository

IMPATIENT_S = 0.3
STALL_S = 0.7


Do = Callable[[BucketScene, Repository], None]
WORKS: dict[str, tuple[Do, str, str]] = {
    "backup, its packs": (BucketScene.back_up, "PUT", "/packs/"),
    "backup, its index": (BucketScene.back_up, "PUT", "/index/"),
    "backup, its listings": (BucketScene.back_up, "LIST", "prefix="),
    "backup, its lease's end": (BucketScene.back_up, "POST", "delete"),
    "publication": (BucketScene.back_up, "PUT", "/points/"),
    "reading, data": (BucketScene.read, "GET", "/packs/"),
    "reading, maps": (BucketScene.read, "GET", "/nodes/"),
    "reading, the index": (BucketScene.read, "GET", "/index/"),
    "points, their listing": (BucketScene.list_points, "LIST", "points/"),
    "points, one of them": (BucketScene.list_points, "GET", "/points/"),
    "lease": (BucketScene.refresh_lease, "PUT", "/leases/"),
    "collection, its trash": (BucketScene.collect, "PUT", "/trash/"),
    "collection, its reading": (BucketScene.collect, "GET", "/nodes/"),
    "collection, its listings": (BucketScene.collect, "LIST", "prefix="),
    "collection, its deletions": (BucketScene.collect, "POST", "delete"),
}
PASSING: tuple[tuple[str, tuple[Kind, ...]], ...] = (
    ("backup, its packs", ("reset-request", "lose-answer", "slow-down", "refuse", "stall")),
    ("backup, its index", ("lose-answer", "internal-error")),
    ("backup, its listings", ("cut-answer", "slow-down", "refuse")),
    ("backup, its lease's end", ("lose-answer",)),
    ("publication", ("reset-request", "lose-answer", "slow-down", "refuse", "stall")),
    ("reading, data", ("reset-answer", "cut-answer", "slow-down", "refuse", "stall")),
    ("reading, maps", ("cut-answer", "bad-gateway")),
    ("reading, the index", ("reset-answer",)),
    ("points, their listing", ("cut-answer", "reset-answer", "internal-error", "refuse")),
    ("points, one of them", ("cut-answer", "bad-gateway")),
    ("lease", ("lose-answer", "reset-request", "slow-down")),
    ("collection, its trash", ("lose-answer",)),
    ("collection, its reading", ("reset-answer",)),
    ("collection, its listings", ("cut-answer",)),
    ("collection, its deletions", ("lose-answer",)),
)
DENIED: tuple[Kind, ...] = ("bad-signature", "expired-token", "clock-skew")
WRONG: tuple[Kind, ...] = ("wrong-region", "no-such-bucket")
STAYING: dict[str, dict[type[RepositoryError], tuple[Kind, ...]]] = {
    "backup, its packs": {
        StoreUnavailable: ("refuse", "reset-request", "slow-down"),
        StoreDenied: DENIED,
        StoreMisconfigured: (*WRONG, "login-page"),
        StoreReadOnly: ("access-denied",),
    },
    "backup, its listings": {StoreDenied: ("access-denied", "expired-token")},
    "publication": {
        StoreUnavailable: ("internal-error",),
        StoreDenied: ("clock-skew",),
        StoreReadOnly: ("access-denied",),
        StoreMisconfigured: ("login-page",),
    },
    "reading, data": {
        StoreUnavailable: ("cut-answer", "shorten-answer", "internal-error"),
        StoreDenied: ("access-denied", *DENIED),
        StoreMisconfigured: (*WRONG, "login-page"),
    },
    "points, their listing": {
        StoreUnavailable: ("cut-answer", "slow-down", "refuse"),
        StoreDenied: ("access-denied", "clock-skew"),
        StoreMisconfigured: WRONG,
    },
    "lease": {
        StoreUnavailable: ("slow-down", "refuse"),
        StoreDenied: ("expired-token",),
        StoreReadOnly: ("access-denied",),
    },
    "collection, its trash": {StoreUnavailable: ("reset-request",)},
    "collection, its reading": {StoreDenied: ("clock-skew",)},
    "collection, its listings": {StoreUnavailable: ("cut-answer",)},
}
"""What each kind of fault means to a work."""


class Pauses:
    """Takes no time. then: is done at the second one."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.seconds: list[float] = []
        self._then = then

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if len(self.seconds) == 2:
            self._then()


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer within IMPATIENT_S is none."""
    limits = {"read_timeout": f"{IMPATIENT_S}s", "timeout": f"{IMPATIENT_S}s"}
    for name in object_client._LIMITS:
        monkeypatch.setitem(object_client._LIMITS, name, limits)


@pytest.mark.parametrize(("work", "faults"), PASSING)
def test_faults_that_pass(
    scene: BucketScene,
    line: PacedProxy,
    work: str,
    faults: tuple[Kind, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody notices but who waits a little longer."""
    do, method, key = WORKS[work]
    if "stall" in faults:
        impatient(monkeypatch)
    for kind in faults:
        pauses = Pauses(line.calm if kind == "refuse" else lambda: None)
        repository = scene.far(pauses)
        line.clear()
        line.harm(Harm(kind, method, key, times=2, stall_s=STALL_S))
        do(scene, repository)
        assert line.counts().harmed
        assert pauses.seconds
        line.calm()
    scene.assert_sound()


@pytest.mark.parametrize("work", STAYING)
def test_faults_that_stay(scene: BucketScene, line: PacedProxy, work: str) -> None:
    """One error of just that class; nothing is broken, and once it is over the work succeeds."""
    do, method, key = WORKS[work]
    faults = [(kind, error) for error, kinds in STAYING[work].items() for kind in kinds]
    for kind, error in faults:
        repository = scene.far(Pauses())
        line.clear()
        line.harm(Harm(kind, method, key, times=None))
        with pytest.raises(error) as caught:
            do(scene, repository)
        assert line.counts().harmed
        assert "\n" not in str(caught.value)
        sorts = (StoreDenied, StoreMisconfigured, StoreReadOnly)
        assert {sort for sort in sorts if isinstance(caught.value, sort)} <= {error}
        line.calm()
        scene.assert_listed()
    do(scene, scene.far(Pauses()))
    scene.assert_sound()


def test_a_login_page(scene: BucketScene, line: PacedProxy) -> None:
    """What answers everything with a page of its own is no object store, and no empty one."""
    line.harm(Harm("login-page", times=None))
    for ask in (scene.far, lambda pause: list(scene.far_store(pause).list("points/"))):
        with pytest.raises(StoreMisconfigured, match="no object store"):
            ask(Pauses())


def test_an_answer_lost_for_good(scene: BucketScene, line: PacedProxy) -> None:
    """The point arrived, and its backup could not learn of it: it says so, and nobody forgets it
    or makes it twice."""
    repository = scene.far(Pauses())
    line.harm(Harm("lose-answer", "PUT", "/points/"))
    line.harm(Harm("refuse", "PUT", "/points/", first=2))
    with pytest.raises(StoreUnavailable):
        scene.back_up(repository)
    line.calm()
    (point,) = (
        found for found in scene.near().catalog.refresh() if found.point_id not in scene.contents
    )
    scene.contents[point.point_id] = content_of(NEW_SEED)
    scene.assert_sound()
    scene.back_up(scene.far(Pauses()))
    scene.assert_sound()


def test_a_point_that_vanishes(scene: BucketScene, line: PacedProxy) -> None:
    """It was listed, and is removed before it is read: then it is not there; no word of damage."""
    newest = scene.near().catalog.refresh()[-1].point_id
    repository = scene.far(Pauses())
    line.harm(Harm("no-such-key", "GET", f"/points/{newest.hex()}", times=None))
    found = {point.point_id for point in repository.catalog.refresh()}
    assert found == scene.contents.keys() - {newest}
    assert not repository.catalog.broken
    scene.back_up(scene.far(Pauses()))
    line.calm()
    scene.assert_sound()


@pytest.mark.parametrize("work", ["reading, data", "reading, maps"])
def test_data_that_vanishes(scene: BucketScene, line: PacedProxy, work: str) -> None:
    """It is said to be missing, which nobody says of a store that is only out of reach."""
    do, method, key = WORKS[work]
    repository = scene.far(Pauses())
    line.harm(Harm("no-such-key", method, key, times=None))
    with pytest.raises((ObjectMissing, ObjectDamaged)):
        do(scene, repository)
    line.calm()
    do(scene, repository)
    scene.assert_sound()


@pytest.fixture(scope="module")
def many(server: ObjectServer, proxy: PacedProxy) -> BucketScene:
    """More points than one page of a listing has, all of an empty disk."""
    store = MemoryStore()
    repository = new_repository(store)
    make_many_points(repository, 1, 1030)
    contents = {point.point_id: b"" for point in repository.catalog.refresh()}
    objects = {found.key: store.get(found.key) for found in store.list("")}
    return BucketScene(server, proxy, Template(objects, contents))


@pytest.mark.parametrize("kind", ["cut-answer", "slow-down"])
def test_a_second_page_that_comes_late(many: BucketScene, line: PacedProxy, kind: Kind) -> None:
    """All points, with a handful of requests; were a page lost, so many points would be gone."""
    repository = many.far(Pauses())
    line.clear()
    line.harm(Harm(kind, "LIST", "points/", first=2, times=2))
    many.list_points(repository)
    counts = line.counts()
    assert counts.harmed == 2
    assert counts.requests < 30


@pytest.mark.parametrize("kind", ["cut-answer", "access-denied"])
def test_a_second_page_that_never_comes(many: BucketScene, line: PacedProxy, kind: Kind) -> None:
    """An error, and not the points of the first page."""
    repository = many.far(Pauses())
    line.harm(Harm(kind, "LIST", "points/", first=2, times=None))
    with pytest.raises(StoreUnavailable):
        repository.catalog.refresh()
    assert line.counts().harmed

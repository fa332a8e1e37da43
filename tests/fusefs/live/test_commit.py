"""Sessions that become points: what the point holds, what it cost, and how the session goes on."""

from __future__ import annotations

import random
import signal
import threading
from pathlib import Path

import pytest

from backpoint_fusefs.live.committing.commit_lock import alone_with
from backpoint_fusefs.live.control import holder as holder_module
from backpoint_fusefs.live.discard import discard_session
from backpoint_fusefs.live.errors import SessionInUse
from backpoint_fusefs.live.node_tree import ROOT_NODE, LiveNode, NodeType
from backpoint_fusefs.live.session import Session
from backpoint_fusefs.live.session_cut import CUTS
from backpoint_fusefs.live.session_lock import FolderLock
from backpoint_fusefs.live.session_record import read_record
from backpoint_repo.errors import KeyFault, UsageError
from backpoint_repo.format import BLOCK_SIZE
from backpoint_repo.point import Point
from backpoint_repo.point_hold import read_holds
from backpoint_repo.store.local import LocalStore
from commit_processes import commit_dying, exit_code, have_session, in_another_process, start
from commit_scene import (
    MIB,
    SIZES,
    VMX,
    CommitScene,
    commit,
    disk_bytes,
    disk_node,
    make_scene,
    point_bytes,
    serving,
    write,
)
from faults.failing_store import AFTER, BEFORE, FailingStore
from small_repository import as_agent, back_up
from synthetic_disk import random_disk

CHANGES = 9
"""Changing store calls of a commit: lease, data pack, node pack, index, point; the lease goes; the
hold on the new point; the one on the old goes. One more than there are, as the way out."""
HOLD = 7
"""After this one the session is rebased, so before and after it are not the same moment."""
KILLS = [*((at, BEFORE) for at in range(1, CHANGES + 1)), (HOLD, AFTER)]


@pytest.fixture
def scene(tmp_path: Path) -> CommitScene:
    """With a session `trial`."""
    made = make_scene(tmp_path)
    made.start()
    return made


def assert_same(scene: CommitScene, point: Point, session: Session) -> None:
    """The point's disks are what the session shows."""
    for number in range(len(SIZES)):
        assert point_bytes(scene, point, number) == disk_bytes(session, number)


def put_file(session: Session, name: bytes, data: bytes) -> LiveNode:
    """A file of the session's own, made or replaced."""
    old = session.names.child(ROOT_NODE, name)
    if old is not None:
        session.names.unlink(ROOT_NODE, name)
        session.forget(old.number)
    node = session.names.create(LiveNode(0, NodeType.FILE, ROOT_NODE, name, 0o644, 0, 0, 0, 0))
    session.file(node.number).write(0, data)
    return node


def files_of(scene: CommitScene, point: Point) -> dict[str, bytes]:
    """All small files of a point."""
    repository = scene.repository()
    return {file.name: repository.read_file(file) for file in point.files}


def test_a_commit_of_nothing_is_a_cheap_point(scene: CommitScene) -> None:
    """The same maps, nothing read; the origin is recorded, and who the VM is."""
    origin = scene.repository().catalog.refresh()[0]
    point = commit(scene, label="as it is")
    before = scene.repository().point(origin.point_id)
    assert (point.vm, point.label, point.parent) == ("web", "as it is", before.point_id)
    assert [(disk.key, disk.root) for disk in point.disks] == [
        (disk.key, disk.root) for disk in before.disks
    ]
    assert (point.traffic.read, point.traffic.new) == (0, 0)
    assert point.warnings == ()
    assert files_of(scene, point) == {"web.vmx": VMX}
    assert point.branch
    assert point.capture["live"]["origin"] == before.point_id.hex()
    assert point.capture["live"]["session"] == "trial"
    assert (point.capture["kind"], point.capture["instance"]) == ("vsphere", "i-1")
    scene.assert_clean()


def test_a_commit_holds_what_was_written_and_costs_no_more(scene: CommitScene) -> None:
    """Byte for byte, on both disks; the next commit reads what was written since."""
    rng = random.Random(1)
    with scene.session() as session:
        for _ in range(10):
            write(session, 0, rng.randrange(SIZES[0] - 9000), rng.randbytes(rng.randrange(1, 9000)))
        write(session, 1, SIZES[1] - 5, b"the end"[:5])
        session.file(disk_node(session, 0).number).sync()
        session.sync()
        contents = [disk_bytes(session, 0), disk_bytes(session, 1)]
    first = commit(scene)
    for number, content in enumerate(contents):
        assert point_bytes(scene, first, number) == content
    # 11 writes, each widened to the chunks at both of its ends (64 KiB at most in this repository).
    assert 0 < first.traffic.read <= 11 * (9000 + 3 * 64 * 1024)
    assert first.warnings == ()
    record = read_record(scene.live / "trial")
    assert record.point_id == first.point_id.hex()
    with scene.session() as session:
        assert_same(scene, first, session)
        write(session, 0, 5 * MIB, b"since")
    second = commit(scene)
    assert second.parent == first.point_id
    assert second.generation == first.generation + 1
    assert second.traffic.read <= 3 * 64 * 1024
    assert second.capture["live"]["origin"] == first.capture["live"]["origin"]
    with scene.session() as session:
        assert_same(scene, second, session)
        assert read_record(scene.live / "trial").point_id == second.point_id.hex()
    scene.assert_clean()


def test_the_session_holds_its_point_and_no_other(scene: CommitScene) -> None:
    """After each commit the new one; after the discard none."""

    def held() -> list[bytes]:
        return [hold.point_id for hold in read_holds(scene.repository().sealed)]

    assert held() == [scene.repository().catalog.refresh()[0].point_id]
    first = commit(scene)
    assert held() == [first.point_id]
    second = commit(scene)
    assert held() == [second.point_id]
    discard_session(scene.home(), "trial")
    assert held() == []
    assert not (scene.live / "trial").exists()
    scene.assert_clean()


class _Writer:
    """Writes a number to the same place of disk 0, then of disk 1, then the next, all the while."""

    SLOTS = 64

    def __init__(self, session: Session) -> None:
        self._files = [session.file(disk_node(session, disk).number) for disk in (0, 1)]
        self._stop = threading.Event()
        self.written = 0
        self.busy = threading.Event()
        self.failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> _Writer:
        self._thread.start()
        assert self.busy.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)
        assert self.failed is None
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                number = self.written + 1
                for file in self._files:
                    file.write(self.place(number), self.stamp(number))
                self.written = number
                if number > 2 * self.SLOTS:
                    self.busy.set()
        except BaseException as error:
            self.failed = error
            raise

    @classmethod
    def place(cls, number: int) -> int:
        """Some cross blocks, and each number has the place of one 64 before."""
        return (number % cls.SLOTS) * 40_000 + 3000

    @staticmethod
    def stamp(number: int) -> bytes:
        return number.to_bytes(8, "big") * 400

    @classmethod
    def disk_at(cls, before: bytes, number: int) -> bytes:
        """The disk when this number was the last that was written to it."""
        disk = bytearray(before)
        for done in range(max(1, number - cls.SLOTS + 1), number + 1):
            disk[cls.place(done) : cls.place(done) + 3200] = cls.stamp(done)
        return bytes(disk)

    @classmethod
    def last_on(cls, disk: bytes) -> int:
        return max(
            int.from_bytes(disk[cls.place(n) : cls.place(n) + 8], "big") for n in range(cls.SLOTS)
        )


def test_a_point_is_one_moment_of_a_session_that_is_written(scene: CommitScene) -> None:
    """Each disk is the exact result of all writes up to one, which is the same on both disks but
    for the one that was under way; twice, with the writer never stopping."""
    with scene.session() as session, serving(session, scene.live / "trial"):
        before = [disk_bytes(session, 0), disk_bytes(session, 1)]
        with _Writer(session) as writer:
            since = writer.written
            points = [commit(scene), commit(scene)]
            until = writer.written
        last = since
        for point in points:
            contents = [point_bytes(scene, point, 0), point_bytes(scene, point, 1)]
            numbers = [_Writer.last_on(content) for content in contents]
            assert last <= numbers[1] <= numbers[0] <= numbers[1] + 1 <= until + 1
            for disk, number in enumerate(numbers):
                assert contents[disk] == _Writer.disk_at(before[disk], number)
            last = numbers[1]
        assert disk_bytes(session, 0) == _Writer.disk_at(before[0], writer.written)
        final = commit(scene)
        assert_same(scene, final, session)
    scene.assert_clean()


def test_small_files_are_kept_but_what_belongs_to_the_run(scene: CommitScene) -> None:
    """Changed and new ones with their names; no locks, no swap file, no descriptor of ours."""
    with scene.session() as session:
        assert session.names.child(ROOT_NODE, b"disk0.vmdk") is not None
        put_file(session, b"web.vmx", VMX + b"uuid.action = keep\n")
        put_file(session, b"web.nvram", bytes(9000))
        put_file(session, b"vmware.log", b"said")
        put_file(session, b".lck-0a00000000000000", b"host")
        put_file(session, b"web.vswp", b"memory")
        large = put_file(session, b"core", b"")
        session.file(large.number).resize(65 << 20)
    point = commit(scene)
    assert files_of(scene, point) == {
        "web.vmx": VMX + b"uuid.action = keep\n",
        "web.nvram": bytes(9000),
        "vmware.log": b"said",
    }
    assert len(point.warnings) == 1
    assert "core" in point.warnings[0]
    scene.assert_clean()


def test_a_session_with_snapshots_is_refused_until_they_are_gone(scene: CommitScene) -> None:
    """The disks alone are not what the machine sees; what was written stays."""
    with scene.session() as session:
        write(session, 0, 0, b"below the snapshot")
        put_file(session, b"web-000001.vmdk", b"# Disk DescriptorFile")
    with pytest.raises(UsageError, match=r"snapshots \(web-000001.vmdk\)"):
        commit(scene)
    assert len(scene.repository().catalog.refresh()) == 1
    with scene.session() as session:
        node = session.names.unlink(ROOT_NODE, b"web-000001.vmdk")
        session.forget(node.number)
    point = commit(scene)
    with scene.session() as session:
        assert_same(scene, point, session)
    assert point_bytes(scene, point, 0).startswith(b"below the snapshot")
    scene.assert_clean()


def test_a_disk_that_was_deleted_or_renamed_is_told(scene: CommitScene) -> None:
    """The point has both, the deleted one as it was; and the session goes on with the other."""
    with scene.session() as session:
        kept = disk_bytes(session, 1)
        write(session, 0, 100, b"renamed")
        node = disk_node(session, 0)
        session.names.rename(ROOT_NODE, node.name, ROOT_NODE, b"other.vmdk", replace=False)
        gone = disk_node(session, 1)
        session.names.unlink(ROOT_NODE, gone.name)
        session.forget(gone.number)
    first = commit(scene)
    assert sorted(warning.split()[0] for warning in first.warnings) == ["other.vmdk", "scsi0:1"]
    assert point_bytes(scene, first, 0)[100:107] == b"renamed"
    assert point_bytes(scene, first, 1) == kept
    with scene.session() as session:
        write(session, 0, 200, b"again")
    second = commit(scene)
    assert point_bytes(scene, second, 0)[200:205] == b"again"
    assert second.disks[1] == first.disks[1]
    scene.assert_clean()


@pytest.mark.parametrize("size", [SIZES[0] + 5 * MIB, 33 * MIB + 512, 3 * BLOCK_SIZE])
def test_a_resized_disk_is_committed_by_what_was_written(scene: CommitScene, size: int) -> None:
    """Longer, shorter, and long again: what came back is zeros; the rest is never read."""
    with scene.session() as session:
        file = session.file(disk_node(session, 0).number)
        file.resize(size)
        file.write(size - 600, b"at the end")
    first = commit(scene)
    assert first.disks[0].size == size
    assert first.traffic.read < MIB
    with scene.session() as session:
        assert_same(scene, first, session)
        file = session.file(disk_node(session, 0).number)
        file.resize(2 * BLOCK_SIZE)
        file.resize(SIZES[0])
    second = commit(scene)
    assert second.warnings == ()
    assert not any(point_bytes(scene, second, 0)[2 * BLOCK_SIZE :])
    with scene.session() as session:
        assert_same(scene, second, session)
    scene.assert_clean()


def test_committed_as_another_vm(scene: CommitScene) -> None:
    """It is that VM's point, and says nothing of which machine in a vCenter it was."""
    point = commit(scene, vm="web-copy")
    assert point.vm == "web-copy"
    assert point.capture.keys() == {"live"}
    assert commit(scene, vm="web-copy").parent == point.point_id
    scene.assert_clean()


def test_production_does_not_build_on_a_commit(scene: CommitScene) -> None:
    """Its next increment stands on its own last point."""
    production = scene.repository().catalog.refresh()[0]
    with scene.session() as session:
        write(session, 0, 0, b"only in the session")
    commit(scene)
    with scene.repository().begin_backup("web") as backup:
        assert backup.parent is not None
        assert backup.parent.point_id == production.point_id
    scene.assert_clean()


def test_one_commit_at_a_time(scene: CommitScene) -> None:
    """A second one, and a discard, are told so; nothing is cut for them."""
    with alone_with(scene.live / "trial"):
        for work in (commit, lambda scene: discard_session(scene.home(), "trial")):
            with pytest.raises(SessionInUse, match="being committed"):
                work(scene)
    assert read_record(scene.live / "trial").cut == 0
    commit(scene)
    scene.assert_clean()


def test_the_agent_credential_commits_nothing(scene: CommitScene) -> None:
    """Borders of what was written are read from the point below."""
    with pytest.raises(KeyFault):
        commit(scene, as_agent(scene.repository()))


def test_another_process_has_the_session(scene: CommitScene) -> None:
    """It cuts and goes on over the new point; this one stores."""
    with scene.session() as session:
        write(session, 0, 12_345, b"written before")
    with in_another_process(have_session, scene):
        first = commit(scene)
        second = commit(scene)
    assert point_bytes(scene, first, 0)[12_345:12_359] == b"written before"
    assert second.parent == first.point_id
    with scene.session() as session:
        assert_same(scene, second, session)
    scene.assert_clean()


def test_two_sessions_of_one_point_are_independent(scene: CommitScene) -> None:
    """Each commit holds its own writes and none of the other's."""
    scene.start("other")
    with scene.session() as one, scene.session("other") as two:
        write(one, 0, 0, b"one")
        write(two, 0, 0, b"two")
    point = commit(scene)
    assert point_bytes(scene, point, 0)[:3] == b"one"
    with scene.session("other") as two:
        assert disk_bytes(two, 0)[:3] == b"two"
    scene.assert_clean()


def test_the_kill_points_below_are_all_there_are(scene: CommitScene) -> None:
    """Counted in a whole commit."""
    with scene.session() as session:
        write(session, 0, 0, b"x" * 5000)
    only = frozenset({"put", "delete"})
    store = FailingStore(LocalStore(scene.root), 0, lambda: None, only=only)
    commit(scene, scene.repository(store))
    assert len(store.calls) == CHANGES - 1, store.calls


@pytest.mark.parametrize(("at", "moment"), KILLS)
def test_commit_killed(scene: CommitScene, at: int, moment: str) -> None:
    """The session has all it had, and a second commit holds all of it, also what came between."""
    with scene.session() as session:
        write(session, 0, 7000, b"first" * 2000)
        write(session, 1, 10, b"small disk")
    code = exit_code(start(commit_dying, scene, at, moment))
    assert code == (-signal.SIGKILL if at < CHANGES else 0)
    scene.assert_clean()
    with scene.session() as session:
        assert disk_bytes(session, 0)[7000:17_000] == b"first" * 2000
        write(session, 0, 9000, b"second")
    point = commit(scene)
    with scene.session() as session:
        assert_same(scene, point, session)
    expected = bytearray(b"first" * 2000)
    expected[2000:2006] = b"second"
    assert point_bytes(scene, point, 0)[7000:17_000] == expected
    held = {hold.point_id for hold in read_holds(scene.repository().sealed)}
    assert held == {point.point_id}
    scene.assert_clean()


def test_a_commit_of_a_mount_that_dies_loses_nothing(scene: CommitScene) -> None:
    """The process that has the session is killed between the cut and the end of the commit."""
    with scene.session() as session:
        write(session, 0, 0, b"kept")

    with in_another_process(have_session, scene) as process:
        repository = scene.repository(
            FailingStore(LocalStore(scene.root), 2, process.kill, only=frozenset({"put"}))
        )
        point = commit(scene, repository)
    with scene.session() as session:
        assert_same(scene, point, session)
        assert read_record(scene.live / "trial").point_id == point.point_id.hex()
    scene.assert_clean()


def test_production_goes_on_meanwhile(scene: CommitScene) -> None:
    """A new point of the VM between start and commit is no parent and no loss."""
    with scene.session() as session:
        write(session, 0, 0, b"session")
    newest = back_up(scene.repository(), "web", random_disk(MIB, 5))
    point = commit(scene)
    assert point.parent != newest.point_id
    assert point_bytes(scene, point, 0)[:7] == b"session"
    scene.assert_clean()


def test_a_session_that_cannot_go_on_is_told_and_loses_nothing(
    scene: CommitScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody takes it after the cut and hears nobody: the point is there, the next commit too."""
    monkeypatch.setattr(holder_module, "_PATIENCE_S", 0.1)
    with scene.session() as session:
        write(session, 0, 0, b"kept")
    taken: list[FolderLock] = []
    store = FailingStore(
        LocalStore(scene.root),
        2,
        lambda: taken.append(FolderLock(scene.live / "trial")),
        only=frozenset({"put"}),
    )
    with pytest.raises(SessionInUse, match="is made and whole"):
        commit(scene, scene.repository(store))
    taken[0].release()
    assert len(scene.repository().catalog.refresh()) == 2
    point = commit(scene)
    assert point.generation == 1
    assert point_bytes(scene, point, 0)[:4] == b"kept"
    held = {hold.point_id for hold in read_holds(scene.repository().sealed)}
    assert held == {point.point_id}
    scene.assert_clean()


def test_what_the_system_refuses_is_a_sentence(scene: CommitScene) -> None:
    """No traceback where a folder cannot be made, or a name is impossible; nothing is lost."""
    (scene.live / "trial" / CUTS).write_text("in the way")
    with pytest.raises(UsageError, match=r"the session trial.*: Not a directory"):
        commit(scene)
    (scene.live / "trial" / CUTS).unlink()
    for vm in ("", "n" * 256, "\udc80"):
        with pytest.raises(UsageError):
            commit(scene, vm=vm)
    commit(scene)
    scene.assert_clean()

"""A session that is open: its files, its cuts, frozen or not, on a disk that is full."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest

from backpoint_fusefs.live import cut_taking
from backpoint_fusefs.live.cut_taking import plan_cut
from backpoint_fusefs.live.errors import SessionDamaged, SessionFrozen, SessionInUse
from backpoint_fusefs.live.node_tree import ROOT_NODE, LiveNode, NodeType
from backpoint_fusefs.live.overlay.overlay_disk import CutDisk
from backpoint_fusefs.live.session import Session
from backpoint_fusefs.live.session_cut import CutFolder
from backpoint_fusefs.live.session_home import SessionHome
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UsageError
from backpoint_repo.store.memory import MemoryStore
from session_scene import (
    VMX,
    LiveScene,
    content_of,
    disk_bytes,
    make_point,
    make_scene,
    named,
    new_file,
    read_whole,
)
from small_repository import assert_clean, new_repository

DISK0, DISK1 = b"disk0-flat.vmdk", b"disk1-flat.vmdk"


@pytest.fixture
def scene(tmp_path: Path) -> LiveScene:
    return make_scene(new_repository(MemoryStore()), tmp_path / "live")


def _errno(work: Callable[[], object]) -> int:
    try:
        work()
    except OSError as error:
        return error.errno or 0
    return 0


def reopened(scene: LiveScene, session: Session) -> Session:
    """The session after its process ended well."""
    session.close()
    return scene.home.open(session.record.name)


def cut_disks(scene: LiveScene, session: Path, number: int) -> dict[str, bytes]:
    """The disks of a cut as a commit reads them, by path."""
    record = json.loads((session / "session.json").read_bytes())
    point = scene.repository.point(bytes.fromhex(record["point_id"]))
    found = {}
    for disk in CutFolder(session, number).disks:
        base = scene.repository.open_disk(point.disks[disk.number], ChunkCache(1 << 20))
        folder = session / "disks" / str(disk.number)
        source = CutDisk(folder, base, record["floor"], number)
        content = bytearray(source.size)
        source.read_into(0, memoryview(content))
        found[disk.path] = bytes(content)
        source.close()
    return found


def test_all_that_was_written_is_there_again(scene: LiveScene) -> None:
    """Disks and files, after a sync and a process that ended without a word."""
    session = scene.started()
    disk, file = session.file(named(session, DISK0).number), named(session, b"vmware.log")
    disk.write(1000, b"on the disk")
    session.file(file.number).write(5, b"in the log")
    made = new_file(session, b"new.lck", b"x" * 10_000)
    session.file(made.number).resize(9000)
    expected = content_of(session)
    assert expected[b"vmware.log"] == bytes(5) + b"in the log"
    assert expected[b"new.lck"] == b"x" * 9000
    session = reopened(scene, session)
    assert content_of(session) == expected
    assert session.file(file.number) is session.file(file.number)
    session.close()
    assert_clean(scene.repository)


def test_files_have_the_errors_that_programs_expect(scene: LiveScene) -> None:
    """Folders, links and what is gone have no content."""
    session = scene.started()
    folder = session.names.create(LiveNode(0, NodeType.FOLDER, 1, b"d", 0o700, 0, 0, 0, 0))
    link = session.names.create(LiveNode(0, NodeType.LINK, 1, b"l", 0o777, 0, 0, 0, 0, None, b"t"))
    assert _errno(lambda: session.file(folder.number)) == errno.EISDIR
    assert _errno(lambda: session.file(link.number)) == errno.EINVAL
    assert _errno(lambda: session.file(99)) == errno.ENOENT
    session.close()


def test_a_plain_file_is_as_bytes_are(scene: LiveScene) -> None:
    """Random writes, zeros, sizes and reads against a byte array; cached reads never differ."""
    session = scene.started()
    file = session.file(new_file(session, b"f").number)
    rng = random.Random(4)
    model = bytearray()
    for _ in range(300):
        at, length = rng.randrange(20_000), rng.randrange(1, 5000)
        match rng.randrange(5):
            case 0 | 1:
                data = rng.randbytes(length)
                file.write(at, data)
                model.extend(bytes(max(0, at + length - len(model))))
                model[at : at + length] = data
            case 2:
                file.zero(at, length)  # type: ignore[attr-defined]
                end = min(at + length, len(model))
                model[at:end] = bytes(max(0, end - at))
            case 3:
                file.resize(at)
                model.extend(bytes(max(0, at - len(model))))
                del model[at:]
            case _:
                file.sync()
        cached = file.read_cached(at, length)
        assert cached is None or bytes(cached) == model[at : at + length]
        assert bytes(file.read(at, length)) == model[at : at + length]
        assert file.size == len(model)
    file.write(0, bytes(1 << 20))
    assert file.allocated >= 1 << 20
    session.close()


def test_more_files_than_descriptors(scene: LiveScene) -> None:
    """A mad guest's files do not use up the process' descriptors, and lose nothing."""
    session = scene.started()
    nodes = session.names.create_all(
        [LiveNode(0, NodeType.FILE, 1, b"%d" % n, 0o600, 0, 0, 0, 0) for n in range(250)]
    )
    before = len(os.listdir("/proc/self/fd"))
    for node in nodes:
        session.file(node.number).write(0, node.name)
    assert len(os.listdir("/proc/self/fd")) < before + 200
    assert all(read_whole(session, node) == node.name for node in nodes)
    session.close()
    assert len(os.listdir("/proc/self/fd")) < before


def test_an_unlinked_file_lives_while_it_is_open(scene: LiveScene) -> None:
    """Then its bytes go; what a crash left goes when the session is opened again."""
    session = scene.started()
    made, left = new_file(session, b"a", b"content"), new_file(session, b"b", b"left")
    file = session.file(made.number)
    session.names.unlink(ROOT_NODE, b"a")
    assert file.read(0, 100) == b"content"
    session.forget(named(session, b"b").number)
    assert session.names.node(left.number) is not None, "it has a name still"
    session.forget(made.number)
    session.forget(made.number)
    assert _errno(lambda: session.file(made.number)) == errno.ENOENT
    assert not (session.folder / "files" / str(made.number)).exists()
    session.names.unlink(ROOT_NODE, b"b")
    session = reopened(scene, session)
    assert session.names.node(left.number) is None
    assert not (session.folder / "files" / str(left.number)).exists()
    session.close()


def test_what_nobody_knows_of_goes(scene: LiveScene) -> None:
    """Bytes without a node, and what a crash left of a file that was being replaced."""
    session = scene.started()
    session.close()
    left = [session.folder / "files" / "77", session.folder / ".0.unfinished"]
    for path in left:
        path.touch()
    session = scene.home.open("web")
    assert not any(path.exists() for path in left)
    assert len(content_of(session)) == 6
    session.close()


def test_a_deleted_disk_stays_for_a_commit_that_is_under_way(scene: LiveScene) -> None:
    """Its layers go only when no cut is left that somebody may be storing."""
    session = scene.started()
    disk = named(session, DISK1)
    session.file(disk.number).write(0, b"was cut")
    number = session.cut()
    session.names.unlink(ROOT_NODE, DISK1)
    session.forget(disk.number)
    assert cut_disks(scene, session.folder, number)[DISK1.decode()].startswith(b"was cut")
    session = reopened(scene, session)
    assert (session.folder / "disks" / "1").exists()
    both = [scene.disks[0], b"was cut" + scene.disks[1][7:]]
    session.rebase(make_point(scene.repository, both).point_id.hex(), number)
    assert not (session.folder / "disks" / "1").exists()
    assert session.cut() == number + 1
    assert [disk.number for disk in CutFolder(session.folder, number + 1).disks] == [0]
    session.close()


def test_frozen(scene: LiveScene) -> None:
    """Nothing can be changed, not in names either; it lasts, can be read and cut, and ends."""
    session = scene.started()
    disk, file = session.file(named(session, DISK0).number), named(session, b"vmware.log").number
    disk.write(0, b"before")
    for _ in range(2):
        session.set_frozen(True)
        for number in (named(session, DISK0).number, file):
            with pytest.raises(SessionFrozen):
                session.file(number).write(0, b"x")
            with pytest.raises(SessionFrozen):
                session.file(number).resize(0)
            with pytest.raises(SessionFrozen):
                session.file(number).zero(0, 5)  # type: ignore[attr-defined]
        assert _errno(partial(session.names.unlink, ROOT_NODE, DISK0)) == errno.EROFS
        assert read_whole(session, named(session, DISK0)).startswith(b"before")
        session = reopened(scene, session)
        assert session.record.frozen
    number = session.cut()
    assert cut_disks(scene, session.folder, number)[DISK0.decode()].startswith(b"before")
    session.set_frozen(False)
    session.file(file).write(0, b"again")
    session.names.unlink(ROOT_NODE, DISK0)
    session.close()


def test_whoever_still_has_a_file_of_a_closed_session(scene: LiveScene) -> None:
    """Cannot write what the next process that has the session would not know of."""
    session = scene.started()
    file = session.file(named(session, b"vmware.log").number)
    session.close()
    session.close()
    with pytest.raises(SessionFrozen):
        file.write(0, b"late")
    again = scene.home.open("web")
    assert content_of(again)[b"vmware.log"] == b""
    again.close()


def test_a_cut_is_what_was_there(scene: LiveScene) -> None:
    """Disks, small files and names; what is written or removed later is not in it."""
    session = scene.started()
    session.file(named(session, DISK0).number).write(7, b"cut")
    folder = session.names.create(LiveNode(0, NodeType.FOLDER, 1, b"dir", 0o700, 0, 0, 0, 0))
    inside = session.names.create(
        LiveNode(0, NodeType.FILE, folder.number, b"\xff\n", 0o600, 0, 0, 0, 0)
    )
    session.file(inside.number).write(0, b"inside")
    new_file(session, b"empty")
    expected = content_of(session)
    number = session.cut()
    session.file(named(session, DISK0).number).write(7, b"not")
    session.file(named(session, DISK1).number).write(0, b"not")
    session.file(inside.number).write(0, b"not")
    session.names.rename(ROOT_NODE, b"web01.vmx", ROOT_NODE, b"other.vmx", replace=True)
    session.close()
    cut = CutFolder(session.folder, number)
    disks = cut_disks(scene, session.folder, number)
    assert disks == {name.decode(): expected[name] for name in (DISK0, DISK1)}
    kept = {os.fsencode(file.path): cut.read(file) for file in cut.files}
    small = {name: data for name, data in expected.items() if name not in (DISK0, DISK1)}
    assert kept == small | {b"dir/\xff\n": b"inside"}
    assert {file.path for file in cut.files} - {file.path for file in cut.config_files} == {
        "disk0.vmdk",
        "disk1.vmdk",
    }
    assert not cut.left_out
    assert not cut.snapshot_files
    for file in cut.files:
        file.point_name.encode()


def test_what_is_too_large_for_a_cut_is_told(
    scene: LiveScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Single files, all together, and paths that no point can have."""
    session = scene.started()
    session.file(new_file(session, b"vm.vswp").number).resize((64 << 20) + 1)
    session.file(new_file(session, b"vm-000001-delta.vmdk").number).resize(65 << 20)
    new_file(session, b"vm-000001.vmdk", b"# Disk DescriptorFile")
    parent = ROOT_NODE
    for _ in range(6):
        folder = LiveNode(0, NodeType.FOLDER, parent, b"d" * 255, 0o700, 0, 0, 0, 0)
        parent = session.names.create(folder).number
    session.names.create(LiveNode(0, NodeType.FILE, parent, b"deep", 0o600, 0, 0, 0, 0))
    cut = CutFolder(session.folder, session.cut())
    assert {left.path.rpartition("/")[2]: left.size for left in cut.left_out} == {
        "vm.vswp": (64 << 20) + 1,
        "vm-000001-delta.vmdk": 65 << 20,
        "deep": 0,
    }
    assert cut.snapshot_files == ("vm-000001-delta.vmdk", "vm-000001.vmdk")
    monkeypatch.setattr(cut_taking, "TOTAL_MAX", len(VMX) + 1200)
    nodes = session.names.linked()
    plan = plan_cut(nodes, lambda node: len(VMX))
    assert len(plan.files) == 1
    assert len(plan.files) + len(plan.left_out) + 2 == len(
        [node for node in nodes if node.type is not NodeType.FOLDER]
    )
    session.close()


def test_a_cut_is_one_moment(scene: LiveScene) -> None:
    """Of writers who never stop: what was written first is never missing where what was written
    after it is there, on whichever disk or file."""
    session = scene.started()
    places = [session.file(named(session, name).number) for name in (DISK0, DISK1, b"vmware.log")]
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.is_set():
            number += 1
            for place in places:
                place.write(0, number.to_bytes(8, "big"))

    threads = [threading.Thread(target=write)]
    threads[0].start()
    seen = []
    try:
        for _ in range(6):
            number = session.cut()
            cut = CutFolder(session.folder, number)
            disks = cut_disks(scene, session.folder, number)
            log = next(file for file in cut.files if file.path == "vmware.log")
            counts = [*disks.values(), cut.read(log)]
            seen.append([int.from_bytes(data[:8] or b"\0", "big") for data in counts])
    finally:
        done.set()
        threads[0].join()
    for first, second, third in seen[1:]:
        assert first >= second >= third >= first - 1
    assert [counts[0] for counts in seen[1:]] == sorted(counts[0] for counts in seen[1:])
    session.close()


def test_cuts_are_numbered_and_cleared(scene: LiveScene) -> None:
    """Each has its own number for ever; old ones go, the last two stay for whoever stores them."""
    session = scene.started()
    assert [session.cut() for _ in range(4)] == [1, 2, 3, 4]
    assert sorted(path.name for path in (session.folder / "cuts").iterdir()) == ["3", "4"]
    session = reopened(scene, session)
    assert session.cut() == 5
    with pytest.raises(SessionDamaged):
        CutFolder(session.folder, 2)
    session.close()


def test_rebase(scene: LiveScene) -> None:
    """Reads the same over the new point, keeps what came after the cut, deletes what is in it."""
    session = scene.started()
    disk = session.file(named(session, DISK0).number)
    disk.write(0, b"before")
    number = session.cut()
    disk.write(6, b"after")
    session.file(named(session, DISK1).number)
    session.sync()
    expected = content_of(session)
    disks = cut_disks(scene, session.folder, number)
    point = make_point(scene.repository, [disks[DISK0.decode()], disks[DISK1.decode()]])
    for _ in range(2):
        session.rebase(point.point_id.hex(), number)
    assert (session.record.point_id, session.record.floor) == (point.point_id.hex(), number)
    assert session.record.origin == scene.point.point_id.hex()
    assert content_of(session) == expected
    assert list((session.folder / "cuts").iterdir()) == []
    session = reopened(scene, session)
    assert content_of(session) == expected
    for wrong in (number - 1, number + 1):
        with pytest.raises(UsageError):
            session.rebase("0" * 32, wrong)
    again = session.cut()
    with pytest.raises(ObjectMissing):
        session.rebase("0" * 32, again)
    assert content_of(session) == expected
    assert session.record.floor == number
    session.close()


def test_a_point_that_cannot_lie_below(scene: LiveScene) -> None:
    """One that lacks a disk, or is no point at all, is refused before the session stands on it,
    whether its disks were touched or not."""
    session = scene.started()
    session.file(named(session, DISK0).number).write(0, b"mine")
    expected = content_of(session)
    number = session.cut()
    fewer = make_point(scene.repository, [scene.disks[0]])
    for touched in (True, False):
        with pytest.raises(ObjectDamaged):
            session.rebase(fewer.point_id.hex(), number)
        with pytest.raises(ObjectMissing):
            session.rebase("0" * 32, number)
        assert (session.record.point_id, session.record.floor) == (scene.point.point_id.hex(), 0)
        if touched:
            session = reopened(scene, session)
    assert content_of(session) == expected
    session.close()


def test_a_closed_session_changes_no_more(scene: LiveScene) -> None:
    """Cut, rebase and freeze are refused: its lock is gone, and another process may have it."""
    session = scene.started()
    number = session.cut()
    session.close()
    before = (session.folder / "session.json").read_bytes()
    with closing(scene.home.open("web")) as again:
        changes: list[Callable[[], object]] = [
            session.cut,
            partial(session.rebase, session.record.point_id, number),
            partial(session.set_frozen, True),
            partial(session.set_frozen, False),
        ]
        for change in changes:
            with pytest.raises(SessionInUse, match="let go of"):
                change()
        assert again.record.cut == number
    assert (session.folder / "session.json").read_bytes() == before


def test_a_full_disk(scene: LiveScene, tmp_path: Path) -> None:
    """ENOSPC for a new file, a disk and a cut; nothing else is hurt, and with room all goes on."""
    place = tmp_path / "small"
    place.mkdir()
    options = "size=3m,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "backpoint-test", place], check=True)
    try:
        home = SessionHome(place, scene.repository)
        home.start(scene.point, "web")
        session = home.open("web")
        disk = session.file(named(session, DISK0).number)
        disk.write(0, b"kept")
        session.sync()
        big = new_file(session, b"big")
        filled = 0
        with suppress(OSError):
            while True:
                session.file(big.number).write(filled, bytes(4096))
                filled += 4096
        assert _errno(lambda: session.file(big.number).write(filled, b"x" * 9000)) == errno.ENOSPC
        assert _errno(session.cut) == errno.ENOSPC
        assert session.file(big.number).read(0, filled) == bytes(filled)
        assert read_whole(session, named(session, DISK0))[:4] == b"kept"
        with suppress(OSError):
            session.close()
        session = home.open("web")
        assert read_whole(session, named(session, DISK0))[:4] == b"kept"
        session.file(big.number).resize(0)
        session.names.unlink(ROOT_NODE, b"big")
        session.forget(big.number)
        session.file(named(session, DISK1).number).write(0, b"again")
        number = session.cut()
        assert CutFolder(session.folder, number).disks
        session.close()
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[]",
        b'{"files": [], "disks": []}',
        b'{"files": [{"path": "x", "node": -1, "size": 0}], "disks": [], "left_out": []}',
        b'{"files": [{"path": "x", "node": "../../x", "size": 0}], "disks": [], "left_out": []}',
        b'{"files": [[]], "disks": [], "left_out": []}',
        b"[" * 100_000,
    ],
)
def test_a_cut_that_lies(scene: LiveScene, manifest: bytes) -> None:
    """Is damage, and so is a copy of another length."""
    session = scene.started()
    cut = CutFolder(session.folder, session.cut())
    (cut.folder / str(cut.files[0].node)).write_bytes(b"short")
    with pytest.raises(SessionDamaged):
        cut.read(cut.files[0])
    (cut.folder / "manifest.json").write_bytes(manifest)
    with pytest.raises(SessionDamaged):
        CutFolder(session.folder, 1)
    session.close()


def test_files_that_are_none(scene: LiveScene) -> None:
    """A link or a pipe among the session's bytes is never followed or waited for."""
    session = scene.started()
    files = session.folder / "files"
    node, other = named(session, b"web01.vmx").number, named(session, b"vmware.log").number
    for number in (node, other):
        (files / str(number)).unlink()
    (files / str(node)).symlink_to("/etc/passwd")
    os.mkfifo(files / str(other))
    for number in (node, other):
        with pytest.raises(OSError, match=r"plain file|symbolic"):
            session.file(number).read(0, 10)
        with pytest.raises(OSError, match=r"plain file|symbolic"):
            session.file(number).write(0, b"x")
    session.close()


@pytest.mark.parametrize("name", ["files", "disks", "disks/0", "cuts"])
def test_folders_that_lead_elsewhere(scene: LiveScene, tmp_path: Path, name: str) -> None:
    """What a session deletes is its own: with a link in place of a folder it is damaged, and a
    discard takes the link."""
    session = scene.started()
    session.file(named(session, DISK0).number).write(0, b"x")
    session.cut()
    session.close()
    shutil.rmtree(session.folder / name)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    kept = ["0", "1.data", "123"]
    for file in kept:
        (elsewhere / file).write_bytes(b"precious")
    (session.folder / name).symlink_to(elsewhere)
    with pytest.raises(SessionDamaged, match="is a link"):
        scene.home.open("web")
    scene.home.discard("web")
    assert not session.folder.exists()
    assert sorted(path.name for path in elsewhere.iterdir()) == kept


def test_a_sync_trusts_no_process_before(scene: LiveScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed process wrote to a small file may still be in memory only: who syncs the file
    later, and has written nothing, has it on the disk."""
    session = scene.started()
    node = new_file(session, b"vmware-1.log", b"written, not synced")
    left = session.folder.with_name("left")
    shutil.copytree(session.folder, left)
    session.close()
    shutil.rmtree(session.folder)
    left.rename(session.folder)
    session = scene.home.open("web")
    synced = set[str]()
    real = os.fdatasync

    def watched(descriptor: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", watched)
    session.file(node.number).sync()
    assert synced == {str(session.folder / "files" / str(node.number))}
    session.close()


def test_disks_that_were_not_touched_cost_nothing(scene: LiveScene) -> None:
    """Opening, reading and cutting makes no files for a disk; and the disk is the point's."""
    session = scene.started()
    assert read_whole(session, named(session, DISK0)) == disk_bytes(1)
    number = session.cut()
    assert not list(session.folder.glob("disks/*"))
    assert cut_disks(scene, session.folder, number)[DISK0.decode()] == disk_bytes(1)
    session.close()

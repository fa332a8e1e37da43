"""The folder of sessions: begun whole, listed with their problems, ended without a trace."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs.live.errors import (
    NoSuchSession,
    SessionDamaged,
    SessionInUse,
    SessionStorageFailed,
)
from backpoint_fusefs.live.home_folder import HomeFolder
from backpoint_fusefs.live.node_tree import NodeType
from backpoint_fusefs.live.session_home import SessionHome, default_home
from backpoint_fusefs.live.session_lock import FolderLock
from backpoint_fusefs.live.session_names import NAME_MAX, checked_name, default_name
from backpoint_fusefs.live.session_record import SessionRecord, read_record, write_record
from backpoint_fusefs.point_folder import PointFolder
from backpoint_repo.backup_session import DiskJob
from backpoint_repo.errors import (
    BackpointError,
    ObjectMissing,
    OwnerKeyNeeded,
    UnknownFormat,
    UsageError,
)
from backpoint_repo.format import Kind
from backpoint_repo.store.memory import MemoryStore
from session_scene import VMX, LiveScene, content_of, held_points, make_point, make_scene, named
from small_repository import as_agent, assert_clean, new_repository
from synthetic_disk import SyntheticDisk

_HOLDER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from backpoint_fusefs.live.session_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def scene(tmp_path: Path) -> LiveScene:
    return make_scene(new_repository(MemoryStore()), tmp_path / "live")


def test_a_new_session_is_the_points_folder(scene: LiveScene) -> None:
    """Same names, same bytes as in the mount, but for what only the mount makes up."""
    session = scene.started()
    shown = PointFolder(scene.repository.point(scene.point.point_id))
    made_up = {b"guest", b"point.json", b"proof.json", b"screen.png"}
    assert set(content_of(session)) == {entry.name for entry in shown.entries()} - made_up
    descriptor = shown.find(b"disk1.vmdk")
    assert descriptor is not None
    assert content_of(session) == {
        b"disk0.vmdk": shown.source(0x9000),
        b"disk1.vmdk": shown.source(0x9001),
        b"disk0-flat.vmdk": scene.disks[0],
        b"disk1-flat.vmdk": scene.disks[1],
        b"web01.vmx": VMX,
        b"vmware.log": b"",
    }
    assert named(session, b"disk1-flat.vmdk").disk == 1
    session.close()
    assert_clean(scene.repository)


def test_names_that_need_escapes(tmp_path: Path) -> None:
    """Files of a hostile point have the names that a mount gives them, and lead nowhere else."""
    repository = new_repository(MemoryStore())
    odd = {"../up.vmx": b"1", "disk0.vmdk": b"2", "point.json": b"3", "guest": b"4", "%": b"5"}
    point = make_point(repository, [bytes(4096)], "../../etc", odd)
    home = SessionHome(tmp_path / "live", repository)
    state = home.start(point, None)
    assert state.folder.parent == home.folder
    session = home.open(state.name)
    shown = PointFolder(repository.point(point.point_id))
    names = {node.name for node in session.names.children(1)}
    assert names == {entry.name for entry in shown.entries()} - {b"point.json", b"guest"}
    small = [content for content in content_of(session).values() if len(content) == 1]
    assert sorted(small) == [b"1", b"2", b"3", b"4", b"5"]
    session.close()


def test_a_session_holds_its_point(scene: LiveScene) -> None:
    """From before it is there until it is gone; each session has a hold of its own."""
    first, second = scene.home.start(scene.point, None), scene.home.start(scene.point, None)
    assert [first.name, second.name] == ["web01-1", "web01-2"]
    assert held_points(scene.repository) == [scene.point.point_id.hex()] * 2
    freed = scene.home.discard(first.name)
    assert freed >= len(VMX)
    assert held_points(scene.repository) == [scene.point.point_id.hex()]
    scene.home.discard(second.name)
    assert held_points(scene.repository) == []
    assert scene.home.list() == []
    assert set(os.listdir(scene.home.folder)) == {"home.json", "lock"}
    assert_clean(scene.repository)


def test_sessions_are_independent(scene: LiveScene) -> None:
    """What one writes the other does not see."""
    one, two = scene.started("one"), scene.started("two")
    one.file(named(one, b"disk0-flat.vmdk").number).write(0, b"one")
    two.file(named(two, b"web01.vmx").number).write(0, b"two")
    assert content_of(two)[b"disk0-flat.vmdk"] == scene.disks[0]
    assert content_of(one)[b"web01.vmx"] == VMX
    assert one.record.session_id[:8] != two.record.session_id[:8]
    one.close()
    two.close()


def test_ids_differ_where_inode_numbers_need_it(
    scene: LiveScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their first 32 bits, whatever chance says."""
    taken = scene.home.start(scene.point, None).record
    assert taken is not None
    draws = [taken.session_id[:8] + "f" * 8, "0" * 16]
    monkeypatch.setattr(secrets, "token_hex", lambda size: draws.pop(0))
    folder = HomeFolder(scene.home.folder, taken.repository_id)
    assert folder.new_id() == "0" * 16


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", ".hidden", "-x", "a b", "ä", "a\n", "x" * 81, "home.json", "lock"],
)
def test_names_that_no_session_has(scene: LiveScene, name: str) -> None:
    """Refused when it begins, and not looked for elsewhere later."""
    with pytest.raises(UsageError, match="cannot be called"):
        scene.home.start(scene.point, name)
    with pytest.raises(NoSuchSession):
        scene.home.open(name)
    with pytest.raises(NoSuchSession):
        scene.home.discard(name)
    assert held_points(scene.repository) == []


@given(st.text(), st.sets(st.integers(1, 5)))
def test_default_names(vm: str, taken: set[int]) -> None:
    """Whatever a VM is called, its session has a name that is allowed, and free."""
    first = default_name(vm, ())
    used = {f"{first.removesuffix('-1')}-{number}" for number in taken}
    name = default_name(vm, used)
    assert checked_name(name) == name
    assert name not in used
    assert len(name) <= NAME_MAX


def test_one_name_twice(scene: LiveScene) -> None:
    """Is refused, and the second leaves neither folder nor hold."""
    scene.home.start(scene.point, "web")
    with pytest.raises(UsageError, match="already"):
        scene.home.start(scene.point, "web")
    assert len(held_points(scene.repository)) == 1
    assert [state.name for state in scene.home.list()] == ["web"]


def test_what_cannot_be_started(scene: LiveScene) -> None:
    """A point that is gone, and the agent's credential: clear, and without a trace."""
    agent = SessionHome(scene.home.folder, as_agent(scene.repository))
    with pytest.raises(OwnerKeyNeeded):
        agent.start(scene.point, None)
    scene.repository.sealed.delete(Kind.POINT, scene.point.point_id.hex())
    with pytest.raises(ObjectMissing):
        scene.home.start(scene.point, None)
    assert set(os.listdir(scene.home.folder)) == {"home.json", "lock"}
    assert held_points(scene.repository) == []


def test_a_full_disk_makes_no_session(scene: LiveScene, tmp_path: Path) -> None:
    """Told in a sentence; nothing is left of it."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32k,mode=700", "backpoint-test", place], check=True
    )
    try:
        home = SessionHome(place, scene.repository)
        with pytest.raises(SessionStorageFailed, match=r"No space left on device.*; make room"):
            home.start(scene.point, "web")
        assert set(os.listdir(place)) == {"home.json", "lock"}
        assert held_points(scene.repository) == []
    finally:
        subprocess.run(["umount", place], check=True)


def test_another_process_has_it(scene: LiveScene) -> None:
    """It is listed as in use, neither opened nor discarded, and free when that process is dead."""
    state = scene.home.start(scene.point, "web")
    command = [sys.executable, "-c", _HOLDER, str(state.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert scene.home.list()[0].in_use
        with pytest.raises(SessionInUse, match=f"process {other.pid}"):
            scene.home.open("web")
        with pytest.raises(SessionInUse):
            scene.home.discard("web")
        other.kill()
    assert not scene.home.list()[0].in_use
    scene.home.open("web").close()
    scene.home.discard("web")


def test_looking_never_takes_a_session(scene: LiveScene) -> None:
    """One who lists while another opens does not get in the way."""
    state = scene.home.start(scene.point, "web")
    lister = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path\n"
            "from backpoint_fusefs.live.session_lock import is_locked\n"
            "print(flush=True)\n"
            "while True: is_locked(Path(sys.argv[1]))",
            state.folder,
        ],
        stdout=subprocess.PIPE,
    )
    with lister:
        assert lister.stdout is not None
        lister.stdout.readline()
        for _ in range(50):
            scene.home.open("web").close()
        lister.kill()


def test_ended_while_one_waits(scene: LiveScene) -> None:
    """Whoever waited for a session and gets the lock of one that was ended has none."""
    state = scene.home.start(scene.point, "web")
    lock = FolderLock(state.folder)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(FolderLock, state.folder, timeout_s=30)
        while not waiting.done() and not _opened_twice(state.folder / "lock"):
            pass
        state.folder.rename(state.folder.with_name(".ended-0"))
        lock.release()
        assert isinstance(waiting.exception(), FileNotFoundError)
    assert scene.home.list() == []
    assert held_points(scene.repository) == []


def _opened_twice(path: Path) -> bool:
    """Whether two descriptors of this process are of this file."""
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{fd}") == str(path)
    return found == 2


def test_homes_are_of_one_repository(scene: LiveScene, tmp_path: Path) -> None:
    """Another's, a folder with other things, one that others may write: each says what to do."""
    stranger = new_repository(MemoryStore())
    with pytest.raises(UsageError, match="another repository"):
        SessionHome(scene.home.folder, stranger)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letters.txt").touch()
    with pytest.raises(UsageError, match="empty folder"):
        SessionHome(tmp_path / "mine", stranger)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(UsageError, match="chmod"):
        SessionHome(tmp_path / "open", stranger)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError):
        SessionHome(tmp_path / "file", stranger)
    for nonsense in (b"", b"[]", b"{}", b"\xff", b'{"repository": 5}', b"[" * 100_000):
        (scene.home.folder / "home.json").write_bytes(nonsense)
        with pytest.raises(UsageError):
            SessionHome(scene.home.folder, scene.repository)


def test_all_is_private(scene: LiveScene) -> None:
    """Whatever the umask says: what is in a session is what is in the VM."""
    before = os.umask(0)
    try:
        session = scene.started()
        session.file(named(session, b"disk0-flat.vmdk").number).write(0, b"x")
        session.file(named(session, b"vmware.log").number).write(0, b"x")
        session.cut()
        for path in [session.folder, *session.folder.rglob("*")]:
            assert path.stat().st_mode & 0o077 == 0, path
        session.close()
    finally:
        os.umask(before)


def test_where_the_home_is(scene: LiveScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen by the environment, else by who runs it."""
    repository_id = scene.repository.config.repository_id.hex()
    monkeypatch.setenv("BACKPOINT_LIVE", "/somewhere")
    assert default_home(scene.repository) == Path("/somewhere")
    monkeypatch.delenv("BACKPOINT_LIVE")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_home(scene.repository) == Path("/var/lib/backpoint/live") / repository_id
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_home(scene.repository) == Path("/state/backpoint/live") / repository_id


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        {"session_id": "x"},
        {"point_id": "../../../../etc/passwd0000000000"},
        {"floor": 3},
        {"floor": -1, "cut": -1},
        {"cut": True},
        {"cut": 1 << 60},
        {"frozen": 1},
        {"created": 1e400},
        {"created": -1.0},
        {"name": ""},
        {"name": "other"},
        {"version": 0},
        {"version": "1"},
        {"repository_id": "0" * 32},
    ],
)
def test_a_damaged_session(scene: LiveScene, content: bytes | dict[str, object]) -> None:
    """Is listed with its problem, is not opened, and can still be discarded with its hold."""
    folder = scene.home.start(scene.point, "web").folder
    record = folder / "session.json"
    if isinstance(content, dict):
        content = json.dumps(json.loads(record.read_bytes()) | content).encode()
    record.write_bytes(content)
    (state,) = scene.home.list()
    assert state.problem
    with pytest.raises(SessionDamaged):
        scene.home.open("web")
    scene.home.discard("web")
    assert held_points(scene.repository) == []
    assert scene.home.list() == []


def test_a_newer_session(scene: LiveScene) -> None:
    """Is refused as such; fields that are not known are passed over."""
    folder = scene.home.start(scene.point, "web").folder
    stored = json.loads((folder / "session.json").read_bytes())
    (folder / "session.json").write_text(json.dumps(stored | {"more": 1}))
    scene.home.open("web").close()
    (folder / "session.json").write_text(json.dumps(stored | {"version": 2}))
    with pytest.raises(UnknownFormat):
        scene.home.open("web")
    assert "newer" in scene.home.list()[0].problem


@pytest.mark.parametrize("missing", ["session.json", "names.sqlite"])
def test_a_session_that_lacks_something(scene: LiveScene, missing: str) -> None:
    """Has a problem and is not made up anew."""
    folder = scene.home.start(scene.point, "web").folder
    (folder / missing).unlink()
    assert missing in scene.home.list()[0].problem
    with pytest.raises(SessionDamaged):
        scene.home.open("web")
    assert not (folder / missing).exists()


def test_a_copied_session(scene: LiveScene) -> None:
    """Would have the same numbers and the same hold as the first, so it is refused."""
    folder = scene.home.start(scene.point, "web").folder
    shutil.copytree(folder, folder.with_name("copy"))
    copied, whole = scene.home.list()
    assert "copy" in copied.problem
    assert not whole.problem
    with pytest.raises(SessionDamaged):
        scene.home.open("copy")


def test_odd_things_beside_sessions(scene: LiveScene) -> None:
    """Files, links and hidden folders are no sessions."""
    folder = scene.home.start(scene.point, "web").folder
    (scene.home.folder / "file").touch()
    (scene.home.folder / "link").symlink_to(folder)
    (scene.home.folder / "lost+found").mkdir()
    (scene.home.folder / ".hidden").mkdir()
    assert [state.name for state in scene.home.list()] == ["web"]
    with pytest.raises(BackpointError):
        scene.home.open("link")
    with pytest.raises(UsageError, match="already"):
        scene.home.start(scene.point, "file")


def test_only_sessions_are_discarded(scene: LiveScene, tmp_path: Path) -> None:
    """Neither a folder that never was one, nor what a link leads to."""
    folder = scene.home.start(scene.point, "web").folder
    photos = scene.home.folder / "photos"
    photos.mkdir()
    (photos / "holiday.jpg").touch()
    elsewhere = tmp_path / "web"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    before = sorted(elsewhere.iterdir())
    for name in ("photos", "web"):
        with pytest.raises(NoSuchSession):
            scene.home.discard(name)
        with pytest.raises(BackpointError):
            scene.home.open(name)
    assert [path.name for path in photos.iterdir() if path.name != "lock"] == ["holiday.jpg"]
    assert sorted(elsewhere.iterdir()) == before


def test_a_point_can_be_gone(scene: LiveScene) -> None:
    """A session whose point somebody removed by force opens; its disks say what is missing."""
    session = scene.started()
    session.close()
    scene.repository.sealed.delete(Kind.POINT, scene.point.point_id.hex())
    session = scene.home.open("web")
    with pytest.raises(ObjectMissing):
        session.file(named(session, b"disk0-flat.vmdk").number)
    assert session.file(named(session, b"web01.vmx").number).size == len(VMX)
    session.close()
    scene.home.discard("web")


def test_records_are_replaced_whole(tmp_path: Path) -> None:
    """What is written comes back; a leftover of an unfinished write disturbs nobody."""
    record = SessionRecord(
        "ab" * 8, "n", "cd" * 16, "vm ü\n", "ef" * 16, "01" * 16, 5.0, True, 1, 2
    )
    write_record(tmp_path, record)
    (tmp_path / ".0.unfinished").touch()
    assert read_record(tmp_path) == record
    assert (tmp_path / "session.json").stat().st_mode & 0o777 == 0o600


def test_a_disk_of_a_tebibyte(tmp_path: Path) -> None:
    """Costs a session nothing: no file in it has to do with the disk's size."""
    repository = new_repository(MemoryStore())
    with repository.begin_backup("big") as backup:
        backup.store_disk(DiskJob("disk0", SyntheticDisk(1 << 40), None), lambda _: None)
        backup.publish(time=None, label="")
    home = SessionHome(tmp_path / "live", repository)
    state = home.start(repository.catalog.refresh()[0], None)
    assert state.size < 200 << 10
    session = home.open(state.name)
    (disk,) = (node for node in session.names.children(1) if node.type is NodeType.DISK)
    assert session.file(disk.number).size == 1 << 40
    session.close()

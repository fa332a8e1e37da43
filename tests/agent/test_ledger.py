"""The ledger of outside effects: what is written is there after any crash, and only that."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backpoint_agent.errors import Busy
from backpoint_agent.ledger import FILE_MAX, Effect, Ledger
from backpoint_repo.errors import UsageError

DIES = """
import os, signal, sys
from pathlib import Path
from backpoint_agent.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
first = ledger.intend("snapshot", "vc", "vm-1", "web01", {"name": "ours"})
second = ledger.intend("hotadd", "vc", "vm-2", "db01", {"file": "[ds] db01/db01.vmdk"})
ledger.learned(first, {"moref": "snapshot-7"})
ledger.undone(second, "removed")
print(first.number, flush=True)
if "stay" in sys.argv:
    sys.stdin.read()
os.kill(os.getpid(), signal.SIGKILL)
"""


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    path = os.pathsep.join(["agent", "repo"])
    return subprocess.Popen(
        [sys.executable, "-c", DIES, str(folder), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": path},
    )


def killed(folder: Path) -> str:
    """Let a process write into the ledger and be killed; the number of what it left open."""
    process = start(folder)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    return output.strip()


def snapshot(ledger: Ledger, vm: str = "vm-1") -> Effect:
    return ledger.intend("snapshot", "vc", vm, "web01", {"name": "ours"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger"


@pytest.fixture
def ledger(folder: Path) -> Iterator[Ledger]:
    with Ledger(folder) as opened:
        yield opened


def test_of_a_killed_process_exactly_what_it_left_open_is_open(folder: Path) -> None:
    """After a kill the open effect is there with all its facts, and the closed one is not."""
    number = killed(folder)
    with Ledger(folder) as ledger:
        (effect,) = ledger.open_effects()
    assert effect.number == number
    assert effect.facts == {"name": "ours", "moref": "snapshot-7"}
    assert (effect.kind, effect.vcenter, effect.vm) == ("snapshot", "vc", "vm-1")


def test_what_a_living_process_has_open_is_not_the_reapers(folder: Path) -> None:
    """While its process lives an effect is nobody else's; once it is killed it is free."""
    process = start(folder, "stay")
    assert process.stdout
    assert process.stdin
    process.stdout.readline()
    with Ledger(folder) as ledger:
        assert ledger.open_effects() == []
        process.stdin.close()
        process.wait(60)
        process.stdout.close()
        assert [effect.kind for effect in ledger.open_effects()] == ["snapshot"]


def test_an_effect_that_is_taken_over_and_undone_is_never_seen_again(folder: Path) -> None:
    """Undone by another process it is closed for all, and the files of the dead go."""
    killed(folder)
    with Ledger(folder) as reaper:
        (effect,) = reaper.open_effects()
        with reaper.take_over(effect) as taken:
            assert taken == effect
            reaper.undone(taken, "removed")
        assert reaper.open_effects() == []
        with Ledger(folder) as other, other.take_over(effect) as nothing:
            assert nothing is None
    assert list(folder.iterdir()) == []


def test_an_effect_that_was_taken_over_in_vain_stays_open(folder: Path) -> None:
    """A reaper that fails, or dies, leaves the effect to the next one."""
    killed(folder)
    with Ledger(folder) as reaper:
        (effect,) = reaper.open_effects()
        with pytest.raises(ZeroDivisionError), reaper.take_over(effect):
            raise ZeroDivisionError
        assert reaper.open_effects() == [effect]
    with Ledger(folder) as another:
        assert another.open_effects() == [effect]


def test_what_a_reaper_learned_of_an_effect_is_kept(folder: Path) -> None:
    """Facts that a reaper adds and then dies over are there for the next one."""
    killed(folder)
    with Ledger(folder) as reaper:
        (effect,) = reaper.open_effects()
        with reaper.take_over(effect) as taken:
            assert taken
            reaper.learned(taken, {"moref": "snapshot-9"})
    with Ledger(folder) as another:
        assert another.open_effects()[0].facts["moref"] == "snapshot-9"


def test_of_reapers_at_once_one_alone_acts(folder: Path) -> None:
    """Of eight threads with ledgers of their own exactly one gets the right to undo an effect."""
    killed(folder)
    acted: list[str] = []
    at_once = threading.Barrier(8)

    def reap() -> None:
        with Ledger(folder) as ledger:
            (effect,) = ledger.open_effects()
            at_once.wait(60)
            try:
                with ledger.take_over(effect) as taken:
                    if taken:
                        acted.append(taken.number)
                        ledger.undone(taken, "removed")
            except Busy:
                pass

    threads = [threading.Thread(target=reap) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(acted) == 1


def test_while_one_reaper_acts_another_is_told_so(folder: Path) -> None:
    """Who wants an effect that is being undone gets Busy with its number."""
    killed(folder)
    with Ledger(folder) as one, Ledger(folder) as other:
        (effect,) = one.open_effects()
        with (
            one.take_over(effect),
            pytest.raises(Busy, match=effect.number),
            other.take_over(effect),
        ):
            pass


def test_what_a_run_leaves_behind_is_the_reapers_though_its_process_lives(ledger: Ledger) -> None:
    """After leave_behind the VM's open effects are free, those of other VMs are not."""
    effect = snapshot(ledger)
    snapshot(ledger, "vm-2")
    assert ledger.open_effects() == []
    assert ledger.leave_behind("vc", "vm-1", "the snapshot could not be removed") == [effect]
    assert ledger.open_effects() == [effect]
    with ledger.take_over(effect) as taken:
        assert taken
        ledger.undone(taken, "removed")
    assert ledger.open_effects() == []


def test_a_ledger_with_nothing_open_leaves_no_file(folder: Path) -> None:
    """A process whose effects are all undone leaves the folder empty."""
    with Ledger(folder) as ledger:
        effect = snapshot(ledger)
        ledger.undone(effect, "removed")
        ledger.undone(effect, "removed")
    assert list(folder.iterdir()) == []


def test_a_ledger_that_is_long_used_is_cut_into_files(folder: Path) -> None:
    """A process that works for months keeps a bounded ledger, and loses no effect by that."""
    with Ledger(folder) as ledger:
        kept = snapshot(ledger)
        facts = {"name": "x" * 60_000}
        for _ in range(3 * FILE_MAX // 60_000):
            ledger.undone(ledger.intend("snapshot", "vc", "vm-9", "db", facts), "removed")
        with Ledger(folder) as other:
            assert other.open_effects() == []
            total = sum(file.stat().st_size for file in folder.iterdir())
        assert total < 3 * FILE_MAX
        ledger.leave_behind("vc", "vm-1", "test")
        assert ledger.open_effects() == [kept]


def test_numbers_are_never_used_twice(folder: Path) -> None:
    """Ledgers of one process and one second give different numbers."""
    with Ledger(folder, lambda: 0.0) as one, Ledger(folder, lambda: 0.0) as other:
        numbers = [snapshot(ledger).number for ledger in (one, other) for _ in range(5)]
    assert len(set(numbers)) == 10


def test_an_entry_that_cannot_be_written_stops_the_effect(ledger: Ledger, folder: Path) -> None:
    """On a full disk intend names the path, and what was half written is no damage later."""
    kept = snapshot(ledger)
    limited = """
import resource, signal, sys
from pathlib import Path
from backpoint_agent.ledger import Ledger
from backpoint_repo.errors import UsageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger(Path(sys.argv[1]))
ledger.intend("snapshot", "vc", "vm-1", "web01", {"name": "whole"})
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    ledger.intend("snapshot", "vc", "vm-1", "web01", {"name": "x" * 2000})
except UsageError as error:
    print(error)
ledger.intend("snapshot", "vc", "vm-1", "web01", {"name": "after"})
"""
    done = subprocess.run(
        [sys.executable, "-c", limited, str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "agent:repo"},
    )
    assert str(folder) in done.stdout
    assert "File too large" in done.stdout
    assert [effect.facts["name"] for effect in ledger.open_effects()] == ["whole", "after"]
    assert ledger.damage() == []
    assert kept not in ledger.open_effects()


def test_a_ledger_that_was_closed_takes_no_entry(folder: Path) -> None:
    """After its end a ledger refuses effects."""
    with Ledger(folder) as ledger:
        pass
    with pytest.raises(UsageError, match="closed"):
        snapshot(ledger)


def test_facts_without_bound_are_refused(ledger: Ledger) -> None:
    """An entry that nobody would read again is not written."""
    with pytest.raises(UsageError, match="no such entry"):
        ledger.intend("snapshot", "vc", "vm-1", "web01", {"name": "x" * 70_000})
    assert ledger.damage() == []


def test_the_ledger_is_private(ledger: Ledger, folder: Path) -> None:
    """Folder 0700, files 0600."""
    snapshot(ledger)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


def test_a_folder_that_others_can_write_is_refused(folder: Path) -> None:
    """Who could write there would choose what is removed."""
    folder.mkdir(parents=True)
    folder.chmod(0o770)
    with pytest.raises(UsageError, match="chmod go-w"):
        Ledger(folder)


def test_a_link_in_the_folder_is_refused(ledger: Ledger, folder: Path, tmp_path: Path) -> None:
    """A ledger file that is a link is reported, not followed."""
    (tmp_path / "elsewhere").write_text("")
    (folder / "x.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"x\.jsonl"):
        ledger.open_effects()


DAMAGE = {
    "garbage": b"\x00\xff\n",
    "no object": b"[1]\n",
    "deep": b"[" * 60_000 + b"\n",
    "no number": b'{"entry": "closed", "number": "../../etc", "how": "", "at": 1}\n',
    "unknown": b'{"entry": "new", "number": "20260101T000000Z-1-00000000-1"}\n',
    "long": b"x" * 200_000 + b"\n",
    "spaces": b" " * 200_000 + b"{}\n",
    "time": b'{"entry": "left", "number": "20260101T000000Z-1-00000000-1", "why": "", "at": NaN}\n',
}


@pytest.mark.parametrize("bad", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_line_is_reported_and_the_rest_used(folder: Path, bad: bytes) -> None:
    """Damage within a file is told with its line; effects before and after it are open."""
    killed_file = make_dead_file(folder)
    lines = killed_file.read_bytes().splitlines(keepends=True)
    killed_file.write_bytes(lines[0] + bad + b"".join(lines[1:]))
    with Ledger(folder) as ledger:
        assert len(ledger.open_effects()) == 2
        (trouble,) = ledger.damage()
    assert "line 2" in trouble
    assert killed_file.exists()


def make_dead_file(folder: Path) -> Path:
    with Ledger(folder) as ledger:
        first = snapshot(ledger)
        ledger.learned(first, {"moref": "snapshot-7"})
        second = snapshot(ledger, "vm-2")
        ledger.undone(snapshot(ledger, "vm-3"), "removed")
        ledger.learned(second, {"moref": "snapshot-é"})
    (file,) = folder.glob("*.jsonl")
    return file


def expected(whole: bytes) -> dict[str, dict[str, str]]:
    """An independent reading of whole lines: facts of the open effects by VM."""
    effects: dict[str, dict[str, str]] = {}
    vms: dict[str, str] = {}
    for line in whole.splitlines():
        record = json.loads(line)
        if record["entry"] == "intended":
            vms[record["number"]] = record["vm"]
            effects[record["vm"]] = record["facts"]
        elif record["entry"] == "learned":
            effects[vms[record["number"]]].update(record["facts"])
        else:
            del effects[vms[record["number"]]]
    return effects


@pytest.fixture(scope="module")
def dead_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_dead_file(tmp_path_factory.mktemp("dead") / "ledger").read_bytes()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_prefix_of_a_file_tells_its_whole_lines(
    dead_bytes: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Cut at any byte, a ledger file yields the effects of the lines that are whole; no damage."""
    cut = data.draw(st.integers(0, len(dead_bytes)))
    folder = tmp_path_factory.getbasetemp() / "cut"
    folder.mkdir(mode=0o700, exist_ok=True)
    file = folder / "20260101T000000Z-1-00000000.jsonl"
    file.write_bytes(dead_bytes[:cut])
    # Opened anew each time: what the file says may let it be deleted.
    with Ledger(folder) as ledger:
        found = {effect.vm: effect.facts for effect in ledger.open_effects()}
        assert ledger.damage() == []
    whole = dead_bytes[: dead_bytes[:cut].rfind(b"\n") + 1]
    assert found == expected(whole)
    file.unlink(missing_ok=True)

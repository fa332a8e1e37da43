"""A machine that truly runs: its console, its screen, its network, its end."""

from __future__ import annotations

import os
import re
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_fusefs.boot.accelerator import Accelerator
from backpoint_fusefs.boot.errors import MachineFailed, NoSignOfLife
from backpoint_fusefs.boot.guest_port import try_port
from backpoint_fusefs.boot.hardware import BootDisk, Hardware, Nic
from backpoint_fusefs.boot.machine import Forward, Machine, MachinePlan
from backpoint_fusefs.boot.room_watch import RoomWatch
from backpoint_fusefs.boot.sign_of_life import LifeWatch, Signs, await_sign
from efi_guest import SAID, build_efi_guest
from guest_disks import build_bootable

TCG = Accelerator("tcg", "tests are the same everywhere")
LIMIT_S = 120.0
OVER = 300 << 10
"""More than what is kept of a console."""
DISK = BootDisk("pvscsi", 0, 0, "disk0.vmdk")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def plan_of(scratch: Path, *disks: Path, **wishes: object) -> MachinePlan:
    hardware = Hardware(
        memory=160,
        disks=tuple(BootDisk("pvscsi", 0, unit, "") for unit in range(len(disks))),
        nics=(Nic("vmxnet3", "00:0c:29:00:00:01"),),
    )
    scratch.mkdir(exist_ok=True)
    plan = {"hardware": hardware, "accelerator": TCG} | wishes
    return MachinePlan(disks=disks, scratch=scratch, **plan)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Forward, Forward]]:
    """The tiny guest, isolated, with a web server at an address of its own; its open port, and one
    that is closed. The names of its files are a trap for parsers of options."""
    folder = tmp_path_factory.mktemp("serving") / 'a,b "c'
    folder.mkdir()
    disk = folder / "x,format=qcow2.raw"
    build_bootable(disk, address="10.77.0.9/24")
    ports = Forward(free_port(), 80, "10.77.0.9"), Forward(free_port(), 81, "10.77.0.9")
    plan = plan_of(folder / "scratch", disk, network="user", forwards=ports, display="vnc")
    with Machine(plan) as machine:
        yield machine, *ports


def test_a_guest_lives_once_it_says_so(serving: tuple[Machine, Forward, Forward]) -> None:
    """The whole line is told, and how long it took."""
    machine, *_ = serving
    sign = await_sign(machine, Signs(r"boots=\d+ sum", is_pattern=True), LIMIT_S)
    assert sign.kind == "console"
    assert re.fullmatch(r"BOOT-OK vm=guest1 boots=1 sum=\w{32} uptime=[\d.]+", sign.detail)
    assert 0 < sign.seconds < LIMIT_S
    assert machine.accelerator == "tcg"


def test_what_is_typed_is_answered(serving: tuple[Machine, Forward, Forward]) -> None:
    """The console goes both ways."""
    machine, *_ = serving
    await_sign(machine, Signs("/ #"), LIMIT_S)
    machine.type(b"echo $((6 * 7))-$(cat /etc/hostname)\n")
    assert await_sign(machine, Signs("42-guest1"), LIMIT_S).detail.startswith("42-guest1")


def test_an_open_port_is_told_from_a_closed_one(serving: tuple[Machine, Forward, Forward]) -> None:
    """QEMU's forward accepts both; what counts is the guest's answer."""
    machine, http, closed = serving
    sign = await_sign(machine, Signs(ports=[closed, http]), LIMIT_S)
    assert (sign.kind, sign.detail) == ("port", "port 80: it accepts connections")
    assert try_port(machine, closed, 2) is None
    with socket.create_connection(("127.0.0.1", http.host_port), 10) as client:
        client.sendall(b"GET /name HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.endswith(b"\r\n\r\nguest1\n")


def test_a_guest_that_is_not_there_has_no_open_port(
    serving: tuple[Machine, Forward, Forward],
) -> None:
    """Nobody answers for the address: waited for, then told."""
    machine, http, _ = serving
    # The console echoes what is typed: only the answer may match.
    machine.type(b"/bin/busybox ip link set eth0 down && echo is do''wn\n")
    await_sign(machine, Signs("is down"), LIMIT_S)
    assert try_port(machine, http, 1) is None
    machine.type(b"/bin/busybox ip link set eth0 up && echo is u''p\n")
    await_sign(machine, Signs("is up"), LIMIT_S)


def test_a_guest_without_room_stands_still_until_there_is(tmp_path: Path) -> None:
    """Its stillness is no sign of life and no fault of its point; it notices nothing but the time,
    and the user is told both."""
    small = tmp_path / "small"
    small.mkdir()
    image = tmp_path / "guest.raw"
    build_bootable(image)
    room = image.stat().st_blocks * 512 + (2 << 20)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "none", small], check=True)
    try:
        subprocess.run(["cp", "--sparse=always", image, small], check=True)
        with Machine(plan_of(tmp_path / "scratch", small / "guest.raw")) as machine:
            await_sign(machine, Signs("BOOT-OK"), LIMIT_S)
            write = b"/bin/busybox dd if=/dev/urandom of=/big bs=1M count=16; sync"
            machine.type(write + b"; echo al''l is there\n")
            with pytest.raises(MachineFailed, match="sessions' folder is full") as told:
                await_sign(machine, Signs(settled_s=LIMIT_S), LIMIT_S)
            assert not isinstance(told.value, NoSignOfLife)
            said: list[str] = []
            watch = RoomWatch(machine, said.append)
            watch.look()
            assert ["stands still" in line for line in said] == [True]
            options = f"remount,size={room + (32 << 20)}"
            subprocess.run(["mount", "-o", options, small], check=True)
            machine.go_on()
            await_sign(machine, Signs("all is there"), LIMIT_S)
    finally:
        subprocess.run(["umount", small], check=True)


def test_an_isolated_guest_reaches_nothing(serving: tuple[Machine, Forward, Forward]) -> None:
    """Not even this machine, at the address where QEMU would stand for it."""
    machine, *_ = serving
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for address in ("10.77.0.253", "127.0.0.1"):
            command = f"/bin/busybox nc -w 2 {address} {port} </dev/null; echo ended-$?-{address}\n"
            machine.type(command.encode())
            sign = await_sign(machine, Signs(rf"ended-\d+-{address}", is_pattern=True), LIMIT_S)
            assert "ended-1" in sign.detail
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_the_screen_is_a_picture_of_its_size(serving: tuple[Machine, Forward, Forward]) -> None:
    """PNG; and the text on it can be read."""
    machine, *_ = serving
    picture = machine.screenshot()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", picture[16:24]) == (720, 400)
    assert any("Booting from Hard Disk" in line for line in machine.screen_text())


def test_vnc_is_on_loopback_and_asks_for_a_password(
    serving: tuple[Machine, Forward, Forward],
) -> None:
    """Others on this machine reach the port, too."""
    machine, *_ = serving
    assert machine.vnc is not None
    assert len(machine.vnc.password) == 8
    assert machine.vnc.password not in Path(f"/proc/{machine.pid}/cmdline").read_text()
    with socket.create_connection(("127.0.0.1", machine.vnc.port), 10) as client:
        assert client.recv(12).startswith(b"RFB 003.")
        client.sendall(b"RFB 003.008\n")
        count, kind = client.recv(2)
        assert (count, kind) == (1, 2)  # one way in: VNC's password


def test_qemu_has_nothing_of_ours(serving: tuple[Machine, Forward, Forward]) -> None:
    """No variable that may hold a passphrase, no way to more rights, a sandbox."""
    machine, *_ = serving
    environment = Path(f"/proc/{machine.pid}/environ").read_bytes()
    assert b"BACKPOINT" not in environment
    assert b"PYTEST" not in environment
    status = Path(f"/proc/{machine.pid}/status").read_text()
    assert re.search(r"NoNewPrivs:\s1", status)
    assert re.search(r"Seccomp:\s2", status)


def test_a_guest_that_ends_is_noticed(serving: tuple[Machine, Forward, Forward]) -> None:
    """While it is waited for, and after; last of the tests of this guest."""
    machine, *_ = serving
    machine.type(b"poweroff -f\n")
    with pytest.raises(NoSignOfLife, match="ended by itself"):
        await_sign(machine, Signs("never said"), LIMIT_S)
    assert not machine.running
    with pytest.raises(MachineFailed):
        machine.screenshot()
    machine.end()
    machine.end()


def test_an_efi_guest_is_started_by_its_firmware(tmp_path: Path) -> None:
    """From a controller that the firmware has a driver for; its screen settles."""
    disk = tmp_path / "efi.raw"
    build_efi_guest(disk)
    hardware = Hardware(firmware="efi", memory=128, disks=(DISK,))
    with Machine(plan_of(tmp_path / "scratch", disk, hardware=hardware)) as machine:
        assert "SATA" in machine.notes[0]
        sign = await_sign(machine, Signs(settled_s=1.0), LIMIT_S)
        assert await_sign(machine, Signs(SAID), LIMIT_S).detail == SAID
        # Among what moves the cursor, which is not told.
        assert "\\x1b" not in await_sign(machine, Signs("BdsDxe: "), LIMIT_S).detail
    assert (sign.kind, sign.detail) == ("screen", "the screen stands still for 1 s")


def test_a_firmware_without_a_guest_is_no_sign_of_life(tmp_path: Path) -> None:
    """Although its screen stands still."""
    disk = tmp_path / "empty.raw"
    disk.write_bytes(bytes(1 << 20))
    with (
        Machine(plan_of(tmp_path / "scratch", disk)) as machine,
        pytest.raises(NoSignOfLife, match="found nothing to boot from") as failure,
    ):
        await_sign(machine, Signs(settled_s=0.5), LIMIT_S)
    assert failure.value.screenshot is not None


def test_a_loader_that_is_stuck_is_no_sign_of_life(tmp_path: Path) -> None:
    """The boot sector of a disk that nothing boots from says so, and waits for a key: long after
    that its screen is no sign either."""
    disk = tmp_path / "data.raw"
    disk.write_bytes(bytes(4 << 20))
    subprocess.run(["mkfs.vfat", disk], check=True, capture_output=True)
    with Machine(plan_of(tmp_path / "scratch", disk)) as machine:
        watch = LifeWatch(machine, Signs(settled_s=0.5), LIMIT_S)
        while not any("press any key" in line for line in machine.screen_text()):
            assert watch.look() is None
        for _ in range(20):
            assert watch.look() is None
            machine.wait(0.1)


@pytest.mark.parametrize(
    ("wishes", "why"),
    [
        ({}, "No such file"),
        ({"extra": ["-no-such-option"]}, "invalid option"),
        ({"hardware": Hardware()}, "1 files for 0 disks"),
    ],
)
def test_a_machine_that_cannot_start_says_why(
    tmp_path: Path, wishes: dict[str, object], why: str
) -> None:
    """In QEMU's words."""
    with pytest.raises(MachineFailed, match=why):
        Machine(plan_of(tmp_path, tmp_path / "missing.raw", **wishes))


def test_a_disk_in_use_is_not_booted_twice(tmp_path: Path) -> None:
    """Two guests on one disk would ruin it."""
    disk = tmp_path / "one.raw"
    disk.write_bytes(bytes(1 << 20))
    with (
        Machine(plan_of(tmp_path / "first", disk)),
        pytest.raises(MachineFailed, match="lock"),
    ):
        Machine(plan_of(tmp_path / "second", disk))


_HOLDER = """
import sys
from pathlib import Path
from backpoint_fusefs.boot.accelerator import Accelerator
from backpoint_fusefs.boot.hardware import Hardware
from backpoint_fusefs.boot.machine import Machine, MachinePlan
machine = Machine(MachinePlan(Hardware(), (), Path(sys.argv[1]), accelerator=Accelerator("tcg")))
print(machine.pid, flush=True)
sys.stdin.read()
"""


def test_qemu_dies_with_us(tmp_path: Path) -> None:
    """By SIGKILL, where nothing of ours runs any more."""
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, tmp_path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        pidfd = os.pidfd_open(int(holder.stdout.readline()))
        holder.kill()
        try:
            assert select.select([pidfd], [], [], 30)[0]
        finally:
            os.close(pidfd)


def test_a_console_that_never_stops_is_kept_bounded(tmp_path: Path) -> None:
    """A boot sector that does nothing but write to the serial port."""
    # wait: mov dx, 0x3fd; in al, dx; test al, 0x20; jz wait; mov dx, 0x3f8; mov al, 'x'; out; jmp
    code = bytes.fromhex("bafd03eca82074f8baf803b078eeebf0")
    disk = tmp_path / "talks.raw"
    disk.write_bytes((code.ljust(510, b"\0") + b"\x55\xaa").ljust(1 << 20, b"\0"))
    with Machine(plan_of(tmp_path / "scratch", disk)) as machine:
        deadline = time.monotonic() + LIMIT_S
        while machine.console_total < OVER and time.monotonic() < deadline:
            machine.wait(0.05)
        assert machine.console_total >= OVER
        assert len(machine.console()) == 256 << 10
        assert set(machine.console()) == {ord("x")}


def test_a_line_that_never_ends_is_searched_all_the_same(tmp_path: Path) -> None:
    """What is waited for is at its very end, and any text may stand before it."""
    # mov bx, 5; mov cx, 0; say 'x'; loop; dec bx; jnz mov cx: 327,680 times.
    say = "bafd03eca82074f8baf803b0{:02x}ee"
    last = "".join(say.format(letter) for letter in b"up!")
    code = bytes.fromhex("bb0500b90000" + say.format(ord("x")) + "e2f04b75ea" + last + "ebfe")
    disk = tmp_path / "talks.raw"
    disk.write_bytes((code.ljust(510, b"\0") + b"\x55\xaa").ljust(1 << 20, b"\0"))
    with Machine(plan_of(tmp_path / "scratch", disk)) as machine:
        sign = await_sign(machine, Signs(".*up!", is_pattern=True), LIMIT_S)
        assert sign.detail.endswith("up!")

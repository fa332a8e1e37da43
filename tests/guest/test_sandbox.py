"""A confined process can compute and use what it has open, and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

_CONFINED = """
import mmap, os, signal, socket
from backpoint_fusefs.guest.worker.sandbox import confine
before = os.getpid()
{before}
confine()
try:
    {attempt}
except (OSError, MemoryError) as error:
    os.write(1, type(error).__name__.encode())
else:
    os.write(1, b"it worked")
"""


def attempt(code: str, before: str = "pass") -> str:
    """What comes of this in a confined process: the error's name."""
    script = _CONFINED.format(attempt=code, before=before)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/passwd')",
        "open('/tmp/sandbox-test', 'w')",
        "os.listdir('/')",
        "os.stat('/')",
        "os.readlink('/proc/self/exe')",
        "os.unlink('/tmp/sandbox-test')",
        "socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
        "socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.kill(os.getppid(), signal.SIGTERM)",
        "os.setuid(0)",
        "os.pipe()",
        "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)",
    ],
)
def test_what_a_confined_process_may_not_do(code: str) -> None:
    """It is refused."""
    assert attempt(code) == "PermissionError"


def test_memory_is_limited() -> None:
    """A gigabyte is refused; a parser's usual megabytes are not."""
    assert attempt("bytearray(1 << 30)") == "MemoryError"
    assert attempt("bytearray(100 << 20)") == "it worked"


def test_what_was_open_stays_usable() -> None:
    """A socket that was open before can be written to and read from afterwards."""
    code = "one.sendall(b'x') or other.recv(1)"
    assert attempt(code, before="one, other = socket.socketpair()") == "it worked"


def test_root_is_given_up() -> None:
    """The process belongs to nobody, in every sense the kernel has."""
    script = """
import os
from pathlib import Path
from backpoint_fusefs.guest.worker.sandbox import confine
status = os.open("/proc/self/status", os.O_RDONLY)
confine()
os.write(1, os.read(status, 1 << 16))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    lines = dict(line.split(":\t", 1) for line in done.stdout.splitlines())
    assert lines["Uid"].split() == ["65534"] * 4
    assert lines["Gid"].split() == ["65534"] * 4
    assert lines["Groups"].strip() == ""
    assert int(lines["CapEff"], 16) == int(lines["CapPrm"], 16) == 0
    assert lines["NoNewPrivs"] == "1"
    assert lines["Seccomp"] == "2"
